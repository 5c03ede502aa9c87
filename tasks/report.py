"""Stage report: the table, one self-contained page, and the rows' way into the ledger."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scoremodel.files import atomic_path, write_text
from tasks.figures import distance_figure, loss_bands_figure, loss_figure
from tasks.layout import REPORT, TABLE, Configuration, Data
from tasks.ledger import append
from tasks.params import Params, load_params
from tasks.stage import run
from tasks.table import COLUMNS, active_configurations, read_records, table

__all__ = ["main", "page"]


def _image(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "—" if pd.isna(value) else f"{value:.3f}"
    return str(value)


def _with_spread(value: float, std: float | None) -> str:
    return f"{value:.3f}" + ("" if pd.isna(std) else f" ± {std:.3f}")


def _side_by_side(rows: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return sampler (and training seed) → model → "distance ± std" for one data set's rows."""
    several = rows["train_seed"].nunique() > 1
    beside: dict[str, dict[str, str]] = {}
    for row in rows.to_dict("records"):
        name = f"{row['sampler']}, train seed {row['train_seed']}" if several else row["sampler"]
        distance = _with_spread(row["held_out_mean"], row["held_out_std"])
        beside.setdefault(name, {})[row["model"]] = distance
    return beside


def _dataset(name: str, params: Params, rows: pd.DataFrame) -> dict[str, Any]:
    mine = [c for c in active_configurations(params) if c.dataset == name]
    trained = {
        f"{c.model}, seed {c.train_seed}": c
        for c in dict.fromkeys(Configuration(c.dataset, c.model, c.train_seed) for c in mine)
    }
    here = rows[rows["dataset"] == name]
    return {
        "name": name,
        "metric": here["metric"].iloc[0],
        "floor": _with_spread(here["floor"].iloc[0], here["floor_std"].iloc[0]),
        "count": here["count"].iloc[0],
        "models": params.active.models,
        "beside": _side_by_side(here),
        "distance": distance_figure(here),
        "loss": loss_figure({label: pd.read_csv(c.curves) for label, c in trained.items()}),
        "bands": [loss_bands_figure(label, pd.read_csv(c.bands)) for label, c in trained.items()],
        "real": _image(Data(name).grid),
        "grids": [
            (f"{c.model}, {c.sampler}, train seed {c.train_seed}", _image(c.grid)) for c in mine
        ],
    }


def page(params: Params, rows: pd.DataFrame) -> str:
    """Return the report as one HTML page that needs no other file.

    Args:
        params: says what is active.
        rows: the table.

    Returns:
        The page's text, the same for the same rows, pictures and curves.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = rows.dropna(axis=1, how="all")
    return environment.get_template("report.html.j2").render(
        columns=[COLUMNS[column] for column in shown.columns],
        rows=[[_cell(value) for value in row] for row in shown.itertuples(index=False)],
        datasets=[_dataset(name, params, rows) for name in params.active.datasets],
    )


def main(_: Sequence[str]) -> None:
    """Write table and page from the active configurations' records, and append to the ledger."""
    params = load_params()
    records = read_records(params)
    rows = table(records)
    with atomic_path(TABLE) as temporary:
        rows.to_csv(temporary, index=False)
    write_text(REPORT, page(params, rows))
    print(f"report: {REPORT}")
    for configuration, record in zip(active_configurations(params), records, strict=True):
        append(record, configuration)


if __name__ == "__main__":
    run(main)

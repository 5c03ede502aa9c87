"""Stage report: the table, one self-contained page, and the rows' way into the ledger."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scoremodel.io.files import atomic_path, write_text
from tasks.report.figures import distance_figure, loss_bands_figure, loss_figure
from tasks.files.layout import REPORT, TABLE, VERDICT, Configuration, Data
from tasks.results.ledger import append, read_lock
from tasks.params.load import load_params
from tasks.params.schema import Params
from tasks.files.stage import run
from tasks.results.table import (
    COLUMNS,
    active_configurations,
    read_records,
    summary,
    table,
    with_spread,
)
from tasks.results.verdict import headlines, markdown, notes

__all__ = ["main", "page"]


def _image(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "—" if pd.isna(value) else f"{value:.4g}"
    return "—" if value is None else str(value)


def _side_by_side(rows: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return sampler → model → "distance ± std" for one data set's rows."""
    beside: dict[str, dict[str, str]] = {}
    for row in summary(rows):
        distance = with_spread(row["held_out"], row["held_out_std"])
        beside.setdefault(row["sampler"], {})[row["model"]] = distance
    return beside


def _classes(record: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of what each class scored."""
    metrics = list(dict.fromkeys(m for values in record["classes"].values() for m in values))
    rows = [
        [name, *(_cell(values.get(metric)) for metric in metrics)]
        for name, values in record["classes"].items()
    ]
    return ["class", *metrics], rows


def _pedigree(row: dict[str, Any]) -> dict[str, Any]:
    """Return where a row comes from, for people."""
    inputs = row["inputs"]
    return {
        "configuration": row["configuration"],
        "key": row["key"][:16],
        "revision": row["revision"] or "none",
        "data": inputs["data_sha256"][:16],
        "environment": [f"{what}: {where}" for what, where in row["environment"].items()],
        "params": [
            f"{key}: {value}"
            for stage, values in sorted(inputs["params"].items())
            for key, value in values.items()
            if key != "cmd" and not stage.startswith(("prepare", "reference"))
        ],
        "files": len(inputs["files"]),
    }


def _of_models(
    trained: dict[str, Configuration],
    mine: Sequence[Configuration],
    own: Sequence[dict[str, Any]],
) -> Iterator[tuple[str, dict[str, Any], Configuration]]:
    """Yield label, one of its records, and configuration of each trained model."""
    for label, model in trained.items():
        place = next(i for i, c in enumerate(mine) if c.model_name == model.model_name)
        yield label, own[place], model


def _applications(label: str, record: dict[str, Any], model: Configuration) -> dict[str, Any]:
    """Return what else a model was found to do, for people."""
    sentences = []
    if found := record["likelihood"]:
        sentences.append(
            f"{with_spread(found['bits_per_dim'], found['std_error'])} bits/dim on "
            f"{found['count']} held-out images (± standard error); a Gaussian with the data's mean "
            f"and covariance takes {with_spread(found['gaussian'], found['gaussian_std_error'])}."
        )
    if found := record["inverse"]:
        sentences.append(
            f"Images known in part ({found['operator']['kind']}): error {found['rmse']:.3g} on what "
            f"was hidden by the mean of {found['draws']} draws ({found['method']}), "
            f"{found['rmse_of_linear']:.3g} by the best linear estimate, {found['rmse_of_mean']:.3g} "
            f"by the mean image, of {found['count']} images in [-1, 1]."
        )
    if found := record["latents"]:
        sentences.append(
            f"To latents and back: error {found['round_trip_rmse']:.2g}; latents have mean "
            f"{found['latent_mean']:.2g} and standard deviation {found['latent_std']:.3g} in units "
            "of the prior's."
        )
    folder = model.applications
    pictures = [
        (caption, _image(folder / name))
        for name, caption in (
            (
                "restored.png",
                "truth, what was known, linear estimate, mean of the draws, three draws",
            ),
            ("between.png", "paths between two latents, a row each"),
        )
        if (folder / name).exists()
    ]
    field = folder / "field.svg"
    return {
        "label": label,
        "sentences": sentences,
        "pictures": pictures,
        "field": field.read_text(encoding="utf-8") if field.exists() else None,
    }


def _dataset(
    name: str,
    params: Params,
    rows: pd.DataFrame,
    records: Sequence[dict[str, Any]],
    ledger: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    mine = [c for c in active_configurations(params) if c.dataset == name]
    trained = {
        f"{c.model}, seed {c.train_seed}": c
        for c in dict.fromkeys(Configuration(c.dataset, c.model, c.train_seed) for c in mine)
    }
    here = rows[rows["dataset"] == name]
    own = [record for record in records if record["dataset"] == name]
    captions = {c.name: f"{c.model}, {c.sampler}, train seed {c.train_seed}" for c in mine}
    return {
        "name": name,
        "metric": here["metric"].iloc[0],
        "floor": with_spread(here["floor"].iloc[0], here["floor_std"].iloc[0]),
        "gaussian": with_spread(here["gaussian"].iloc[0], here["gaussian_std"].iloc[0]),
        "real": {
            key: with_spread(value["mean"], value["std"]) for key, value in own[0]["real"].items()
        },
        "count": here["count"].iloc[0],
        "models": params.active.models,
        "trainings": len(params.active.train_seeds),
        "images": own[0]["levels"] is not None,
        "beside": _side_by_side(here),
        "verdicts": headlines(own),
        "notes": [
            f"{captions[c.name]}: {note}"
            for c, record in zip(mine, own, strict=True)
            for note in notes(record)
        ],
        "distance": distance_figure(here),
        "loss": loss_figure({label: pd.read_csv(c.curves) for label, c in trained.items()}),
        "bands": [loss_bands_figure(label, pd.read_csv(c.bands)) for label, c in trained.items()],
        "real_grid": _image(Data(name).grid),
        "grids": [(captions[c.name], _image(c.grid)) for c in mine],
        "neighbours": [(captions[c.name], _image(c.neighbours)) for c in mine],
        "applications": [
            _applications(label, record, c) for label, record, c in _of_models(trained, mine, own)
        ],
        "classes": [
            (captions[c.name], *_classes(record))
            for c, record in zip(mine, own, strict=True)
            if record["classes"]
        ],
        "pedigrees": [_pedigree(row) for row in ledger if row["configuration"] in captions],
    }


def page(
    params: Params,
    rows: pd.DataFrame,
    records: Sequence[dict[str, Any]],
    ledger: Sequence[dict[str, Any]],
) -> str:
    """Return the report as one HTML page that needs no other file.

    Args:
        params: says what is active.
        rows: the table.
        records: the active configurations' records.
        ledger: their rows in the ledger.

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
        datasets=[_dataset(name, params, rows, records, ledger) for name in params.active.datasets],
    )


def main(_: Sequence[str]) -> None:
    """Append the active configurations' records to the ledger; write table, verdict and page."""
    params = load_params()
    records = read_records(params)
    lock = read_lock()
    ledger = [
        append(record, configuration, lock)[0]
        for configuration, record in zip(active_configurations(params), records, strict=True)
    ]
    rows = table(records, [row["seconds"]["sample"] for row in ledger])
    with atomic_path(TABLE) as temporary:
        rows.to_csv(temporary, index=False)
    write_text(VERDICT, markdown(records, rows))
    write_text(REPORT, page(params, rows, records, ledger))
    print(f"report: {REPORT}")


if __name__ == "__main__":
    run(main)

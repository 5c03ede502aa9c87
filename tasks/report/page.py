"""The report: one self-contained page of the active configurations' results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.files.documents import read_table
from tasks.files.layout import EXTERNAL, PICTURES
from tasks.report.figures.base import BELOW, Results, figures
from tasks.report.figures.judges import agreement
from tasks.report.html import embedded, rendered
from tasks.results.active import (
    Active,
    active_configurations,
    active_models,
    active_pairs,
    called,
)
from tasks.results.table import floor_said, labels, summary, with_spread
from tasks.results.verdict import Verdict, headlines, to_know, together

__all__ = ["page"]

Applications = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Model's name → application → what was found."""


def _picture(name: str, says: str) -> str:
    return embedded(PICTURES / name, says)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if pd.isna(value):
        return "—"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _side_by_side(rows: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return sampler → model → "distance ± std" for one data set's rows; EXTERNAL → name → the same."""
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
            for values in inputs["params"].values()
            for key, value in values.items()
            if key != "cmd"
        ],
        "files": len(inputs["files"]),
        "external": row.get("external"),
    }


_SENTENCES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "likelihood": lambda found: (
        f"{with_spread(found['bits_per_dim'], found['std_error'])} bits/dim on "
        f"{found['count']} held-out images (± standard error); a Gaussian with the data's mean "
        f"and covariance takes {with_spread(found['gaussian'], found['gaussian_std_error'])}."
        + (f" {found['warning']}." if "warning" in found else "")
    ),
    "inverse": lambda found: (
        f"Images known in part ({found['operator']['kind']}): error {found['rmse']:.3g} on what "
        f"was hidden by the mean of {found['draws']} draws ({found['method']}), "
        f"{found['rmse_of_linear']:.3g} by the best linear estimate, {found['rmse_of_mean']:.3g} "
        f"by the mean image, of {found['count']} images in [-1, 1]. Columns: truth, what was known, "
        "linear estimate, mean of the draws, three draws."
    ),
    "latents": lambda found: (
        f"To latents and back: error {found['round_trip_rmse']:.2g}; latents have mean "
        f"{found['latent_mean']:.2g} and standard deviation {found['latent_std']:.3g} in units "
        "of the prior's. Rows: paths between two latents."
    ),
    "field": lambda _: (
        "The score points to where the data are; a colour says how long it is, at three noise levels. "
        "On the right the paths of the probability-flow ODE, from the prior to the data."
    ),
}


def _asked(active: Active, dataset: str, found: Applications) -> Iterator[dict[str, Any]]:
    """Yield what else each model was found to do, for people."""
    for files in active_models(active, applications=True):
        if files.dataset != dataset:
            continue
        numbers = found[files.model_name][files.application]
        shown = any((PICTURES / f"{files.name}{end}").exists() for end in (".png", ".svg"))
        yield {
            "label": f"{files.model}, seed {files.train_seed}: {files.application}",
            "sentence": _SENTENCES[files.application](numbers),
            "picture": _picture(files.name, f"{files.application} of {files.model}")
            if shown
            else None,
        }


def _pairs(active: Active, dataset: str) -> Iterator[tuple[str, str]]:
    """Yield what to say of the pictures of samples from the same noise, and the pictures."""
    for name, first, second in active_pairs(active):
        if first.dataset == dataset:
            models = f"{first.model} (above) and {second.model} (below)"
            says = f"{models} from the same noise, {first.sampler}, train seed {first.train_seed}"
            yield says, _picture(name, says)


def _said(judged: Sequence[Verdict]) -> list[str]:
    """Return what stands below the sentence to quote."""
    if not judged:
        return []
    said = (agreement(judged[0]), judged[0].budget, together(judged))
    return [one for one in said if one is not None]


def _dataset(
    name: str,
    active: Active,
    rows: pd.DataFrame,
    records: Sequence[dict[str, Any]],
    ledger: Sequence[dict[str, Any]],
    found: Applications,
    verdicts: Sequence[Verdict],
) -> dict[str, Any]:
    judged = [verdict for verdict in verdicts if verdict.dataset == name]
    mine = [one for one in active_configurations(active) if one.dataset == name]
    trained = {
        f"{one.model}, seed {one.train_seed}": one
        for one in active_models(active)
        if one.dataset == name
    }
    here = rows[rows["dataset"] == name]
    own = [record for record in records if record["dataset"] == name]
    captions = {c.name: called(c) for c in mine}
    beside = _side_by_side(here)
    results = Results(
        here,
        {label: read_table(one.curves, ("step", "loss")) for label, one in trained.items()},
        {
            label: read_table(one.bands, ("step", "loss"), ("band",))
            for label, one in trained.items()
        },
        own,
        judged,
    )
    drawn = figures(results)
    return {
        "name": name,
        "metric": here["metric"].iloc[0],
        "floor": floor_said(own[0]),
        "gaussian": with_spread(here["gaussian"].iloc[0], here["gaussian_std"].iloc[0]),
        "real": {
            key: with_spread(value["mean"], value["std"]) for key, value in own[0]["real"].items()
        },
        "count": here["count"].iloc[0],
        "models": active["models"],
        "trainings": len(active["train_seeds"]),
        "images": own[0]["levels"] is not None,
        "elsewhere": beside.pop(EXTERNAL, {}),
        "beside": beside,
        "verdicts": headlines(judged, own),
        "said": _said(judged),
        "pairs": list(_pairs(active, name)),
        "notes": to_know(own),
        "upper": [figure for figure in drawn if figure["place"] < BELOW],
        "figures": [figure for figure in drawn if figure["place"] >= BELOW],
        "real_grid": _picture(name, f"real {name}"),
        "grids": [
            (captions[c.name], _picture(c.name, f"samples of {captions[c.name]}")) for c in mine
        ],
        "neighbours": [
            (
                captions[c.name],
                _picture(f"{c.name}-neighbours", f"nearest training data of {captions[c.name]}"),
            )
            for c in mine
        ],
        "asked": list(_asked(active, name, found)),
        "classes": [
            (captions[c.name], *_classes(record))
            for c, record in zip(mine, own, strict=True)
            if record["classes"]
        ],
        "pedigrees": [_pedigree(row) for row in ledger if row["configuration"] in captions],
    }


def page(
    active: Active,
    rows: pd.DataFrame,
    records: Sequence[dict[str, Any]],
    ledger: Sequence[dict[str, Any]],
    found: Applications,
    verdicts: Sequence[Verdict],
) -> str:
    """Return the report as one HTML page that needs no other file.

    Args:
        active: what is active.
        rows: the table.
        records: the active configurations' records.
        ledger: their rows in the ledger.
        found: what else the active models were found to do.
        verdicts: the records' verdicts.

    Returns:
        The page's text, the same for the same rows, pictures and curves.
    """
    shown = rows.dropna(axis=1, how="all")
    return rendered(
        Path(__file__).with_name("report.html.j2"),
        columns=[labels()[column] for column in shown.columns],
        rows=[[_cell(value) for value in row] for row in shown.itertuples(index=False)],
        datasets=[
            _dataset(name, active, rows, records, ledger, found, verdicts)
            for name in active["datasets"]
        ],
    )

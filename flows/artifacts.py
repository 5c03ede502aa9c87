"""What a flow shows at its end: the verdict with samples, the table, and what became of each stage."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows.progress import patiently
from flows.stages import Done
from tasks.files.layout import PICTURES, REPORT, TABLE, VERDICT, Configuration
from tasks.results.table import labels, terminal, text, with_spread

__all__ = ["publish_markdown", "publish_results", "publish_summary", "publish_table"]

_METHOD = ["dataset", "model", "sampler"]
_AXES = [*_METHOD, "train_seed"]
_WIDTH = 512  # pixels of a picture: it lies in the server's database
_RESTART = 120.0  # seconds that a server may take to come back
_SPREAD = "± std"
_LAST = "experiment"  # a name, after what it is the name of


def publish_markdown(markdown: str, key: str, description: str) -> None:
    """Show a text as an artifact; where the server does not take it, say so and go on.

    Args:
        markdown: the text.
        key: the artifact's key.
        description: what it is.
    """
    try:
        make: Callable[[], Any] = partial(
            create_markdown_artifact, markdown, key=key, description=description
        )
        patiently(make, seconds=_RESTART)
    except Exception as error:  # whatever a server or the way to it can do: no result depends on it
        get_run_logger().warning("the server did not take the artifact %r: %r", key, error)


def publish_table(rows: pd.DataFrame, key: str, description: str) -> None:
    """Show a table as an artifact.

    Args:
        rows: the table.
        key: the artifact's key.
        description: what it is.
    """
    publish_markdown(_markdown(rows), key, description)


def _markdown(rows: pd.DataFrame) -> str:
    """Return a table with four digits; what is the same in all its rows stands below it."""
    rows = rows.dropna(axis=1, how="all")
    if _SPREAD in rows:
        of = rows.columns[list(rows).index(_SPREAD) - 1]
        both = zip(rows[of], rows.pop(_SPREAD), strict=True)
        rows[of] = [with_spread(value, spread) for value, spread in both]
    cells = rows.map(_cell)
    same = [name for name in cells if len(cells) > 1 and cells[name].nunique() == 1]
    shown = sorted((name for name in cells if name not in same), key=lambda name: name == _LAST)
    # Numbers are texts by now, and tabulate would take an override's "1e-3" for another one.
    table = cells[shown].to_markdown(index=False, disable_numparse=True)
    below = ", ".join(f"{name} {cells[name].iloc[0]}" for name in same)
    return f"{table}\n\nThe same in all rows: {below}" if below else str(table)


def _cell(value: object) -> str:
    if value is None or value != value:
        return "—"
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(shown.replace("|", "\\|").split())


def publish_results(root: Path) -> None:
    """Show the verdict with samples, and the table.

    Args:
        root: the workspace.
    """
    rows = pd.read_csv(root / TABLE)
    verdict, report = (root / VERDICT).read_text(encoding="utf-8"), (root / REPORT).resolve()
    # An image artifact would fill the page's side bar with its letters.
    samples = [
        f"{name}:\n\n![samples of {name}]({_picture(path)})"
        for row in rows.drop_duplicates(_METHOD).to_dict("records")
        for name in [Configuration(**{axis: row[axis] for axis in _AXES}).name]
        if (path := root / PICTURES / f"{name}.png").exists()
    ]
    parts = [verdict, *["## Samples"] * bool(samples), *samples, f"Report: `{report}`"]
    publish_markdown("\n\n".join(parts), "verdict", "which model is better, and samples")
    shown = rows[terminal()].rename(columns=labels())
    publish_table(shown, "results", "distances of the active configurations")
    get_run_logger().info("\n%s\n\n%s\n\nreport: %s", verdict, text(rows), report.as_uri())


def _picture(path: Path) -> str:
    """Return a small copy of a picture as an address that holds it."""
    out = io.BytesIO()
    with Image.open(path) as picture:
        picture.thumbnail((_WIDTH, _WIDTH))
        picture.convert("RGB").save(out, "webp", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def publish_summary(
    done: Collection[Done], failed: Mapping[str, str], pedigree: Mapping[str, str]
) -> None:
    """Say what ran, what did not have to, how long each took, and why others failed.

    Args:
        done: the stages that ended well.
        failed: reason of each that did not.
        pedigree: commit, parameters' hash, and the like.
    """
    rows = pd.DataFrame(
        [
            {
                "stage": one.stage,
                "outcome": one.outcome,
                "seconds": round(one.seconds, 1),
                "waited": round(one.waited, 1) if one.waited >= 1 else None,
                "where": one.where,
            }
            for one in done
        ]
        + [{"stage": name, "outcome": reason} for name, reason in failed.items()],
        columns=["stage", "outcome", "seconds", "waited", "where"],
    )
    counts = rows["outcome"].value_counts()
    ran = int(counts.get("ran", 0))
    others = [f"{counts[name]} {name}" for name in ("restored", "up to date") if name in counts]
    line = f"{ran} of {len(rows)} stages were run"
    line += f", {', '.join(others)}" if others else ""
    line += f", {len(failed)} failed or left out" if failed else ""
    queue = sum(one.waited for one in done) / 3600
    gpus = sum(one.seconds * one.gpus for one in done) / 3600
    line += f"; {queue:.3g} hours in queues, {gpus:.3g} GPU hours"
    said = "\n".join(f"- {name}: `{value}`" for name, value in pedigree.items())
    publish_markdown(
        f"{line}\n\n{_markdown(rows)}\n\n{said}",
        "stages",
        "what ran, what was cached, how long each took",
    )
    shown = rows[rows["outcome"] != "up to date"]
    table = "" if shown.empty else "\n" + shown.to_string(index=False, na_rep="")
    get_run_logger().info("%s%s", line, table)

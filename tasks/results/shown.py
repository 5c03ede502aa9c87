"""What a run shows of its results where it cannot show a page: tables and pictures within a text."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd
from PIL import Image

from scoremodel.io.files import DamagedError
from tasks.files.layout import PICTURES, REPORT, Configuration
from tasks.files.schedule import Done
from tasks.results.history import records_at
from tasks.results.table import with_spread

__all__ = ["markdown_table", "picture_address", "summary_of", "trial_rows", "verdict_page"]

_METHOD = ["dataset", "model", "sampler"]
_AXES = ["dataset", "model", "train_seed", "sampler"]
_WIDTH = 512  # pixels of a picture: it lies in the server's database
_SPREAD = "± std"
_LAST = "experiment"  # a name, after what it is the name of


def markdown_table(rows: pd.DataFrame) -> str:
    """Return a table with four digits; what is the same in all its rows stands below it.

    Args:
        rows: the table.

    Returns:
        It, in Markdown.
    """
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


def verdict_page(root: Path, rows: pd.DataFrame, verdict: str) -> str:
    """Return a verdict with a small picture of each method's samples, as far as there is one.

    Args:
        root: the workspace.
        rows: its table.
        verdict: its verdict.

    Returns:
        The page, in Markdown.

    Raises:
        DamagedError: if a picture is damaged.
    """
    # An image artifact would fill the page's side bar with its letters.
    samples = [
        f"{name}:\n\n![samples of {name}]({picture_address(path)})"
        for row in rows.drop_duplicates(_METHOD).to_dict("records")
        for name in [Configuration(**{axis: row[axis] for axis in _AXES}).name]
        if (path := root / PICTURES / f"{name}.png").exists()
    ]
    report = f"Report: `{(root / REPORT).resolve()}`"
    return "\n\n".join([verdict, *["## Samples"] * bool(samples), *samples, report])


def trial_rows(trials: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    """Return what experiments scored, and by which overrides they differ.

    Args:
        trials: the overrides of each, by its name.

    Returns:
        A row for each configuration of each.
    """
    return pd.DataFrame(
        [
            {
                "experiment": name,
                **{override: str(value) for override, value in values.items()},
                **{part: found[part] for part in _AXES},
                "NFE": found["nfe"],
                "to held-out": found["held_out"]["mean"],
                "± std": found["held_out"]["std"],
                "× floor": found["ratio_to_floor"],
            }
            for name, values in trials.items()
            for found in records_at(name)
        ]
    )


def picture_address(path: Path) -> str:
    """Return a small copy of a picture as an address that holds it.

    Args:
        path: the picture.

    Returns:
        The address.

    Raises:
        FileNotFoundError: if there is none.
        DamagedError: if it is damaged.
    """
    out = io.BytesIO()
    try:
        with Image.open(path) as picture:
            picture.thumbnail((_WIDTH, _WIDTH))
            picture.convert("RGB").save(out, "webp", quality=80)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's, of what is no whole picture
        if isinstance(error, FileNotFoundError):
            raise
        raise DamagedError(path, "no whole picture") from error
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def summary_of(done: Collection[Done], failed: Mapping[str, str]) -> tuple[str, pd.DataFrame]:
    """Return what became of stages, in one line and as a table.

    Args:
        done: the stages that ended well.
        failed: reason of each that did not.

    Returns:
        The line, with the hours in queues and of GPUs; a row for each stage.
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
    return line, rows

"""The page of a judgement: the sentences, the metrics, samples beside real and nearest training data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.files.layout import EXTERNAL, Configuration
from tasks.judge.answer import Judged, rows
from tasks.report.html import embedded, rendered
from tasks.report.pictures.base import draw

__all__ = ["page"]


def _picture(shown: Path, says: str) -> dict[str, str]:
    """Return a picture of what a stage left to be seen, and what it shows."""
    stem = Path(shown.stem)
    draw(shown, stem)
    return {"says": says, "drawn": embedded(stem, says)}


def page(dataset: str, said: Sequence[str], judged: Sequence[Judged]) -> str:
    """Return a self-contained page; the current folder is the bench's.

    Args:
        dataset: the data set's name.
        said: the sentences.
        judged: the sets.

    Returns:
        HTML, the same for the same samples.
    """
    pictures = [_picture(Configuration(dataset).shown, f"real {dataset}, held out")]
    tables: list[dict[str, Any]] = []
    for one in judged:
        files = Configuration(dataset, one.name, sampler=EXTERNAL)
        pictures.append(_picture(files.shown, one.name))
        near = f"{one.name}: in each row a sample, then the training data nearest to it"
        pictures.append(_picture(files.shown_neighbours, near))
        found = rows(one)
        header = list(dict.fromkeys(key for row in found for key in row))
        cells = [[row.get(key, "") for key in header] for row in found]
        tables.append({"name": one.name, "header": header, "rows": cells})
    template = Path(__file__).with_name("judge.html.j2")
    return rendered(template, dataset=dataset, said=said, tables=tables, pictures=pictures)

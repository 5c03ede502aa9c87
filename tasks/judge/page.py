"""The page of a judgement: the sentences, the metrics, samples beside real and nearest training data."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.files.documents import read_text
from tasks.files.layout import EXTERNAL, Configuration
from tasks.judge.answer import Judged, rows
from tasks.report.pictures.base import draw

__all__ = ["page"]


def _picture(shown: Path, says: str) -> dict[str, str]:
    """Return a picture of what a stage left to be seen, and what it shows."""
    made = draw(shown, Path(shown.stem))
    assert made is not None
    if made.suffix == ".svg":
        return {"says": says, "svg": read_text(made)}
    content = base64.b64encode(made.read_bytes()).decode()
    return {"says": says, "address": f"data:image/png;base64,{content}"}


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
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("judge.html.j2").render(
        dataset=dataset, said=said, tables=tables, pictures=pictures
    )

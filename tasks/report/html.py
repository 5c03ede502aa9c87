"""Pages that need no other file: what their templates share, and pictures inside them."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.files.documents import read_text

__all__ = ["embedded", "rendered"]


def rendered(template: Path, **values: Any) -> str:
    """Return what a template makes of values; one that it lacks is an error, text is escaped.

    Args:
        template: its file.
        **values: what it names.

    Returns:
        HTML.
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)


def embedded(stem: Path, says: str) -> str:
    """Return a picture as a page shows it: the SVG's text, or an image with its content inside.

    Args:
        stem: the picture's path, without its ending.
        says: what it shows, for those who do not see it.

    Returns:
        HTML.
    """
    path = stem.with_name(f"{stem.name}.svg")
    if path.exists():
        return read_text(path)
    encoded = base64.b64encode(stem.with_name(f"{stem.name}.png").read_bytes()).decode()
    return f'<img src="data:image/png;base64,{encoded}" alt="{html.escape(says)}">'

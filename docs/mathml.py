"""A Markdown extension: equations become MathML, which browsers set without scripts or a network."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.postprocessors import Postprocessor

__all__ = ["makeExtension"]

_EQUATION = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def _mathml(found: re.Match[str]) -> str:
    """Return one equation that pymdownx.arithmatex has found."""
    display = "block" if found["tag"] == "div" else "inline"
    return convert(html.unescape(found["tex"]).strip(), display=display)


class _Equations(Postprocessor):
    def run(self, text: str) -> str:
        return _EQUATION.sub(_mathml, text)


class _MathML(Extension):
    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        md.postprocessors.register(_Equations(md), "mathml", 0)


def makeExtension(**_: object) -> Extension:  # noqa: N802
    """Return the extension, under the name by which Markdown asks for it."""
    return _MathML()

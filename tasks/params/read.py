"""Reading YAML by the rules of YAML 1.2, as plain data only, with one line for whatever it is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tasks.params.errors import ParamsError, dotted, shown

__all__ = ["DEEPEST", "parse_yaml", "read_text", "read_yaml"]

DEEPEST = 20
"""How many blocks and lists may stand in each other."""
_LONGEST = 200_000
_MOST = 100_000
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str")}


_DEEP = re.compile(rf"(?:[\[{{]\s*){{{DEEPEST + 1}}}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file by the rules of YAML 1.2, under which 1e-05 is a number.

    Args:
        path: the file.

    Returns:
        Its content: mappings with text as keys, lists, text, numbers, booleans and None.

    Raises:
        ParamsError: if there is no such file, it cannot be read, or it is not such YAML.
    """
    return parse_yaml(read_text(path), path)


def read_text(path: Path) -> str:
    """Return the text of a file that a person writes.

    Args:
        path: the file.

    Returns:
        Its text.

    Raises:
        ParamsError: if there is no such file, it cannot be read, or it is too long.
    """
    try:
        if path.exists() and not path.is_file():  # a FIFO would wait for somebody to write
            raise ParamsError(f"{path}: is no regular file")
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
    except FileNotFoundError as error:
        raise ParamsError(f"{path}: no such file; run this in the project's folder") from error
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > _LONGEST:
        raise ParamsError(f"{path}: has more bytes than allowed, allowed: {_LONGEST:,}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ParamsError(f"{path}, line {line}: is not UTF-8") from None


def parse_yaml(text: str, path: str | Path) -> Any:
    """Return what a text in YAML says, by the rules of `read_yaml`.

    Args:
        text: the text.
        path: what it is called, for errors.

    Returns:
        Its content.

    Raises:
        ParamsError: if it is not such YAML.
    """
    if wrong := _CONTROL.search(text):
        raise ParamsError(
            f"{path}, line {text.count(chr(10), 0, wrong.start()) + 1}: character {shown(wrong[0])} is "
            "not allowed, allowed: text without control characters"
        )
    if deep := _DEEP.search(text):  # which the parser would take long for, or not end
        line = text.count("\n", 0, deep.start()) + 1
        raise ParamsError(f"{path}, line {line}: more than {DEEPEST} blocks in each other")
    yaml = YAML(typ="safe", pure=True)
    try:
        node = yaml.compose(text)
    except RecursionError:
        raise ParamsError(f"{path}: has more than {DEEPEST} blocks in each other") from None
    except (YAMLError, ValueError) as error:
        raise ParamsError(_not_yaml(path, text, error)) from None
    return None if node is None else _Reading(path, yaml).value(node, ())


def _not_yaml(path: str | Path, text: str, error: Exception) -> str:
    """Return the line for what the parser did not understand: where that is, and where its block begins."""
    end, start = (getattr(error, f"{name}_mark", None) for name in ("problem", "context"))
    if end is None:
        return f"{path}: not valid YAML"
    where = f"{path}, line {end.line + 1}: not valid YAML"
    if "document" in str(getattr(error, "context", "")):
        return f"{where}: a second document, allowed: one"
    lines = text.split("\n")
    line = lines[end.line] if end.line < len(lines) else ""
    if line[end.column : end.column + 1] == "\t":
        return f"{where}: a tab, allowed: spaces"
    begins = f", in what begins on line {start.line + 1}" if start and start.line < end.line else ""
    what = shown(line.strip()) if line.strip() else "the file ends"
    return f"{where}: {what}{begins}"


class _Reading:
    """Makes plain data of the parser's nodes; an alias is read again wherever it stands.

    Args:
        path: what the text is called, for errors.
        yaml: the parser.
    """

    def __init__(self, path: str | Path, yaml: YAML) -> None:
        self.path, self.yaml, self.count = path, yaml, 0

    def refuse(self, node: Node, place: tuple[Any, ...], why: str) -> ParamsError:
        where = f"{self.path}, line {node.start_mark.line + 1}: "
        return ParamsError(f"{where}{dotted(place)}: {why}" if place else f"{where}{why}")

    def value(self, node: Node, place: tuple[Any, ...]) -> Any:
        """Return a node's data; `place` is where it stands."""
        self.count += 1
        if self.count > _MOST:
            raise self.refuse(node, (), f"more values than allowed, allowed: {_MOST:,}")
        if len(place) > DEEPEST:
            why = f"more than {DEEPEST} blocks in each other, or one in itself"
            raise self.refuse(node, (), why)
        if isinstance(node, MappingNode) and str(node.tag) == "tag:yaml.org,2002:map":
            return dict(self.items(node, place))
        if isinstance(node, SequenceNode) and str(node.tag) == "tag:yaml.org,2002:seq":
            return [self.value(one, (*place, index)) for index, one in enumerate(node.value)]
        if isinstance(node, ScalarNode) and str(node.tag) in _PLAIN:
            try:
                return self.yaml.constructor.construct_object(node)
            except (ValueError, YAMLError, KeyError):  # such as !!int x, or one of 5,000 digits
                pass
        what = node.value if isinstance(node, ScalarNode) else str(node.tag)
        raise self.refuse(
            node,
            place,
            f"{shown(what)} is not allowed, allowed: text, a number, true, false, null, a list or a "
            "block of keys (a date is text in quotes)",
        )

    def items(self, node: MappingNode, place: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
        """Yield a mapping's keys and values."""
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = key.value
            if not isinstance(key, ScalarNode) or str(key.tag) != "tag:yaml.org,2002:str":
                what = shown(name) if isinstance(key, ScalarNode) else "a list or a block"
                raise self.refuse(key, place, f"key {what} is not allowed, allowed: text as keys")
            if name in lines:
                why = f"stands on line {lines[name]} already"
                raise self.refuse(key, (*place, name), why)
            lines[name] = key.start_mark.line + 1
            yield name, self.value(value, (*place, name))

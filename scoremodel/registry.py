"""Kinds that are chosen by name: found in a package's files, imported when they are asked for.

A new kind is one file with one decorator; nothing else lists it:

    @SAMPLERS.register("mine")
    @dataclass(frozen=True)
    class Mine(Sampler): ...

Which file has which kind is read from the files' text, so that asking for one kind imports that file
alone: what a computation imports is the code that its result depends on.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

__all__ = ["Registry", "lazy"]

T = TypeVar("T")
Decorated = TypeVar("Decorated")

_DECORATOR = re.compile(r'^@\w+\.register\(\s*"(?P<kind>\w+)"', re.MULTILINE)


class Registry(Mapping[str, T], Generic[T]):
    """Kind → what a decorator in one of the package's files (or in a file of one's own) registered.

    Args:
        package: name of the package whose files hold the kinds.
        what: what a kind is called in an error, such as "sampler".
    """

    def __init__(self, package: str, what: str) -> None:
        self.package, self.what = package, what
        self._known: dict[str, T] = {}

    def register(self, kind: str, **said: Any) -> Callable[[Decorated], Decorated]:
        """Return the decorator that registers a class or function under `kind`.

        Args:
            kind: the name by which configurations choose it; it becomes an attribute.
            **said: what else is said of it, as further attributes.

        Returns:
            A decorator that returns what it is given.

        Raises:
            ValueError: if another class or function has that name already.
        """

        def note(one: Decorated) -> Decorated:
            before = self._known.get(kind)
            if before is not None and _name(before) != _name(one):
                raise ValueError(f"{self.what} {kind!r}: is {_name(before)} already")
            for name, value in {"kind": kind, **said}.items():
                setattr(one, name, value)
            self._known[kind] = one  # type: ignore[assignment]
            return one

        return note

    @cached_property
    def homes(self) -> dict[str, str]:
        """Kind → name of the module in the package that registers it, sorted by kind."""
        base = importlib.import_module(self.package)
        found = {
            match["kind"]: f"{self.package}.{path.stem}"
            for folder in base.__path__
            for path in Path(folder).glob("*.py")
            for match in _DECORATOR.finditer(path.read_text(encoding="utf-8"))
        }
        return dict(sorted(found.items()))

    def __getitem__(self, kind: str) -> T:
        if kind not in self._known:
            if kind not in self.homes:
                raise KeyError(f"unknown {self.what} {kind!r}, allowed: {', '.join(self)}")
            importlib.import_module(self.homes[kind])
        return self._known[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self.homes, *self._known}))

    def __len__(self) -> int:
        return len({*self.homes, *self._known})

    def __contains__(self, kind: object) -> bool:
        return isinstance(kind, str) and (kind in self._known or kind in self.homes)

    def make(self, kind: str | None, /, *arguments: Any, **parameters: Any) -> Any:
        """Return an instance of a kind, or what its function returns.

        Args:
            kind: one of the names.
            *arguments: what is not a parameter, such as the shape of the data.
            **parameters: its own.

        Returns:
            The instance.

        Raises:
            ValueError: if the kind is unknown, or a parameter is unknown or out of range.
        """
        if kind not in self:
            raise ValueError(f"unknown {self.what} {kind!r}, allowed: {', '.join(self)}")
        try:
            return self[kind](*arguments, **parameters)  # type: ignore[operator,index]
        except TypeError as error:
            raise ValueError(f"{self.what} {kind!r}: {error}") from error


def _name(one: Any) -> str:
    return f"{one.__module__}.{one.__qualname__}"


def lazy(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__` of what its `if TYPE_CHECKING:` block names.

    Each name is imported on first use, so that whoever needs one does not pay for all.

    Args:
        package: the package's `__name__`, whose `__init__` holds the block.

    Returns:
        A function from a name to what it stands for, and one that lists all names.
    """

    def get(name: str) -> Any:
        source = Path(str(sys.modules[package].__file__)).read_text(encoding="utf-8")
        homes = {
            alias.name: node.module
            for block in ast.parse(source).body
            if isinstance(block, ast.If)
            for node in ast.walk(block)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(str(homes[name])), name)
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        module = vars(sys.modules[package])
        return sorted({*module, *module["__all__"]} - {"TYPE_CHECKING", "annotations", "lazy"})

    return get, names

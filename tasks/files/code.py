"""What code a stage is: the modules that it imports, each by a hash of what it does.

A module's hash is one of its syntax tree without comments, docstrings, positions, `__all__` and what
only type checkers see: a comment or another layout changes nothing. Imports inside functions count
like those on top. Of a registry (`scoremodel.registry`) only the kinds that a stage is run with
count, so that a new sampler makes no old sample stale.

What is imported by name at run time (`importlib`) does not count: that is for what shows and does not
compute.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from scoremodel.registry import Registry

__all__ = ["Code", "Kinds", "closure", "main_module", "syntax_hash"]

Kinds = Mapping[str, list[str]]
"""Package with a registry → the kinds that a stage is run with; a package that is not named: all."""

_ROOMS = ("scoremodel", "tasks")
_BESIDE = (".j2",)  # files that lie beside the module that reads and names them
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Code:
    """What one run of a module is.

    Args:
        entry: the module's name, such as "tasks.train".
        kinds: of the registries that it reaches, the kinds that it is run with.
        modules: path relative to the project → hash, sorted.
    """

    entry: str
    kinds: dict[str, list[str]]
    modules: dict[str, str]


def closure(entry: str, kinds: Kinds) -> Code:
    """Return what a module imports of this project, directly and through others.

    Args:
        entry: the module's name.
        kinds: which kinds it is run with; of registries that it does not reach they do not matter.

    Returns:
        The module's code.

    Raises:
        SyntaxError: if a module is not Python.
    """
    waiting, seen = [entry], set[str]()
    found: dict[str, str] = {}
    used: dict[str, list[str]] = {}
    while waiting:
        name = waiting.pop()
        parents = [".".join(name.split(".")[:n]) for n in range(1, name.count(".") + 2)]
        for one in parents:
            module = None if one in seen else _module(one)
            seen.add(one)
            if module is None:
                continue
            found[str(module.path.relative_to(_ROOT))] = module.digest
            found |= dict(module.beside)
            waiting += module.imports
            for package in module.registries:
                homes = _homes(package)
                waiting += {homes[kind] for kind in kinds.get(package, homes) if kind in homes}
                if package in kinds:
                    used[package] = kinds[package]
    return Code(entry, dict(sorted(used.items())), dict(sorted(found.items())))


def syntax_hash(text: str) -> str:
    """Return a hash of what Python source does, the same for every layout and every comment of it."""
    return hashlib.sha256(repr(_plain(_stripped(ast.parse(text)))).encode()).hexdigest()[:16]


@cache
def _homes(package: str) -> dict[str, str]:
    return Registry[Any](package, "kind").homes


@dataclass(frozen=True)
class _Module:
    path: Path
    digest: str
    imports: tuple[str, ...]
    registries: tuple[str, ...]
    beside: tuple[tuple[str, str], ...]


@cache
def _file(name: str) -> Path | None:
    if name.split(".")[0] not in _ROOMS:
        return None
    base = _ROOT.joinpath(*name.split("."))
    return next((p for p in (base / "__init__.py", base.with_suffix(".py")) if p.is_file()), None)


def main_module(name: str) -> str:
    """Return the module that `python -m NAME` runs."""
    return f"{name}.__main__" if _file(f"{name}.__main__") else name


@cache
def _module(name: str) -> _Module | None:
    path = _file(name)
    if path is None:
        return None
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    imports, registries, beside = [], [], []
    for node in _visible(tree):
        match node:
            case ast.Import(names=aliases):
                imports += [alias.name for alias in aliases]
            case ast.ImportFrom(module=given, level=level, names=aliases):
                package = name if path.name == "__init__.py" else name.rpartition(".")[0]
                base = resolve_name("." * level + (given or ""), package)
                imports += [base, *(_resolved(base, alias.name) for alias in aliases)]
            case ast.Call(func=func, args=[ast.Constant(value=str(package)), *_]) if (
                _called(func) == "Registry"
            ):
                registries.append(package)
            case ast.Constant(value=str(text)) if text.endswith(_BESIDE):
                other = path.parent / text
                if other.is_file():
                    digest = hashlib.sha256(other.read_bytes()).hexdigest()[:16]
                    beside.append((str(other.relative_to(_ROOT)), digest))
    plain = repr(_plain(_stripped(tree)))
    return _Module(
        path,
        hashlib.sha256(plain.encode()).hexdigest()[:16],
        tuple(dict.fromkeys(imports)),
        tuple(registries),
        tuple(beside),
    )


def _called(func: ast.expr) -> str | None:
    if isinstance(func, ast.Subscript):  # Registry[Sampler](…)
        func = func.value
    return func.id if isinstance(func, ast.Name) else None


def _resolved(base: str, name: str) -> str:
    """Return the module that holds what `from base import name` gives."""
    if _file(f"{base}.{name}"):
        return f"{base}.{name}"
    return _exported(base).get(name, base)


@cache
def _exported(package: str) -> dict[str, str]:
    """Return what a package exports lazily (`scoremodel.registry.lazy`): name → its module."""
    path = _file(package)
    if path is None or path.name != "__init__.py":
        return {}
    return {
        alias.name: str(one.module)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if _for_type_checkers(node)
        for one in ast.walk(node)
        if isinstance(one, ast.ImportFrom)
        for alias in one.names
    }


def _for_type_checkers(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not node.orelse
    )


def _visible(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a tree but for what only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if not _for_type_checkers(node):
            yield node
            yield from _visible(node)


def _stripped(tree: ast.Module) -> ast.Module:
    """Return the tree without docstrings, `__all__` and what only type checkers see."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            assert isinstance(body, list)
            node.body = [one for one in body if not _silent(one)]
    return tree


def _silent(node: ast.stmt) -> bool:
    """Return whether a statement computes nothing: a text by itself, `__all__`, types."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
    return _for_type_checkers(node)


def _plain(node: Any) -> Any:
    """Return a tree as tuples, alike in every version of Python: fields that are empty are left out."""
    if isinstance(node, ast.AST):
        fields = [
            (name, _plain(value))
            for name, value in ast.iter_fields(node)
            if value is not None and value != [] and name not in ("ctx", "type_comment", "kind")
        ]
        return (type(node).__name__, *fields)
    if isinstance(node, list):
        return tuple(_plain(one) for one in node)
    return node

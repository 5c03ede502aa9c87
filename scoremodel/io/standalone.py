"""A denoiser as two files that need torch and nothing else: its weights, and a module that calls them.

The module is not written a second time by hand: the definitions that the network needs are gathered
from this library's own source, by name, with their docstrings and comments; what checks arguments and
what finds kinds by name is left out. Around them stands D(x, sigma), the denoiser at a noise level.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import os
import re
import sys
from functools import cache
from itertools import accumulate
from pathlib import Path
from string import Template
from typing import Annotated, Any, get_args, get_origin

import torch

from scoremodel import bounds
from scoremodel.denoiser import Denoiser, as_channels_last
from scoremodel.io.denoisers import save
from scoremodel.io.files import write_text
from scoremodel.networks.base import NETWORKS, arguments_of
from scoremodel.networks.energy import Energy
from scoremodel.parametrisation import preconditioning
from scoremodel.processes.ve import VE

__all__ = ["CODE", "WEIGHTS", "write_standalone"]

CODE, WEIGHTS = "net.py", "model.safetensors"
_HERE = "scoremodel"
_MARKS = re.compile(r"  # (type: ignore|noqa)[^\n]*")
_FIRST = "from __future__ import annotations\n"
_Imports = dict[str, tuple[str, str | None]]
"""The name that something goes by → its module, and its name there (None: the module itself)."""
_ALWAYS: _Imports = {
    "json": ("json", None),
    "math": ("math", None),
    "struct": ("struct", None),
    "torch": ("torch", None),
    "Path": ("pathlib", "Path"),
    "Tensor": ("torch", "Tensor"),
    "nn": ("torch", "nn"),
}
_HEAD = Template('''"""$name: a denoiser D(x, sigma) as a file of its own, which needs torch alone.

    from net import load

    net = load()                              # $weights beside this file
    denoised = net(x, sigma, class_labels)    # E[data | x]

x has shape (B, $shape) and is data + sigma · noise, with data in [−1, 1] and noise of standard deviation
1; sigma is a number, or one for each of the batch. The score of x is (D(x, sigma) − x) / sigma².
The definitions below are scoremodel's own.
"""''')

_TAIL = Template('''SHAPE = $shape
CLASSES = $classes  # None: it knows no classes
SIGMA_MIN, SIGMA_MAX = $sigma_min, $sigma_max  # between which it was trained


class Denoiser(nn.Module):
    """D(x, sigma, class_labels) = m + c_skip y + c_out F(c_in y, ln(sigma) / 4) with y = x − m."""

    def __init__(self) -> None:
        super().__init__()
        self.network = $network
        self.register_buffer("mean", torch.zeros($mean))

    def forward(
        self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None
    ) -> Tensor:
        """Return E[data | x] with the shape of x.

        Args:
            x: data + sigma · noise with shape (B, *SHAPE).
            sigma: standard deviation of the noise, a number or (B,).
            class_labels: class numbers (B,) from 0 to CLASSES − 1, or −1 for no class; None is no
                class for all.
        """
        if x.shape[1:] != SHAPE:
            raise ValueError(f"x must have shape (B, {', '.join(map(str, SHAPE))}), got {tuple(x.shape)}")
        if class_labels is not None:
            if CLASSES is None:
                raise ValueError("this model is unconditional: it takes no class_labels")
            if class_labels.shape != x.shape[:1] or class_labels.is_floating_point():
                raise ValueError(
                    f"class_labels must be {len(x)} integers, got {tuple(class_labels.shape)} of "
                    f"{class_labels.dtype}"
                )
            if not -1 <= int(class_labels.min()) <= int(class_labels.max()) < CLASSES:
                raise ValueError(f"class_labels must be from 0 to {CLASSES - 1}, or -1 for no class")
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
        c_skip, c_out, c_in = preconditioning(sigma.reshape(-1, *[1] * len(SHAPE)), $std, "$kind")
        y = x - self.mean
        f = self.network(c_in * y, sigma.clamp(min=1e-8).log() / 4, class_labels)
        return self.mean + c_skip * y + c_out * f


def load(path: str | Path = Path(__file__).with_name("$weights")) -> Denoiser:
    """Return the trained network, ready to be called; the file is safetensors, read by hand."""
    content = bytearray(Path(path).read_bytes())
    start = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    state = {
        name: torch.frombuffer(
            content,
            dtype={"F32": torch.float32, "F64": torch.float64, "I64": torch.int64}[one["dtype"]],
            count=math.prod(one["shape"]),
            offset=start + one["data_offsets"][0],
        ).reshape(one["shape"])
        for name, one in header.items()
    }
    net = Denoiser()
    net.load_state_dict(state)
    net.eval().requires_grad_(False)
    return net$layout''')


def write_standalone(denoiser: Denoiser, folder: str | os.PathLike[str], name: str) -> None:
    """Write `net.py`, in which D(x, sigma, class_labels) stands, and its weights `model.safetensors`.

    The values are those of `Denoiser.along`, to the bit. The weights can be read by `load` of this
    library too.

    Args:
        denoiser: the model.
        folder: where the two files go; it exists.
        name: what the model is called.

    Raises:
        ValueError: if the network is none that is made by its kind's name, its code needs more than
            torch, or it gives other values alone.
    """
    code = _code(denoiser, name)
    save(denoiser, Path(folder, WEIGHTS), denoiser.info)
    write_text(Path(folder, CODE), code)
    _check(denoiser, Path(folder, CODE), name)


def _check(denoiser: Denoiser, path: Path, name: str) -> None:
    """Refuse code whose values are others than the model's, as where it needs what is not in its text."""
    here = as_channels_last(copy.deepcopy(denoiser).cpu().eval())
    stream = torch.Generator().manual_seed(0)
    x, t = torch.randn(3, *denoiser.shape, generator=stream), torch.tensor([0.2, 0.5, 0.8])
    labels = None if denoiser.classes is None else torch.tensor([-1, 0, denoiser.classes - 1])
    made: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), made)
        with torch.no_grad():
            wanted = here.along(VE(), labels)(x, t)
            found = made["load"]()(x, VE().ratio(t), labels)
    except (NameError, AttributeError, RuntimeError, TypeError) as error:
        raise ValueError(f"{name}: the code of its network does not run alone: {error}") from error
    if not torch.allclose(found, wanted, rtol=1e-3, atol=1e-3):
        raise ValueError(f"{name}: the code of its network gives other values alone")


def _code(denoiser: Denoiser, name: str) -> str:
    """Return the module's text."""
    config = denoiser.network_config
    kind: Any = config.get("kind")
    if kind not in NETWORKS:
        raise ValueError(
            f"{name}: its network is {type(denoiser.network).__name__}, given as it is; allowed: one "
            f"that is made by its kind's name, {', '.join(NETWORKS)}"
        )
    gathered = _Gathered(f"{name}: the code of network {kind!r}")
    given = arguments_of(config, denoiser.shape, denoiser.classes)
    arguments = [str(denoiser.shape[0]), *(f"{key}={value!r}" for key, value in given.items())]
    network = f"{gathered.add(NETWORKS[kind])}({', '.join(arguments)})"
    if isinstance(denoiser.network, Energy):
        network = f"{gathered.add(Energy)}({network})"
    gathered.add(preconditioning)
    head = _HEAD.substitute(
        name=re.sub(r"[^\w.-]", "_", name),
        weights=WEIGHTS,
        shape=", ".join(map(str, denoiser.shape)),
    )
    tail = _TAIL.substitute(
        shape=denoiser.shape,
        classes=denoiser.classes,
        sigma_min=f"{denoiser.process.smallest_ratio():.6g}",
        sigma_max=f"{float(denoiser.process.ratio(torch.ones((), dtype=torch.float64))):.6g}",
        network=network,
        mean=", ".join(map(str, denoiser.data_mean.shape)),
        std=repr(denoiser.std),
        kind=denoiser.preconditioning,
        weights=WEIGHTS,
        # As `as_channels_last` has it: another layout rounds otherwise.
        layout=".to(memory_format=torch.channels_last)" if len(denoiser.shape) == 3 else "",
    )
    first = f"{head}\n\n{_FIRST}\n{_import_lines(gathered.imports)}"
    return "\n\n\n".join([first, *gathered.definitions, tail]) + "\n"


def _import_lines(imports: _Imports) -> str:
    """Return imports as lines: Python's own before torch's, modules before what comes from them."""
    lines: dict[tuple[bool, bool, str], list[str]] = {}
    for used, (module, original) in sorted(imports.items()):
        last = original or module
        said = last if used == last else f"{last} as {used}"
        place = (module.split(".")[0] == "torch", original is not None, module)
        lines.setdefault(place, []).append(said)
    own, torchs = (
        "\n".join(
            f"from {module} import {', '.join(names)}" if names_of else f"import {', '.join(names)}"
            for (of_torch, names_of, module), names in sorted(lines.items())
            if of_torch == which
        )
        for which in (False, True)
    )
    return f"{own}\n\n{torchs}"


def _place(module: str, original: str | None) -> str:
    return f"{module}.{original}" if original else module


class _Gathered:
    """Definitions of this library and all that they use of it, each after those that it uses.

    Args:
        whose: what they are the code of, for errors.
    """

    def __init__(self, whose: str) -> None:
        self.whose = whose
        self.imports = dict(_ALWAYS)
        self.definitions: list[str] = []
        # What the module has anyway: a network may be called Denoiser too, but not here.
        self._homes = dict.fromkeys(
            ["SHAPE", "CLASSES", "SIGMA_MIN", "SIGMA_MAX", "Denoiser", "load"], CODE
        )
        self._homes |= {used: _place(*one) for used, one in _ALWAYS.items()}

    def add(self, one: Any) -> str:
        """Add a class or function, and return the name by which it goes."""
        self._add(one.__module__, one.__name__)
        return str(one.__name__)

    def _add(self, module: str, name: str) -> None:
        if not self._note(name, module):
            return
        source = _source(module)
        text = source.text(name)
        for node in ast.walk(ast.parse(text)):
            match node:
                case ast.Name(id=used) if used in source.definitions:
                    self._add(module, used)
                case ast.Name(id=used) if used in source.imports:
                    self._import(*source.imports[used], used)
                case ast.Import(names=aliases):
                    for alias in aliases:
                        self._require(alias.name)
                case ast.ImportFrom(module=inner):
                    self._require(str(inner))
        self.definitions.append(text)

    def _import(self, module: str, original: str | None, used: str) -> None:
        if original is not None and module.split(".")[0] == _HERE:
            if (
                original not in _source(module).definitions
            ):  # a package's, which has it from elsewhere
                module = getattr(importlib.import_module(module), original).__module__
            self._add(module, original)
            return
        self._require(module)
        self._note(used, _place(module, original))
        self.imports[used] = (module, original)

    def _note(self, name: str, home: str) -> bool:
        """Note where a name comes from, and return whether it is new; refuse a second place."""
        new = name not in self._homes
        if (before := self._homes.setdefault(name, home)) != home:
            raise ValueError(
                f"{self.whose} has two things called {name}, of {before} and of {home}"
            )
        return new

    def _require(self, module: str) -> None:
        """Refuse what whoever has torch alone does not have."""
        root = module.split(".")[0]
        if root != "torch" and root not in sys.stdlib_module_names:
            raise ValueError(
                f"{self.whose} imports {module}, allowed: torch and what Python brings"
            )


class _Source:
    """A module's text, by definition.

    Args:
        module: its name.
    """

    def __init__(self, module: str) -> None:
        try:
            self.content = inspect.getsource(importlib.import_module(module)).encode()
        except (OSError, TypeError) as error:
            raise ValueError(f"{module}: has no source that could be exported") from error
        tree = ast.parse(self.content)
        self.definitions: dict[str, ast.stmt] = {}
        self.imports: _Imports = {}
        for node in tree.body:
            match node:
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                    self.definitions[name] = node
                case (
                    ast.Assign(targets=[ast.Name(id=name)])
                    | ast.AnnAssign(target=ast.Name(id=name))
                ):
                    self.definitions[name] = node
                case ast.Import(names=aliases):
                    self.imports |= {one.asname or one.name: (one.name, None) for one in aliases}
                case ast.ImportFrom(module=str(home), names=aliases):
                    self.imports |= {one.asname or one.name: (home, one.name) for one in aliases}

    def text(self, name: str) -> str:
        """Return a definition as it stands there, but for its registration and for bounds of numbers."""
        node = self.definitions[name]
        kept = [
            f"@{ast.unparse(one)}\n"
            for one in getattr(node, "decorator_list", [])
            if not ast.unparse(one).partition("(")[0].endswith(".register")
        ]
        unbounded, changes = _Unbounded(self.imports), []
        for one in ast.walk(node):
            for annotation in (getattr(one, "annotation", None), getattr(one, "returns", None)):
                if isinstance(annotation, ast.expr):
                    plain = ast.unparse(unbounded.visit(copy.deepcopy(annotation)))
                    if plain != ast.unparse(annotation):
                        changes.append((*self._span(annotation), plain))
        start, end = self._span(node)
        text = self.content
        for first, last, plain in sorted(changes, reverse=True):
            text = text[:first] + plain.encode() + text[last:]
        return "".join(kept) + _MARKS.sub(
            "", text[start : end + len(text) - len(self.content)].decode()
        )

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Return where a node's text begins and ends."""
        lines = self.content.splitlines(keepends=True)
        starts = [0, *accumulate(map(len, lines))]
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            starts[node.lineno - 1] + node.col_offset,
            starts[node.end_lineno - 1] + node.end_col_offset,
        )


_source = cache(_Source)


class _Unbounded(ast.NodeTransformer):
    """Types without the bounds of their numbers, which only this library checks.

    Args:
        imports: name → module and name there, of the module in which the types stand.
    """

    def __init__(self, imports: _Imports) -> None:
        self.imports = imports

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if ast.unparse(node.value) == "Annotated" and isinstance(node.slice, ast.Tuple):
            plain: ast.AST = self.visit(node.slice.elts[0])
            return plain
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        home, original = self.imports.get(node.id, ("", None))
        bounded = getattr(bounds, str(original), None) if home == bounds.__name__ else None
        return ast.Name(get_args(bounded)[0].__name__) if get_origin(bounded) is Annotated else node

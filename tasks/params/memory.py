"""The memory that a model's training needs, estimated from its network before that is made.

Its weights are counted on torch's `meta` device, where they have shapes and take no memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from scoremodel.networks.base import build_network
from tasks.params.errors import ParamsError

__all__ = [
    "Size",
    "gib",
    "machine_memory",
    "require_memory",
    "size_of",
    "training_disk",
    "training_memory",
]

_BYTES = 4  # of a float32 number
_WHOLE = 2  # weights and gradients, in every process
_MOMENTS = 2  # Adam's
_CHECKPOINTS = 2  # that a training keeps
_SMALL = 2**31  # weights times pixels of a network through which one data point goes in no time
_SLOW = 2**32  # bytes below which no GPU is asked how many it has: that would start it


@dataclass(frozen=True)
class Size:
    """What a network is made of, and what one data point makes of it.

    Args:
        parameters: number of its weights.
        activations: numbers that its layers put out for one data point.
        products: multiplications of its matrix products, convolutions and attention for one data point.
    """

    parameters: int
    activations: int
    products: int


def size_of(
    network: Mapping[str, Any], shape: Sequence[int], classes: int | None = None
) -> Size | None:
    """Return the size of the network that a configuration describes.

    Args:
        network: its kind and keyword arguments.
        shape: shape of one data point.
        classes: number of classes of a class-conditional model.

    Returns:
        Its size; None of a network of one's own that is not made without numbers.

    Raises:
        ValueError: if the network does not fit the shape.
    """
    activations, counting = 0, _Products()

    def note(_: nn.Module, __: Any, out: Any) -> None:
        nonlocal activations
        activations += out.numel() if isinstance(out, Tensor) else 0

    try:
        with _Weightless():
            made = build_network(dict(network), shape, classes)
        parameters = sum(weight.numel() for weight in made.parameters())
        where = "meta"  # which imports torch's compiler, a second that a small network is not worth
        if parameters * math.prod(shape) <= _SMALL:
            where = "cpu"
            with torch.random.fork_rng(devices=[]):
                made = build_network(dict(network), shape, classes)
        made = made.to(where)
        for layer in made.modules():
            if not any(True for _ in layer.children()):
                layer.register_forward_hook(note)
        with torch.device(where), torch.no_grad(), counting:
            labels = None if classes is None else torch.zeros(1, dtype=torch.int64)
            made(torch.zeros(1, *shape), torch.zeros(1), labels)
    except (NotImplementedError, RuntimeError):  # torch's own, of what has no meta kernel
        return None
    return Size(parameters, activations, counting.count)


class _Products(TorchFunctionMode):
    """Counts the multiplications of matrix products, convolutions and attention.

    torch's own `FlopCounterMode` finds the same, and imports the compiler, which takes longer than all of
    `check`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        given = (*args, *(kwargs or {}).values())
        if func in (functional.linear, functional.conv2d):
            self.count += out.numel() * given[1][0].numel()
        elif func is functional.conv_transpose2d:
            self.count += given[0].numel() * given[1][0].numel()
        elif func in (torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm):
            self.count += out.numel() * given[0].shape[-1]
        elif func is functional.scaled_dot_product_attention:
            self.count += (given[0].numel() + out.numel()) * given[1].shape[-2]
        return out


class _Weightless(TorchFunctionMode):
    """New weights have shapes only, and are not initialised."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else given["tensor"]
        if func is torch.empty:
            given = {**given, "device": "meta"}
        return func(*args, **given)


def training_memory(
    size: Size, training: Mapping[str, Any], network: Mapping[str, Any], shares: int = 1
) -> tuple[int, int]:
    """Return the bytes that each process of a training needs at least, and about how many it takes.

    Weights, gradients, Adam's two moments and each average; the sums of gradients of the parts before
    this one, of a batch in parts; each data point's loss and time since the last point of the curves;
    and the activations that are kept for the way back, of one data point or of the part of a batch that
    is computed at once.

    Args:
        size: the network's.
        training: the model's block `training`.
        network: the network's block, which may say that activations are computed again.
        shares: among how many processes moments and averages are shared.

    Returns:
        At least, and about. What torch itself takes is in neither.
    """
    shared = -(-(_MOMENTS + _averages(training)) * size.parameters // shares)
    sums = (training["parts"] - 1).bit_length()  # as many as the tree has levels, of one process
    held = _BYTES * (size.parameters * (_WHOLE + min(sums, 1)) + shared)
    held += _BYTES * 2 * training["log_every"] * training["batch_size"]
    more = _BYTES * size.parameters * max(sums - 1, 0)
    if network.get("checkpointing"):
        return held, held + more
    each = size.activations * (_BYTES if training["precision"] == "float32" else _BYTES // 2)
    at_once = training["batch_size"] // training["parts"]
    return held + each, held + more + at_once * each


def training_disk(size: Size, training: Mapping[str, Any]) -> tuple[int, int]:
    """Return the bytes that a training leaves on disk, and those of its checkpoints while it runs.

    Args:
        size: the network's.
        training: the model's block `training`.

    Returns:
        Of every average; and of the checkpoints that are kept, with weights and Adam's moments each.
    """
    averages = _averages(training)
    one = _BYTES * size.parameters
    return averages * one, _CHECKPOINTS * (1 + _MOMENTS + averages) * one


def _averages(training: Mapping[str, Any]) -> int:
    return len(training["ema_half_lives"]) + len(training.get("ema_stds", ()))


def machine_memory(device: str, least: int = 0) -> int:
    """Return the bytes of memory that a device here has, within what a container is given.

    Args:
        device: "cpu", "cuda" or another one of torch's names.
        least: bytes that are asked for; few are had everywhere, and no GPU is started for them.

    Returns:
        Its bytes.
    """
    if device.startswith("cuda") and least > _SLOW and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(device).total_memory)
    total = int(psutil.virtual_memory().total)
    limit = Path("/sys/fs/cgroup/memory.max")
    try:
        return min(total, int(limit.read_text()))
    except (OSError, ValueError):  # no such limit: "max"
        return total


def require_memory(where: str, least: int, device: str) -> None:
    """Refuse what takes more memory than this machine has, before it is taken.

    Args:
        where: the model's block in params.yaml.
        least: the bytes that it needs at least.
        device: where it is to run.

    Raises:
        ParamsError: with both numbers.
    """
    there = machine_memory(device, least)
    if least > there:
        raise ParamsError(
            f"params.yaml: {where}: a training of it is estimated to need at least {gib(least)}, and "
            f"this machine ({device}) has {gib(there)}; allowed: a smaller network"
        )


def gib(count: int) -> str:
    """Return a number of bytes for people."""
    size = float(f"{count / 2**30:.3g}")
    return f"{size:,.0f} GiB" if size >= 100 else f"{size:g} GiB"

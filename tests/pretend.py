"""An accelerator that is not there: tensors that say to be elsewhere, while their numbers are real.

`torch.device("meta")` stands for the accelerator, CPU tensors for the host. What a real one would refuse
(tensors of both in one operation) is refused, what it would make the host wait for is counted with the
line of this library that asks for it, and everything is computed, on the CPU: results can be compared.

    wait    a number is read by the host: .item(), .tolist(), bool(tensor), .cpu(), a mask as an index
    copy    host memory goes to the device, for which torch waits too, until all before it is done
"""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

import scoremodel
from scoremodel import rng

__all__ = ["DEVICE", "Accelerator", "host", "moved", "pretend"]

DEVICE = torch.device("meta")
_HOME = Path(scoremodel.__file__).parent
_READS = {
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "_unique2",
    "unique_dim",
}
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}


class _There(Tensor):
    """A tensor on the accelerator, whose numbers are those of `inner`."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> _There:
        made: _There = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )
        made.inner = inner
        return made

    def tolist(self) -> Any:
        """Return the numbers, by a copy on the host."""
        return self.cpu().tolist()

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> _There:
        return _There(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} outside of the pretended accelerator")


class _Generator(torch.Generator):
    """A generator of the accelerator, which draws what the CPU's would."""

    def __new__(cls, device: torch.device | str = "cpu") -> Any:
        return super().__new__(cls) if torch.device(device) == DEVICE else _HOST_GENERATOR(device)

    @property
    def device(self) -> torch.device:
        return DEVICE


_HOST_GENERATOR = torch.Generator


class Accelerator(TorchDispatchMode):
    """The accelerator while it is pretended to be there.

    Args:
        asked: how often the host waited, by kind and place: ("wait", "flow.py: flow").
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        tensors = [one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        there = any(isinstance(one, _There) for one in tensors)
        onto = kwargs.get("device", DEVICE if there else None)
        here = [one for one in tensors if not isinstance(one, _There)]
        if any(one.device == DEVICE for one in here):
            raise RuntimeError(f"{func} of a tensor without numbers")
        self._count(name, args, there, here, onto)
        if not there and (onto is None or torch.device(onto) != DEVICE):
            return func(*args, **kwargs)
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        inner_args, inner_kwargs = pytree.tree_map_only(
            _There, lambda one: one.inner, (args, kwargs)
        )
        out = func(*inner_args, **inner_kwargs)
        if torch.device(onto) != DEVICE or name in ("_local_scalar_dense", "equal", "is_nonzero"):
            return out
        if name == "copy_" and not isinstance(args[0], _There):
            return args[0]
        wrapped = pytree.tree_map_only(Tensor, _There, out)
        return return_and_correct_aliasing(func, args, kwargs, wrapped) if there else wrapped

    def _count(
        self, name: str, args: Any, there: bool, here: list[Tensor], onto: torch.device | None
    ) -> None:
        if not there:
            if name == "_to_copy" and onto is not None and torch.device(onto) == DEVICE:
                self._note("copy")
            return
        if name in _READS or (name == "_to_copy" and torch.device(onto or DEVICE) != DEVICE):
            self._note("wait")
        elif name == "copy_":
            if here:
                self._note("copy" if isinstance(args[0], _There) else "wait")
        elif name in _INDEXED:
            indices = [one for one in args[1] if one is not None]
            if any(one.dtype in (torch.bool, torch.uint8) for one in indices):
                self._note("wait")
            elif any(not isinstance(one, _There) for one in indices):
                self._note("copy")
        elif mixed := [one for one in here if one.ndim]:
            raise RuntimeError(
                f"{name}: tensors on the accelerator and on the CPU, {tuple(mixed[0].shape)}"
            )

    def _note(self, kind: str) -> None:
        frame = sys._getframe()
        while frame is not None:  # type: ignore[redundant-expr]
            path = Path(frame.f_code.co_filename)
            if _HOME in path.parents:
                place = path.relative_to(_HOME).as_posix()
                # Python 3.12 has no frame for a comprehension.
                name = frame.f_code.co_qualname.removesuffix(".<locals>.<listcomp>")
                self.asked[kind, f"{place}: {name}"] += 1
                return
            frame = frame.f_back  # type: ignore[assignment]
        self.asked[kind, "elsewhere"] += 1


def moved(module: Any) -> Any:
    """Return a copy of a module on the accelerator."""
    module = copy.deepcopy(module)
    for one in module.modules():
        for name, weight in one._parameters.items():
            if weight is not None:
                one._parameters[name] = nn.Parameter(
                    _There(weight.detach()), requires_grad=weight.requires_grad
                )
        for name, buffer in one._buffers.items():
            if buffer is not None:
                one._buffers[name] = _There(buffer)
    return module


def host(x: Tensor) -> Tensor:
    """Return the numbers of a tensor that is on the accelerator, without a wait."""
    return x.inner.detach() if isinstance(x, _There) else x


@contextmanager
def pretend() -> Iterator[Accelerator]:
    """Have an accelerator, with generators, fused Adam and numbers made into tensors on it.

    It knows no autocast and no inference mode, for which gradients that are off stand in.
    """

    def placed(make: Any) -> Any:
        def placing(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            made: Tensor = make(*args, **kwargs)
            return made if device is None else made.to(device)

        return placing

    def new_tensor(like: Tensor, data: Any, **kwargs: Any) -> Tensor:
        made: Tensor = torch.tensor(data, **({"dtype": like.dtype} | kwargs))
        return made.to(like.device)

    with ExitStack() as stack:
        rng._schedule.cache_clear()  # tensors of the real device of that name
        stack.callback(rng._schedule.cache_clear)
        for where, name, stand_in in (
            (torch, "Generator", _Generator),
            (torch, "tensor", placed(torch.tensor)),
            (torch, "as_tensor", placed(torch.as_tensor)),
            (torch, "inference_mode", lambda on=True: torch.no_grad() if on else nullcontext()),
            (torch, "autocast", lambda *_, **__: nullcontext()),
            (torch.Tensor, "new_tensor", new_tensor),
            (
                import_module("torch.optim.adam"),
                "_device_dtype_check_for_fused",
                lambda *_, **__: None,
            ),
        ):
            stack.enter_context(mock.patch.object(where, name, stand_in))
        yield stack.enter_context(Accelerator())

"""One process or several that do one piece of work together, with the same bytes for any number.

The bits of a sum depend on its order, and the order of a plain `all_reduce` on the number of processes.
Here a batch has P = 2^k parts, a number of the model's and not of the machine's, and everything that is
summed over them is summed in one binary tree:

    ((p_0 + p_1) + (p_2 + p_3)) + ((p_4 + p_5) + (p_6 + p_7))

A process has P / W neighbouring parts, whose subtree it sums itself; between processes each one sums its
share of all numbers, in the upper part of the same tree, and all gather the shares.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["LostRankError", "Ranks", "Tree", "joined"]


class LostRankError(ConnectionError):
    """Another process of the group has ended before its work was done."""


@contextmanager
def _with_others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "onnection" not in str(error):  # gloo's words
            raise
        raise LostRankError(f"another process has ended: {error}") from error


@contextmanager
def joined(
    rank: int, world_size: int, meeting: str | os.PathLike[str] | None = None
) -> Iterator[Ranks]:
    """Join torch's default process group for a while.

    Args:
        rank: this process's number, from 0.
        world_size: how many there are, a power of two.
        meeting: a file that is not there yet and that all of them reach; None is torchrun's way, by
            MASTER_ADDR and MASTER_PORT in the environment.

    Yields:
        This process's place.
    """
    ranks = Ranks(rank, world_size)
    if meeting is not None:  # on one machine, whose name need not be known to any network
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _loopback())
    where = "env://" if meeting is None else f"file://{Path(meeting).resolve()}"
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _with_others():
        dist.init_process_group(backend, where, world_size=world_size, rank=rank)
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def _loopback() -> str:
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


@dataclass(frozen=True)
class Ranks:
    """This process's place among those of torch's default process group.

    The group takes tensors on the CPU too ("cpu:gloo,cuda:nccl").

    Args:
        rank: this process's number, from 0.
        world_size: how many there are, a power of two; 1 needs no process group.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        """Refuse what is no place among a power of two.

        Raises:
            ValueError: if it is none.
        """
        if self.world_size < 1 or self.world_size & (self.world_size - 1):
            raise ValueError(
                f"world_size: {self.world_size} is not allowed, allowed: a power of two"
            )
        if not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"rank: {self.rank} is not allowed, allowed: from 0 to {self.world_size - 1}"
            )

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    def share(self, parts: int) -> range:
        """Return which of 0 … parts − 1 are this process's.

        Args:
            parts: how many there are.

        Returns:
            Neighbouring numbers, as many as every process has.

        Raises:
            ValueError: if the processes do not divide the parts.
        """
        if parts % self.world_size:
            raise ValueError(
                f"{self.world_size} processes are not allowed for {parts} parts, allowed: a divisor"
            )
        each = parts // self.world_size
        return range(self.rank * each, (self.rank + 1) * each)

    def total(self, summand: Tensor) -> Tensor:
        """Return the sum over the processes, in the binary tree of their numbers.

        Args:
            summand: this process's, with shape (N,).

        Returns:
            The sum with shape (N,), the same bits in every process.
        """
        if self.world_size == 1:
            return summand
        each = -(-len(summand) // self.world_size)
        padded = summand.new_zeros(each * self.world_size)
        padded[: len(summand)] = summand
        mine = torch.empty_like(padded)
        with _with_others():
            dist.all_to_all_single(mine, padded)
        rows = mine.view(self.world_size, each)
        while len(rows) > 1:
            rows = rows[0::2] + rows[1::2]
        with _with_others():
            dist.all_gather_into_tensor(padded, rows[0])
        return padded[: len(summand)]

    def any(self, *wishes: bool) -> Callable[[], list[bool]]:
        """Ask whether any process has each of some wishes; what is returned waits for the answer."""
        if self.world_size == 1:
            return lambda: list(wishes)
        found = torch.tensor(wishes, dtype=torch.int32)  # on the CPU: no device waits for it
        with _with_others():
            work = dist.all_reduce(found, dist.ReduceOp.MAX, async_op=True)

        def answer() -> list[bool]:
            with _with_others():
                work.wait()
            return [bool(one) for one in found]

        return answer

    def gathered(self, own: Tensor) -> Tensor:
        """Return the tensors of all processes, of one shape, in the order of their numbers: (W, *shape)."""
        if self.world_size == 1:
            return own[None]
        flat = own.new_empty(self.world_size * own.numel())
        with _with_others():
            dist.all_gather_into_tensor(flat, own.flatten())
        return flat.view(self.world_size, *own.shape)

    def told(self, content: Any) -> Any:
        """Return what the first process gives, in every process."""
        if self.world_size == 1:
            return content
        box = [content]
        with _with_others():
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def sent(
        self, tensors: Mapping[str, Tensor] | None, device: torch.device
    ) -> Iterator[tuple[str, Tensor]]:
        """Give the first process's tensors to every process, one after the other.

        Args:
            tensors: by name; None in the other processes.
            device: where they are wanted.

        Yields:
            Each one's name, and the tensor on the device, which is no longer needed here.
        """
        made = None if tensors is None else {k: (v.shape, v.dtype) for k, v in tensors.items()}
        for name, (shape, dtype) in self.told(made).items():
            if tensors is None:
                found = torch.empty(shape, dtype=dtype, device=device)
            else:
                found = tensors[name].to(device).contiguous()
            self.spread([found], 0)
            yield name, found

    def spread(self, tensors: Sequence[Tensor], source: int) -> None:
        """Give tensors the values that they have in one process.

        Args:
            tensors: of the same shapes in every process.
            source: the number of the process whose values they are.
        """
        if self.world_size == 1 or not tensors:
            return
        flat = torch.cat([one.flatten() for one in tensors])
        with _with_others():
            dist.broadcast(flat, src=source)
        values = torch.split(flat, [one.numel() for one in tensors])
        shaped = [value.view(one.shape) for value, one in zip(values, tensors, strict=True)]
        torch._foreach_copy_(list(tensors), shaped)

    def collected(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return, in the first process, the tensors of all processes by name, on the CPU.

        Args:
            own: this process's; no other one has their names.

        Returns:
            All of them; in the other processes none.
        """
        made = {name: value.detach().cpu().contiguous() for name, value in own.items()}
        if self.world_size == 1:
            return made
        kinds: list[Any] = [None] * self.world_size
        mine = [(name, value.shape, value.dtype) for name, value in made.items()]
        with _with_others():
            dist.gather_object(mine, kinds if self.first else None, dst=0)
            if not self.first:
                for value in made.values():
                    dist.send(value, dst=0)
                return {}
            for source in range(1, self.world_size):
                for name, shape, dtype in kinds[source]:
                    made[name] = torch.empty(shape, dtype=dtype)
                    dist.recv(made[name], src=source)
        return made


class Tree:
    """The sum of several lists of tensors in a binary tree, given one after the other."""

    def __init__(self) -> None:
        self.levels: list[tuple[int, list[Tensor]]] = []

    def add(self, summand: Sequence[Tensor]) -> None:
        """Take the next list; its tensors become this object's."""
        level, tensors = 0, list(summand)
        while self.levels and self.levels[-1][0] == level:
            left = self.levels.pop()[1]
            torch._foreach_add_(left, tensors)
            level, tensors = level + 1, left
        self.levels.append((level, tensors))

    def total(self) -> list[Tensor]:
        """Return the sum of 2^k lists."""
        ((_, tensors),) = self.levels
        return tensors

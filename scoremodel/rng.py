"""Randomness as a function of (seed, purpose, index), so that no generator's state is ever saved.

Training draws step k's noise from index k, sampling draws sample i's noise from index i: a resumed
run is the uninterrupted run, and a sample does not depend on its batch mates.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

__all__ = ["derive_seed", "generator", "generators", "randn_rows"]

_ODD = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: odd, so multiplication by it is a bijection


def derive_seed(seed: int, purpose: str, index: int = 0) -> int:
    """Return the 64-bit seed of the stream (seed, purpose, index).

    torch's CPU generator keeps only the low 32 bits of its seed, where hashing every index would
    let two of 50,000 samples share a stream with probability 1/4. Here the index enters as
    hash(seed, purpose) + index · odd, which is injective in the low 32 bits for index < 2^32.

    Args:
        seed: the user's seed, any integer.
        purpose: what the stream is for, such as "noise" or "order".
        index: step or sample number.

    Returns:
        An integer in [0, 2^64).
    """
    digest = blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") + index * _ODD) % 2**64


def generator(
    seed: int, purpose: str, index: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator for the stream (seed, purpose, index) on `device`."""
    return torch.Generator(device).manual_seed(derive_seed(seed, purpose, index))


def generators(seed: int, purpose: str, indices: Sequence[int]) -> list[torch.Generator]:
    """Return one CPU generator for each index, the streams (seed, purpose, index)."""
    return [generator(seed, purpose, index) for index in indices]


def randn_rows(rows: Sequence[torch.Generator], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return noise (len(rows), *shape) whose row i comes from CPU generator i alone.

    It is drawn on the CPU and in float32, and converted then, so that every device and every type sees
    the same noise.
    """
    out = torch.empty((len(rows), *shape), dtype=torch.float32)
    for row, row_generator in zip(out, rows, strict=True):
        torch.randn(row.shape, generator=row_generator, out=row)
    return out.to(dtype)

"""Randomness as a function of (seed, purpose, index), so that no generator's state is ever saved.

Training draws step k's noise from index k: a resumed run is the uninterrupted run. What belongs to one
sample comes from a counter-based generator, Philox 4×32-10 (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3"), whose 128-bit counter is (block of four numbers, draw, number of the
sample, 0) and whose key is a hash of (seed, purpose). So a sample does not depend on its batch mates,
and draw k can be had anywhere without the k − 1 before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b

import torch
from torch import Tensor

__all__ = ["derive_seed", "generator", "philox", "random_normal", "random_uniform"]

_ODD = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: odd, so multiplication by it is a bijection

_WORD = 2**32 - 1
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_BUMPS = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10

_CPU_BLOCK = 1 << 16
"""Numbers that each thread of a CPU draws at a time: what it works on stays in its cache."""

# Tensors, as torch takes twice as long to make one of a Python number than to use it.
_LOW, _HALF = torch.tensor(_WORD), torch.tensor(32)

# Polynomials of least greatest error, in single precision's digits: −2 ln(1 + y) / y on
# [√½ − 1, √2 − 1] to 3e-7; cos x and sin(x) / x in x² on [−π/2, π/2] to 5e-8.
_LOG = torch.tensor(
    [
        *(-1.99999984, 1.00000689, -0.66671216, 0.4994312),
        *(-0.3976847, 0.34424854, -0.32676303, 0.20757439),
    ]
).unbind()
_COS = torch.tensor(
    (0.999999953, -0.499999053, 0.0416635847, -0.00138537043, 2.31539317e-05)
).unbind()
_SIN = torch.tensor(
    (0.999999996, -0.16666658, 0.00833305106, -0.000198090753, 2.60522492e-06)
).unbind()
_ROOT_HALF = torch.tensor(0x3F3504F3, dtype=torch.int32)  # √½ in float32
_MANTISSA = torch.tensor(0x7FFFFF, dtype=torch.int32)
_ONE_OF_31 = _ROOT_HALF + (31 << 23)  # √½ 2³¹
_EXPONENT = torch.tensor(23, dtype=torch.int32)
_HALF_FLOAT, _ONE = torch.tensor(0.5), torch.tensor(1.0)
_LOG_OF_2, _ANGLE = torch.tensor(-2 * math.log(2)), torch.tensor(math.pi / 2**32)


def derive_seed(seed: int, purpose: str, index: int = 0) -> int:
    """Return the 64-bit seed of the stream (seed, purpose, index).

    torch's CPU generator keeps only the low 32 bits of its seed, where hashing every index would
    let two of 50,000 steps share a stream with probability 1/4. Here the index enters as
    hash(seed, purpose) + index · odd, which is injective in the low 32 bits for index < 2^32.

    Args:
        seed: the user's seed, any integer.
        purpose: what the stream is for, such as "noise" or "order".
        index: step number.

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


def random_normal(
    seed: int,
    purpose: str,
    numbers: range,
    shape: Sequence[int],
    *,
    draws: range = range(1),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return standard normal numbers, those of each sample a function of its number and the draw's.

    z = √(−2 ln u) (cos φ, sin φ) of uniform u and φ (Box and Muller 1958), u a multiple of 2⁻³¹ from
    2⁻³² on, so |z| ≤ 6.66, which 1 of 36 thousand million normal numbers exceeds. Logarithm, sine and
    cosine are polynomials in single precision: sums, products and roots, which every device rounds
    alike, so that all have the same bits.

    Args:
        seed: the user's seed, any integer.
        purpose: what the numbers are for.
        numbers: the samples' numbers, from 0 to 2³² − 1.
        shape: shape of one sample.
        draws: the numbers of the draws, from 0 to 2³² − 1.
        dtype: floating-point type into which the float32 are converted.
        device: where to draw.

    Returns:
        Noise with shape (len(draws), len(numbers), *shape).

    Raises:
        ValueError: if a number is not allowed.
    """
    size = math.prod(shape)
    out = torch.empty(len(draws) * len(numbers), -(-size // 4) * 4, device=device)
    for rows, words in _words(seed, purpose, numbers, draws, size, out.device):
        _normal(words, out[rows])
    return out[:, :size].to(dtype).reshape(len(draws), len(numbers), *shape)


def random_uniform(
    seed: int,
    purpose: str,
    numbers: range,
    shape: Sequence[int],
    *,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return multiples of 2⁻²⁴ in [0, 1), those of each sample a function of its number.

    Args:
        seed: the user's seed, any integer.
        purpose: what the numbers are for.
        numbers: the samples' numbers, from 0 to 2³² − 1.
        shape: shape of one sample.
        device: where to draw.

    Returns:
        float32 with shape (len(numbers), *shape).

    Raises:
        ValueError: if a number is not allowed.
    """
    size = math.prod(shape)
    out = torch.empty(len(numbers), -(-size // 4) * 4, device=device)
    for rows, words in _words(seed, purpose, numbers, range(1), size, out.device):
        whole = torch.bitwise_right_shift(words, 8).bitwise_and_(2**24 - 1)
        torch.cat([*whole.float().mul_(2.0**-24)], dim=1, out=out[rows])
    return out[:, :size].reshape(len(numbers), *shape)


def _words(
    seed: int, purpose: str, numbers: range, draws: range, size: int, device: torch.device
) -> Iterator[tuple[slice, Tensor]]:
    """Yield which of the draws' samples, and their random words as `philox` has them, `size` or more."""
    for name, given in (("numbers", numbers), ("draws", draws)):
        if len(given) and not 0 <= min(given) <= max(given) <= _WORD:
            raise ValueError(f"{name}: {given} is not allowed, allowed: from 0 to 2^32 - 1")
    key = derive_seed(seed, purpose)
    blocks = torch.arange(-(-size // 4), device=device)
    samples = torch.arange(numbers.start, numbers.stop, numbers.step, device=device)
    steps = torch.arange(draws.start, draws.stop, draws.step, device=device)
    second = steps[:, None].expand(-1, len(samples)).reshape(-1)
    third = samples.expand(len(steps), -1).reshape(-1)
    together = len(third)
    if device.type == "cpu":
        block = _CPU_BLOCK * torch.get_num_threads()
        together = min(together, max(1, block // (4 * max(1, len(blocks)))))
    for low in range(0, len(third), max(1, together)):
        rows = slice(low, low + together)
        yield rows, philox(key, blocks, second[rows], third[rows])


def philox(key: int, first: Tensor, second: Tensor, third: Tensor, fourth: int = 0) -> Tensor:
    """Return the random words of the counters (first[b], second[i], third[i], fourth).

    A round takes (c_0, c_1, c_2, c_3) to (h_2 ^ c_1 ^ k_0, l_2, h_0 ^ c_3 ^ k_1, l_0), h_i and l_i the
    high and low halves of the 64-bit product of c_i and its multiplier (Salmon et al. 2011, 7 of the
    10 rounds pass all of BigCrush).

    Args:
        key: k_0 + 2³² k_1.
        first: 32-bit words in int64 with shape (B,).
        second: 32-bit words in int64 with shape (N,).
        third: 32-bit words in int64 with shape (N,).
        fourth: a 32-bit word.

    Returns:
        int32 with shape (2, N, 2 B): words 1, 0 of each block one after the other, and words 3, 2.
    """
    keys, factors, mixed, final = _schedule(key, first.device)
    low, high = _MULTIPLIERS
    # Of two rounds nearly all is a function of the block or of the row alone.
    of_block, of_row = first * low, third * high
    row = _high(of_row).bitwise_xor_(second).bitwise_xor_(keys[0][0])
    block = _high(of_block).bitwise_xor_(fourth ^ keys[0][1])
    block_low, row_low = of_block & _WORD, of_row & _WORD
    of_block, of_row = block * high, row * low
    x = torch.empty(2, len(second), len(first), dtype=torch.int64, device=first.device)
    halves = x.unbind()
    torch.bitwise_xor(_high(of_block), (row_low ^ keys[1][0])[:, None], out=halves[0])
    torch.bitwise_xor((_high(of_row) ^ keys[1][1])[:, None], block_low, out=halves[1])

    # Each round swaps the two halves. Products are kept whole: what is above 32 bits goes at the end.
    one, other = torch.empty_like(x), torch.empty_like(x)
    ones, others = one.unbind(), other.unbind()
    before = of_row[:, None], of_block
    for factor, mix in zip(factors, mixed, strict=True):
        torch.mul(x, factor, out=one)
        torch.bitwise_right_shift(one, _HALF, out=x)
        halves[0].bitwise_xor_(before[0])
        halves[1].bitwise_xor_(before[1])
        x.bitwise_xor_(mix).bitwise_and_(_LOW)
        before = ones[1], ones[0]
        one, other, ones, others = other, one, others, ones
    torch.mul(x, final[0], out=one)
    other.bitwise_xor_(final[1]).bitwise_left_shift_(_HALF)
    ones[0].bitwise_xor_(before[0])
    ones[1].bitwise_xor_(before[1])
    return one.view(torch.int32)


@lru_cache(maxsize=16)
def _schedule(
    key: int, device: torch.device
) -> tuple[list[list[int]], list[Tensor], list[Tensor], tuple[Tensor, Tensor]]:
    """Return the keys of all rounds, and factors and keys of the later ones as the halves lie in them."""
    keys = [
        [
            (part + bump * number) & _WORD
            for part, bump in zip((key, key >> 32), _BUMPS, strict=True)
        ]
        for number in range(_ROUNDS)
    ]
    orders = [1 if number % 2 == 0 else -1 for number in range(_ROUNDS)]
    factors = torch.tensor([_MULTIPLIERS[::order] for order in orders[2:]], device=device)
    mixed = torch.tensor(
        [pair[::-order] for pair, order in zip(keys[2:], orders[2:], strict=True)], device=device
    )
    *first, last = factors[..., None, None].unbind()
    *later, end = mixed[..., None, None].unbind()
    return keys, first, later, (last, end.flip(0))


def _high(product: Tensor) -> Tensor:
    return torch.bitwise_right_shift(product, _HALF).bitwise_and_(_LOW)


def _normal(words: Tensor, out: Tensor) -> None:
    """Write normal numbers with shape (N, 4 B) from words with shape (2, N, 2 B)."""
    radius, angle = words.float().unbind()
    # u = (|word| + ½) / 2³¹ = (1 + y) 2^e with 1 + y in [√½, √2): near u = 1 nothing cancels.
    bits = radius.abs().add_(_HALF_FLOAT).view(torch.int32).sub_(_ONE_OF_31)
    exponent = torch.bitwise_right_shift(bits, _EXPONENT).float()
    y = bits.bitwise_and_(_MANTISSA).add_(_ROOT_HALF).view(torch.float32).sub_(_ONE)
    squared = _horner(_LOG, y).mul_(y).add_(exponent.mul_(_LOG_OF_2))
    # The sign of the first word turns the angle, which is within ±π/2, by half a turn.
    torch.copysign(_root(squared), radius, out=radius)
    angle.mul_(_ANGLE)
    square = angle * angle
    count = radius.shape[1]
    torch.mul(_horner(_COS, square), radius, out=out[:, :count])
    torch.mul(_horner(_SIN, square).mul_(angle), radius, out=out[:, count:])


def _root(x: Tensor) -> Tensor:
    """Return √x, rounded as it is defined: MKL's in single precision is not, on some processors."""
    return x.double().sqrt_().float() if x.device.type == "cpu" else x.sqrt_()


def _horner(coefficients: Sequence[Tensor], x: Tensor) -> Tensor:
    """Return Σ_k coefficients[k] x^k, product and sum apart: fused, devices would round them otherwise."""
    *rest, last = coefficients
    found = x * last
    for coefficient in rest[:0:-1]:
        found.add_(coefficient).mul_(x)
    return found.add_(rest[0])

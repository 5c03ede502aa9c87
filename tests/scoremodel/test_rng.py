"""The counter-based generator: published words, whose noise is whose, and what is normal about it."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from scoremodel import rng
from scoremodel.processes.vp import VP
from scoremodel.rng import philox, random_normal, random_uniform
from scoremodel.samplers.multistep import SDEDPMSolver
from scoremodel.samplers.sampling import sample
from tasks.sample import draw_labels

WORD = 2**32 - 1
ERRORS = 4.5
"""Standard errors that a statistic may be off: 7 in a million for one."""


def words(key: int, first: list[int], second: list[int], third: list[int], fourth: int) -> Tensor:
    """Return the words of each row's blocks in their own order, with shape (rows, blocks, 4)."""
    lanes = philox(key, *(torch.tensor(one) for one in (first, second, third)), fourth)
    pairs = lanes.view(2, len(second), len(first), 2).flip(-1)
    return torch.cat([*pairs], dim=-1).long() & WORD


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        (
            (0, 0, 0, 0),
            (0, 0),
            "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        ),
        (
            (WORD, WORD, WORD, WORD),
            (WORD, WORD),
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_the_published_words(
    counter: tuple[int, int, int, int], key: tuple[int, int], expected: str
) -> None:
    """The known answers of Random123 (kat_vectors, "philox4x32 10")."""
    first, second, third, fourth = counter
    found = words(key[0] + (key[1] << 32), [first], [second], [third], fourth)
    assert " ".join(f"{word:08x}" for word in found.flatten().tolist()) == expected


def test_many_counters_are_the_definition_s() -> None:
    """Salmon et al. 2011, figure 2, in whole numbers of any size."""

    def block(key: int, c: tuple[int, ...]) -> tuple[int, ...]:
        k = [key & WORD, key >> 32]
        for _ in range(10):
            one, other = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = (
                (other >> 32) ^ c[1] ^ k[0],
                other & WORD,
                (one >> 32) ^ c[3] ^ k[1],
                one & WORD,
            )
            k = [(k[0] + 0x9E3779B9) & WORD, (k[1] + 0xBB67AE85) & WORD]
        return c

    key, first = 0xFEDCBA9876543210, [0, 1, 2, 77, 2**31, WORD]
    second, third = [0, 1, 2, WORD, 5], [WORD, 0, 1, 2**31 + 9, 123456]
    found = words(key, first, second, third, 7)
    expected = [
        [block(key, (a, b, c, 7)) for a in first] for b, c in zip(second, third, strict=True)
    ]
    assert found.tolist() == [[list(one) for one in row] for row in expected]


def test_the_bits_are_the_same_everywhere() -> None:
    """Whole numbers, sums, products and roots as IEEE 754 rounds them (by numpy the hash is the same)."""
    z = random_normal(3, "sample", range(1000, 1064), (5, 13, 3), draws=range(7, 9))
    assert z.shape == (2, 64, 5, 13, 3)
    assert hashlib.sha256(z.numpy().tobytes()).hexdigest()[:16] == "9bbf834932315b24"
    u = random_uniform(3, "label", range(1000), (3,))
    assert hashlib.sha256(u.numpy().tobytes()).hexdigest()[:16] == "b6c52debcdbc2016"


@pytest.mark.parametrize("shape", [(), (1,), (2,), (3, 5), (1, 28, 28), (3, 40, 40)])
def test_noise_is_a_function_of_the_sample_s_and_the_draw_s_number(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, among others, in parts on many threads: the same bits."""
    whole = random_normal(5, "sample", range(30), shape, draws=range(4))
    uniform = random_uniform(5, "sample", range(30), shape)
    assert uniform.shape == (30, *shape)
    alone, some = (range(17, 18), range(3, 4)), (range(9, 28), range(1, 4))
    for numbers, draws in ((range(30), range(4)), alone, some):
        for block, threads in ((100, 1), (1 << 12, 2), (1 << 20, 2)):
            before = torch.get_num_threads()
            monkeypatch.setattr(rng, "_CPU_BLOCK", block)
            torch.set_num_threads(threads)
            try:
                part = random_normal(5, "sample", numbers, shape, draws=draws)
                flat = random_uniform(5, "sample", numbers, shape)
            finally:
                torch.set_num_threads(before)
            assert torch.equal(part, whole[draws.start : draws.stop, numbers.start : numbers.stop])
            assert torch.equal(flat, uniform[numbers.start : numbers.stop])


def test_all_types_have_the_same_noise() -> None:
    single = random_normal(1, "sample", range(5), (7,))
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        assert torch.equal(
            random_normal(1, "sample", range(5), (7,), dtype=dtype), single.to(dtype)
        )


def test_nothing_waits_for_the_device() -> None:
    """A tensor without data: reading any of it back raises."""
    z = random_normal(0, "sample", range(4), (3, 8, 8), draws=range(2), device="meta")
    assert z.shape == (2, 4, 3, 8, 8)
    assert random_uniform(0, "sample", range(4), (3,), device="meta").is_meta


def test_seeds_and_purposes_have_noise_of_their_own() -> None:
    one = random_normal(0, "sample", range(100), (40,)).flatten()
    for seed, purpose in ((1, "sample"), (2**32, "sample"), (0, "langevin")):
        other = random_normal(seed, purpose, range(100), (40,)).flatten()
        assert not bool((one == other).any())
        assert abs(float((one * other).mean())) < ERRORS / math.sqrt(len(one))


def test_normal_numbers_are_box_and_muller_s() -> None:
    """In double precision from the same words as float32; and nothing is lost or infinite at the ends."""
    edges = torch.tensor([0, 1, -1, 2, 3, 2**31 - 1, -(2**31), 2**30, -(2**30), 2**24 + 1, 77])
    radius, angle = (one.flatten() for one in torch.meshgrid(edges, edges, indexing="ij"))
    more = torch.randint(-(2**31), 2**31, (2, 10**6), generator=torch.Generator().manual_seed(0))
    radius, angle = torch.cat([radius, more[0]]), torch.cat([angle, more[1]])
    out = torch.empty(1, 2 * len(radius))
    rng._normal(torch.stack([radius, angle])[:, None].int(), out)
    u = (radius.float().abs() + 0.5).double() / 2**31
    r = torch.sqrt(-2 * torch.log(u)) * torch.where(radius < 0, -1.0, 1.0)
    phi = angle.float().double() * math.pi / 2**32
    expected = torch.cat([r * phi.cos(), r * phi.sin()])
    assert bool(out.isfinite().all())
    assert float((out[0] - expected).abs().max()) < 2e-6
    largest = math.sqrt(64 * math.log(2))
    assert float(out.abs().max()) == pytest.approx(largest, rel=1e-6)
    assert largest == pytest.approx(6.66, abs=0.005)
    assert 1 / (2 * stats.norm.sf(largest)) == pytest.approx(36e9, rel=0.02)


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    """Six draws of 1000 samples of 1000 numbers."""
    return random_normal(0, "sample", range(1000), (1000,), draws=range(6)).double().numpy()


def test_moments(many: np.ndarray) -> None:
    """E z^n for n = 1 … 8 of 6 million, the standard error of each from E z^2n."""
    z = many.ravel()

    def moment(n: int) -> float:
        return 0.0 if n % 2 else float(math.prod(range(1, n, 2)))

    for n in range(1, 9):
        error = math.sqrt((moment(2 * n) - moment(n) ** 2) / len(z))
        assert abs(float((z**n).mean()) - moment(n)) < ERRORS * error, n


def test_the_distribution_function(many: np.ndarray) -> None:
    """Kolmogorov and Smirnov's statistic at 0.1 %, of all and of every draw."""
    for z in (many.ravel(), *many.reshape(6, -1)):
        assert stats.kstest(z, "norm").statistic < 1.95 / math.sqrt(len(z))


def test_the_tails(many: np.ndarray) -> None:
    """χ² of the numbers beyond 3, 3.5, … 5 on either side, 12 bins; expected beyond 5: 1.7 a side."""
    z, edges = many.ravel(), np.array([3.0, 3.5, 4.0, 4.25, 4.5, 5.0, np.inf])
    share = -np.diff(stats.norm.sf(edges))
    found = np.concatenate([np.histogram(side, edges)[0] for side in (z, -z)])
    expected = len(z) * np.tile(share, 2)
    assert float(((found - expected) ** 2 / expected).sum()) < stats.chi2.isf(1e-4, 12)


def test_neighbours_know_nothing_of_each_other(many: np.ndarray) -> None:
    """Correlations of z and of z², one standard error being 1 / √count."""
    apart = {
        "numbers": (many[..., :-1], many[..., 1:]),
        "blocks": (many[..., :-2], many[..., 2:]),
        "halves": (many[..., :500], many[..., 500:]),
        "samples": (many[:, :-1], many[:, 1:]),
        "draws": (many[:-1], many[1:]),
        "samples and draws": (many[:-1, 1:], many[1:, :-1]),
    }
    for name, (one, other) in apart.items():
        for power in (1, 2):
            found = np.corrcoef(one.ravel() ** power, other.ravel() ** power)[0, 1]
            assert abs(found) < ERRORS / math.sqrt(one.size), (name, power)


def test_uniform_numbers_are_uniform() -> None:
    u = random_uniform(0, "dequantise", range(1000), (1000,)).double().numpy().ravel()
    assert 0 <= u.min() < 1e-5
    assert 1 - 1e-5 < u.max() < 1
    counts = np.histogram(u, 256, (0, 1))[0]
    expected = len(u) / 256
    assert float(((counts - expected) ** 2 / expected).sum()) < stats.chi2.isf(1e-4, 255)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < ERRORS / math.sqrt(len(u))


def test_labels_come_as_often_as_the_data_have_them() -> None:
    counts = [0, 178, 0, 1, 621, 0]
    labels = draw_labels(counts, 20_000, 4)
    assert labels is not None
    found = labels.bincount(minlength=6).double().numpy()
    expected = 20_000 * np.array(counts) / 800
    assert not found[expected == 0].any()
    assert stats.chisquare(found[expected > 0], expected[expected > 0]).pvalue > 1e-4
    first = draw_labels(counts, 10, 4)
    assert first is not None
    assert torch.equal(first, labels[:10])


def test_a_sampler_s_noise_can_be_had_from_anywhere() -> None:
    """Draw k of sample i, without those before: what `sample` draws is what is given to it."""

    def noise(k: int, those: range) -> Tensor:
        numbers = range(40 + those.start, 40 + those.stop)
        return random_normal(9, "sample", numbers, (6,), draws=range(k, k + 1))[0]

    given = {"process": VP(), "shape": (6,), "batch_size": 8}
    sampler = SDEDPMSolver(23)
    own = sample(lambda x, t: x / 2, sampler, 21, 9, start=40, **given)  # type: ignore[arg-type]
    same = sample(lambda x, t: x / 2, sampler, 21, 0, noise=noise, **given)  # type: ignore[arg-type]
    assert torch.equal(own.x, same.x)


@pytest.mark.parametrize("numbers", [range(-1, 3), range(2**32 - 1, 2**32 + 1)])
def test_numbers_of_more_than_a_word_are_refused(numbers: range) -> None:
    with pytest.raises(ValueError, match=r"numbers: range\(.*allowed: from 0 to 2\^32 - 1"):
        random_normal(0, "sample", numbers, (2,))
    with pytest.raises(ValueError, match=r"draws: range\(.*allowed: from 0 to 2\^32 - 1"):
        random_normal(0, "sample", range(2), (2,), draws=numbers)

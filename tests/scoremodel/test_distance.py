"""The distance is clean-fid's own, by its folder route; the floor and the extractor behave as stated."""

from __future__ import annotations

import re
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linprog
from sklearn.datasets import load_digits

from scoremodel.data.scale import quantise, to_unit
from scoremodel.evaluation.distance import (
    Moments,
    frechet_distance,
    frechet_infinity,
    infinity_is_stable,
    kernel_distance,
    moments,
    real_floor,
    sliced_distance,
)
from scoremodel.evaluation.extractors.base import load_extractor, save_extractor
from scoremodel.evaluation.extractors.classifier import (
    Classifier,
    accuracy,
    rotations,
    train_classifier,
)


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    bundled = load_digits()
    order = np.random.default_rng(0).permutation(1797)
    return torch.tensor(bundled.images[order], dtype=torch.uint8)[:, None], torch.tensor(
        bundled.target[order]
    )


@pytest.fixture(scope="module")
def classifier(digits: tuple[torch.Tensor, torch.Tensor]) -> Classifier:
    pixels, labels = digits
    return train_classifier(pixels[:898], labels[:898], 17, seed=0)


def test_distance_equals_clean_fid_s_folder_route(tmp_path: Path) -> None:
    from cleanfid import fid

    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 150, 1, 28, 28), generator=draw, dtype=torch.uint8)
    pixels[1] //= 2
    extractor = train_classifier(
        pixels.flatten(0, 1), torch.arange(2).repeat_interleave(150), 256, 0, epochs=1
    )
    for side in (0, 1):
        (tmp_path / str(side)).mkdir()
        for index, image in enumerate(pixels[side, :, 0].numpy()):
            Image.fromarray(image).save(tmp_path / str(side) / f"{index:03}.png")

    def on_three_channels(x: torch.Tensor) -> torch.Tensor:
        return extractor(to_unit(x[:, :1], 256))

    theirs = fid.compute_fid(
        str(tmp_path / "0"),
        str(tmp_path / "1"),
        custom_feat_extractor=on_three_channels,
        custom_fn_resize=lambda x: x.astype("float32"),
        device=torch.device("cpu"),
        num_workers=0,
        verbose=False,
    )
    ours = frechet_distance(*(extractor.features(side).numpy() for side in pixels))
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_distance_of_two_gaussians_is_the_closed_form() -> None:
    """Diagonal covariances: |μ_1 − μ_2|² + Σ (s_1 − s_2)², for features with exactly these moments."""
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((400, 4))
    basis = np.linalg.qr(rows - rows.mean(0))[0] * np.sqrt(399)  # mean 0, covariance the identity
    first = basis * [1, 2, 3, 4]
    second = basis * [2, 2, 1, 1] + [1, 0, -2, 0]
    assert frechet_distance(first, second) == pytest.approx(5 + 1 + 0 + 4 + 9, rel=1e-6)


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (np.zeros((1, 3)), "shape (1, 3) is not allowed"),
        (np.full((5, 3), np.nan), "5 of 5 rows hold a value that is not finite"),
        (np.ones(5), "shape (5,) is not allowed"),
        (np.ones((5, 3)), "all 5 rows are equal"),
    ],
    ids=["one", "nan", "flat", "constant"],
)
def test_features_that_allow_no_distance_are_named(features: np.ndarray, said: str) -> None:
    good = np.arange(15.0).reshape(5, 3)
    for distance in (frechet_distance, kernel_distance, partial(sliced_distance, seed=0)):
        with pytest.raises(ValueError, match=re.escape(f"the first set of features: {said}")):
            distance(features, good)
        with pytest.raises(ValueError, match="different width: 3 and 2"):
            distance(good, good[:, :2])


@pytest.mark.parametrize(
    ("counts", "rank"),
    [((90, 120), 40), ((90, 120), 25), ((20, 120), 40), ((30, 20), 40)],
    ids=["full rank", "singular", "few samples", "few of both"],
)
def test_the_distance_is_clean_fid_s_whatever_the_rank(counts: tuple[int, int], rank: int) -> None:
    """Where clean-fid's square root is inaccurate, the eigenvalues of Σ_1 Σ_2 say the same."""
    from cleanfid import fid

    draw = np.random.default_rng(3)
    mixing = draw.standard_normal((40, 40))[:rank]
    a, b = (draw.standard_normal((n, rank)) @ mixing + n / 100 for n in counts)
    assert frechet_distance(a, b) == pytest.approx(
        float(fid.fid_from_feats(a, b)), rel=1e-6 if min(counts) > 40 == rank else 1e-4
    )
    eigenvalues = np.linalg.eigvals(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False))
    exact = (
        np.square(a.mean(0) - b.mean(0)).sum()
        + a.var(0, ddof=1).sum()
        + b.var(0, ddof=1).sum()
        - 2 * np.sqrt(np.sort(eigenvalues.real)[-min(rank, *(n - 1 for n in counts)) :]).sum()
    )
    assert frechet_distance(a, b) == pytest.approx(exact, rel=1e-9)


def test_kid_is_clean_fid_s_on_equal_numbers() -> None:
    """Of at most 1,000 rows clean-fid's random subsets are all the rows, in another order."""
    from cleanfid import fid

    draw = np.random.default_rng(4)
    a, b = draw.standard_normal((2, 300, 16))
    b = 1.3 * b + 0.2
    assert kernel_distance(a, b) == pytest.approx(
        float(fid.kernel_distance(a, b, num_subsets=2)), rel=1e-9
    )


def test_kid_is_unbiased_between_samples_of_one_distribution() -> None:
    draw = np.random.default_rng(5)
    values = [kernel_distance(*draw.standard_normal((2, 60, 4))) for _ in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200)


def test_fd_infinity_takes_the_bias_of_few_samples_away() -> None:
    """Unit Gaussians in 8 dimensions at distance 1: d² = 1, of which 200 samples show more."""
    draw = np.random.default_rng(6)
    reference = draw.standard_normal((40_000, 8))
    shift = np.full(8, np.sqrt(1 / 8))
    sets = [draw.standard_normal((200, 8)) + shift for _ in range(100)]
    plain = np.array([frechet_distance(rows, reference) for rows in sets])
    extrapolated = np.array([frechet_infinity(rows, reference, seed=0) for rows in sets])
    assert plain.mean() - 1 > 10 * plain.std() / 10
    assert abs(extrapolated.mean() - 1) < 4 * extrapolated.std() / 10
    again = frechet_infinity(sets[0], reference, seed=0)
    assert (again == extrapolated[0], again == frechet_infinity(sets[0], reference, 1)) == (
        True,
        False,
    )


def test_fd_infinity_is_stable_where_it_says_so() -> None:
    """Gaussians in 64 dimensions; infinitely many samples have exactly the moments 0 and I."""
    draw = np.random.default_rng(7)
    reference = moments(draw.standard_normal((899, 64)))
    truth = frechet_distance(Moments(np.zeros(64), np.eye(64), None), reference)
    lacks, errors = {}, {}
    for many, repeats in ((6, 40), (20, 20)):
        sets = [draw.standard_normal((many * 64, 64)) for _ in range(repeats)]
        found = np.array(
            [frechet_infinity(rows, reference, seed) for seed, rows in enumerate(sets)]
        )
        lacks[many] = 1 - found.mean() / truth
        errors[many] = found.std(ddof=1) / np.sqrt(repeats) / truth
    assert lacks[6] > 0.2 + 3 * errors[6]
    assert abs(lacks[20]) < 0.02 + 3 * errors[20]
    assert errors[20] < 0.02
    assert (infinity_is_stable(1279, 64), infinity_is_stable(1280, 64)) == (False, True)


def test_the_sliced_distance_of_a_scaled_and_shifted_copy_is_exact() -> None:
    """Scaling by s > 0 keeps the order along every direction, so each point moves to its own image."""
    draw = np.random.default_rng(8)
    x, shift = draw.standard_normal((70, 6)) ** 3, draw.standard_normal(6)
    moved = np.square(x - (0.6 * x + shift)).sum(axis=1).mean()
    assert sliced_distance(x, 0.6 * x + shift, seed=1) == pytest.approx(moved, rel=1e-12)
    # Each point three times is the same distribution, of another size.
    thrice = np.repeat(0.6 * x + shift, 3, axis=0)[draw.permutation(210)]
    assert sliced_distance(x, thrice, seed=1) == pytest.approx(moved, rel=1e-12)
    assert sliced_distance(x, np.repeat(x, 3, axis=0), seed=2) == pytest.approx(0, abs=1e-25)


@pytest.mark.parametrize(("few", "many"), [(1, 1), (5, 7), (12, 8), (9, 4)])
def test_the_sliced_distance_on_a_line_is_the_optimal_transport(few: int, many: int) -> None:
    """By linear programming over all plans, for any two sizes."""
    draw = np.random.default_rng(few)
    a, b = 3 * draw.standard_normal((few + 1, 1)), draw.standard_normal((many + 1, 1)) ** 2
    n, m = len(a), len(b)
    rows = np.zeros((n + m, n * m))
    for column, (i, j) in enumerate(product(range(n), range(m))):
        rows[i, column] = rows[n + j, column] = 1
    marginals = np.r_[np.full(n, 1 / n), np.full(m, 1 / m)]
    plan = linprog(np.square(a - b.T).ravel(), A_eq=rows, b_eq=marginals)
    assert sliced_distance(a, b, seed=0) == pytest.approx(plan.fun, rel=1e-9)


def test_the_sliced_distance_of_two_gaussians_is_the_closed_form() -> None:
    """|m|² + D (s_1 − s_2)², and above that by what two sets of one Gaussian score."""
    draw = np.random.default_rng(9)
    shift, count = np.linspace(0, 1, 8), 4000
    found, same = [], []
    for seed in range(12):
        x, y, z = draw.standard_normal((3, count, 8))
        found.append(sliced_distance(x, 1.5 * z + shift, seed))
        same.append(sliced_distance(x, y, seed))
    known = np.square(shift).sum() + 8 * 0.5**2
    error = np.std(found, ddof=1) / np.sqrt(12)
    assert 0 < np.mean(same) < 0.02
    assert abs(np.mean(found) - known) < 4 * error + 2 * np.mean(same)
    assert error < 0.02 * known


def test_the_floor_is_what_random_real_subsets_score() -> None:
    """Small subsets of one set of features score what fresh samples of that size score."""
    draw = np.random.default_rng(1)
    train, held_out = draw.standard_normal((8000, 8)), draw.standard_normal((500, 8))
    floor = real_floor(train, held_out, count=200, seed=0, repeats=40)
    fresh = [frechet_distance(draw.standard_normal((200, 8)), held_out) for _ in range(40)]
    assert floor.std is not None
    error = np.hypot(floor.std, np.std(fresh)) / np.sqrt(40)
    assert abs(floor.value - np.mean(fresh)) < 4 * error
    labels = np.repeat([0, 1], 4000)
    shifted = train + 3 * labels[:, None]
    other = held_out + 3 * np.repeat([0, 1], 250)[:, None]
    stratified = real_floor(shifted, other, 200, 0, 40, labels=np.zeros(8000, int))
    independent = real_floor(shifted, other, 200, 0, 40, labels=labels)
    spread = np.hypot(independent.std or 0, stratified.std or 0) / np.sqrt(40)
    assert abs(independent.value - stratified.value) < 4 * spread  # small subsets: no difference
    assert real_floor(train, held_out, count=9999, seed=0, repeats=2).count == 4000
    with pytest.raises(ValueError, match="the floor: 3 training points that the extractor was not"):
        real_floor(train[:3], held_out, 2, 0)


def test_few_distinct_samples_have_moments_and_a_floor() -> None:
    """Some subsets of 2 are the same row twice, whose covariance is 0."""
    two = np.repeat([[0.0, 1.0], [3.0, 0.0]], 4, axis=0)
    for seed in range(10):
        assert np.isfinite(frechet_infinity(two, two, seed))
        assert np.isfinite(real_floor(two, two, 2, seed).value)
    with pytest.raises(ValueError, match="FD∞: 7 samples are not allowed, allowed: at least 8"):
        frechet_infinity(two[1:], two, 0)


@pytest.mark.parametrize("classes", [False, True])
def test_the_floor_s_spread_is_that_of_new_sets(classes: bool) -> None:
    """Of subsets of half of the data, corrected: as 2,000 new sets scatter, or up to 1.22 times that."""
    draw = np.random.default_rng(2)
    size, width, repeats = 60, 4, 40

    def real(labels: NDArray[np.int64]) -> NDArray[np.float64]:
        shift = 1.5 * labels[:, None] * (np.arange(width) == 0)
        return draw.standard_normal((len(labels), width)) + shift

    split = np.arange(2 * size) % 2 if classes else np.zeros(2 * size, int)
    estimated, true = [], []
    for _ in range(30):
        held_out = real(split)
        floor = real_floor(
            real(split), held_out, size, 0, repeats, labels=split if classes else None
        )
        assert floor.std is not None
        assert floor.count == size
        estimated.append(floor.std**2)
        drawn = [draw.integers(0, 2, size) if classes else split[:size] for _ in range(70)]
        reference = moments(held_out)
        true.append(np.var([frechet_distance(real(one), reference) for one in drawn], ddof=1))
    ratio = np.sqrt(np.mean(estimated) / np.mean(true))
    error = (
        ratio
        / 2
        * np.hypot(*(np.std(one) / np.mean(one) / np.sqrt(len(one)) for one in (estimated, true)))
    )
    assert 1 - 3 * error < ratio < np.sqrt(1.5) + 3 * error
    assert error < 0.1
    if not classes:  # uncorrected it would be too small
        assert ratio * np.sqrt(0.5) < 1 - error


def test_the_extractor_knows_digits_and_repeats_to_the_bit(
    classifier: Classifier, digits: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    pixels, labels = digits
    assert accuracy(classifier, classifier.features(pixels[898:]), labels[898:]) > 0.96
    again = train_classifier(pixels[:898], labels[:898], 17, seed=0)
    assert torch.equal(again.features(pixels), classifier.features(pixels))
    save_extractor(classifier, tmp_path / "e.safetensors")
    loaded = load_extractor(tmp_path / "e.safetensors")
    assert torch.equal(loaded.features(pixels), classifier.features(pixels))


def test_distances_order_as_the_damage_does(
    classifier: Classifier, digits: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Held-out < noise .1 < a class missing < blur of one pixel < uniform noise, in this order."""
    from torchvision.transforms.functional import gaussian_blur

    pixels, labels = digits
    real, other = pixels[:898], pixels[898:]
    draw = torch.Generator().manual_seed(0)
    x = to_unit(other, 17)
    damaged = [
        other,
        quantise(x + 0.1 * torch.randn(x.shape, generator=draw), 17),
        other[labels[898:] != 3],
        quantise(gaussian_blur(x, kernel_size=3, sigma=1.0), 17),
        torch.randint(0, 17, other.shape, generator=draw, dtype=torch.uint8),
    ]
    features = classifier.features(real).numpy()
    distances = [frechet_distance(classifier.features(y).numpy(), features) for y in damaged]
    assert distances == sorted(distances)
    assert distances[2] > 3 * distances[0]


def test_rotations_carry_their_number_of_quarter_turns() -> None:
    pixels = torch.arange(8, dtype=torch.uint8).reshape(2, 1, 2, 2)
    turned, quarters = rotations(pixels)
    assert quarters.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert turned[2, 0].tolist() == [[1, 3], [0, 2]]  # a quarter turn, counter-clockwise


def test_quantise_inverts_to_unit_for_every_level() -> None:
    for levels in (2, 17, 256):
        pixels = torch.arange(levels, dtype=torch.uint8)
        assert torch.equal(quantise(to_unit(pixels, levels), levels), pixels)
    assert quantise(torch.tensor([-9.0, 9.0]), 17).tolist() == [0, 16]

"""The Gaussian baseline has the data's mean and covariance, and nothing else of them."""

from __future__ import annotations

import numpy as np

from scoremodel.evaluation.baseline import gaussian_samples


def test_the_samples_have_the_data_s_mean_and_covariance() -> None:
    """Vectors in more rows than one block: each moment within its standard error."""
    draw = np.random.default_rng(0)
    mixing = draw.standard_normal((3, 3))
    train = ((draw.random((5000, 3)) ** 2) @ mixing).astype(np.float32)
    n = 20_000
    drawn = gaussian_samples(train, n, seed=1, levels=None)
    assert drawn.dtype == np.float32
    mean, covariance = train.mean(0, dtype=float), np.cov(train, rowvar=False)
    variances = np.diag(covariance)
    assert (np.abs(drawn.mean(0) - mean) < 4.5 * np.sqrt(variances / n)).all()
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / n)
    assert (np.abs(np.cov(drawn, rowvar=False) - covariance) < 4.5 * error).all()
    kurtosis = (((drawn - drawn.mean(0)) / drawn.std(0)) ** 4).mean(0)
    assert (np.abs(kurtosis - 3) < 4.5 * np.sqrt(24 / n)).all()


def test_images_are_rounded_to_their_grey_levels() -> None:
    draw = np.random.default_rng(1)
    train = draw.integers(4, 13, (400, 1, 2, 2)).astype(np.uint8)
    drawn = gaussian_samples(train, 4000, seed=0, levels=17)
    assert (drawn.dtype, drawn.shape) == (np.uint8, (4000, 1, 2, 2))
    assert abs(drawn.mean() - train.mean()) < 4.5 * train.std() / np.sqrt(16_000)
    assert abs(drawn.var() - train.var() - 1 / 12) < 0.3  # rounding adds a twelfth

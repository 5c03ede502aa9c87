"""Precision, recall, density and coverage are those of their authors' package."""

from __future__ import annotations

import numpy as np
import pytest

from scoremodel.evaluation.manifold import manifold

pytestmark = pytest.mark.parity
prdc = pytest.importorskip("prdc")


@pytest.mark.parametrize("k", [1, 5])
def test_the_four_shares_are_prdc_s(k: int) -> None:
    draw = np.random.default_rng(k)
    real, fake = draw.standard_normal((300, 16)), 1.1 * draw.standard_normal((200, 16)) + 0.1
    theirs = prdc.compute_prdc(real_features=real, fake_features=fake, nearest_k=k)
    ours = manifold(fake, real, k).shares()
    assert ours == pytest.approx(theirs, abs=1e-12)

"""What a training can be asked for reaches the library, and a sampler takes the averages that it names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scoremodel.io.denoisers import load
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.sampling import sample
from tests import shared
from tests.workspace import Workspace


@pytest.fixture
def mixture(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Workspace:
    return shared.copy(shared.once(tmp_path_factory, "mixture", shared.with_mixture), tmp_path)


def test_a_sampler_is_guided_by_another_average_of_its_training(mixture: Workspace) -> None:
    params = mixture.params()
    params["active"]["samplers"] = ["heun"]
    params["models"]["vp"]["preconditioning"] = "vp"
    params["models"]["vp"]["training"] |= {
        "ema_half_lives": [],
        "ema_stds": [0.05, 0.2],
        "uncertainty": True,
        "schedule": "inverse_sqrt",
        "decay_steps": 50,
        "clip_norm": None,
    }
    params["models"]["vp_sliced"]["training"]["uncertainty"] = False  # which is like vp
    params["samplers"]["heun"] |= {"ema_std": 0.05, "autoguide": 0.2, "guidance": 2.0}
    params["evaluation"] |= {"count": 20, "neighbours": 3, "sampling_seeds": [4], "batch_size": 20}
    mixture.write_params(params)
    mixture.dvc("repro", "sample@mixture-vp-0-heun")
    weights = mixture.root / shared.MIXTURE_WEIGHTS
    model, guide = load(weights, ema_std=0.05), load(weights, ema_std=0.2)
    assert (model.preconditioning, model.ema_half_life) == ("vp", None)
    expected = sample(model, Heun(3), 20, 4, guide=guide, guidance=2.0, batch_size=20)
    with np.load(mixture.root / "artifacts/samples/mixture-vp-0-heun.npz") as found:
        np.testing.assert_allclose(found["seed_4"], expected.x, rtol=0, atol=1e-6)
    alone = sample(model, Heun(3), 20, 4, batch_size=20)
    assert float((alone.x - expected.x).abs().max()) > 1e-3

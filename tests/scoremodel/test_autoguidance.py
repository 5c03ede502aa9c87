"""Autoguidance: away from a weaker model, in closed form where both are exact denoisers of Gaussians."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scoremodel.denoiser import Denoiser
from scoremodel.oracles import Gaussian
from scoremodel.parametrisation import Denoise, convert
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.reverse_sde import EulerMaruyama
from scoremodel.samplers.sampling import sample

SHARP, WIDE = 0.5, 0.9
PATH = VE(0.002, 80.0)


def exact(std: float) -> Denoise:
    """Return the denoiser of N(0, s²) in two dimensions along PATH."""
    data = Gaussian(torch.zeros(2).double(), std**2 * torch.eye(2).double())
    return lambda x, t: data.denoised(x, t, PATH)


def drawn(guidance: float, guide: Denoise | None) -> tuple[Tensor, Tensor, int]:
    found = sample(
        exact(SHARP),
        Heun(240, grid="edm"),
        8,
        0,
        guidance=guidance,
        guide=guide,
        process=PATH,
        shape=(2,),
        dtype=torch.float64,
        trajectory=True,
    )
    assert found.trajectory is not None
    return found.trajectory[0], found.x, found.nfe


@pytest.mark.parametrize("w", [0.0, 1.0, 1.7, 3.0])
def test_the_ode_of_two_gaussians_ends_where_the_closed_form_does(w: float) -> None:
    """D ln x / dσ = σ (w / (s₁² + σ²) + (1 − w) / (s₀² + σ²)), so the spread is nearly s₁^w s₀^(1−w)."""
    start, end, nfe = drawn(w, exact(WIDE))
    largest = 80.0

    def shrunk(std: float) -> float:
        return std / math.hypot(std, largest)

    expected = start * shrunk(SHARP) ** w * shrunk(WIDE) ** (1 - w)
    torch.testing.assert_close(end, expected, rtol=1e-3, atol=0)
    assert shrunk(SHARP) ** w * shrunk(WIDE) ** (1 - w) * largest == pytest.approx(
        SHARP**w * WIDE ** (1 - w), rel=2e-4
    )
    alone = drawn(1.0, None)
    assert nfe == (1 if w == 1.0 else 2) * alone[2]
    if w == 1.0:
        assert torch.equal(end, alone[1])


def test_the_guided_score_is_that_of_a_narrower_gaussian_at_every_level() -> None:
    """−x / v with 1 / v = w / v₁ + (1 − w) / v₀, as one step of Euler–Maruyama's drift shows."""
    w, seen = 2.0, []

    class Spy(EulerMaruyama):
        def states(self, plan, x, denoise, draw):  # type: ignore[no-untyped-def]
            seen.extend((step.t, x, denoise(x, step.t)) for step in plan)
            return super().states(plan, x, denoise, draw)

    more = {"process": PATH, "shape": (2,), "dtype": torch.float64}
    sample(exact(SHARP), Spy(12), 4, 0, guidance=w, guide=exact(WIDE), **more)  # type: ignore[arg-type]
    assert len(seen) == 12
    for time, x, denoised in seen:
        t = torch.full((len(x),), time, dtype=torch.float64)
        noise = float(PATH.sigma(t)[0]) ** 2
        inverse = w / (SHARP**2 + noise) + (1 - w) / (WIDE**2 + noise)
        score = convert(denoised, x, t, PATH, "denoised", "score")
        torch.testing.assert_close(score, -x * inverse, rtol=1e-6, atol=1e-12)


def model(seed: int, classes: int | None = 3, shape: int = 2) -> Denoiser:
    torch.manual_seed(seed)
    mlp = {"kind": "mlp", "width": 16, "depth": 1}
    made = Denoiser(mlp, VP(), (shape,), [0.1] * shape, 0.6, classes=classes)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return made.eval()


def test_trained_models_guide_with_labels_and_without_whatever_the_batch() -> None:
    strong, weak, labels = model(0), model(1), torch.arange(20) % 3
    given = {"labels": labels, "guidance": 1.5, "guide": weak}
    whole = sample(strong, Heun(4), 20, 0, batch_size=20, **given)  # type: ignore[arg-type]
    assert whole.nfe == 2 * 7
    parts = sample(strong, Heun(4), 20, 0, batch_size=16, **given)  # type: ignore[arg-type]
    torch.testing.assert_close(parts.x, whole.x, rtol=1e-5, atol=1e-6)

    def by_hand(x: Tensor, t: Tensor) -> Tensor:
        one, other = (m.along(VP(), labels)(x, t) for m in (strong, weak))
        return other + 1.5 * (one - other)

    found = sample(
        by_hand, Heun(4), 20, 0, process=VP(), shape=(2,), mean=strong.data_mean.flatten()
    )
    torch.testing.assert_close(found.x, whole.x, rtol=1e-4, atol=1e-5)
    plain = sample(model(0, None), Heun(4), 4, 0, guidance=2.0, guide=model(1, None))
    assert plain.nfe == 14
    with pytest.raises(ValueError, match="guide: one of classes None is not allowed, allowed: 3"):
        sample(strong, Heun(4), 4, 0, guidance=2.0, guide=model(1, None))
    with pytest.raises(
        ValueError, match=r"guide: one of shape \(3,\) is not allowed, allowed: \(2,\)"
    ):
        sample(strong, Heun(4), 4, 0, guidance=2.0, guide=model(1, 3, 3))
    with pytest.raises(ValueError, match=r"guide: .* is not allowed, allowed: a Denoiser"):
        sample(strong, Heun(4), 4, 0, guidance=2.0, guide=by_hand)

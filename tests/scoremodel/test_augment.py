"""EDM's augmentations: what each does to an image, how often, and that a training is told of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scoremodel.denoiser import Denoiser
from scoremodel.io.checkpoint import Checkpoints, Stopped
from scoremodel.networks.base import build_network
from scoremodel.processes.vp import VP
from scoremodel.ranks import Ranks
from scoremodel.training.augment import _FILTER, NUMBERS, augmented, condition, draw
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import train
from tests.scoremodel.test_checkpoint import stop_after
from tests.scoremodel.test_ranks import together
from tests.scoremodel.test_training import NETWORK, digest, images

SIDE = 33


def one(**values: float) -> Tensor:
    """Return the parameters of one augmentation, a0 … a7 by name."""
    return torch.tensor([[values.get(f"a{index}", 0.0) for index in range(8)]])


def blob(x: float, y: float, wide: float, high: float, angle: float = 0.0) -> Tensor:
    """Return a Gaussian around (x, y), whose axes are turned by an angle from x to y."""
    ticks = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2
    rows, columns = torch.meshgrid(ticks - y, ticks - x, indexing="ij")
    along = math.cos(angle) * columns + math.sin(angle) * rows
    across = math.cos(angle) * rows - math.sin(angle) * columns
    return torch.exp(-((along / wide) ** 2 + (across / high) ** 2) / 2)[None, None]


def test_the_filter_is_orthonormal_with_six_vanishing_moments() -> None:
    h = torch.tensor(_FILTER, dtype=torch.float64)
    assert float(h.sum()) == pytest.approx(math.sqrt(2), rel=1e-14)
    for shift in range(6):
        product = float(h[2 * shift :] @ h[: 12 - 2 * shift])
        assert product == pytest.approx(float(shift == 0), abs=1e-11)
    k = torch.arange(12, dtype=torch.float64)
    moments = [float((-1) ** k * k**power @ h) for power in range(6)]
    assert moments == pytest.approx([0.0] * 6, abs=1e-8)


def test_mirroring_is_exact_and_moves_by_whole_pixels_nearly() -> None:
    x = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augmented(x, one()), x)
    assert torch.equal(augmented(x, one(a0=1)), x.flip(3))
    assert torch.equal(augmented(x, one(a1=1)), x.flip(2))
    assert torch.equal(augmented(x, one(a0=1, a1=1)), x.rot90(2, (2, 3)))
    for right, down in ((3, 0), (-5, 2), (0, -4)):
        found = augmented(x, one(a6=right / 24 * 8, a7=down / 16 * 8))
        inside = (
            slice(None),
            slice(None),
            slice(max(down, 0), 16 + min(down, 0)),
            slice(max(right, 0), 24 + min(right, 0)),
        )
        torch.testing.assert_close(
            found[inside], x.roll((down, right), (2, 3))[inside], rtol=0, atol=2e-5
        )


@pytest.mark.parametrize("angle", [0.3, -1.1, math.pi / 2, 2.5])
def test_smooth_images_are_scaled_turned_stretched_and_moved_as_the_formulae_say(
    angle: float,
) -> None:
    """A Gaussian's image is a Gaussian; what is reflected at the edges is far from it."""
    cos, sin = math.cos(angle), math.sin(angle)
    grown, moved = 2**0.1, 0.6 * SIDE / 8
    cases = (
        (blob(2, 1, 2.5, 3.5), one(a2=0.5), blob(2 * grown, grown, 2.5 * grown, 3.5 * grown)),
        (
            blob(2, 1, 2.5, 3.5),
            one(a3=angle),
            blob(2 * cos - sin, 2 * sin + cos, 2.5, 3.5, angle),
        ),
        (blob(0, 0, 3, 3), one(a4=angle, a5=0.5), blob(0, 0, 3 * grown, 3 / grown, angle)),
        # All together: turned after scaled, stretched after turned, moved at last.
        (
            blob(0, 0, 3, 3),
            one(a2=0.5, a3=1.0, a4=angle, a5=-0.5, a6=0.6),
            blob(moved, 0, 3, 3 * grown**2, angle),
        ),
    )
    for x, parameters, expected in cases:
        found = augmented(x, parameters)
        assert float((found - expected)[..., 5:-5, 5:-5].abs().max()) < 0.012
    quarter = augmented(blob(2, 1, 2.5, 3.5), one(a3=math.pi / 2))
    assert float((quarter - blob(2, 1, 2.5, 3.5).rot90(-1, (2, 3))).abs().max()) < 0.005


def test_each_is_made_as_often_as_asked_and_told_of_as_published() -> None:
    """Karras et al. 2022, arXiv:2206.00364, table 6; four standard errors of 20,000 draws."""
    stream = torch.Generator().manual_seed(0)
    a = draw(20_000, 0.12, stream)
    shares = (a != 0).double().mean(0).tolist()
    expected = [0.5, 0.06, *[0.12] * 6]
    for share, p in zip(shares, expected, strict=True):
        assert share == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 20_000))
    assert torch.equal(a[:, 4] != 0, a[:, 5] != 0)
    assert torch.equal(a[:, 6] != 0, a[:, 7] != 0)
    for column in (2, 5, 6, 7):
        assert float(a[a[:, column] != 0, column].std()) == pytest.approx(1, abs=0.06)
    for column in (3, 4):
        turned = a[a[:, column] != 0, column]
        assert float(turned.std()) == pytest.approx(math.pi / math.sqrt(3), rel=0.04)
    assert (draw(5000, 0.0, stream)[:, 1:] == 0).all()
    told = condition(one(a0=1, a2=0.3, a3=math.pi / 3, a4=math.pi / 6, a5=2, a6=0.5, a7=-0.25))
    assert told.tolist()[0] == pytest.approx(
        [1, 0, 0.3, -0.5, math.sqrt(3) / 2, math.sqrt(3), 1, 0.5, -0.25], rel=1e-6
    )
    assert condition(one()).tolist() == [[0.0] * NUMBERS]


class Told(nn.Module):
    """A U-Net that adds to the data what it is told."""

    def __init__(self, augmented: bool = True) -> None:
        super().__init__()
        self.augmented = augmented
        self.inner = build_network(NETWORK, (1, 8, 8))
        self.told = nn.Linear(NUMBERS, 64, bias=False)
        self.seen: list[Tensor] = []

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augmentation: Tensor | None = None,
    ) -> Tensor:
        f: Tensor = self.inner(x, c_noise)
        if augmentation is None:
            return f
        self.seen.append(augmentation)
        return f + self.told(augmentation).view(-1, 1, 8, 8)


def trained(config: TrainingConfig, network: Told, **options: Any) -> str:
    """Return the hash of a model that is trained, of which the network is told."""
    model = Denoiser(network, VP(), (1, 8, 8), [0.0], 0.6, 17)
    return digest(train(model, images(), config, 3, **options).denoiser)


def told(augmented: bool = True) -> Told:
    torch.manual_seed(0)
    return Told(augmented)


CONFIG = TrainingConfig(steps=6, batch_size=16, parts=4, log_every=3, augment=0.5)


def test_a_network_is_told_of_each_image_s_own_augmentation_and_nothing_when_it_samples() -> None:
    network = told()
    trained(CONFIG, network)
    seen = torch.cat(network.seen)
    assert seen.shape == (6 * 16, NUMBERS)
    assert len(seen.unique(dim=0)) > 60
    assert 0.3 < float((seen[:, 2] != 0).float().mean()) < 0.7
    assert float(network.told.weight.detach().abs().max()) > 0.1
    model = Denoiser(network, VP(), (1, 8, 8), [0.0], 0.6, 17).eval()
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.2, 0.8])
    plain = model(x, t).detach()
    zero = model.along(model.process, augmentation=torch.zeros(2, NUMBERS))(x, t)
    other = model.along(model.process, augmentation=torch.ones(2, NUMBERS))(x, t).detach()
    assert len(network.seen) == 6 * 4 + 2
    torch.testing.assert_close(zero, plain, rtol=0, atol=0)
    assert float((other - plain).abs().max()) > 1e-3


def test_stops_and_processes_change_no_bit_of_a_training_with_augmentations(
    tmp_path: Path,
) -> None:
    whole = trained(CONFIG, told())
    assert trained(TrainingConfig(steps=6, batch_size=16, parts=4, log_every=3), told()) != whole
    with stop_after(4, tmp_path / "state") as checkpoints, pytest.raises(Stopped):
        trained(CONFIG, told(), checkpoints=checkpoints)
    with Checkpoints(tmp_path / "state") as checkpoints:
        assert trained(CONFIG, told(), checkpoints=checkpoints) == whole

    def act(ranks: Ranks, _: Path) -> str:
        return trained(CONFIG, told(), ranks=ranks)

    assert together(2, tmp_path, act) == [whole] * 2


def test_what_a_network_is_not_told_of_is_refused() -> None:
    said = r"augment: 0\.5 is not allowed of a Told, allowed: None; it is not `augmented`"
    with pytest.raises(ValueError, match=said):
        trained(CONFIG, told(augmented=False))
    plane = Denoiser({"kind": "mlp"}, VP(), (2,), [0.0, 0.0], 1.0)
    with pytest.raises(
        ValueError, match=r"augment: 0\.5 is not allowed.*None of data with shape \(2"
    ):
        train(plane, torch.randn(9, 2), CONFIG, 0)
    with pytest.raises(ValueError, match=r"augment: 0\.5 is not allowed, allowed: None with flip"):
        TrainingConfig(steps=6, flip=True, augment=0.5)

"""Models of one's own module, process and data: made, trained, saved, loaded; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import scoremodel
from scoremodel.denoiser import Denoiser
from scoremodel.evaluation.distance import (
    frechet_distance,
    kernel_distance,
    real_floor,
    sliced_distance,
)
from scoremodel.evaluation.extractors.classifier import Classifier
from scoremodel.io.checkpoint import Checkpoints, Stopped
from scoremodel.io.denoisers import load, save
from scoremodel.likelihood import log_likelihood
from scoremodel.networks.base import NETWORKS, build_network
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.sampling import sample
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import train

SHORT = TrainingConfig(steps=4, batch_size=8, warmup_steps=0)


class Linear(nn.Module):
    """A network that knows no classes: a matrix, and the noise level added."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        out: Tensor = self.layer(x) + c_noise[:, None]
        return out


class Counting(nn.Module):
    """A network with all that a checkpoint could forget: running statistics, frozen and unused weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.layer = nn.BatchNorm1d(2), nn.Linear(2, 2)
        self.frozen = nn.Parameter(torch.full((2,), 0.1), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        out: Tensor = self.layer(self.norm(x)) * c_noise[:, None] + self.frozen
        return out


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def grey(count: int, *shape: int, levels: int = 17) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, levels, (count, *shape), generator=draw, dtype=torch.uint8)


def own(network: nn.Module | None = None, **options: Any) -> Denoiser:
    torch.manual_seed(0)
    network = Linear() if network is None else network
    return Denoiser(network, VP(), (2,), [0.3, -0.2], 0.6, **options)


def test_a_module_is_the_network_that_its_configuration_makes() -> None:
    config = {"kind": "mlp", "width": 8, "depth": 1}
    torch.manual_seed(0)
    named = Denoiser(config, VP(), (2,), [0.3, -0.2], 0.6, classes=3).eval()
    module = own(build_network(config, (2,), 3), classes=3).eval()
    nn.init.normal_(module.network.leave.weight)  # type: ignore[arg-type,union-attr]
    named.load_state_dict(module.state_dict())
    x, labels = random(4, 2), [0, 2, -1, 1]
    assert torch.equal(module(x, 0.3, labels), named(x, 0.3, labels))


def test_a_network_without_labels_predicts_f() -> None:
    """D = m + c_skip y + c_out F(c_in y, ln(r) / 4), with EDM's coefficients written out."""
    model, process = own(), VP()
    x, t = random(4, 2), torch.full((4,), 0.4)
    r = process.ratio(t)[:, None]
    y, s = x / process.alpha(t)[:, None] - torch.tensor([0.3, -0.2]), 0.6
    total = s**2 + r**2
    layer = model.network.inner.layer  # type: ignore[union-attr]
    f = layer(y / total.sqrt()) + r.log() / 4  # type: ignore[operator]
    expected = torch.tensor([0.3, -0.2]) + s**2 / total * y + s * r / total.sqrt() * f
    torch.testing.assert_close(model(x, t), expected)


def test_one_time_or_label_is_that_of_all_and_any_kind_of_numbers_will_do() -> None:
    config = {"kind": "mlp", "width": 8, "depth": 1}
    model = Denoiser(config, VP(), (2,), [0.0, 0.0], 1.0, classes=3, energy=True).eval()
    nn.init.normal_(model.network.inner.leave.weight)  # type: ignore[arg-type,union-attr]
    x, t, two = random(5, 2), torch.full((5,), 0.5), torch.full((5,), 2)
    for call in (model, model.score, model.energy):
        expected = call(x, t, two)
        for one in (0.5, torch.tensor(0.5), torch.tensor(0.5, dtype=torch.float64), [0.5] * 5):
            for label in (2, [2] * 5, np.full(5, 2), np.int64(2), torch.tensor(2)):
                assert torch.equal(call(x, one, label), expected)  # type: ignore[arg-type]
    assert torch.equal(model.along(VP(), 2, 3.0)(x, t), model.along(VP(), two, 3.0)(x, t))


@pytest.mark.parametrize("levels", [17, None])
@pytest.mark.parametrize("shape", [(3, 5, 4), (6,)])
def test_for_data_takes_shape_mean_and_deviation_from_them(
    levels: int | None, shape: tuple[int, ...]
) -> None:
    data = grey(5000, *shape) if levels else 3 + 2 * random(5000, *shape)
    x = data.double().numpy() / 8 - 1 if levels else data.double().numpy()
    axes = (0, 2, 3) if len(shape) == 3 else (0,)
    centred = x - x.mean(axes, keepdims=True)
    network = {"kind": "unet", "width": 4} if len(shape) == 3 else Linear(6)
    for given in (data, data.numpy()):
        model = Denoiser.for_data(given, network, VE(), levels=levels, preconditioning="noise")
        assert (model.shape, model.levels, model.preconditioning) == (shape, levels, "noise")
        torch.testing.assert_close(model.data_mean.flatten(), torch.tensor(x.mean(axes)).float())
        assert model.std == pytest.approx(np.sqrt(np.square(centred).mean()), rel=1e-12)


def test_a_module_of_one_s_own_is_saved_and_given_to_load(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    trained = train(own(), random(64, 2).numpy(), SHORT, 0)
    save(trained.averaged, path, {"of": "mine"})
    with pytest.raises(
        ValueError, match=r"network 'Linear', which is registered nowhere.*network=…"
    ):
        load(path)
    with pytest.raises(
        ValueError, match=r"does not hold the weights of such a Linear: size mismatch"
    ):
        load(path, network=Linear(3))
    with pytest.raises(ValueError, match=r"weights of such a Counting: Missing key"):
        load(path, network=Counting())
    again = load(path, network=Linear())
    assert again.info == {"of": "mine"}
    x = random(4, 2)
    assert torch.equal(again.score(x, 0.3), trained.denoiser.score(x, 0.3))
    assert torch.equal(sample(again, Heun(3), 4, 0).x, sample(trained.denoiser, Heun(3), 4, 0).x)


def test_a_network_registered_elsewhere_is_loaded_once_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(NETWORKS, "_known", dict(NETWORKS._known))

        @NETWORKS.register("line", dimensions=1)
        class Line(Linear):
            def __init__(self, features: int, classes: int | None = None) -> None:
                super().__init__(features)

            def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
                return super().forward(x, c_noise)

        model = Denoiser({"kind": "line"}, VP(), (2,), [0.0, 0.0], 1.0)
        save(model, path)
        assert torch.equal(load(path)(random(3, 2), 0.5), model(random(3, 2), 0.5))
    with pytest.raises(ValueError, match=r"network 'line', which is registered nowhere"):
        load(path)
    assert torch.equal(load(path, network=Line(2))(random(3, 2), 0.5), model(random(3, 2), 0.5))


def test_a_training_of_any_module_goes_on_from_its_checkpoint_to_the_same_bits(
    tmp_path: Path,
) -> None:
    """Running statistics are the average's own too, or it would be in evaluation mode without any."""
    whole = train(own(Counting()), random(64, 2), SHORT, 0).denoiser
    asked = iter([False, True])
    with Checkpoints(tmp_path / "state", stop=lambda: next(asked)) as kept, pytest.raises(Stopped):
        train(own(Counting()), random(64, 2), SHORT, 0, checkpoints=kept)
    with Checkpoints(tmp_path / "state") as kept:
        resumed = train(own(Counting()), random(64, 2), SHORT, 0, checkpoints=kept).denoiser
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert int(whole.network.norm.num_batches_tracked) == SHORT.steps  # type: ignore[union-attr,arg-type]
    assert float(whole.network.frozen[0]) == pytest.approx(0.1)  # type: ignore[index]


@dataclass(frozen=True)
class Cubic(SDE):
    """A process of one's own, by f and g, which is registered nowhere."""

    def f(self, t: Tensor) -> Tensor:
        return -6 * t**2

    def g(self, t: Tensor) -> Tensor:
        return (12 * t**2).sqrt()


def test_a_model_of_one_s_own_process_is_trained_saved_and_loaded(tmp_path: Path) -> None:
    model = Denoiser(Linear(), Cubic(), (2,), [0.0, 0.0], 1.0)
    trained = train(model, random(64, 2), SHORT, 0).denoiser
    save(trained, tmp_path / "own.safetensors")
    again = load(tmp_path / "own.safetensors", network=Linear(), process=Cubic())
    assert torch.equal(again(random(3, 2), 0.5), trained(random(3, 2), 0.5))


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (28, 31)])
def test_double_precision_and_odd_sizes_from_training_to_likelihood(
    size: tuple[int, int], tmp_path: Path
) -> None:
    pixels = grey(12, 1, *size)
    network = {"kind": "unet", "width": 4, "multipliers": [1, 1, 2], "attention_levels": [2]}
    torch.manual_seed(0)
    single = Denoiser.for_data(pixels, network, VP(), levels=17)
    torch.manual_seed(0)
    double = Denoiser.for_data(pixels, network, VP(), levels=17).double()
    config = TrainingConfig(steps=2, batch_size=4, warmup_steps=0, precision="float32")
    models = [train(one, pixels, config, 0).denoiser for one in (single, double)]
    path = tmp_path / "double.safetensors"
    save(models[1], path)
    x = random(3, 1, *size).double()
    assert models[1](x, 0.4).dtype == torch.float64
    assert torch.equal(load(path)(x, 0.4), models[1](x, 0.4))
    # The same data, times and noise: two roundings of one training.
    torch.testing.assert_close(models[0](x, 0.4).double(), models[1](x, 0.4), rtol=0, atol=1e-4)
    drawn = sample(models[1], Heun(2), 3, 0).x
    assert (drawn.dtype, tuple(drawn.shape[1:])) == (torch.float64, (1, *size))
    found = [
        log_likelihood(one, x.to(one.data_mean), probes=1, rtol=1e-2, atol=1e-2).log_prob
        for one in models
    ]
    torch.testing.assert_close(found[0].double(), found[1].double(), rtol=1e-3, atol=0.05)


class Returns(nn.Module):
    """A network that returns whatever it is told to."""

    def __init__(self, what: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.what = what

    def forward(self, x: Tensor, c_noise: Tensor) -> Any:
        return self.what(x)


class Bare(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


CLASSES = {"kind": "mlp", "width": 4, "depth": 1}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Denoiser(3, VP(), (2,), [0.0, 0.0], 1.0), r"network: 3 is not allowed, allowed: a module"),
        (lambda: own(VP), "network: <class 'scoremodel.processes.vp.VP'> is not allowed"),
        (lambda: Denoiser(Linear(), VP, (2,), [0.0, 0.0], 1.0), r"process: <class .* such as VP\(\)"),
        (lambda: Denoiser(Linear(), VP(), 2, [0.0, 0.0], 1.0), r"shape: 2 is not allowed, allowed: that"),
        (lambda: Denoiser(Linear(), VP(), (2,), 0.0, 1.0), r"mean: 0\.0 is not allowed"),
        (lambda: Denoiser(Linear(), VP(), (2,), [0.0, "a"], 1.0), r"mean: \[0\.0, 'a'\] is not allowed"),
        (lambda: Denoiser(Linear(), VP(), (2,), [0.0, 0.0], "a"), r"std: \['a'\] is not allowed"),
        (lambda: own(Bare()), r"network Bare: forward\(x: .*allowed: forward\(x, c_noise, labels\) or"),
        (lambda: own(classes=3), r"forward\(x, c_noise, labels\), which a model of 3 classes needs"),
        (lambda: own({"kind": "mine"}), r"unknown network 'mine', allowed: .*mlp.*is imported before"),
        (lambda: own(Returns(lambda x: x[:, :1]))(random(4, 2), 0.5), r"shape \(4, 1\) for data of shape"),
        (lambda: own(Returns(lambda x: x[:1]))(random(4, 2), 0.5), r"shape \(1, 2\) for data of shape \(4"),
        (lambda: own(Returns(lambda x: (x,)))(random(4, 2), 0.5), r"returned a tuple for data"),
        (lambda: sample(own(Returns(lambda x: x[0, 0])), Heun(2), 3, 0), r"returned shape \(\) for data"),
        (lambda: own()(grey(4, 2), 0.5), r"x_t: torch\.uint8 is not allowed, .* to_unit"),
        (lambda: own()([[0.0, 0.0]], 0.5), r"x_t: \[\[0\.0, 0\.0\]\] is not allowed"),
        (lambda: own()(random(4, 2), "now"), r"times t: 'now' is not allowed"),
        (lambda: own()(random(4, 2), 1.5), r"times must be in \[0, 1\], got 1\.5"),
        (lambda: own(CLASSES, classes=3).score(random(4, 2), 0.5, "cat"), r"labels: 'cat' is not allowed"),
        (lambda: own(CLASSES, classes=3).score(random(4, 2), 0.5, [0.5] * 4), r"labels: \[0\.5.* class num"),
        (lambda: own(CLASSES, classes=3).score(random(4, 2), 0.5, [1, 2]), r"need labels of shape \(4,\)"),
        (lambda: Denoiser.for_data(grey(9, 2), Linear(), VP()), r"uint8 without levels .*levels=256 for"),
        (lambda: Denoiser.for_data(random(9, 2), Linear(), VP(), levels=17), r"float32 with levels=17"),
        (lambda: Denoiser.for_data(grey(9, 2), Linear(), VP(), levels=4), r"data from 0 to 16 .* 0 … 3"),
        (lambda: Denoiser.for_data(random(0, 2), Linear(), VP()), r"data of shape \(0, 2\)"),
        (lambda: Denoiser.for_data("x", Linear(), VP()), r"data: 'x' is not allowed"),
        (lambda: Denoiser.for_data(random(9, 2) / 0, Linear(), VP()), r"allowed: finite values"),
        (lambda: Denoiser.for_data(torch.ones(9, 2), Linear(), VP()), r"std: 0\.0 is not allowed"),
        (lambda: train(Linear(), random(9, 2), SHORT, 0), r"train: denoiser: Linear\(.* of type Denoiser"),
        (lambda: train(own(), random(9, 2), {"steps": 2}, 0), r"train: config: \{.*of type TrainingConfig"),
        (lambda: train(own(), random(9, 2), SHORT, 0.5), r"train: seed: 0\.5 is not allowed"),
        (lambda: train(own(), "x", SHORT, 0), r"data: 'x' is not allowed"),
        (lambda: train(own(), random(0, 2), SHORT, 0), r"data of shape \(0, 2\) are not allowed"),
        (lambda: train(own(levels=17), random(9, 2), SHORT, 0), r"float32 with levels=17 is not allowed"),
        (lambda: train(own().requires_grad_(False), random(9, 2), SHORT, 0), r"weights .* are frozen"),
        (lambda: train(own(CLASSES, classes=3), random(9, 2), SHORT, 0, labels="x"), r"labels of shape \(\)"),
        (lambda: scoremodel.show(random(4, 2)), r"images of shape \(4, 2\) are not allowed"),
        (lambda: scoremodel.show(grey(4, 1, 2, 2), levels=4), r"grey levels 0 … 16 are not allowed"),
        (lambda: scoremodel.show(grey(4, 1, 2, 2), 0), r"columns: 0 is not allowed"),
        (lambda: frechet_distance("x", random(9, 2)), r"the first set of features: no numbers"),
        (lambda: sliced_distance(random(9, 2), None, 0), r"the second set of features: no numbers"),
        (lambda: kernel_distance(random(9), random(9, 2)), r"shape \(9,\) is not allowed"),
    ],
)  # fmt: skip
def test_what_does_not_fit_gets_one_line(call: Callable[[], object], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words) as found:
        call()
    assert "\n" not in str(found.value)


def test_distances_take_tensors_as_they_take_arrays() -> None:
    a, b = random(60, 3).requires_grad_(), 1 + random(60, 3, seed=1)
    x, y = a.detach().numpy(), b.numpy()
    assert frechet_distance(a, b) == frechet_distance(x, y)
    assert frechet_distance(x.tolist(), y) == pytest.approx(frechet_distance(x, y))
    assert kernel_distance(a, b) == kernel_distance(x, y)
    assert sliced_distance(a, b, 0) == sliced_distance(x, y, 0)
    assert real_floor(b, b, 20, 0) == real_floor(y, y, 20, 0)


def test_an_extractor_says_that_it_wants_grey_levels() -> None:
    extractor = Classifier((1, 8, 8), 17, 10)
    levels = grey(4, 1, 8, 8)
    x = scoremodel.to_unit(levels, 17)
    with pytest.raises(
        ValueError, match=r"torch\.float32 of shape .* such as scoremodel\.quantise\(x, 17\)"
    ):
        extractor.features(x)
    with pytest.raises(ValueError, match=r"grey level 16 is not allowed, allowed: 0 … 15"):
        Classifier((1, 8, 8), 16, 10).features(levels)
    assert torch.equal(extractor.features(scoremodel.quantise(x, 17)), extractor.features(levels))


def test_a_grid_has_each_image_in_its_place(tmp_path: Path) -> None:
    """Each pixel a square of one colour, images row by row, and what is beyond [−1, 1] at its end."""
    x = torch.linspace(-1.5, 1.5, 5 * 4).view(5, 1, 2, 2)
    picture = np.asarray(scoremodel.show(x, columns=3))
    scale = picture.shape[1] // 9
    small = picture[::scale, ::scale]
    assert np.array_equal(np.kron(small, np.ones((scale, scale))), picture)
    expected = ((x.clamp(-1, 1) + 1) * 127.5).round().numpy()
    for number, image in enumerate(expected):
        row, column = divmod(number, 3)
        assert np.array_equal(small[3 * row : 3 * row + 2, 3 * column : 3 * column + 2], image[0])
    scoremodel.save_grid(tmp_path / "x.png", x, columns=3)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), picture)
    colours = grey(4, 3, 2, 2, levels=256)
    assert np.asarray(scoremodel.show(colours))[0, 0].tolist() == colours[0, :, 0, 0].tolist()
    assert np.asarray(scoremodel.show(colours[0], levels=256)).shape[2] == 3
    with pytest.raises(ValueError, match=r"ending '.txt' is not allowed"):
        scoremodel.save_grid(tmp_path / "x.txt", x)


def test_the_top_lists_its_names_and_no_function_shadows_a_class() -> None:
    public = {name for name in dir(scoremodel) if not name.startswith("_")}
    assert set(scoremodel.__all__) - {"__version__"} <= public
    assert scoremodel.__version__ == "0.1.0"
    assert not hasattr(scoremodel, "langevin")
    assert len({name.lower() for name in scoremodel.__all__}) == len(scoremodel.__all__)
    assert {"Heun", "TIMES"} <= {*dir(scoremodel.samplers), *dir(scoremodel.training.times)}

"""What holds of every kind in the registries, so that a new kind is tested without being listed."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
from torch import Tensor

from scoremodel.bounds import Bounds, Positive
from scoremodel.denoiser import Denoiser
from scoremodel.io.denoisers import load, save
from scoremodel.io.weights import read_weights, write_weights
from scoremodel.networks.base import NETWORKS, build_network
from scoremodel.processes.base import PROCESSES, Process, process_from_config
from scoremodel.processes.chain import Chain
from scoremodel.processes.sde import SDE
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP
from scoremodel.registry import Registry
from scoremodel.samplers.base import SAMPLERS
from scoremodel.samplers.grid import time_grid
from scoremodel.training.config import TrainingConfig
from scoremodel.training.times.base import TIMES

REGISTRIES: list[Registry[Any]] = [PROCESSES, NETWORKS, TIMES, SAMPLERS]
KINDS = [pytest.param(one[kind], id=f"{one.what}-{kind}") for one in REGISTRIES for kind in one]
MLP = {"kind": "mlp", "width": 8, "depth": 1}
SMALL = {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention_resolutions": [4]}
PUBLISHED: dict[str, dict[str, Any]] = {
    "adm": {**SMALL, "head_channels": 4},
    "ddpmpp": SMALL,
    "edm2": {**SMALL, "head_channels": 4},
    "ncsnpp": SMALL,
    "diffusers_unet2d": {
        "block_out_channels": [8, 8],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "norm_num_groups": 4,
    },
}
"""By default large, and for even sides only."""


@pytest.mark.parametrize("kind", PROCESSES)
def test_every_process_is_made_again_from_its_config(kind: str) -> None:
    process = PROCESSES.make(kind)
    changed = [dataclasses.replace(process, t_min=2e-3)] if isinstance(process, SDE) else []
    for one in (process, *changed):
        config = json.loads(json.dumps(one.config()))
        assert process_from_config(config) == one
        assert config["kind"] == kind
    old = {key: value for key, value in process.config().items() if key != "t_min"}
    assert process_from_config(old) == process


@pytest.mark.parametrize("kind", PROCESSES)
def test_every_process_has_more_noise_at_every_time_and_finds_its_times(kind: str) -> None:
    process = PROCESSES.make(kind)
    t = process.uniform_grid(60)
    assert t[[0, -1]].tolist() == pytest.approx([1, process.t_min], rel=1e-9)
    ratio = process.ratio(t)
    assert bool((ratio.diff() < 0).all())
    torch.testing.assert_close(process.t_of_ratio(ratio), t, rtol=1e-9, atol=1e-12)
    u = torch.linspace(0, 0.999, 7)
    quantiles = process.time_of_quantile(u)
    assert bool(((quantiles >= process.t_min - 1e-9) & (quantiles <= 1)).all())
    end = process.sigma(torch.ones((), dtype=torch.float64))
    assert process.prior_std() == pytest.approx(float(end), rel=0.01)
    assert float(process.alpha(t)[0]) == (
        1 if process.prior_keeps_mean else pytest.approx(0, abs=0.02)
    )
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match=r"times must be in \[0, 1\]"):
            process.sigma(torch.tensor(wrong))


@pytest.mark.parametrize("kind", PROCESSES)
def test_every_process_s_kernel_and_coefficients_say_the_same(kind: str) -> None:
    """From the kernel by differentiation, and from f and g by quadrature; a chain has the first only."""
    process = PROCESSES.make(kind)
    if isinstance(process, Chain):
        return
    t = torch.linspace(0.01, 0.95, 50, dtype=torch.float64)
    torch.testing.assert_close(SDE.f(process, t), process.f(t), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(SDE.g(process, t), process.g(t), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(SDE.alpha(process, t), process.alpha(t), rtol=1e-6, atol=0)
    start = float(process.sigma(torch.zeros((), dtype=torch.float64)))  # VE begins at sigma_min
    grown = (SDE.sigma(process, t) ** 2 + (start * process.alpha(t)) ** 2).sqrt()
    torch.testing.assert_close(grown, process.sigma(t), rtol=1e-6, atol=0)


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_network_keeps_its_input_s_shape_and_heeds_noise_and_class(
    kind: str, classes: int | None
) -> None:
    shape = (2, 7, 5)[: NETWORKS[kind].dimensions]
    if kind == "diffusers_unet2d":
        pytest.importorskip("diffusers")
    if kind in PUBLISHED:
        shape = (2, 8, 4)
    config = {"kind": kind, **PUBLISHED.get(kind, {})}
    network = build_network(config, shape, classes)
    draw = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=draw)
    x = torch.randn(4, *shape, generator=draw)
    noise, labels = torch.linspace(-1, 1, 4), torch.tensor([0, 1, 2, -1])
    out = network(x, noise)
    assert out.shape == x.shape
    assert not torch.equal(network(x, noise + 0.1), out)
    if classes is not None:
        shown = network(x, noise, labels)
        same = [torch.allclose(a, b) for a, b in zip(shown, out, strict=True)]
        assert same == [False, False, False, True]
    with pytest.raises(ValueError, match=f"network {kind!r} does not fit data of shape"):
        build_network(config, (*shape, 2))
    with pytest.raises(ValueError, match="unexpected keyword argument 'nonsense'"):
        build_network({**config, "nonsense": 1}, shape)


@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.parametrize("process", [VE(), VP()], ids=str)
def test_every_distribution_of_times_stays_in_the_process_and_repeats(
    kind: str, process: Process
) -> None:
    times = TIMES.make(kind, **({"ratio": 0.3} if kind == "single" else {}))
    t, factor = times.draw(500, process, torch.Generator().manual_seed(0))
    again, _ = times.draw(500, process, torch.Generator().manual_seed(0))
    assert torch.equal(t, again)
    assert t.shape == factor.shape == (500,)
    assert bool(((t >= process.t_min) & (t <= 1)).all())
    assert bool((factor > 0).all())


def annotated(kind: Any) -> dict[str, Any]:
    """Return the parameters of a kind, which are fields or arguments, with their annotations."""
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    hints = get_type_hints(kind.__init__, include_extras=True)
    # A network's first argument is the data's first dimension, which nobody chooses.
    return {name: hints[name] for name in list(hints)[1:] if name != "return"}


def bounded(annotation: Any) -> bool:
    return any(isinstance(one, Bounds) for one in getattr(annotation, "__metadata__", ())) or any(
        bounded(one) for one in getattr(annotation, "__args__", ())
    )


@pytest.mark.parametrize("kind", [*KINDS, TrainingConfig])
def test_every_parameter_of_every_kind_is_described_and_every_number_bounded(kind: Any) -> None:
    pages = "\n".join(base.__doc__ or "" for base in kind.__mro__)
    for name, annotation in annotated(kind).items():
        assert re.search(rf"^ {{8}}(\*\*)?{name}: ", pages, re.MULTILINE), name
        text = str(annotation)
        if ("float" in text or "int" in text) and "Literal" not in text:
            assert bounded(annotation), name


def test_what_serves_every_kind_imports_none_of_them() -> None:
    """Or a result would depend on the files of kinds that it never used."""
    homes = sorted({home for registry in REGISTRIES for home in registry.homes.values()})
    line = (
        "import sys, scoremodel.samplers.sampling, scoremodel.training.loop, scoremodel.io.denoisers; "
        f"print(*(set({homes!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.fixture
def own() -> Iterator[type[SDE]]:
    """Return a process as a user would write it: by drift and diffusion, with a parameter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PROCESSES, "_known", dict(PROCESSES._known))

        @PROCESSES.register("steady")
        @dataclass(frozen=True)
        class Steady(SDE):
            """f = −β / 2, g = sqrt(β).

            Args:
                beta: β.
            """

            beta: Positive = 8.0

            def f(self, t: Tensor) -> Tensor:
                return torch.full_like(t, -self.beta / 2)

            def g(self, t: Tensor) -> Tensor:
                return torch.full_like(t, self.beta**0.5)

        yield Steady


def test_a_model_of_a_process_of_one_s_own_is_saved_and_loaded(
    own: type[SDE], tmp_path: Path
) -> None:
    process = own(beta=9.0, t_min=0.01)  # type: ignore[call-arg]
    model = Denoiser(MLP, process, (2,), [0.0, 0.0], 1.0).eval()
    save(model, tmp_path / "own.safetensors")
    again = load(tmp_path / "own.safetensors")
    assert again.process == process
    x, t = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.full((4,), 0.3)
    assert torch.equal(again(x, t), model(x, t))
    with pytest.raises(ValueError, match=r"steady: beta: -1\.0 is not allowed"):
        own(beta=-1.0)  # type: ignore[call-arg]


@pytest.mark.usefixtures("own")
def test_a_model_of_a_process_that_no_configuration_makes_is_loaded_with_it(tmp_path: Path) -> None:
    class Unregistered(VE):
        """VE with another name."""

    @dataclass(frozen=True)
    class Changed(VP):
        """VP that says of itself to be VP."""

    Changed.kind = "vp"

    @PROCESSES.register("plain")
    class Plain(SDE):
        """A process whose parameter no dataclass knows."""

        def __init__(self, rate: float) -> None:
            object.__setattr__(self, "rate", rate)

        def f(self, t: Tensor) -> Tensor:
            return -self.rate * t  # type: ignore[attr-defined,no-any-return]

        def g(self, t: Tensor) -> Tensor:
            return torch.ones_like(t)

    path = tmp_path / "own.safetensors"
    for process in (Unregistered(), Changed(), Plain(2.0)):
        name = type(process).__name__
        model = Denoiser(MLP, process, (2,), [0.0, 0.0], 1.0).eval()
        save(model, path)
        with pytest.raises(ValueError, match=rf"{name}', which is registered nowhere, .*process=…"):
            load(path)
        with pytest.raises(ValueError, match=r"holds a model of another process than VE"):
            load(path, process=VE(0.02, 99.0))
        again = load(path, process=process)
        assert again.process is process
        x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
        assert torch.equal(again(x, 0.3), model(x, 0.3))
        assert time_grid(process, 3, "uniform")[0] == 1


def test_weights_that_were_saved_without_t_min_still_load(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save(Denoiser(MLP, VE(), (2,), [0.0, 0.0], 1.0), path)
    tensors, stored = read_weights(path)
    assert stored["config"]["sde"].pop("t_min") == 1e-5
    write_weights(path, tensors, stored)
    assert load(path).process == VE()

"""Models of diffusers' under our samplers, held to diffusers' own pipelines; and ours under theirs.

Networks have random weights: what must agree is what they are asked, and what is made of their
answers. All is in double precision but the embedding of the time, which diffusers always rounds.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from scoremodel.denoiser import Denoiser
from scoremodel.io.denoisers import load, save
from scoremodel.io.diffusers import network_of, read_folder, write_folder
from scoremodel.likelihood import log_likelihood
from scoremodel.networks.diffusers_unet2d import DiffusersUNet2D, wrapping
from scoremodel.parametrisation import convert
from scoremodel.processes.base import Process
from scoremodel.processes.ddpm import DDPM
from scoremodel.processes.ncsn import NCSN
from scoremodel.processes.ve import VE
from scoremodel.rng import random_uniform
from scoremodel.samplers.base import Sampler
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.probability_flow import Euler
from scoremodel.samplers.reverse_sde import DDIM, Ancestral, ReverseDiffusion
from scoremodel.samplers.sampling import sample
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import train

pytestmark = pytest.mark.parity
diffusers = pytest.importorskip("diffusers")

SMALL = {
    "sample_size": 8,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
}
FOURIER = {**SMALL, "time_embedding_type": "fourier"}
CHAIN = tuple((1000 - 50 * index) / 1000 for index in range(20))
TRAILING = {"timestep_spacing": "trailing", "clip_sample": False}


def noise(seed: int = 0) -> Iterator[Tensor]:
    """Yield noise for two images without end."""
    draw = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(2, 3, 8, 8, generator=draw, dtype=torch.float64)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let diffusers compute its schedules in double precision, by its own code."""

    class Double:
        float32 = torch.float64

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    for name in ("ddpm", "ddim", "edm_euler", "sde_ve"):
        module = pytest.importorskip(f"diffusers.schedulers.scheduling_{name}")
        monkeypatch.setattr(module, "torch", Double())
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def published(
    folder: Path, scheduler: str, unet: dict[str, Any] = SMALL, **options: Any
) -> tuple[Path, str]:
    """Write a folder with a random network as diffusers does; return it, and its weights' checksum."""
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(**unet).float()
    for weight in model.parameters():  # so that no part of it is nearly nothing
        torch.nn.init.normal_(weight, std=0.3) if weight.ndim == 1 else None
    model.save_pretrained(folder / "unet")
    getattr(diffusers, scheduler)(**options).save_pretrained(folder / "scheduler")
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    return folder, hashlib.sha256(weights.read_bytes()).hexdigest()


def pipeline_of(name: str, folder: Path) -> Any:
    """Return one of diffusers' pipelines, of a folder's own files."""
    unet = diffusers.UNet2DModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False).double()
    config = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    pipeline = getattr(diffusers, name)(unet=unet, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def theirs(pipeline: Any, given: Iterator[Tensor], step: str = "step", **call: Any) -> list[Tensor]:
    """Return the pipeline's first state and that after each step, on the noise given."""
    states: list[Tensor] = []
    own = getattr(pipeline.scheduler, step)

    def recorded(output: Tensor, t: Any, state: Tensor, *args: Any, **options: Any) -> Any:
        states.append(state) if not states else None
        result = own(output, t, state, *args, **options)
        states.append(result[0])
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.scheduler, step, recorded)
        for module in {type(pipeline).__module__, type(pipeline.scheduler).__module__}:
            draw = lambda *_, **__: next(given)  # noqa: E731
            patch.setattr(f"{module}.randn_tensor", draw, raising=False)
        pipeline(batch_size=2, output_type="pt", **call)
    return states


def ours(
    denoiser: Denoiser, sampler: Sampler, process: Process, x: Tensor, given: Iterator[Tensor]
) -> list[Tensor]:
    """Return our state after each step, from x, on the noise given."""
    denoise = denoiser.along(process)

    def call(x: Tensor, t: float) -> Tensor:
        return denoise(x, torch.full((len(x),), t, dtype=torch.float64))

    with torch.no_grad():
        states = sampler.states(sampler.plan(process), x, call, given.__next__)
        return [state.clone() for state in states]


def karras(process: Process) -> tuple[float, ...]:
    """Return the times of EDM's 18 levels from 80 to 0.002 itself, where our own grid stops 1e-8 above."""
    ramp = torch.linspace(0, 1, 18, dtype=torch.float64)
    sigma = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    inner = process.t_of_ratio(sigma).tolist()[1:-1]
    return (1.0, *inner, 1e-14)


def assert_same(mine: list[Tensor], other: list[Tensor]) -> None:
    """Compare states to nine digits."""
    assert len(mine) == len(other)
    for here, there in zip(mine, other, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    ("scheduler", "pipeline", "sampler"),
    [("DDPMScheduler", "DDPMPipeline", Ancestral), ("DDIMScheduler", "DDIMPipeline", DDIM)],
)
def test_ddpm_s_chain_step_by_step(
    scheduler: str, pipeline: str, sampler: type[Sampler], predicts: str, tmp_path: Path
) -> None:
    folder, _ = published(tmp_path, scheduler, **TRAILING, prediction_type=predicts)
    other = theirs(pipeline_of(pipeline, folder), noise(), num_inference_steps=20)
    given = noise()
    mine = ours(read_folder(folder).double(), sampler(20, grid=CHAIN), DDPM(), next(given), given)
    assert torch.equal(other[0], next(noise()))
    # On their last step they add noise of size 1e-10.
    assert_same(mine, other[1:])


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_edm_step_by_step(predicts: str, tmp_path: Path) -> None:
    folder, _ = published(tmp_path, "EDMEulerScheduler", prediction_type=predicts, sigma_data=0.7)
    denoiser = read_folder(folder).double()
    pipeline = pipeline_of("ConsistencyModelPipeline", folder)
    other = theirs(pipeline, noise(), num_inference_steps=18)
    mine = ours(
        denoiser, Euler(18, grid=karras(denoiser.process)), denoiser.process, other[0], noise()
    )
    assert denoiser.std == 0.7
    assert_same(mine, other[1:])


@pytest.mark.usefixtures("double")
def test_song_s_ve_step_by_step(tmp_path: Path) -> None:
    # Times an ε apart from the levels would ask the network for other noise levels than they name.
    options = {"sampling_eps": 1e-12, "correct_steps": 0}
    folder, _ = published(tmp_path, "ScoreSdeVeScheduler", FOURIER, **options)
    pipeline = pipeline_of("ScoreSdeVePipeline", folder)
    other = theirs(pipeline, noise(), "step_pred", num_inference_steps=50)
    given = noise()
    next(given)
    ladder = NCSN(0.02, 2696.0, 50)
    sampler = ReverseDiffusion(49, grid="uniform")
    mine = ours(read_folder(folder).double(), sampler, ladder, 2 * other[0] - 1, given)
    # Ours leaves the last step's noise out, theirs goes one step on.
    assert_same([(x + 1) / 2 for x in mine[:-1]], other[1:-2])


@pytest.mark.usefixtures("double")
def test_our_score_under_song_s_predictor_and_corrector(tmp_path: Path) -> None:
    folder, _ = published(tmp_path, "ScoreSdeVeScheduler", FOURIER, correct_steps=2)
    pipeline = pipeline_of("ScoreSdeVePipeline", folder)
    other = theirs(pipeline, noise(), "step_pred", num_inference_steps=30)
    denoiser, config = read_folder(folder).double(), pipeline.unet.config

    class Score(torch.nn.Module):
        """The score of images in [0, 1], as their scheduler asks for it."""

        device, dtype = torch.device("cpu"), torch.float64

        def __init__(self) -> None:
            super().__init__()
            self.config = config

        def forward(self, x: Tensor, sigma: Tensor) -> Any:
            t = denoiser.process.t_of_ratio(2 * sigma)
            said = denoiser(2 * x - 1, t)
            score = convert(said, 2 * x - 1, t, denoiser.process, "denoised", "score")
            return SimpleNamespace(sample=2 * score)

    scheduler = diffusers.ScoreSdeVeScheduler.from_config(pipeline.scheduler.config)
    again = diffusers.ScoreSdeVePipeline(unet=pipeline.unet, scheduler=scheduler)
    again.set_progress_bar_config(disable=True)
    again.unet = Score()
    assert_same(theirs(again, noise(), "step_pred", num_inference_steps=30), other)


def test_between_levels_the_time_is_linear_in_the_logarithm_of_the_noise(tmp_path: Path) -> None:
    folder, _ = published(tmp_path, "DDPMScheduler")
    network = read_folder(folder).network
    times = torch.arange(1, 1001, dtype=torch.float64) / 1000
    ladder = DDPM().ratio(times).log()
    for dtype in (torch.float32, torch.float64):
        asked = network._level(4 * (ladder / 4).to(dtype))
        assert torch.equal(asked, torch.arange(1000, dtype=dtype))
    middle = (ladder[1:] + ladder[:-1]) / 2
    torch.testing.assert_close(
        network._level(middle), torch.arange(999) + 0.5, rtol=0, atol=1e-6, check_dtype=False
    )
    assert network._level(torch.tensor([-20.0, 20.0])).tolist() == [0.0, 999.0]


def test_a_likelihood_is_the_ode_s_of_the_network_itself(tmp_path: Path) -> None:
    from scipy.integrate import solve_ivp

    tiny = {**SMALL, "in_channels": 1, "out_channels": 1, "sample_size": 4}
    folder, _ = published(tmp_path, "DDPMScheduler", tiny)
    denoiser = read_folder(folder).double()
    unet = diffusers.UNet2DModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False).double()
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(1, 1, 4, 4, generator=draw, dtype=torch.float64) / 2
    found = log_likelihood(denoiser, x, probes=1, seed=3, rtol=1e-4, atol=1e-4)

    signs = 2.0 * (random_uniform(3, "probe", range(1), (1, 16))[0] < 0.5).double() - 1
    betas = np.linspace(1e-4, 0.02, 1000)
    kept = np.cumprod(1 - betas)
    ladder = 0.5 * np.log(1 / kept - 1)

    def rate(log_r: float, state: np.ndarray) -> np.ndarray:
        r = math.exp(log_r)
        y = torch.from_numpy(state[:16].reshape(1, 1, 4, 4)).requires_grad_(True)
        level = torch.tensor([float(np.interp(log_r, ladder, np.arange(1000)))])
        said = y - r * unet(y / math.sqrt(1 + r**2), level).sample
        traces = [
            torch.autograd.grad(said.flatten() @ one, y, retain_graph=True)[0].flatten() @ one
            for one in signs
        ]
        return np.concatenate([(y - said).detach().flatten(), [16 - float(one) for one in traces]])

    def ratio(t: float) -> float:
        integral = 0.1 * t + 0.5 * 19.9 * t**2
        return math.sqrt(math.expm1(integral))

    ends = math.log(ratio(1e-3)), math.log(ratio(1.0))
    alpha = math.exp(-0.5 * (0.1e-3 + 0.5 * 19.9e-6))
    start = np.concatenate([x.flatten().numpy() / alpha, [0.0]])
    end = solve_ivp(rate, ends, start, rtol=1e-4, atol=1e-4).y[:, -1]
    std = math.sqrt(1 + ratio(1.0) ** 2)  # of y at t = 1, where x has the standard deviation 1
    prior = -0.5 * np.sum((end[:16] / std) ** 2) - 16 * math.log(std * math.sqrt(2 * math.pi))
    expected = prior + end[16:].mean() - 16 * math.log(alpha)
    assert float(found.log_prob) == pytest.approx(expected, abs=0.05)


def random_images(count: int = 64) -> Tensor:
    draw = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, 3, 8, 8), generator=draw, dtype=torch.uint8)


def trained(unet: dict[str, Any], scheduler: dict[str, Any]) -> Denoiser:
    """Return a model of this kind after a few steps of our own training."""
    network = {"kind": "diffusers_unet2d", **unet, "scheduler": scheduler}
    process = wrapping(scheduler).process
    if isinstance(process, VE):  # a range of our own, which no scheduler was told
        process = VE(0.02, 50.0)
    torch.manual_seed(0)
    denoiser = Denoiser(
        network, process, (3, 8, 8), levels=256, **DiffusersUNet2D.data_of(network, 3)
    )
    config = TrainingConfig(steps=3, batch_size=8, learning_rate=1e-3, warmup_steps=1, log_every=1)
    return train(denoiser, random_images(), config, seed=0).denoiser


@pytest.mark.parametrize(
    ("scheduler", "pipeline", "steps"),
    [
        ({"_class_name": "DDPMScheduler", "timestep_spacing": "trailing"}, "DDPMPipeline", 20),
        ({"_class_name": "EDMEulerScheduler"}, "ConsistencyModelPipeline", 18),
    ],
)
def test_a_model_trained_here_gives_the_same_samples_there(
    scheduler: dict[str, Any],
    pipeline: str,
    steps: int,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    denoiser = trained(SMALL, scheduler)
    save(denoiser, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    write_folder(again, tmp_path / "folder")
    request.getfixturevalue("double")
    there = diffusers.DiffusionPipeline.from_pretrained(
        tmp_path / "folder", torch_dtype=torch.float64, low_cpu_mem_usage=False
    )
    there.set_progress_bar_config(disable=True)
    assert type(there).__name__ == pipeline
    other = theirs(there, noise(), num_inference_steps=steps)
    given = noise()
    next(given)
    if pipeline == "DDPMPipeline":
        mine = ours(again.double(), Ancestral(steps, grid=CHAIN), DDPM(), other[0], given)
    else:
        mine = ours(again.double(), Euler(steps), again.process, other[0], given)
    assert_same(mine, other[1:])


def test_a_folder_that_is_read_and_written_has_the_same_weights(tmp_path: Path) -> None:
    folder, digest = published(tmp_path / "a", "ScoreSdeVeScheduler", FOURIER)
    write_folder(read_folder(folder, digest), tmp_path / "b")
    _, unet = (
        network_of(folder),
        diffusers.UNet2DModel.from_pretrained(tmp_path / "b/unet", low_cpu_mem_usage=False),
    )
    before = read_folder(folder).network.unet.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in unet.state_dict().items())
    assert network_of(tmp_path / "b") == network_of(folder)
    index = json.loads((tmp_path / "b/model_index.json").read_text())
    assert index["_class_name"] == "ScoreSdeVePipeline"


def test_older_files_name_the_same_weights_otherwise(tmp_path: Path) -> None:
    folder, _ = published(tmp_path, "DDPMScheduler")
    before = read_folder(folder).network.unet.state_dict()
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def name_of(name: str) -> str:
        for new, old in older.items():
            name = name.replace(new, old)
        return name

    save_file({name_of(name): value for name, value in state.items()}, weights)
    for name in ("unet", "scheduler"):  # and all files stood in one folder
        for path in (folder / name).iterdir():
            path.rename(folder / path.name)
        (folder / name).rmdir()
    found = read_folder(folder).network.unet.state_dict()
    assert any("to_q" in name for name in before)
    assert all(torch.equal(value, found[name]) for name, value in before.items())


def test_as_an_energy_its_score_is_a_gradient_with_a_derivative() -> None:
    network = {"kind": "diffusers_unet2d", **SMALL}
    torch.manual_seed(0)
    data = DiffusersUNet2D.data_of(network, 3)
    denoiser = Denoiser(network, VE(0.01, 50.0), (3, 8, 8), energy=True, **data).double()
    x, t = next(noise()).requires_grad_(True), torch.tensor([0.4, 0.6], dtype=torch.float64)
    (slope,) = torch.autograd.grad(denoiser.energy(x, t).sum(), x, create_graph=True)
    # Attention without its fast kernel rounds its softmax.
    torch.testing.assert_close(denoiser.score(x, t), -slope, rtol=1e-5, atol=1e-6)
    (second,) = torch.autograd.grad((slope * next(noise(1))).sum(), x)
    assert bool(second.isfinite().all())
    assert bool((second != 0).any())


def test_samples_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    folder, _ = published(tmp_path, "EDMEulerScheduler")
    denoiser = read_folder(folder)
    whole = sample(denoiser, Heun(4), 20, seed=1).x
    assert torch.equal(sample(denoiser, Heun(4), 3, seed=1, start=7).x, whole[7:10])


def test_classes_are_the_network_s_rows(tmp_path: Path) -> None:
    folder, _ = published(tmp_path, "EDMEulerScheduler", {**SMALL, "num_class_embeds": 4})
    denoiser = read_folder(folder)
    unet = denoiser.network.unet
    x, c_noise = next(noise()).float(), torch.tensor([0.1, 0.2])
    labels = torch.tensor([3, 0])
    with torch.no_grad():
        expected = unet(x, c_noise, class_labels=labels).sample
        assert torch.equal(denoiser.network(x, c_noise, labels), expected)
    assert denoiser.classes == 4
    with pytest.raises(ValueError, match="no row for no class"):
        denoiser(x, torch.tensor([0.5, 0.5]))
    conditional = Denoiser(
        {"kind": "diffusers_unet2d", **SMALL},
        denoiser.process,
        (3, 8, 8),
        [0.0] * 3,
        0.5,
        classes=4,
    )
    with torch.no_grad():
        rows = conditional.network.unet(x, c_noise, class_labels=torch.tensor([4, 1])).sample
        assert torch.equal(conditional.network(x, c_noise, torch.tensor([-1, 1])), rows)


def change(folder: Path, name: str, **keys: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def _another_class(folder: Path) -> None:
    change(folder, "unet/config.json", _class_name="UNet2DConditionModel")


def _another_scheduler(folder: Path) -> None:
    change(folder, "scheduler/scheduler_config.json", _class_name="PNDMScheduler")


def _cosine(folder: Path) -> None:
    change(folder, "scheduler/scheduler_config.json", beta_schedule="squaredcos_cap_v2")


def _pickle(folder: Path) -> None:
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


def _cut_off(folder: Path) -> None:
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


def _wider(folder: Path) -> None:
    change(folder, "unet/config.json", layers_per_block=2)


def _without_middle(folder: Path) -> None:
    change(folder, "unet/config.json", add_attention=False)


def _fourier(folder: Path) -> None:
    change(folder, "unet/config.json", time_embedding_type="fourier")


def _no_json(folder: Path) -> None:
    (folder / "unet/config.json").write_text("{")


def _unknown(folder: Path) -> None:
    change(folder, "unet/config.json", colour="blue")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_another_class, "config.json: _class_name: 'UNet2DConditionModel' is not allowed, allowed: UNet2D"),
        (_another_scheduler, "scheduler 'PNDMScheduler' is not allowed, allowed: DDPMScheduler, DDIM"),
        (_cosine, "beta_schedule: 'squaredcos_cap_v2' is not allowed, allowed: linear"),
        (_pickle, "no such file; allowed: weights as one safetensors file"),
        (_cut_off, "damaged, or of another network"),
        (_wider, "damaged, or of another network than config.json says"),
        (_without_middle, "weights, such as"),
        (_fourier, "time_embedding_type: 'fourier' is not allowed, allowed: positional"),
        (_no_json, "config.json: damaged (not JSON)"),
        (_unknown, "unexpected keyword argument 'colour', allowed: sample_size"),
    ],
)  # fmt: skip
def test_what_is_no_such_folder_gets_one_line(
    damage: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    folder, _ = published(tmp_path, "DDPMScheduler")
    damage(folder)
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        read_folder(folder)
    assert "\n" not in str(caught.value)


def test_another_file_or_size_is_refused(tmp_path: Path) -> None:
    folder, digest = published(tmp_path, "DDPMScheduler")
    assert read_folder(folder, digest).shape == (3, 8, 8)
    with pytest.raises(ValueError, match=f"sha256 is {digest}, not 0000"):
        read_folder(folder, "0" * 64)
    with pytest.raises(
        ValueError, match=r"shape \(1, 8, 8\) do not fit this network, allowed: \(3, 8, 8\)"
    ):
        read_folder(folder, shape=(1, 8, 8))


def test_what_no_scheduler_says_is_not_written(tmp_path: Path) -> None:
    ours_alone = Denoiser({"kind": "unet", "width": 8}, DDPM(), (3, 8, 8), [0.0] * 3, 0.5)
    with pytest.raises(ValueError, match="UNet is not allowed for a folder of diffusers'"):
        write_folder(ours_alone, tmp_path / "folder")
    network = {"kind": "diffusers_unet2d", **SMALL}
    shifted = Denoiser(network, DDPM(), (3, 8, 8), [0.1] * 3, 0.5)
    with pytest.raises(
        ValueError, match=r"a mean of up to 0\.1 is not allowed for EDMEulerScheduler"
    ):
        write_folder(shifted, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()

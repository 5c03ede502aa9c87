"""What a sampler's step costs over the network: `python -m benchmarks.samplers`.

A trivial network (the identity) is sampled at batch 1, 1×28×28, with 200 steps, and the network's own
share is taken off. Everything a user waits for is in: our plan, noise, counting and progress bar's
bookkeeping; the peers' time grids too. Medians of interleaved repetitions in one process on one
thread. Peers that are not installed are left out: `pip install -e ".[parity]"` installs two,
`pip install --no-deps k-diffusion torchdiffeq torchsde trampoline` what is needed of the third.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from scoremodel.denoiser import Denoiser
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP
from scoremodel.samplers.base import Sampler
from scoremodel.samplers.heun import Heun, StochasticHeun
from scoremodel.samplers.langevin_dynamics import AnnealedLangevin
from scoremodel.samplers.multistep import DPMSolver, SDEDPMSolver
from scoremodel.samplers.probability_flow import Euler
from scoremodel.samplers.reverse_sde import (
    DDIM,
    Ancestral,
    EulerMaruyama,
    PredictorCorrector,
    ReverseDiffusion,
)
from scoremodel.samplers.sampling import sample

STEPS = 200
SHAPE = (1, 28, 28)
Case = tuple[str, str, int, Callable[[], object]]
"""Who, what, number of network calls, and the run itself."""


def our_cases() -> list[Case]:
    """Return our fixed-step samplers on VP, with a bare function and with a preconditioned model."""
    samplers: list[Sampler] = [
        Euler(STEPS),
        Heun(STEPS),
        DPMSolver(STEPS),
        DDIM(STEPS, eta=0.5),
        Ancestral(STEPS),
        EulerMaruyama(STEPS),
        ReverseDiffusion(STEPS),
        SDEDPMSolver(STEPS),
        StochasticHeun(STEPS),
        PredictorCorrector(STEPS),
        AnnealedLangevin(STEPS // 5, steps_per_level=5),
    ]

    def run(sampler: Sampler, model: Any) -> Callable[[], object]:
        return lambda: sample(model, sampler, 1, 0, batch_size=1, process=VP(), shape=SHAPE)

    cases = [
        (
            "scoremodel",
            sampler.kind,
            sample(identity, sampler, 1, 0, batch_size=1, process=VP(), shape=SHAPE).nfe,
            run(sampler, identity),
        )
        for sampler in samplers
    ]
    cases.append(
        ("scoremodel", "euler, preconditioned model", STEPS, run(Euler(STEPS), denoiser()))
    )
    return cases


def identity(x: Tensor, _: Tensor) -> Tensor:
    """Return x: the trivial network."""
    return x


def denoiser() -> Denoiser:
    """Return a Denoiser around the trivial network."""

    class Trivial(nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
            return x

    made = Denoiser({"kind": "unet", "width": 8}, VP(), SHAPE, [0.0], 0.5)
    made.network = Trivial()
    return made.eval()


def azula_cases() -> list[Case]:
    """Return azula's samplers on its VP schedule."""
    from azula import denoise, noise
    from azula import sample as samplers

    class Exact(denoise.Denoiser):
        schedule = noise.VPSchedule()

        def forward(self, x_t: Tensor, t: Tensor) -> denoise.DiracPosterior:
            return denoise.DiracPosterior(mean=x_t)

    x = torch.randn(1, *SHAPE)
    return [
        (
            "azula",
            name,
            calls,
            partial(getattr(samplers, name)(Exact(), steps=STEPS, silent=True), x),
        )
        for name, calls in (
            ("EulerSampler", STEPS),
            ("HeunSampler", 2 * STEPS),
            ("DDIMSampler", STEPS),
            ("DDPMSampler", STEPS),
            ("zABSampler", STEPS),
        )
    ]


def diffusers_cases() -> list[Case]:
    """Return diffusers' schedulers, in the loop that its pipelines write."""
    import diffusers

    x = torch.randn(1, *SHAPE)

    def run(name: str) -> Callable[[], object]:
        scheduler = getattr(diffusers, name)(prediction_type="sample")

        def loop() -> Tensor:
            scheduler.set_timesteps(STEPS)
            state = x
            for t in scheduler.timesteps:
                said = identity(scheduler.scale_model_input(state, t), t)
                state = scheduler.step(said, t, state).prev_sample
            return state

        return loop

    names = (
        "EulerDiscreteScheduler",
        "DDIMScheduler",
        "DDPMScheduler",
        "DPMSolverMultistepScheduler",
    )
    return [("diffusers", name, STEPS, run(name)) for name in names]


def k_diffusion_cases() -> list[Case]:
    """Return k-diffusion's samplers.

    Only its module of samplers is loaded: the package's own import needs training tools too.
    """
    spec = importlib.util.find_spec("k_diffusion")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["k_diffusion"] = package
    samplers = importlib.import_module("k_diffusion.sampling")
    sigma = VE(0.02, 100.0).sigma(torch.linspace(1, 0, STEPS, dtype=torch.float64)).float()
    sigmas = torch.cat([sigma, torch.zeros(1)])
    x = torch.randn(1, *SHAPE) * 100

    def run(name: str) -> Callable[[], object]:
        return lambda: getattr(samplers, name)(lambda x, _, **__: x, x, sigmas, disable=True)

    return [
        ("k-diffusion", name, calls, run(name))
        for name, calls in (
            ("sample_euler", STEPS),
            ("sample_heun", 2 * STEPS - 1),
            ("sample_euler_ancestral", STEPS),
            ("sample_dpmpp_2m", STEPS),
        )
    ]


def measure(cases: list[Case], repetitions: int) -> pd.DataFrame:
    """Return microseconds over the network, by step and by network call, one row for each case."""
    x, t = torch.randn(1, *SHAPE), torch.ones(1)
    seconds: dict[int, list[float]] = {index: [] for index in range(-1, len(cases))}
    for _ in range(repetitions):
        for index in seconds:
            run = (lambda: [identity(x, t) for _ in range(STEPS)]) if index < 0 else cases[index][3]
            began = time.perf_counter()
            run()
            seconds[index].append(time.perf_counter() - began)
    network = median(seconds[-1]) / STEPS
    rows = []
    for index, (who, what, calls, _) in enumerate(cases):
        over = median(seconds[index]) - calls * network
        rows.append((who, what, calls, 1e6 * over / STEPS, 1e6 * over / calls))
    return pd.DataFrame(rows, columns=["library", "sampler", "NFE", "µs / step", "µs / call"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    repetitions = parser.parse_args().repetitions
    torch.set_num_threads(1)
    cases = our_cases()
    for name, make in (
        ("k_diffusion", k_diffusion_cases),
        ("azula", azula_cases),
        ("diffusers", diffusers_cases),
    ):
        try:
            cases += make()
        except (ImportError, AssertionError) as error:
            print(f"{name}: left out ({error or 'not installed'})", file=sys.stderr)
    with torch.inference_mode():
        table = measure(cases, repetitions)
    from tasks.files.device import device_name

    print(
        f"{device_name('cpu')}, 1 thread, torch {torch.__version__}, {STEPS} steps, batch 1, 1×28×28\n"
    )
    print(table.to_string(index=False, float_format=lambda value: f"{value:.1f}"))


if __name__ == "__main__":
    main()

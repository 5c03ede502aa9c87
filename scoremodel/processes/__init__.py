"""Forward processes: how data become noise.

An SDE here is linear on t in [0, 1], and its transition kernel from the data is Gaussian:

    dx = f(t) x dt + g(t) dw,        p(x_t | x_0) = N(alpha_t x_0, sigma_t² I).

The pairs (f, g) and (alpha, sigma) say the same thing:

    f = d ln(alpha)/dt,        g² = d(sigma²)/dt − 2 f sigma².

The reverse-time SDE and the probability-flow ODE (samplers) need f, g and the score only:

    dx = [f x − g² ∇ log p_t] dt + g dw̄,        dx = [f x − ½ g² ∇ log p_t] dt.

The SDEs, with B_t = ∫_0^t β ds and β(t) = β_0 + t (β_1 − β_0):

    class     alpha_t               sigma_t                             prior
    VE        1                     sigma_min (sigma_max/sigma_min)^t   N(data mean, sigma_max² I)
    VP        exp(−B_t / 2)         sqrt(1 − exp(−B_t))                 N(0, I)
    SubVP     exp(−B_t / 2)         1 − exp(−B_t)                       N(0, I)
    CosineVP  cos(θ_t) / cos(θ_0)   sqrt(1 − alpha_t²)                  N(0, I)

A chain has levels i = 1 … N, at the times t = i / N, with the kernel N(alpha_i x_0, sigma_i² I):

    NCSN      x_i = x_{i−1} + sqrt(sigma_i² − sigma_{i−1}²) z           alpha_i = 1
    DDPM      x_i = sqrt(1 − β_i) x_{i−1} + sqrt(β_i) z                 alpha_i² = Π_j (1 − β_j)

As N grows, NCSN's chain becomes VE and DDPM's becomes VP.

A process of your own is a subclass of `SDE` with either pair; everything else follows. With a name a
model of it is loaded without being told what it is of (`load(path, process=…)`):

    @PROCESSES.register("mine")
    @dataclass(frozen=True)
    class Mine(SDE): ...

Examples:
    >>> import torch, scoremodel
    >>> t = torch.tensor([0.001, 0.5, 1.0], dtype=torch.float64)
    >>> scoremodel.VP().alpha(t)
    tensor([0.9999, 0.2812, 0.0066], dtype=torch.float64)
    >>> scoremodel.VP().perturb(torch.zeros(3, 2), t.float(), torch.ones(3, 2))[:, 0]
    tensor([0.0105, 0.9597, 1.0000])

Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-Based Generative Modeling through
Stochastic Differential Equations, 2021, arXiv:2011.13456.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoremodel.registry import lazy

if TYPE_CHECKING:
    from scoremodel.processes.base import PROCESSES, Process, process_from_config
    from scoremodel.processes.chain import Chain
    from scoremodel.processes.cosine import CosineVP
    from scoremodel.processes.ddpm import DDPM
    from scoremodel.processes.ncsn import NCSN
    from scoremodel.processes.sde import SDE
    from scoremodel.processes.ve import VE
    from scoremodel.processes.vp import VP, SubVP

__all__ = [
    "DDPM",
    "NCSN",
    "PROCESSES",
    "SDE",
    "VE",
    "VP",
    "Chain",
    "CosineVP",
    "Process",
    "SubVP",
    "process_from_config",
]

__getattr__, __dir__ = lazy(__name__)

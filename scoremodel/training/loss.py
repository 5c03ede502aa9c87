"""Score matching: denoising, over many noise levels, and the kinds that came before it.

A score model is fitted by the Fisher divergence to the data's score,

    J = ½ E |s(x) − ∇ ln p(x)|²

(explicit score matching), which nobody knows. By parts it is, up to the constant ½ E |∇ ln p|²,

    J = E [tr ∇s(x) + ½ |s(x)|²]              implicit (Hyvärinen 2005)
      = E E_v [vᵀ ∇s(x) v + ½ |s(x)|²]        sliced, E[v vᵀ] = I (arXiv:1905.07088)

and for data with noise added, up to another constant, denoising score matching, which needs no
derivative of s. The score network is trained to point from noisy data back to where they came from
(Vincent 2011), at all noise levels at once (Song and Ermon 2019, arXiv:1907.05600; Song et al. 2021,
arXiv:2011.13456):

    L = E_t E_{x_0, ε} λ(t) |s(x_t, t) + ε / sigma_t|²,        x_t = alpha_t x_0 + sigma_t ε.

With s = (alpha_t D − x_t) / sigma_t² the bracket is alpha_t (D − x_0) / sigma_t², so every weighting
λ is a weight w(t) = λ(t) alpha_t² / sigma_t⁴ on |D − x_0|². The other kinds are offered at every
noise level too, with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor

from scoremodel.derivatives import basis, pull_back
from scoremodel.parametrisation import Denoise, convert
from scoremodel.processes.base import Process
from scoremodel.processes.sde import SDE

__all__ = [
    "Objective",
    "Score",
    "Weighting",
    "denoising_loss",
    "denoising_weight",
    "explicit_score_matching",
    "implicit_score_matching",
    "score_matching_loss",
    "sliced_score_matching",
]

Weighting = Literal["sigma2", "likelihood", "edm"]
Objective = Literal["denoising", "sliced", "implicit", "explicit"]

Score = Callable[[Tensor], Tensor]
"""A score s(x), from shape (B, *) to shape (B, *), each row a function of its own row."""


def denoising_weight(t: Tensor, process: Process, weighting: Weighting, std: float) -> Tensor:
    """Return the weight w(t) on |D − x_0|².

    With r = sigma_t / alpha_t:

        sigma2      λ = sigma_t²   →  w = 1 / r²                   (Song et al. 2021)
        likelihood  λ = g(t)²      →  w = g² / (r² sigma_t²)       (arXiv:2101.09258)
        edm                           w = (std² + r²) / (std r)²   (arXiv:2206.00364)

    Args:
        t: times with any shape.
        process: the forward process.
        weighting: one of the names above.
        std: the data's standard deviation, used by "edm".

    Returns:
        Weights with the shape of t.

    Raises:
        ValueError: if the weighting is unknown, or needs g(t) of a process that has none.
    """
    squared = process.ratio(t) ** 2
    if weighting == "sigma2":
        return 1 / squared
    if weighting == "likelihood":
        if not isinstance(process, SDE):
            raise ValueError(f"weighting 'likelihood' needs g(t), which {process.kind} has not")
        return (process.g(t) / process.sigma(t)) ** 2 / squared
    if weighting == "edm":
        return 1 / squared + 1 / std**2  # EDM's, in a form that stays finite
    raise ValueError(f"unknown weighting {weighting!r}, allowed: {', '.join(get_args(Weighting))}")


def denoising_loss(
    denoise: Denoise, x_0: Tensor, t: Tensor, noise: Tensor, process: Process, weight: Tensor
) -> Tensor:
    """Return w |D(x_t, t) − x_0|², averaged over the dimensions, for each data point: shape (B,).

    Arguments as `score_matching_loss`.
    """
    error = denoise(process.perturb(x_0, t, noise), t) - x_0
    return weight * error.square().flatten(1).mean(1)


def explicit_score_matching(score: Score, true_score: Score, x: Tensor) -> Tensor:
    """Return ½ |s(x) − ∇ ln p(x)|² for each data point, whose mean over the data is the Fisher divergence."""
    return (score(x) - true_score(x)).square().flatten(1).sum(1) / 2


def implicit_score_matching(score: Score, x: Tensor) -> Tensor:
    """Return tr ∇s(x) + ½ |s(x)|² for each of the vectors x (B, D), with one backward pass a dimension.

    Its mean over the data is the Fisher divergence less the constant ½ E |∇ ln p|².

    Hyvärinen, Estimation of Non-Normalized Statistical Models by Score Matching, 2005, theorem 1.
    """
    s, rows = pull_back(score, x, basis(x))
    trace = rows.diagonal(dim1=0, dim2=2).sum(1)
    return trace + s.square().sum(1) / 2


def sliced_score_matching(score: Score, x: Tensor, probes: Tensor) -> Tensor:
    """Return vᵀ ∇s(x) v + ½ |s(x)|² for each data point, averaged over the probes v (P, B, *).

    It takes a backward pass for each probe. Its mean over v with E[v vᵀ] = I is
    `implicit_score_matching`'s value (the form that the paper calls SSM-VR).

    Song, Garg, Shi and Ermon, Sliced Score Matching, 2019, arXiv:1905.07088.
    """
    s, rows = pull_back(score, x, probes)
    return (rows * probes).flatten(2).sum(2).mean(0) + s.square().flatten(1).sum(1) / 2


def score_matching_loss(
    objective: Objective,
    denoise: Denoise,
    x_0: Tensor,
    t: Tensor,
    noise: Tensor,
    process: Process,
    weight: Tensor,
    *,
    probe: Tensor | None = None,
    true_score: Denoise | None = None,
) -> Tensor:
    """Return a loss for each data point, whichever way the score is matched.

    All have the same gradient in expectation: explicit is λ |s − ∇ ln p_t|² / D, the others differ
    from it by constants, with λ = w sigma_t⁴ / alpha_t² and D the number of dimensions.

    Args:
        objective: denoising, sliced, implicit (for vectors) or explicit.
        denoise: the model D(x_t, t).
        x_0: data with shape (B, *).
        t: times with shape (B,).
        noise: standard normal noise with shape (B, *).
        process: the forward process.
        weight: weights w with shape (B,), see `denoising_weight`.
        probe: random signs with shape (B, *), which sliced needs.
        true_score: ∇ ln p_t(x_t), which explicit needs.

    Returns:
        Losses with shape (B,).

    Raises:
        ValueError: if the objective is unknown, or lacks what it needs.
    """
    if objective == "denoising":
        return denoising_loss(denoise, x_0, t, noise, process, weight)
    x_t = process.perturb(x_0, t, noise)

    def score(x: Tensor) -> Tensor:
        return convert(denoise(x, t), x, t, process, "denoised", "score")

    if objective == "sliced" and probe is not None:
        matched = sliced_score_matching(score, x_t, probe[None])
    elif objective == "implicit":
        matched = implicit_score_matching(score, x_t)
    elif objective == "explicit" and true_score is not None:
        matched = explicit_score_matching(score, lambda x: true_score(x, t), x_t)
    else:
        raise ValueError(
            f"objective {objective!r} is unknown or lacks what it needs, allowed: denoising, "
            "implicit, sliced with a probe, explicit with the true score"
        )
    return weight * process.sigma(t) ** 4 / process.alpha(t) ** 2 * 2 * matched / x_0[0].numel()

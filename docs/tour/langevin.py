"""Langevin dynamics walk along the score, and noise keeps them from stopping at a mode."""

from drawing import figure, save

# --8<-- [start:api]
import torch

import scoremodel

truth = scoremodel.GaussianMixture([[0.5, 0.0]], [0.4], [1.0])
process = scoremodel.VE(sigma_min=1e-4, sigma_max=10.0)
zero = torch.zeros(5000, dtype=torch.float64)


def score(x: torch.Tensor) -> torch.Tensor:
    return truth.score(x, zero[: len(x)], process)


draw = torch.Generator().manual_seed(0)
start = 4 * torch.rand(5000, 2, generator=draw, dtype=torch.float64) - 2
step_size = 0.05
end = scoremodel.unadjusted_langevin(score, start, step_size, steps=100, seed=0)
# --8<-- [end:api]

variance = 0.4**2
exact = 2 * step_size / (1 - (1 - step_size / variance) ** 2)
print(
    f"variance of the chains {float(end.var(0).mean()):.4f}, 2 e / (1 − (1 − e / s²)²) = "
    f"{exact:.4f}, of the data {variance:.4f}"
)

drawn, panels = figure(3)
path, several = [start[:6]], start[:400]
for _ in range(40):
    path.append(scoremodel.unadjusted_langevin(score, path[-1], 0.01, 1, seed=len(path)))
paths = torch.stack(path)
panels[0].plot(paths[:, :, 0], paths[:, :, 1], linewidth=0.8)
panels[0].set_title("six chains, small steps")
for panel, x, title in ((panels[1], several, "start"), (panels[2], end[:400], "after 100 steps")):
    panel.plot(*x.T, ".", markersize=2)
    panel.set_title(title)
for panel in panels:
    panel.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
save(drawn, __file__)

"""Langevin dynamics with the exact score forget how heavy the modes are."""

from drawing import figure, save

# --8<-- [start:api]
import torch

import scoremodel

truth = scoremodel.GaussianMixture([[-0.6, -0.6], [0.6, 0.6]], [0.1, 0.1], [0.8, 0.2])
process = scoremodel.VE(sigma_min=1e-4, sigma_max=10.0)
zero = torch.zeros(4000, dtype=torch.float64)

draw = torch.Generator().manual_seed(0)
start = 2.4 * torch.rand(4000, 2, generator=draw, dtype=torch.float64) - 1.2
end = scoremodel.unadjusted_langevin(
    lambda x: truth.score(x, zero, process), start, step_size=1e-3, steps=300, seed=0
)
share = (end.sum(1) < 0).double().mean()
# --8<-- [end:api]

print(f"share of chains in the mode of weight 0.8: {float(share):.2f}")

drawn, (left, right) = figure(2)
for panel, x, title in (
    (left, truth.sample(800, draw)[0], "the data"),
    (right, end[:800], "Langevin"),
):
    panel.plot(*x.T, ".", markersize=2)
    panel.set(title=title, xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
save(drawn, __file__)

"""Many noise levels: the scores of blurred densities lead from anywhere to the data."""

from drawing import figure, save

# --8<-- [start:api]
import torch

import scoremodel

truth = scoremodel.GaussianMixture([[-0.6, -0.6], [0.6, 0.6]], [0.1, 0.1], [0.8, 0.2])
ladder = scoremodel.NCSN(sigma_min=0.02, sigma_max=3.0, levels=20)

drawn_by = scoremodel.AnnealedLangevin(steps_per_level=50, step_size=0.1)
samples = scoremodel.sample(
    lambda x, t: truth.denoised(x, t, ladder),
    drawn_by,
    count=4000,
    seed=0,
    process=ladder,
    shape=(2,),
    dtype=torch.float64,
    batch_size=4000,
)
share = (samples.x.sum(1) < 0).double().mean()
# --8<-- [end:api]

print(f"share of samples in the mode of weight 0.8: {float(share):.2f}, by {samples.nfe} calls")

drawn, panels = figure(4, 3.0, 3.0)
line = torch.linspace(-1.5, 1.5, 61, dtype=torch.float64)
places = torch.cartesian_prod(line, line)
arrows = torch.cartesian_prod(line[::5], line[::5])
for panel, level in zip(panels, (20, 13, 9, 5), strict=True):
    t = torch.tensor(level / 20, dtype=torch.float64)
    density = truth.log_prob(places, t.expand(len(places)), ladder).exp().reshape(61, 61)
    panel.contourf(line, line, density.T, levels=12, cmap="Greys")
    score = truth.score(arrows, t.expand(len(arrows)), ladder)
    panel.quiver(*arrows.T, *(score / score.norm(dim=1, keepdim=True)).T, scale=22, width=0.006)
    panel.set(title=f"sigma = {float(ladder.sigma(t)):.2g}", aspect="equal", xticks=[], yticks=[])
save(drawn, __file__)

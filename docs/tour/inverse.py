"""One coordinate of a point is measured, with noise: what of the other one?"""

from drawing import figure, save

# --8<-- [start:api]
import torch

import scoremodel

process = scoremodel.VP()
truth = scoremodel.GaussianMixture([[-0.6, -0.6], [0.6, 0.6]], [0.3, 0.3], [0.8, 0.2])
measured, noise_std = torch.tensor([[0.15]], dtype=torch.float64), 0.2

given_y = scoremodel.posterior(
    lambda x, t: truth.denoised(x, t, process),
    lambda x: x[:, :1],  # A: the first coordinate
    measured,
    noise_std,
    method="mmps",
    process=process,
)
draws = scoremodel.sample(
    given_y,
    scoremodel.Heun(steps=60),
    count=4000,
    seed=0,
    process=process,
    shape=(2,),
    dtype=torch.float64,
    batch_size=4000,
).x
# --8<-- [end:api]

variance = 0.3**2 + noise_std**2
fit = (-((measured[0] - truth.means[:, 0]) ** 2) / (2 * variance)).exp() * truth.weights
found = float((draws[:, 1] > 0).double().mean())
zero = torch.zeros(2, dtype=torch.float64)
positive = 1 - torch.distributions.Normal(truth.means[:, 1], 0.3).cdf(zero)
exact, before = (float((weights * positive).sum()) for weights in (fit / fit.sum(), truth.weights))
print(
    f"share of draws whose second coordinate is positive: {found:.2f}, exactly {exact:.2f}, "
    f"before the measurement {before:.2f}"
)

drawn, (left, right) = figure(2)
prior, _ = truth.sample(1500, torch.Generator().manual_seed(0))
for panel, x, title in ((left, prior, "before"), (right, draws[:1500], "given y")):
    panel.axvspan(0.15 - noise_std, 0.15 + noise_std, color="C1", alpha=0.2)
    panel.plot(*x.T, ".", markersize=2)
    panel.set(title=title, xlim=(-1.8, 1.8), ylim=(-1.8, 1.8), aspect="equal")
save(drawn, __file__)

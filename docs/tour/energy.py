"""An energy is learned from points, and compared with the density that they came from."""

from drawing import figure, save

# --8<-- [start:api]
import torch

import scoremodel

truth = scoremodel.GaussianMixture([[-0.8, -0.4], [0.8, 0.4]], [0.35, 0.25], [0.6, 0.4])
points, _ = truth.sample(10_000, torch.Generator().manual_seed(0))

torch.manual_seed(0)
network = {"kind": "mlp", "width": 64, "depth": 2}
process = scoremodel.VE(sigma_min=0.02, sigma_max=20.0)
model = scoremodel.Denoiser.for_data(points, network, process, energy=True)
how = scoremodel.TrainingConfig(steps=800, batch_size=256, learning_rate=3e-3)
learned = scoremodel.train(model, points.float(), how, seed=0).denoiser

line = torch.linspace(-2, 2, 81)
places = torch.cartesian_prod(line, line)
t = 0.35  # a little noise: sigma = 0.22
energy = learned.energy(places, t).detach()
# --8<-- [end:api]

times = torch.full((len(places),), t, dtype=torch.float64)
log_density = truth.log_prob(places.double(), times, learned.process)
weight = log_density.exp()


def deviation(values: torch.Tensor) -> float:
    """Return the standard deviation under the density."""
    mean = (weight * values).sum() / weight.sum()
    return float(((weight * (values - mean) ** 2).sum() / weight.sum()).sqrt())


print(
    f"ln p varies by {deviation(log_density):.2f} where data are likely, "
    f"ln p + f by {deviation(log_density + energy):.2f}"
)

drawn, (left, right) = figure(2)
levels = torch.arange(0, 8.1, 0.5).numpy()
for panel, values, title in (
    (left, -log_density, "−ln p, of the data with noise"),
    (right, energy, "the learned energy f"),
):
    shifted = (values - values.min()).reshape(81, 81).T
    panel.contourf(line, line, shifted, levels=levels, cmap="viridis_r", extend="max")
    panel.set(title=title, aspect="equal")
save(drawn, __file__)

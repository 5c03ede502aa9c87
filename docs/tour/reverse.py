"""The reverse SDE and the probability-flow ODE: two ways back with the same marginals."""

from drawing import figure, save

# --8<-- [start:api]
import torch

import scoremodel

process = scoremodel.VP()
truth = scoremodel.GaussianMixture([[-1.0], [1.0]], [0.1, 0.2], [0.7, 0.3])


def back(sampler: scoremodel.Sampler) -> scoremodel.samplers.Samples:
    return scoremodel.sample(
        lambda x, t: truth.denoised(x, t, process),
        sampler,
        count=20_000,
        seed=1,
        process=process,
        shape=(1,),
        dtype=torch.float64,
        batch_size=20_000,
        trajectory=True,
    )


reverse_sde = back(scoremodel.EulerMaruyama(steps=300))
flow = back(scoremodel.Heun(steps=60, grid="uniform"))
# --8<-- [end:api]

shares = [float((one.x > 0).double().mean()) for one in (reverse_sde, flow)]
stds = [float(one.x[one.x > 0].std()) for one in (reverse_sde, flow)]
print(
    f"share of the mode of weight 0.3: {shares[0]:.3f} (SDE), {shares[1]:.3f} (ODE); "
    f"its deviation of 0.2: {stds[0]:.3f}, {stds[1]:.3f}"
)

drawn, panels = figure(2, 4.6, 3.2)
levels = torch.linspace(-3, 3, 161, dtype=torch.float64)[:, None]
grid = torch.linspace(0.002, 1, 101, dtype=torch.float64)
density = torch.stack([truth.log_prob(levels, t.expand(161), process).exp() for t in grid])
for panel, one, title in (
    (panels[0], reverse_sde, "reverse-time SDE"),
    (panels[1], flow, "probability-flow ODE"),
):
    times = torch.linspace(1, 0, len(one.trajectory))
    panel.imshow(
        density.sqrt().T, origin="lower", extent=(0, 1, -3, 3), aspect="auto", cmap="Greys"
    )
    panel.plot(times, one.trajectory[:, :12, 0], linewidth=0.7)
    panel.set(title=title, xlabel="t", ylabel="x", xlim=(1, 0), ylim=(-3, 3))
save(drawn, __file__)

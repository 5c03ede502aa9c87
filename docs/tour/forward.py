"""The forward SDE: data become noise, and every marginal on the way is known."""

import math

from drawing import figure, save

# --8<-- [start:api]
import torch

import scoremodel

process = scoremodel.VP()
draw = torch.Generator().manual_seed(0)
truth = scoremodel.GaussianMixture([[-1.0], [1.0]], [0.1, 0.2], [0.7, 0.3])
x, _ = truth.sample(20_000, draw)

steps = 500
times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
path = [x]
for t, after in zip(times[:-1], times[1:], strict=True):  # Euler–Maruyama on the SDE itself
    dt = after - t
    noise = torch.randn(x.shape, generator=draw, dtype=x.dtype)
    x = x + process.f(t) * x * dt + process.g(t) * dt.sqrt() * noise
    path.append(x)
paths = torch.stack(path)[:, :, 0]
# --8<-- [end:api]

half = steps // 2
alpha, sigma = process.alpha(times[half]), process.sigma(times[half])
exact = float(alpha**2 * paths[0].var() + sigma**2)
print(f"variance at t = 0.5: {float(paths[half].var()):.3f}, by the kernel {exact:.3f}")

drawn, (left, right) = figure(2, 4.6, 3.2)
levels = torch.linspace(-3, 3, 161, dtype=torch.float64)[:, None]
density = torch.stack(
    [truth.log_prob(levels, t.expand(161), process).exp() for t in times.clamp(min=0.002)[::5]]
)
left.imshow(density.sqrt().T, origin="lower", extent=(0, 1, -3, 3), aspect="auto", cmap="Greys")
left.plot(times, paths[:, :8], linewidth=0.6)
left.set(xlabel="t", ylabel="x", title="paths, and the density of all of them", ylim=(-3, 3))
for time in (0.0, 0.1, 0.3, 1.0):
    index = round(time * steps)
    t = torch.full((161,), max(time, 1e-3), dtype=torch.float64)
    right.plot(levels[:, 0], truth.log_prob(levels, t, process).exp(), label=f"t = {time:g}")
right.set(xlabel="x", title="p_t, noised", ylim=(0, 1.6))
right.legend()
assert math.isclose(float(paths[half].var()), exact, rel_tol=0.05)
save(drawn, __file__)

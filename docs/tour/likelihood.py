"""The probability flow's likelihood against the density that the data came from."""

from drawing import figure, save

# --8<-- [start:api]
import torch

import scoremodel

process = scoremodel.VP()
truth = scoremodel.GaussianMixture([[-1.0], [1.0]], [0.1, 0.2], [0.7, 0.3])
x = torch.linspace(-1.6, 1.9, 141, dtype=torch.float64)[:, None]
found = scoremodel.log_likelihood(
    lambda x, t: truth.denoised(x, t, process), x, process=process, rtol=1e-7, atol=1e-7
)
# --8<-- [end:api]

t = torch.full((len(x),), process.t_min, dtype=torch.float64)
exact = truth.log_prob(x, t, process)
print(
    f"largest difference of ln p: {float((found.log_prob - exact).abs().max()):.3f} "
    f"over {float(exact.max() - exact.min()):.0f} nats"
)
uniform = torch.tensor([-64 * torch.tensor(2 * 17 / 16).log()])  # 17 levels, 8×8 pixels
bits = scoremodel.bits_per_dim(uniform, 64, 17)
print(
    f"uniform grey levels take {float(bits):.4f} bits each, log2 17 = {torch.tensor(17.0).log2():.4f}"
)

drawn, (left, right) = figure(2, 4.2, 3.2)
left.plot(x, exact.exp(), linewidth=3, color="0.75", label="truth")
left.plot(x, found.log_prob.exp(), "--", label="by the flow")
left.set(title="density", xlabel="x")
left.legend()
paths = []
for start in torch.linspace(-1.4, 1.7, 25, dtype=torch.float64):
    states, here = [], start.view(1, 1)
    grid = torch.linspace(process.t_min, 1, 30).tolist()
    for begin, end in zip(grid[:-1], grid[1:], strict=True):
        states.append(float(here))
        here = scoremodel.flow.flow(
            lambda x, t: truth.denoised(x, t, process), process, here, begin, end
        ).x
    paths.append([*states, float(here)])
right.plot(grid, torch.tensor(paths).T, color="C0", linewidth=0.6)
right.set(title="the flow, a one-to-one map", xlabel="t", ylabel="x")
save(drawn, __file__)

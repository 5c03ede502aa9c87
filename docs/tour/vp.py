"""DDPM's chain becomes the VP SDE."""

from drawing import figure, save

# --8<-- [start:api]
import torch

import scoremodel

sde = scoremodel.VP(beta_min=0.1, beta_max=20.0)
chains = {}
for levels in (30, 100, 1000):
    # β_i = β(i / N) / N: the same noise in N steps
    chains[levels] = scoremodel.DDPM(0.1 / levels, 20.0 / levels, levels)
errors = {}
for levels, chain in chains.items():
    t = torch.arange(1, levels + 1, dtype=torch.float64) / levels
    errors[levels] = float((chain.alpha(t) - sde.alpha(t)).abs().max())
# --8<-- [end:api]

print(
    "largest error of alpha_t, times N: "
    + ", ".join(f"{levels * error:.2f} (N = {levels})" for levels, error in errors.items())
)

drawn, (left, right) = figure(2, 4.2, 3.2)
t = torch.linspace(0, 1, 200, dtype=torch.float64)
left.plot(t, sde.alpha(t), label="alpha_t of VP")
left.plot(t, sde.sigma(t), label="sigma_t of VP")
at = torch.arange(1, 31, dtype=torch.float64) / 30
left.plot(at, chains[30].alpha(at), "o", color="C0", markersize=3, label="DDPM, 30 levels")
left.plot(at, chains[30].sigma(at), "o", color="C1", markersize=3)
left.set(xlabel="t")
left.legend()
right.loglog(list(errors), list(errors.values()), "o-")
right.set(xlabel="number of levels N", ylabel="error of alpha_t", title="falls as 1 / N")
save(drawn, __file__)

"""NCSN's ladder of noise levels becomes the VE SDE."""

from drawing import figure, save

# --8<-- [start:api]
import torch

import scoremodel

sde = scoremodel.VE(sigma_min=0.01, sigma_max=50.0)
errors = {}
for levels in (10, 100, 1000):
    i = torch.arange(1, levels + 1, dtype=torch.float64)
    t = i / levels
    dt = 1 / levels
    # Song et al. 2021: one step of the chain adds sigma_i² − sigma_{i−1}², of the SDE g(t)² dt
    added = sde.sigma(t) ** 2 - sde.sigma(t - dt) ** 2
    errors[levels] = float(((sde.g(t) ** 2 * dt - added) / added).mean())
# --8<-- [end:api]

print(
    "g² dt over the chain's step, less 1, times N: "
    + ", ".join(f"{levels * error:.2f} (N = {levels})" for levels, error in errors.items())
    + f"; ln(sigma_max / sigma_min) = {torch.tensor(5000.0).log():.2f}"
)

drawn, (left, right) = figure(2, 4.2, 3.2)
t = torch.linspace(0, 1, 200, dtype=torch.float64)
left.plot(t, sde.sigma(t), label="VE")
ladder = scoremodel.NCSN(sigma_min=0.01, sigma_max=50.0, levels=10)
at = torch.arange(1, 11, dtype=torch.float64) / 10
left.plot(at, ladder.sigma(at), "o", label="NCSN, 10 levels")
left.set(yscale="log", xlabel="t", ylabel="sigma_t")
left.legend()
right.loglog(list(errors), list(errors.values()), "o-")
right.set(xlabel="number of levels N", ylabel="relative error of g² dt", title="falls as 1 / N")
save(drawn, __file__)

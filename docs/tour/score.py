"""The score of a mixture: arrows that point to where data are likelier."""

from drawing import figure, save

# --8<-- [start:api]
import torch

import scoremodel

truth = scoremodel.GaussianMixture([[-0.8, -0.4], [0.8, 0.4]], [0.35, 0.25], [0.6, 0.4])
process = scoremodel.VE(sigma_min=1e-4, sigma_max=10.0)  # at t = 0: no noise to speak of

line = torch.linspace(-2, 2, 21, dtype=torch.float64)
places = torch.cartesian_prod(line, line).requires_grad_()
t = torch.zeros(len(places), dtype=torch.float64)

score = truth.score(places, t, process)
log_density = truth.log_prob(places, t, process)
(gradient,) = torch.autograd.grad(log_density.sum(), places)
# --8<-- [end:api]

off = (score - gradient).abs().max()
print(f"largest score {score.norm(dim=1).max():.1f}, its gradient by autograd agrees to {off:.0e}")

drawn, (panel,) = figure(1, 5.0, 4.4)
fine = torch.linspace(-2, 2, 121, dtype=torch.float64)
ground = torch.cartesian_prod(fine, fine)
density = truth.log_prob(ground, torch.zeros(len(ground), dtype=torch.float64), process).exp()
panel.contourf(fine, fine, density.reshape(121, 121).T, levels=12, cmap="Greys")
length = score.norm(dim=1).detach()
unit = (score / score.norm(dim=1, keepdim=True)).detach()
panel.quiver(*places.detach().T, *unit.T, length.log10(), scale=30, width=0.004)
panel.set(title="∇ ln p, longer where brighter", aspect="equal")
save(drawn, __file__)

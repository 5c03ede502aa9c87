"""The Fisher divergence of linear scores −a x from N(0, s²), explicit, implicit and sliced."""

from drawing import figure, save

# --8<-- [start:api]
import torch

from scoremodel.training.loss import explicit_score_matching
from scoremodel.training.loss import implicit_score_matching
from scoremodel.training.loss import sliced_score_matching

draw = torch.Generator().manual_seed(0)
dimensions, std = 2, 0.5
x = std * torch.randn(20_000, dimensions, generator=draw)
signs = 2.0 * torch.randint(2, (1, *x.shape), generator=draw) - 1

slopes = torch.linspace(0, 8, 33)
rows = []
with torch.no_grad():
    for a in slopes:
        score = lambda x, a=a: -a * x
        rows.append(
            (
                explicit_score_matching(score, lambda x: -x / std**2, x).mean(),
                implicit_score_matching(score, x).mean(),
                sliced_score_matching(score, x, signs).mean(),
            )
        )
explicit, implicit, sliced = torch.tensor(rows).T
# --8<-- [end:api]

constant = dimensions / (2 * std**2)
print(
    f"all are least at a = {slopes[explicit.argmin()]:.1f}, {slopes[implicit.argmin()]:.1f}, "
    f"{slopes[sliced.argmin()]:.1f} (1 / s² = {1 / std**2:.1f}); explicit − implicit = "
    f"{(explicit - implicit).mean():.2f} (D / 2 s² = {constant:.2f})"
)

drawn, (panel,) = figure(1, 5.0, 3.2)
panel.plot(slopes, explicit, label="explicit: ½ E |s − ∇ ln p|²")
panel.plot(slopes, implicit, label="implicit: E [tr ∇s + ½ |s|²]")
panel.plot(slopes, sliced, "--", label="sliced")
panel.axvline(1 / std**2, color="0.6", linestyle=":")
panel.set(xlabel="slope a of the model s(x) = −a x")
panel.legend()
save(drawn, __file__)

"""A small model of handwritten digits is trained, and digits appear out of noise."""

from drawing import figure, save

# --8<-- [start:api]
import torch
from sklearn.datasets import load_digits

import scoremodel

torch.set_num_threads(2)
pixels = torch.from_numpy(load_digits().images).to(torch.uint8)[:, None]  # 17 grey levels

torch.manual_seed(0)
network = {"kind": "unet", "width": 16, "multipliers": [1, 4]}
model = scoremodel.Denoiser.for_data(pixels, network, scoremodel.VP(), levels=17)
how = scoremodel.TrainingConfig(steps=1200)
digits = scoremodel.train(model, pixels, how, seed=0).denoiser
drawn_digits = scoremodel.sample(
    digits, scoremodel.Heun(steps=18), count=8, seed=2, trajectory=True
)
# --8<-- [end:api]

print(f"{drawn_digits.nfe} calls of the network for each digit, by Heun's 18 steps")

drawn, (panel,) = figure(1, 7.2, 5.6)
path = drawn_digits.trajectory[::3]
shown = path[:, :, 0] / path[:, :, 0].abs().amax((2, 3), keepdim=True).clamp(min=1)
rows = torch.nn.functional.pad(shown, (0, 1, 0, 1), value=1.0)
steps, count, height, width = rows.shape
picture = rows.permute(1, 2, 0, 3).reshape(count * height, steps * width)
panel.imshow(picture, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
panel.set(xticks=[4 + width * i for i in range(steps)], yticks=[])
panel.set_xticklabels([f"step {3 * i}" for i in range(steps)])
save(drawn, __file__)

"""Other libraries' training steps and samplers, as their own documentation writes them.

Each is built for images 1×28×28 in [−1, 1], by default with the network of the library's own example
for such images (`EXAMPLE`), or with one of about 1.7 M parameters (`EQUAL`), for comparisons at equal
size. What an example leaves open is taken from the library's defaults. Nothing here is tuned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

__all__ = ["PEERS", "Peer", "Size"]

SHAPE = (1, 28, 28)
Size = Literal["example", "equal"]


class Peer(ABC):
    """One library's way to train and to sample.

    Args:
        size: the example's own network, or one of equal size.
        fast: whether to use the speed-ups that the library documents.
    """

    name: ClassVar[str]
    batch_size: ClassVar[int]
    nfe: ClassVar[int] = 0
    max_norm: ClassVar[float] = float("inf")
    speedups: ClassVar[str] = "none documented"

    module: nn.Module
    optimiser: torch.optim.Optimizer

    def __init__(self, size: Size = "example", fast: bool = False) -> None:
        self.fast = fast
        self.steps = 0
        self.build(size)

    @abstractmethod
    def build(self, size: Size) -> None:
        """Make `module` and `optimiser`."""

    @abstractmethod
    def loss(self, x: Tensor) -> Tensor:
        """Return the mean loss of images with shape (B, 1, 28, 28)."""

    def sample(self, count: int) -> Tensor:
        """Return images in [−1, 1] with shape (count, 1, 28, 28), with at most `nfe` calls each."""
        raise NotImplementedError(f"{self.name} is here for the speed of its training only")

    def precision(self) -> AbstractContextManager[Any]:
        """Return the context in which the loss is computed."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.fast)

    def after(self) -> None:
        """Do what the library does after each step."""
        self.steps += 1

    def step(self, x: Tensor) -> None:
        """Take one optimiser step on images in [−1, 1] with shape (B, 1, 28, 28)."""
        self.module.train()
        self.optimiser.zero_grad()
        with self.precision():
            loss = self.loss(x)
        loss.backward()
        if self.max_norm < float("inf"):
            nn.utils.clip_grad_norm_(self.module.parameters(), self.max_norm)
        self.optimiser.step()
        self.after()

    def parameters(self) -> int:
        """Return the number of trained parameters."""
        return sum(p.numel() for p in self.module.parameters() if p.requires_grad)


class Diffusers(Peer):
    """huggingface/diffusers: its guide "Train a diffusion model", the network made smaller."""

    name = "diffusers"
    batch_size = 16
    max_norm = 1.0
    speedups = "bf16, channels_last"

    def build(self, size: Size) -> None:
        from diffusers import DDPMScheduler, UNet2DModel

        channels = {"example": (64, 128, 128), "equal": (32, 64, 64)}[size]
        self.module = UNet2DModel(
            sample_size=28,
            in_channels=1,
            out_channels=1,
            layers_per_block=2,
            block_out_channels=channels,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        )
        if self.fast:
            self.module.to(memory_format=torch.channels_last)
        self.scheduler = DDPMScheduler(num_train_timesteps=1000)
        self.optimiser = torch.optim.AdamW(self.module.parameters(), lr=1e-4)

    def loss(self, x: Tensor) -> Tensor:
        noise = torch.randn_like(x)
        t = torch.randint(0, 1000, (len(x),))
        noisy = self.scheduler.add_noise(x, noise, t)
        if self.fast:
            noisy = noisy.contiguous(memory_format=torch.channels_last)
        return nn.functional.mse_loss(self.module(noisy, t, return_dict=False)[0], noise)


class SmallDiffusion(Peer):
    """smalldiffusion: its examples/fashion_mnist_unet.py."""

    name = "smalldiffusion"
    batch_size = 1024
    nfe = 20
    speedups = "bf16"

    def build(self, size: Size) -> None:
        from smalldiffusion import ScheduleLogLinear, Unet
        from smalldiffusion.model import Scaled

        self.schedule = ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800)
        options: dict[str, Any] = {
            "example": {"ch": 64, "ch_mult": (1, 1, 2), "attn_resolutions": (14,)},
            "equal": {"ch": 32, "ch_mult": (1, 2, 2), "attn_resolutions": (14,)},
        }[size]
        self.module = Scaled(Unet)(28, 1, 1, **options)
        self.optimiser = torch.optim.AdamW(self.module.parameters(), lr=7e-4)
        self.averages = [p.detach().clone() for p in self.module.parameters()]

    def loss(self, x: Tensor) -> Tensor:
        from smalldiffusion.diffusion import generate_train_sample

        x_0, sigma, noise, _ = generate_train_sample(x, self.schedule)
        loss: Tensor = type(self.module).get_loss(self.module, x_0, sigma, noise, cond=None)
        return loss

    def after(self) -> None:
        # The example's torch_ema, decay .999 with its default warm-up.
        super().after()
        decay = min(0.999, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for mean, p in zip(self.averages, self.module.parameters(), strict=True):
                mean.lerp_(p, 1 - decay)

    @torch.inference_mode()
    def sample(self, count: int) -> Tensor:
        from accelerate import Accelerator
        from smalldiffusion import samples

        trained = [p.detach().clone() for p in self.module.parameters()]
        for p, mean in zip(self.module.parameters(), self.averages, strict=True):
            p.copy_(mean)
        schedule = self.schedule.sample_sigmas(self.nfe)
        *_, x = samples(
            self.module, schedule, gam=1.6, batchsize=count, accelerator=Accelerator(cpu=True)
        )
        for p, value in zip(self.module.parameters(), trained, strict=True):
            p.copy_(value)
        return x


class TorchCFM(Peer):
    """torchcfm: its examples/images/mnist_example.ipynb, with Euler's method as in its CIFAR-10 one."""

    name = "torchcfm"
    batch_size = 128
    nfe = 50

    def build(self, size: Size) -> None:
        from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher
        from torchcfm.models.unet import UNetModel

        blocks = {"example": 1, "equal": 2}[size]
        self.module = UNetModel(dim=SHAPE, num_channels=32, num_res_blocks=blocks)
        self.matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)
        self.optimiser = torch.optim.Adam(self.module.parameters())

    def precision(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", enabled=False)

    def loss(self, x: Tensor) -> Tensor:
        t, x_t, velocity = self.matcher.sample_location_and_conditional_flow(torch.randn_like(x), x)
        return (self.module(t, x_t) - velocity).square().mean()

    @torch.inference_mode()
    def sample(self, count: int) -> Tensor:
        self.module.eval()
        x = torch.randn(count, *SHAPE)
        for step in range(self.nfe):
            x = x + self.module(torch.tensor(step / self.nfe), x) / self.nfe
        return x


class Azula(Peer):
    """azula: its docs/tutorials/mnist.ipynb without the labels."""

    name = "azula"
    batch_size = 64
    nfe = 50

    def build(self, size: Size) -> None:
        from azula.denoise import KarrasDenoiser
        from azula.nn.unet import UNet
        from azula.noise import VPSchedule

        channels, features = {
            "example": ([16, 32, 64], 64),
            "equal": ([32, 64, 112], 64),
        }[size]

        class Wrapper(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.unet = UNet(
                    1, 1, hid_channels=channels, hid_blocks=[2, 2, 2], mod_features=features
                )
                self.time_embedding = nn.Sequential(
                    nn.Linear(1, features), nn.SiLU(), nn.Linear(features, features)
                )

            def forward(self, x_t: Tensor, log_snr: Tensor) -> Tensor:
                x: Tensor = self.unet(x_t, self.time_embedding(log_snr[..., None]))
                return x

        self.module = KarrasDenoiser(backbone=Wrapper(), schedule=VPSchedule())
        self.optimiser = torch.optim.Adam(self.module.parameters(), lr=3e-4)

    def precision(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", enabled=False)

    def loss(self, x: Tensor) -> Tensor:
        loss: Tensor = self.module.loss(x, torch.rand(len(x)))
        return loss

    @torch.inference_mode()
    def sample(self, count: int) -> Tensor:
        from azula.sample import DDIMSampler

        sampler = DDIMSampler(self.module.eval(), steps=self.nfe, silent=True)
        x: Tensor = sampler(sampler.init((count, *SHAPE)))
        return x


class DenoisingDiffusion(Peer):
    """denoising-diffusion-pytorch: its README's Unet, GaussianDiffusion and Trainer's settings."""

    name = "denoising-diffusion-pytorch"
    batch_size = 16
    max_norm = 1.0
    speedups = "bf16, flash attention"

    def build(self, size: Size) -> None:
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet
        from ema_pytorch import EMA

        # Three levels, because 28 can be halved twice only.
        dim = {"example": 64, "equal": 26}[size]
        network = Unet(dim=dim, dim_mults=(1, 2, 4), channels=1, flash_attn=self.fast)
        self.diffusion = GaussianDiffusion(network, image_size=28, timesteps=1000)
        self.module = self.diffusion
        self.optimiser = torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.9, 0.99))
        self.average = EMA(self.diffusion, beta=0.995, update_every=10)

    def loss(self, x: Tensor) -> Tensor:
        loss: Tensor = self.diffusion((x + 1) / 2)  # it takes [0, 1]
        return loss

    def after(self) -> None:
        super().after()
        self.average.update()


PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (Diffusers, SmallDiffusion, TorchCFM, Azula, DenoisingDiffusion)
}
"""The peers by name."""

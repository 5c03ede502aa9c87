"""diffusers' `UNet2DModel`, asked and understood as the scheduler beside it has it.

Which scheduler stands beside a network says how it was trained: at which times it is asked, on which
scale its images are, and what it predicts. All of it is a translation between their terms and
c_noise = ln(r) / 4, r = sigma_t / alpha_t, and lives in the network here, so that a denoiser around it
is one like any other:

    DDPMScheduler, DDIMScheduler                     asked at i = 0 … N − 1; noise, v or the data
    ScoreSdeVeScheduler                              asked at σ, of images in [0, 1]; the score
    EDMEulerScheduler, EDMDPMSolverMultistepScheduler    asked at ln(σ) / 4; EDM's F

diffusers is imported when such a network is made.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from scoremodel.bounds import Size, shown
from scoremodel.networks.base import NETWORKS
from scoremodel.parametrisation import Preconditioning
from scoremodel.processes.base import Process, column
from scoremodel.processes.ddpm import DDPM
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP

__all__ = [
    "EDM",
    "PIPELINES",
    "DiffusersUNet2D",
    "Wrapping",
    "check_sides",
    "part_of",
    "weights_of",
    "wrapping",
]

Configuration: TypeAlias = Mapping[str, Any]

PIPELINES = {
    "DDPMScheduler": "DDPMPipeline",
    "DDIMScheduler": "DDIMPipeline",
    "ScoreSdeVeScheduler": "ScoreSdeVePipeline",
    # Of diffusers' pipelines for images alone the one that scales the network's input as EDM does.
    "EDMEulerScheduler": "ConsistencyModelPipeline",
    "EDMDPMSolverMultistepScheduler": "ConsistencyModelPipeline",
}
"""Scheduler → the pipeline that samples with it."""

_WEIGHTS = "diffusion_pytorch_model.safetensors"
EDM = {"_class_name": "EDMEulerScheduler"}
"""The scheduler of a network beside which none is named."""


class Wrapping(NamedTuple):
    """What a network is asked, and what a denoiser around it must be made with; its data have mean 0.

    Args:
        asked: in which terms it is told the noise level.
        preconditioning: what the network predicts.
        std: the standard deviation that its scales are made for.
        process: the process that it was trained on, in continuous time.
        chain: the process whose levels it was trained on, None if they were not discrete.
    """

    asked: Literal["level", "sigma", "c_noise"]
    preconditioning: Preconditioning
    std: float
    process: Process
    chain: DDPM | None = None


def wrapping(scheduler: Configuration) -> Wrapping:
    """Return what a scheduler's configuration says of the network beside it.

    Args:
        scheduler: the content of `scheduler_config.json`; what it does not say is diffusers' default.

    Returns:
        What the denoiser is to be made with.

    Raises:
        ValueError: if it is another scheduler, or one whose levels or predictions have no counterpart
            here.
    """
    kind = scheduler.get("_class_name")

    def one_of(key: str, default: Any, *allowed: Any) -> Any:
        value = scheduler.get(key, default)
        if value not in allowed:
            said = ", ".join(map(str, allowed))
            raise ValueError(f"{kind}: {key}: {shown(value)} is not allowed, allowed: {said}")
        return value

    def number(key: str, default: float) -> float:
        value = scheduler.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{kind}: {key}: {shown(value)} is not allowed, allowed: a number")
        return value

    if kind in ("DDPMScheduler", "DDIMScheduler"):
        predicts = one_of("prediction_type", "epsilon", "epsilon", "v_prediction", "sample")
        one_of("beta_schedule", "linear", "linear")
        one_of("trained_betas", None, None)
        one_of("rescale_betas_zero_snr", False, False)
        levels = int(number("num_train_timesteps", 1000))
        chain = DDPM(number("beta_start", 1e-4), number("beta_end", 0.02), levels)
        names: dict[str, Preconditioning] = {
            "epsilon": "noise",
            "v_prediction": "v",
            "sample": "denoised",
        }
        continuous = VP(levels * chain.beta_first, levels * chain.beta_last)
        return Wrapping("level", names[predicts], 1.0, continuous, chain)
    if kind == "ScoreSdeVeScheduler":  # of images in [0, 1], half as wide as ours
        ends = 2 * number("sigma_min", 0.01), 2 * number("sigma_max", 1348.0)
        return Wrapping("sigma", "noise", 1.0, VE(*ends))
    if kind in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"):
        one_of("prediction_type", "epsilon", "epsilon", "v_prediction")
        # Its samplers go to sigma_min itself.
        process = VE(number("sigma_min", 0.002), number("sigma_max", 80.0), t_min=1e-9)
        return Wrapping("c_noise", "edm", float(number("sigma_data", 0.5)), process)
    raise ValueError(
        f"scheduler {shown(kind)} is not allowed, allowed: {', '.join(PIPELINES)}: it says what the "
        "network predicts, and at which noise levels"
    )


def part_of(folder: str | os.PathLike[str], name: str) -> Path:
    """Return where a part of a folder lies: in a folder of its own, or in older ones beside the index."""
    own = Path(folder) / name
    return own if own.is_dir() else Path(folder)


def weights_of(folder: str | os.PathLike[str], sha256: str | None = None) -> Path:
    """Return the path of a folder's weights.

    Args:
        folder: the folder.
        sha256: the checksum that the file must have; None for any.

    Returns:
        The safetensors file.

    Raises:
        ValueError: if there is none, or it has another checksum.
    """
    path = part_of(folder, "unet") / _WEIGHTS
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; allowed: weights as one safetensors file, pickles (.bin) are not read"
        )
    if sha256 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise ValueError(f"{path}: sha256 is {found}, not {sha256}: broken, or another file")
    return path


def check_sides(network: dict[str, Any], shape: Sequence[int], who: str) -> None:
    """Refuse data that do not fit a network.

    Args:
        network: as `network_of` returns it.
        shape: shape of one data point.
        who: what is refused, for the message.

    Raises:
        ValueError: if they are no images, or of another size or number of channels.
    """
    size, channels = network.get("sample_size"), network.get("in_channels", shape[0])
    sides = [size, size] if isinstance(size, int) else size
    halvings = len(network.get("block_out_channels", range(4))) - 1
    if len(shape) != 3 or shape[0] != channels or (sides and list(shape[1:]) != list(sides)):
        allowed = [channels, *(sides or ("H", "W"))]
        raise ValueError(
            f"{who}: data of shape {tuple(shape)} do not fit this network, allowed: "
            f"({', '.join(map(str, allowed))})"
        )
    if any(side % 2**halvings for side in shape[1:]):
        raise ValueError(
            f"{who}: images of {shape[1]}×{shape[2]} pixels do not fit this network, which halves them "
            f"{halvings} times, allowed: sides that are multiples of {2**halvings}"
        )


@NETWORKS.register("diffusers_unet2d", dimensions=3)
class DiffusersUNet2D(nn.Module):
    """diffusers' U-Net F(x, c_noise, labels) for images, in a denoiser made as `wrapping` says.

    At levels of DDPM's chain it is asked for whole numbers, between them for the number that is
    linear in ln r. Class numbers are rows of its table of classes, "no class" the row after them if
    there is one.

    Args:
        channels: number of the image's channels.
        scheduler: the content of `scheduler_config.json`, for what the network is asked and what it
            predicts; None is EDM's.
        classes: number of classes of a conditional network, None for an unconditional one.
        **unet: the configuration of `UNet2DModel`, as in `unet/config.json`.
    """

    def __init__(
        self,
        channels: int,
        scheduler: Configuration | None = None,
        classes: Size | None = None,
        **unet: Any,
    ) -> None:
        super().__init__()
        self.scheduler = dict(scheduler or EDM)
        self.wrapping = wrapping(self.scheduler)
        self.unet: Any = _made(channels, classes, self.wrapping.asked, unet)
        self.classes = classes
        self._ladder: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._levels = torch.empty(0)
        if (chain := self.wrapping.chain) is not None:
            times = torch.arange(1, chain.levels + 1, dtype=torch.float64) / chain.levels
            self._levels = chain.ratio(times).log()

    @classmethod
    def data_of(cls, network: Configuration, channels: int) -> dict[str, Any]:
        """Return what a denoiser around this network takes for mean, std and preconditioning.

        diffusers' schedulers know no mean, and each has a standard deviation of its own.
        """
        said = wrapping(network.get("scheduler") or EDM)
        mean = [0.0] * channels
        return {"mean": mean, "std": said.std, "preconditioning": said.preconditioning}

    def read(self, folder: str | os.PathLike[str], sha256: str | None = None) -> None:
        """Take the weights in a folder of diffusers'.

        Args:
            folder: the folder.
            sha256: the checksum of its safetensors file, None for any.

        Raises:
            ValueError: in one line, if they are missing, damaged, not the ones meant or of another
                network.
        """
        from diffusers import UNet2DModel

        path = weights_of(folder, sha256)
        try:
            # diffusers' own reader, which knows the names that older files give their weights.
            unet, found = UNet2DModel.from_pretrained(  # type: ignore[no-untyped-call]
                path.parent,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                output_loading_info=True,
            )
            wrong = [
                *found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]
            ]  # fmt: skip
            if wrong:
                raise ValueError(f"{len(wrong)} of its weights, such as {wrong[0]}")
            self.unet.load_state_dict(unet.state_dict())
        except (OSError, ValueError, RuntimeError) as error:
            why = shown(" ".join(str(error).split()))
            raise ValueError(
                f"{path}: damaged, or of another network than config.json says: {why}"
            ) from error

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F, see `scoremodel.networks`."""
        rows = self._rows(len(x), x.device, labels)
        if self.wrapping.asked == "level":
            return self._said(x, self._level(4 * c_noise), rows)
        if self.wrapping.asked == "c_noise":
            said = self._said(x, c_noise, rows)
            # EDM's F is −v for data scaled to 1, and so these schedulers have it.
            return -said if self.scheduler.get("prediction_type") == "v_prediction" else said
        ratio = (4 * c_noise).exp()
        y = column((1 + ratio**2).sqrt(), x) * x
        return -column(ratio / 2, x) * self._said((y + 1) / 2, ratio / 2, rows)

    def allow_second_derivatives(self) -> None:
        """Do without the fast attention, whose derivative has none; results differ by rounding."""
        from diffusers.models.attention_processor import Attention, AttnProcessor

        for layer in self.unet.modules():
            if isinstance(layer, Attention):
                layer.set_processor(AttnProcessor())

    def _said(self, x: Tensor, timestep: Tensor, rows: Tensor | None) -> Tensor:
        out: Tensor = self.unet(x, timestep, class_labels=rows, return_dict=False)[0]
        return out

    def _level(self, log_ratio: Tensor) -> Tensor:
        """Return i in [0, N − 1] with ln r_i = `log_ratio`, linear in between, whole at a level itself."""
        where = (log_ratio.device, log_ratio.dtype)
        if (
            where not in self._ladder
        ):  # no buffer: a network in half precision needs it all the same
            self._ladder[where] = self._levels.to(*where)
        ladder = self._ladder[where]
        above = torch.searchsorted(ladder, log_ratio.contiguous()).clamp(1, len(ladder) - 1)
        low, high = ladder[above - 1], ladder[above]
        level = (above - 1 + (log_ratio - low) / (high - low)).clamp(0, len(ladder) - 1)
        nearest = level.round()
        rounding = 16 * torch.finfo(log_ratio.dtype).eps * (1 + log_ratio.abs())
        return torch.where((log_ratio - ladder[nearest.long()]).abs() <= rounding, nearest, level)

    def _rows(self, count: int, device: torch.device, labels: Tensor | None) -> Tensor | None:
        """Return which row of the table of classes each image takes."""
        if self.classes is None:
            return None
        if labels is None:
            labels = torch.full((count,), -1, device=device)
        rows: int = self.unet.config.num_class_embeds
        if rows == self.classes and bool((labels < 0).any()):
            raise ValueError(
                f"this network was trained with a class for each image: labels must be from 0 to "
                f"{self.classes - 1}, it has no row for no class (-1)"
            )
        return labels % rows


def _made(channels: int, classes: int | None, asked: str, unet: Configuration) -> Any:
    """Return the network, or refuse its configuration in one line."""
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise ValueError(
            "network 'diffusers_unet2d' needs diffusers: pip install 'scoremodel[diffusers]'"
        ) from error
    known = [name for name in signature(UNet2DModel.__init__).parameters if name != "self"]
    config = {"in_channels": channels, "out_channels": channels}
    if classes is not None:
        config["num_class_embeds"] = classes + 1
    config |= {key: value for key, value in unet.items() if not key.startswith("_")}
    for key in config:
        if key not in known:
            raise ValueError(
                f"diffusers_unet2d: unexpected keyword argument {key!r}, allowed: {', '.join(known)}"
            )
    may: dict[str, tuple[Any, ...]] = {
        "in_channels": (channels,),
        "out_channels": (channels,),
        # The Fourier embedding takes a logarithm, and divides what the network says by what it takes.
        "time_embedding_type": ("fourier",) if asked == "sigma" else ("positional",),
        "class_embed_type": (None,),
        "num_class_embeds": (None,) if classes is None else (classes, classes + 1),
    }
    defaults = {"time_embedding_type": "positional"}
    for key, allowed in may.items():
        value = config.get(key, defaults.get(key))
        if value not in allowed:
            said = " or ".join(map(str, allowed))
            raise ValueError(
                f"diffusers_unet2d: {key}: {shown(value)} is not allowed, allowed: {said}"
            )
    try:
        return UNet2DModel(**config)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, KeyError, RuntimeError, ZeroDivisionError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"diffusers_unet2d: {shown(dict(unet))}: {why[:200]}") from error

"""The typed schema of `params.yaml`, its defaults filled in: what `tasks.params.filled` makes of the file."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator

from scoremodel.inverse import Method
from scoremodel.networks.mlp import MLP
from scoremodel.networks.unet import UNet
from scoremodel.parametrisation import Preconditioning
from scoremodel.processes.base import PROCESSES
from scoremodel.samplers.base import SAMPLERS
from scoremodel.training.config import TrainingConfig
from scoremodel.training.times.base import TIMES
from tasks.params.library import Strict, block, kinds

__all__ = ["Inception", "Model", "Name", "Params"]


def _unique(values: list[Any]) -> list[Any]:
    if len(set(values)) != len(values):
        raise ValueError("a list without repetitions")
    return values


def _matches(pattern: str, allowed: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(allowed)
        return value

    return AfterValidator(check)


Name = Annotated[str, _matches(r"[a-z0-9][a-z0-9_]*", "lower-case letters, digits and _")]
_Device = Annotated[
    str, _matches(r"auto|cpu|mps|cuda(:\d+)?", "'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'")
]
_Sha256 = Annotated[str, _matches(r"[0-9a-f]{64}", "64 hexadecimal digits")]
_Text = Annotated[str, Field(min_length=1)]
_Count = Annotated[int, Field(ge=1)]
_Several = Annotated[int, Field(ge=2)]
_Seed = Annotated[int, Field(ge=0, lt=2**32)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Active(Strict):
    """What runs: one configuration for every combination."""

    datasets: Annotated[list[Name], Field(min_length=1), AfterValidator(_unique)] = Field(
        description="names of blocks under datasets"
    )
    models: Annotated[list[Name], Field(min_length=1), AfterValidator(_unique)] = Field(
        description="names of blocks under models"
    )
    train_seeds: Annotated[list[_Seed], Field(min_length=1), AfterValidator(_unique)] = Field(
        description="seeds of the trainings"
    )
    samplers: Annotated[list[Name], Field(min_length=1), AfterValidator(_unique)] = Field(
        description="names of blocks under samplers, or NAME_N: that block with N steps"
    )
    applications: Annotated[
        list[Literal["likelihood", "inverse", "latents", "field"]], AfterValidator(_unique)
    ] = Field(description="what else each model is asked to do")
    studies: Annotated[list[Literal["failures"]], AfterValidator(_unique)] = Field(
        description="measurements on data whose truth is known"
    )


class Dataset(Strict):
    """How a source is split; what it is stands in `data/raw/NAME`."""

    held_out: Annotated[float, Field(gt=0, lt=1)] | Literal["source"] = Field(
        description="a fraction (stratified, shuffled), or the source's own test split"
    )
    limit: _Count | None = Field(None, description="at most so many of each split")


def _process(kind: str, cls: type) -> type[BaseModel]:
    return block(cls, kind=kind, nullable=getattr(cls, "from_data_parameters", ()))


Process: TypeAlias = kinds(PROCESSES, _process)  # type: ignore[valid-type]


def _levels_exist(value: list[int], info: ValidationInfo) -> list[int]:
    levels = len(info.data.get("multipliers", value))
    if any(not 0 <= level < levels for level in value):
        raise ValueError(f"levels from 0 to {levels - 1}, one for each multiplier")
    return value


_UNet = block(
    UNet,
    leave_out=("channels", "classes"),
    types={"attention_levels": Annotated[list[int], AfterValidator(_levels_exist)]},
    check=False,
)
_MLP = block(MLP, leave_out=("features", "classes"), check=False)


class Network(Strict):
    """Which of the two is used follows from the shape of the data."""

    unet: _UNet  # type: ignore[valid-type]
    mlp: _MLP  # type: ignore[valid-type]


_Training = block(
    TrainingConfig,
    types={
        "times": kinds(TIMES, lambda kind, cls: block(cls, kind=kind)),
        "ema_half_lives": Annotated[list[_Positive], Field(min_length=1), AfterValidator(_unique)],
    },
    check=False,  # its times are a block still
)


class Training(_Training):  # type: ignore[valid-type,misc]
    """How a model is trained, `scoremodel.training.config.TrainingConfig`."""

    @field_validator("accumulate", check_fields=False)
    @classmethod
    def _divides(cls, value: int, info: ValidationInfo) -> int:
        size = info.data.get("batch_size", value)
        if size % value:
            raise ValueError(f"a divisor of batch_size ({size})")
        return value


class Model(Strict):
    """A process, a network and how it is trained."""

    sde: Process = Field(description="the forward process")
    preconditioning: Preconditioning = Field(description="what the network predicts")
    energy: bool = Field(description="whether that is the gradient of a scalar")
    network: Network
    training: Training


class _AnySampler(Strict):
    guidance: _NonNegative = Field(description="scale of classifier-free guidance; 1 is none")
    path: Process | None = Field(
        description="the process to sample along, null for the one that the model was trained on"
    )
    ema_half_life: _Positive | None = Field(
        description="which of the model's averaged weights, null for the first"
    )


Sampler: TypeAlias = kinds(  # type: ignore[valid-type]
    SAMPLERS, lambda kind, cls: block(cls, _AnySampler, kind=kind)
)
"""One of the library's samplers, and on which model and path it is used."""


class _Trained(Strict):
    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="of the training split, by class; the floor is of the rest"
    )
    epochs: _Count = Field(description="passes over that share")
    seed: _Seed = Field(description="of the choice, initial weights, order and noise")


class Auto(_Trained):
    """The classifier that is shipped for the data set's source, or else one that is trained."""

    kind: Literal["auto"]


class Classifier(_Trained):
    """A classifier of part of the training split, whose penultimate layer's values are compared."""

    kind: Literal["classifier"]


class Shipped(Strict):
    """A classifier that comes with the library, `scoremodel.evaluation.extractors.shipped`."""

    kind: Literal["shipped"]
    name: Literal["digits", "fashion_mnist", "mnist"] = Field(
        description="the data set that it was made for"
    )


class Inception(Strict):
    """Inception as clean-fid has it, `scoremodel.evaluation.extractors.inception`."""

    kind: Literal["inception"]
    mode: Literal["clean", "legacy_pytorch", "legacy_tensorflow"] = Field(
        description="clean-fid's name of how images are resized and which weights are taken"
    )
    path: _Text | None = Field(None, description="its file, null: clean-fid downloads it")
    sha256: _Sha256 | None = Field(None, description="the file's checksum")


class TorchScript(Strict):
    """A TorchScript file, `scoremodel.evaluation.extractors.torchscript.TorchScript`."""

    kind: Literal["torchscript"]
    path: _Text = Field(description="the file")
    sha256: _Sha256 = Field(description="its checksum")


class Evaluation(Strict):
    """How models are judged."""

    count: Annotated[int, Field(ge=8)] = Field(description="samples for each sampling seed")
    sampling_seeds: Annotated[list[_Seed], Field(min_length=1), AfterValidator(_unique)]
    batch_size: _Count = Field(description="of sampling; samples do not depend on it")
    floor_repeats: _Several = Field(description="random training subsets, for the floor")
    neighbours: _Count = Field(description="k of precision, recall, density and coverage")
    extractor: Annotated[
        Auto | Shipped | Classifier | Inception | TorchScript, Field(discriminator="kind")
    ] = Field(description="of images' features; vectors are their own features")
    panel: Annotated[int, Field(ge=0, le=2)] = Field(
        description="further classifiers of the same kind, with other seeds, that judge too"
    )
    margin: Annotated[float, Field(gt=0)] = Field(
        description="differences of less than this share of the floor do not matter"
    )

    @field_validator("neighbours")
    @classmethod
    def _fewer(cls, value: int, info: ValidationInfo) -> int:
        count = info.data.get("count")
        if count is not None and value >= count:
            raise ValueError(f"less than evaluation.count, {count}")
        return value


class Likelihood(Strict):
    """Bits per dimension of held-out data by the probability flow, `scoremodel.likelihood`."""

    count: _Several = Field(description="held-out images")
    probes: _Several = Field(description="random probes of the divergence for each image")
    rtol: _Positive
    atol: _Positive


class MaskOperator(Strict):
    """Half of each image's pixels is hidden."""

    kind: Literal["mask"]
    hidden: Literal["lower_half", "random_half"]


class DownsampleOperator(Strict):
    """Squares of pixels are averaged."""

    kind: Literal["downsample"]
    factor: _Several = Field(description="side of the squares, in pixels")


class BlurOperator(Strict):
    """Pixels are smeared by a Gaussian."""

    kind: Literal["blur"]
    std: _Positive = Field(description="the Gaussian's width, in pixels")


class Inverse(Strict):
    """Held-out images restored from what is known of them, `scoremodel.inverse`."""

    operator: Annotated[
        MaskOperator | DownsampleOperator | BlurOperator, Field(discriminator="kind")
    ]
    noise_std: _Positive = Field(description="of the measurement, on the scale of [-1, 1]")
    method: Method
    iterations: _Count = Field(description="of conjugate gradients")
    steps: _Count = Field(description="of Heun's method")
    count: _Several = Field(description="held-out images")
    draws: _Several = Field(description="restorations of each image")


class Latents(Strict):
    """Held-out data carried to latents and back, and paths between them, `scoremodel.latents`."""

    count: _Several = Field(description="held-out data points")
    points: Annotated[int, Field(ge=3)] = Field(description="of each path between two latents")
    rtol: _Positive
    atol: _Positive


class Plane(Strict):
    """Score fields of 2-D data at three noise levels, and paths of the probability flow."""

    paths: _Count = Field(description="trajectories that are drawn")


class Applications(Strict):
    """What else a trained model can be asked to do."""

    likelihood: Likelihood
    inverse: Inverse
    latents: Latents
    field: Plane


class Failures(Strict):
    """The three failures of plain score matching, and what noise levels mend, `tasks.failures`."""

    steps: _Count
    batch_size: _Count
    seeds: Annotated[list[_Seed], Field(min_length=2), AfterValidator(_unique)]
    ratio: _Positive = Field(description="the one noise level, sigma_t / alpha_t")
    samples: Annotated[int, Field(ge=100)]


class Studies(Strict):
    """Measurements on data whose truth is known."""

    failures: Failures


class Checkpoints(Strict):
    """Where, how often and how long work keeps its state, `scoremodel.io.checkpoint`."""

    folder: _Text
    every_steps: Annotated[int, Field(ge=0)] = Field(description="0: never for this reason")
    every_seconds: _NonNegative
    keep_samples: bool = Field(
        description="whether drawn samples stay there, for the stage with more sampling seeds"
    )


class Watch(Strict):
    """How an unfinished training can be watched, `tasks.files.watch`."""

    grid_every_seconds: _NonNegative = Field(description="between two pictures; 0: none")
    tensorboard: bool


class Params(Strict):
    """All of `params.yaml`."""

    seed: _Seed = Field(description="of the splits and of the floor's subsets")
    threads: _Count = Field(description="of each stage's process")
    device: _Device = Field(description="auto, cpu, cuda, cuda:N or mps")
    tf32: bool = Field(description="whether a GPU may round float32 factors to 10 bits")
    deterministic: bool = Field(description="false: a GPU may take its fastest algorithms")
    checkpoints: Checkpoints
    watch: Watch
    active: Active
    datasets: dict[Name, Dataset]
    models: dict[Name, Model]
    samplers: dict[Name, Sampler]
    evaluation: Evaluation
    applications: Applications
    studies: Studies

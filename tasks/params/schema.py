"""The typed schema of `params.yaml`, its defaults filled in: what `tasks.params.filled` makes of the file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from scoremodel.bounds import Bounds, Length
from scoremodel.data.exchange import Quantiser, Resize, Scale
from scoremodel.inverse import Method
from scoremodel.networks.adm import ADM
from scoremodel.networks.edm2 import EDM2
from scoremodel.networks.mlp import MLP
from scoremodel.networks.song import DDPMPP, NCSNPP
from scoremodel.networks.unet import UNet
from scoremodel.parametrisation import Preconditioning
from scoremodel.precision import Precision
from scoremodel.processes.base import PROCESSES
from scoremodel.samplers.base import SAMPLERS
from scoremodel.training.config import TrainingConfig
from scoremodel.training.times.base import TIMES
from tasks.files.layout import RECORDS, REPORT, Configuration
from tasks.params.library import Items, Strict, Within, block, kinds

__all__ = ["Inception", "Model", "Name", "Params", "Process", "Seed", "StateFolder"]

_MOST_RUNS = 10_000
_KEPT = (".git", ".dvc", *{Path(Configuration("x").card).parts[0], Configuration("x").raw.parts[0],
         RECORDS.parts[0], REPORT.parts[0]})  # fmt: skip


def _matches(pattern: str, allowed: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(allowed)
        return value

    return AfterValidator(check)


Name = Annotated[
    str, _matches(r"[a-z0-9][a-z0-9_]{0,49}", "lower-case letters, digits and _, at most 50")
]
_Device = Annotated[
    str,
    _matches(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", "'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'"),
]
_Sha256 = Annotated[str, _matches(r"[0-9a-f]{64}", "64 hexadecimal digits")]
_Path = Annotated[
    str, _matches(r"/*[^/]{1,200}(/+[^/]{1,200})*/*", "a path, of names of at most 200")
]
_Count = Annotated[int, Within(Bounds(ge=1, le=10**9), whole=True)]
_Large = Annotated[int, Within(Bounds(ge=1, le=10**15), whole=True)]
_Line = Annotated[str, _matches(r".{1,200}", "a line of at most 200 characters")]
_Some = Annotated[int, Within(Bounds(ge=1, le=10_000), whole=True)]
_Several = Annotated[int, Within(Bounds(ge=2, le=10**7), whole=True)]
_Repeats = Annotated[int, Within(Bounds(ge=2, le=10_000), whole=True)]
_Batch = Annotated[int, Within(Bounds(ge=1, le=2**20), whole=True)]
Seed = Annotated[int, Within(Bounds(ge=0, le=2**32 - 1), whole=True)]
_Positive = Annotated[float, Within(Bounds(ge=1e-12, le=1e12))]
_Seconds = Annotated[float, Within(Bounds(ge=0, le=1e9))]
_Share = Annotated[float, Within(Bounds(gt=0, lt=1))]
_Tolerance = Annotated[float, Within(Bounds(ge=1e-14, le=1))]
_Names = Annotated[list[Name], Items(Length(1, distinct=True))]
_Seeds = Annotated[list[Seed], Items(Length(1, distinct=True))]


def _apart(value: str) -> str:
    """Refuse a folder whose files are git's, DVC's or the pipeline's, or that is the workspace itself."""
    here, root = Path(os.path.normpath(Path.cwd() / value)), Path.cwd()
    inside = here.relative_to(root).parts if root in here.parents else None
    wrong = (
        {".git", ".dvc"} & set(here.parts[len(root.parts) if inside else 0 :])
        or (inside and inside[0] in _KEPT)
        or here in (root, *root.parents)
        or (inside is None and not Path(value).is_absolute())
        or not next(one for one in (here, *here.parents) if os.access(one, os.F_OK)).is_dir()
    )
    if wrong:
        raise ValueError(
            f"a folder for this alone, such as .scoremodel/state, not in {', '.join(_KEPT)}, or an "
            "absolute one elsewhere"
        )
    return value


StateFolder = Annotated[_Path, AfterValidator(_apart)]


class Active(Strict):
    """What runs: one configuration for every combination."""

    datasets: _Names = Field(description="names of blocks under datasets")
    models: _Names = Field(description="names of blocks under models")
    train_seeds: _Seeds = Field(description="seeds of the trainings")
    samplers: _Names = Field(
        description="names of blocks under samplers, or NAME_N: that block with N steps"
    )
    applications: Annotated[
        list[Literal["likelihood", "inverse", "latents", "field"]], Items(Length(distinct=True))
    ] = Field(description="what else each model is asked to do")
    studies: Annotated[list[Literal["failures"]], Items(Length(distinct=True))] = Field(
        description="measurements on data whose truth is known"
    )
    external: Annotated[list[Name], Items(Length(distinct=True))] = Field(
        description="names of blocks under external: samples from elsewhere, judged like the models'"
    )

    @model_validator(mode="after")
    def _countable(self) -> Active:
        trained = len(self.datasets) * len(self.models) * len(self.train_seeds)
        runs = trained * (len(self.samplers) + len(self.applications))
        runs += len(self.datasets) * len(self.external)
        if runs > _MOST_RUNS:
            raise PydanticCustomError(
                "made",
                "{runs} runs (data sets × models × training seeds × samplers and applications, and data "
                "sets × external) are not allowed, allowed: at most {most}",
                {"runs": f"{runs:,}", "most": f"{_MOST_RUNS:,}"},
            )
        return self


class Dataset(Strict):
    """How a source is split; what it is stands in `data/raw/NAME`."""

    held_out: _Share | Literal["source"] = Field(
        description="a fraction (stratified, shuffled), or the source's own test split"
    )
    limit: _Count | None = Field(None, description="at most so many of each split")


def _process(kind: str, cls: type) -> type[BaseModel]:
    return block(cls, kind=kind, nullable=getattr(cls, "from_data_parameters", ()))


Process: TypeAlias = kinds(PROCESSES, _process)  # type: ignore[valid-type]


_UNet = block(UNet, leave_out=("channels", "classes"), check=False)


class _Levels(_UNet):  # type: ignore[valid-type,misc]
    """A U-Net for images of any size and number of channels, `scoremodel.networks.unet.UNet`."""

    @field_validator("attention_levels", check_fields=False)
    @classmethod
    def _exist(cls, value: list[int], info: ValidationInfo) -> list[int]:
        levels = len(info.data.get("multipliers", range(16)))
        if any(level >= levels for level in value):
            raise ValueError(f"levels from 0 to {levels - 1}, one for each multiplier")
        return value


_MLP = block(MLP, leave_out=("features", "classes"), check=False)


def _sized(cls: type) -> Any:
    return block(cls, leave_out=("channels", "resolution", "classes"), check=False) | None


class Network(Strict):
    """Which one is used follows from the shape of the data; images take another than unet if it is there."""

    unet: _Levels
    mlp: _MLP  # type: ignore[valid-type]
    ddpmpp: _sized(DDPMPP) = Field(None, description="images: DDPM++ in place of unet")  # type: ignore[valid-type]
    ncsnpp: _sized(NCSNPP) = Field(None, description="images: NCSN++ in place of unet")  # type: ignore[valid-type]
    adm: _sized(ADM) = Field(None, description="images: ADM in place of unet")  # type: ignore[valid-type]
    edm2: _sized(EDM2) = Field(  # type: ignore[valid-type]
        None, description="images: EDM2's magnitude-preserving network in place of unet"
    )
    diffusers_unet2d: dict[str, Any] | None = Field(
        None,
        description="images: diffusers' UNet2DModel in place of unet: the keys of its config.json, and "
        "as scheduler those of scheduler_config.json",
    )

    @model_validator(mode="after")
    def _one(self) -> Network:
        said = [
            name for name, value in self if name != "unet" and name != "mlp" and value is not None
        ]
        if len(said) > 1:
            raise PydanticCustomError(
                "made",
                "{said} are not allowed together, allowed: one network in place of unet",
                {"said": " and ".join(said)},
            )
        return self


_Training = block(
    TrainingConfig,
    types={"times": kinds(TIMES, lambda kind, cls: block(cls, kind=kind))},
    check=False,  # its times are a block still
)


class Training(_Training):  # type: ignore[valid-type,misc]
    """How a model is trained, `scoremodel.training.config.TrainingConfig`."""

    @field_validator("parts", check_fields=False)
    @classmethod
    def _divides(cls, value: int, info: ValidationInfo) -> int:
        size = info.data.get("batch_size", value)
        if value & (value - 1) or size % value:
            raise ValueError(f"a power of two that divides batch_size ({size})")
        return value

    @field_validator("ema_half_lives", check_fields=False)
    @classmethod
    def _some(cls, value: list[float], info: ValidationInfo) -> list[float]:
        if not value and not info.data.get("ema_stds"):
            raise ValueError("a list of 1 to 16 items where ema_stds has none")
        return value

    @field_validator("augment", check_fields=False)
    @classmethod
    def _mirrors(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("flip"):
            raise ValueError("null with flip: true, since it mirrors itself")
        return value

    @field_validator("uncertainty", check_fields=False)
    @classmethod
    def _positive(cls, value: bool, info: ValidationInfo) -> bool:
        objective = info.data.get("objective", "denoising")
        if value and objective != "denoising":
            raise ValueError(f"false with objective {objective!r}, whose loss may be negative")
        return value

    @field_validator("decay_steps", check_fields=False)
    @classmethod
    def _decays(cls, value: int | None, info: ValidationInfo) -> int | None:
        schedule = info.data.get("schedule", "inverse_sqrt")
        if value is not None and schedule != "inverse_sqrt":
            raise ValueError(f"null with schedule {schedule!r}, which has none")
        return value


class Pretrained(Strict):
    """A folder as diffusers writes it, `scoremodel.io.diffusers`."""

    path: _Path = Field(description="the folder, with unet and scheduler")
    sha256: _Sha256 = Field(description="the checksum of its diffusion_pytorch_model.safetensors")


class Model(Strict):
    """A process, a network and how it is trained; or where it is, if it was trained elsewhere."""

    pretrained: Pretrained | None = Field(
        None,
        description="a published model, which is converted in place of a training: it says its process, "
        "network and preconditioning itself",
    )
    sde: Process | None = Field(
        None,
        validate_default=True,
        description="the forward process; of a pretrained model its own, unless another one is said",
    )
    preconditioning: Preconditioning = Field(description="what the network predicts")
    energy: bool = Field(description="whether that is the gradient of a scalar")
    network: Network
    training: Training

    @field_validator("sde")
    @classmethod
    def _known(cls, value: Any, info: ValidationInfo) -> Any:
        # A pretrained block with a mistake in it is none here, and gets its own line.
        if value is None and info.data.get("pretrained", "wrong") is None:
            raise PydanticCustomError("missing", "missing")
        return value


class _AnySampler(Strict):
    guidance: Annotated[float, Within(Bounds(ge=0, le=1000))] = Field(
        description="scale of classifier-free guidance, or of the autoguide's; 1 is none"
    )
    autoguide: Annotated[float, Within(Bounds(ge=1e-3, le=1e12))] | None = Field(
        None,
        description="which averaged weights of the same training guide, by half-life (from 1 on) or "
        "relative width (below that); null for classifier-free guidance",
    )
    path: Process | None = Field(
        description="the process to sample along, null for the one that the model was trained on"
    )
    ema_half_life: _Positive | None = Field(
        description="which of the model's averaged weights, null for the first"
    )
    ema_std: Annotated[float, Within(Bounds(ge=1e-3, le=0.28))] | None = Field(
        None, description="which of them by its relative width, null for the first"
    )
    precision: Precision = Field(
        description="what the network computes in; auto: bfloat16 on a CUDA card that has it"
    )


Sampler: TypeAlias = kinds(  # type: ignore[valid-type]
    SAMPLERS, lambda kind, cls: block(cls, _AnySampler, kind=kind)
)
"""One of the library's samplers, and on which model and path it is used."""


class _Trained(Strict):
    share: _Share = Field(description="of the training split, by class; the floor is of the rest")
    epochs: Annotated[int, Within(Bounds(ge=1, le=100_000), whole=True)] = Field(
        description="passes over that share"
    )
    seed: Seed = Field(description="of the choice, initial weights, order and noise")


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
    path: _Path | None = Field(None, description="its file, null: clean-fid downloads it")
    sha256: _Sha256 | None = Field(None, description="the file's checksum")


class TorchScript(Strict):
    """A TorchScript file, `scoremodel.evaluation.extractors.torchscript.TorchScript`."""

    kind: Literal["torchscript"]
    path: _Path = Field(description="the file")
    sha256: _Sha256 = Field(description="its checksum")


class Evaluation(Strict):
    """How models are judged."""

    count: Annotated[int, Within(Bounds(ge=8, le=10**7), whole=True)] = Field(
        description="samples for each sampling seed"
    )
    sampling_seeds: _Seeds
    batch_size: _Batch = Field(description="of sampling; samples do not depend on it")
    floor_repeats: _Repeats = Field(description="random training subsets, for the floor")
    neighbours: _Count = Field(description="k of precision, recall, density and coverage")
    extractor: Annotated[
        Auto | Shipped | Classifier | Inception | TorchScript, Field(discriminator="kind")
    ] = Field(description="of images' features; vectors are their own features")
    panel: Annotated[int, Within(Bounds(ge=0, le=2), whole=True)] = Field(
        description="further classifiers of the same kind, with other seeds, that judge too"
    )
    margin: Annotated[float, Within(Bounds(ge=1e-6, le=1000))] = Field(
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
    probes: _Repeats = Field(description="random probes of the divergence for each image")
    rtol: _Tolerance
    atol: _Tolerance


class MaskOperator(Strict):
    """Half of each image's pixels is hidden."""

    kind: Literal["mask"]
    hidden: Literal["lower_half", "random_half"]


class DownsampleOperator(Strict):
    """Squares of pixels are averaged."""

    kind: Literal["downsample"]
    factor: Annotated[int, Within(Bounds(ge=2, le=4096), whole=True)] = Field(
        description="side of the squares, in pixels"
    )


class BlurOperator(Strict):
    """Pixels are smeared by a Gaussian."""

    kind: Literal["blur"]
    std: Annotated[float, Within(Bounds(ge=1e-3, le=4096))] = Field(
        description="the Gaussian's width, in pixels"
    )


class Inverse(Strict):
    """Held-out images restored from what is known of them, `scoremodel.inverse`."""

    operator: Annotated[
        MaskOperator | DownsampleOperator | BlurOperator, Field(discriminator="kind")
    ]
    noise_std: Annotated[float, Within(Bounds(ge=0, le=1000))] = Field(
        description="of the measurement, on the scale of [-1, 1]; 0 for one without noise"
    )
    method: Method
    iterations: _Some = Field(description="of conjugate gradients")
    steps: Annotated[int, Within(Bounds(ge=1, le=100_000), whole=True)] = Field(
        description="of Heun's method"
    )
    count: _Several = Field(description="held-out images")
    draws: _Repeats = Field(description="restorations of each image")


class Latents(Strict):
    """Held-out data carried to latents and back, and paths between them, `scoremodel.latents`."""

    count: _Several = Field(description="held-out data points")
    points: Annotated[int, Within(Bounds(ge=3, le=10_000), whole=True)] = Field(
        description="of each path between two latents"
    )
    rtol: _Tolerance
    atol: _Tolerance


class Plane(Strict):
    """Score fields of 2-D data at three noise levels, and paths of the probability flow."""

    paths: _Some = Field(description="trajectories that are drawn")


class External(Strict):
    """Samples from elsewhere, `data/samples/DATASET/NAME`: what is known of them; null: it is not."""

    nfe: _Count | None = Field(None, description="network calls that a sample took")
    parameters: _Large | None = Field(None, description="of the network")
    train_images: _Large | None = Field(None, description="seen in its training")
    source: _Line | None = Field(None, description="who made them, and how: an address, a paper")
    scale: Scale | None = Field(
        None, description="the range of floating-point pixels: unit, [0, 1], or symmetric, [-1, 1]"
    )
    quantiser: Quantiser | None = Field(
        None, description="how their writer made grey levels of real numbers"
    )
    channels: Literal["grey"] | None = Field(
        None, description="grey: colour samples are made grey for data that are"
    )
    resize: Resize | None = Field(
        None, description="how they are brought to the data's size, null: they must have it"
    )


class Applications(Strict):
    """What else a trained model can be asked to do."""

    likelihood: Likelihood
    inverse: Inverse
    latents: Latents
    field: Plane


class Failures(Strict):
    """The three failures of plain score matching, and what noise levels mend, `tasks.failures`."""

    steps: _Count
    batch_size: _Batch
    seeds: Annotated[list[Seed], Items(Length(2, distinct=True))]
    ratio: Annotated[float, Within(Bounds(ge=1e-6, le=1e6))] = Field(
        description="the one noise level, sigma_t / alpha_t"
    )
    samples: Annotated[int, Within(Bounds(ge=100, le=10**7), whole=True)]


class Studies(Strict):
    """Measurements on data whose truth is known."""

    failures: Failures


class Checkpoints(Strict):
    """Where, how often and how long work keeps its state, `scoremodel.io.checkpoint`."""

    folder: StateFolder
    every_steps: Annotated[int, Within(Bounds(ge=0, le=10**9), whole=True)] = Field(
        description="0: never for this reason"
    )
    every_seconds: _Seconds
    keep_samples: bool = Field(
        description="whether drawn samples stay there, for the stage with more sampling seeds"
    )


class Watch(Strict):
    """How an unfinished training can be watched, `tasks.files.watch`."""

    grid_every_seconds: _Seconds = Field(description="between two pictures; 0: none")
    tensorboard: bool


class Params(Strict):
    """All of `params.yaml`."""

    seed: Seed = Field(description="of the splits and of the floor's subsets")
    threads: Annotated[int, Within(Bounds(ge=1, le=1024), whole=True)] = Field(
        description="of each of a stage's processes"
    )
    cores: Annotated[int, Within(Bounds(ge=1, le=1024), whole=True)] = Field(
        description="that a stage may use, in as many processes as its work has parts for"
    )
    processes: Literal["auto"] | Annotated[int, Within(Bounds(ge=1, le=1024), whole=True)] = Field(
        description="of each stage; auto: one for each GPU, or for each `threads` of the cores"
    )
    sharded: bool = Field(
        description="whether each process keeps Adam's moments and the averages of its share of the "
        "weights only"
    )

    @field_validator("cores")
    @classmethod
    def _hold_the_threads(cls, value: int, info: ValidationInfo) -> int:
        if value < (threads := info.data.get("threads", 1)):
            raise ValueError(f"at least threads ({threads})")
        return value

    device: _Device = Field(description="auto, cpu, cuda, cuda:N or mps")
    tf32: bool = Field(description="whether a GPU may round float32 factors to 10 bits")
    deterministic: bool = Field(description="false: a GPU may take its fastest algorithms")
    checkpoints: Checkpoints
    watch: Watch
    active: Active
    datasets: dict[Name, Dataset]
    models: dict[Name, Model]
    samplers: dict[Name, Sampler]
    external: dict[Name, External]
    evaluation: Evaluation
    applications: Applications
    studies: Studies

"""The one typed schema of `params.yaml`, and the one line that a mistake in it gets."""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

__all__ = ["Params", "ParamsError", "load_params"]


class ParamsError(Exception):
    """A mistake in the parameters, one line for each."""


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
Device = Annotated[
    str, _matches(r"auto|cpu|mps|cuda(:\d+)?", "'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'")
]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _greater(other: str) -> AfterValidator:
    def check(value: float, info: ValidationInfo) -> float:
        low = info.data.get(other)
        if low is not None and value <= low:
            raise ValueError(f"a number greater than {other} ({low:g})")
        return value

    return AfterValidator(check)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Active(_Strict):
    """What runs: one configuration for every combination."""

    datasets: Annotated[list[Name], Field(min_length=1), AfterValidator(_unique)]
    models: Annotated[list[Name], Field(min_length=1), AfterValidator(_unique)]
    train_seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(_unique)]
    samplers: Annotated[list[Name], Field(min_length=1), AfterValidator(_unique)]
    studies: Annotated[list[Literal["failures"]], AfterValidator(_unique)]


class Dataset(_Strict):
    """How a source is split; what it is stands in `data/raw/NAME`."""

    held_out: Annotated[float, Field(gt=0, lt=1)] | Literal["source"]
    limit: Count | None = None


class VE(_Strict):
    """Variance exploding, `scoremodel.processes.sde.VE`."""

    kind: Literal["ve"]
    sigma_min: Positive
    sigma_max: Annotated[Positive, _greater("sigma_min")]


class VP(_Strict):
    """Variance preserving, `scoremodel.processes.sde.VP`, or sub-VP."""

    kind: Literal["vp", "subvp"]
    beta_min: Positive
    beta_max: Annotated[Positive, _greater("beta_min")]


class CosineVP(_Strict):
    """VP with the cosine schedule, `scoremodel.processes.sde.CosineVP`."""

    kind: Literal["vp_cosine"]
    offset: Positive = 0.008
    t_end: Annotated[float, Field(gt=0, lt=1)] = 0.995


class NCSN(_Strict):
    """NCSN's ladder, `scoremodel.processes.chain.NCSN`; what is null follows from the data (NCSNv2)."""

    kind: Literal["ncsn"]
    sigma_min: Positive
    sigma_max: Annotated[Positive, _greater("sigma_min")] | None
    levels: Annotated[int, Field(ge=2)] | None


class DDPM(_Strict):
    """DDPM's chain, `scoremodel.processes.chain.DDPM`."""

    kind: Literal["ddpm"]
    beta_first: Positive
    beta_last: Annotated[float, Field(gt=0, lt=1), _greater("beta_first")]
    levels: Annotated[int, Field(ge=2)]


Process = Annotated[VE | VP | CosineVP | NCSN | DDPM, Field(discriminator="kind")]


class UNet(_Strict):
    """For images, `scoremodel.networks.UNet`."""

    width: Count
    multipliers: Annotated[list[Count], Field(min_length=1)]
    blocks: Count
    attention_levels: list[Annotated[int, Field(ge=0)]]
    dropout: Fraction
    checkpointing: bool = False

    @field_validator("attention_levels")
    @classmethod
    def _exist(cls, value: list[int], info: ValidationInfo) -> list[int]:
        levels = len(info.data.get("multipliers", value))
        if any(level >= levels for level in value):
            raise ValueError(f"levels from 0 to {levels - 1}, one for each multiplier")
        return value


class MLP(_Strict):
    """For vectors, `scoremodel.networks.MLP`."""

    width: Count
    depth: Count
    dropout: Fraction


class Network(_Strict):
    """Which of the two is used follows from the shape of the data."""

    unet: UNet
    mlp: MLP


class PlainTimes(_Strict):
    """Times without parameters, see `scoremodel.training.times`."""

    kind: Literal["uniform", "stratified", "importance"]


class LogNormalTimes(_Strict):
    """EDM's times, `scoremodel.training.times.LogNormal`."""

    kind: Literal["log_normal"]
    mean: Annotated[float, Field(allow_inf_nan=False)] = -1.2
    std: Positive = 1.2


class SingleTime(_Strict):
    """One noise level, `scoremodel.training.times.Single`."""

    kind: Literal["single"]
    ratio: Positive


class Training(_Strict):
    """`scoremodel.training.loop.TrainingConfig`."""

    steps: Count
    batch_size: Count
    learning_rate: Positive
    schedule: Literal["constant", "linear", "cosine", "inverse_sqrt", "trapezoid"]
    warmup_steps: Annotated[int, Field(ge=0)]
    clip_norm: Positive
    ema_half_lives: Annotated[list[Positive], Field(min_length=1), AfterValidator(_unique)]
    objective: Literal["denoising", "sliced", "implicit", "explicit"] = "denoising"
    weighting: Literal["sigma2", "likelihood", "edm"]
    times: Annotated[PlainTimes | LogNormalTimes | SingleTime, Field(discriminator="kind")]
    dequantise: bool = False
    label_dropout: Fraction | None
    flip: bool
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    accumulate: Count = 1
    log_every: Count

    @field_validator("accumulate")
    @classmethod
    def _divides(cls, value: int, info: ValidationInfo) -> int:
        size = info.data.get("batch_size", value)
        if size % value:
            raise ValueError(f"a divisor of batch_size ({size})")
        return value


class Model(_Strict):
    """A process, a network and how it is trained."""

    sde: Process
    preconditioning: Literal["edm", "noise", "v", "denoised"]
    energy: bool = False
    network: Network
    training: Training


class _Any(_Strict):
    kind: str
    guidance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    path: Process | None = None
    ema_half_life: Positive | None = None


class _Sampler(_Any):
    steps: Count
    grid: Literal["uniform", "log_snr", "edm"]


class PlainSampler(_Sampler):
    """Samplers of the reverse SDE without parameters of their own."""

    kind: Literal["euler_maruyama", "reverse_diffusion", "sde_dpm_solver"]


class FlowSampler(_Sampler):
    """Samplers of the probability-flow ODE."""

    kind: Literal["euler", "heun", "dpm_solver"]
    denoise_last: bool = True


class Ancestral(_Sampler):
    """`scoremodel.samplers.Ancestral`."""

    kind: Literal["ancestral"]
    variance: Literal["posterior", "kernel"] = "posterior"


class DDIM(_Sampler):
    """`scoremodel.samplers.DDIM`."""

    kind: Literal["ddim"]
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0


class PredictorCorrector(_Sampler):
    """`scoremodel.samplers.PredictorCorrector`."""

    kind: Literal["predictor_corrector"]
    snr: Positive = 0.16


class StochasticHeun(_Sampler):
    """`scoremodel.samplers.StochasticHeun`."""

    kind: Literal["stochastic_heun"]
    s_churn: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 40.0
    s_min: Annotated[float, Field(ge=0)] = 0.05
    s_max: Annotated[float, Field(ge=0)] = 50.0
    s_noise: Positive = 1.003


class AnnealedLangevin(_Sampler):
    """`scoremodel.samplers.AnnealedLangevin`; null: all of a chain's levels, NCSNv2's step size."""

    kind: Literal["annealed_langevin"]
    steps: Count | None  # type: ignore[assignment]
    grid: Literal["uniform", "log_snr", "edm"] = "log_snr"
    steps_per_level: Count = 5
    step_size: Annotated[float, Field(gt=0, lt=1)] | None = None


class Langevin(_Any):
    """`scoremodel.samplers.Langevin`; null: the smallest noise level, the prior's own width."""

    kind: Literal["langevin"]
    steps: Count
    step_size: Positive
    ratio: Positive | None = None
    start_std: Positive | None = None


class RungeKutta(_Any):
    """`scoremodel.samplers.RungeKutta`, which chooses its own steps."""

    kind: Literal["runge_kutta"]
    rtol: Positive = 1e-5
    atol: Positive = 1e-5
    denoise_last: bool = True


Sampler = Annotated[
    PlainSampler
    | FlowSampler
    | Ancestral
    | DDIM
    | PredictorCorrector
    | StochasticHeun
    | AnnealedLangevin
    | Langevin
    | RungeKutta,
    Field(discriminator="kind"),
]
"""One of `scoremodel.samplers.SAMPLERS`; the scale of guidance, for class-conditional models; the
process along which to sample, if that is not the one that the model was trained on; and which of the
model's averaged weights to use, if not the first."""


Sha256 = Annotated[str, _matches(r"[0-9a-f]{64}", "64 hexadecimal digits")]


class ClassifierExtractor(_Strict):
    """A classifier of the training split, whose penultimate layer's values are compared."""

    kind: Literal["classifier"]
    epochs: Count
    seed: Seed


class InceptionExtractor(_Strict):
    """Inception as clean-fid has it, `scoremodel.evaluation.extractors.inception.load_inception`."""

    kind: Literal["inception"]
    mode: Literal["clean", "legacy_pytorch", "legacy_tensorflow"]
    path: Annotated[str, Field(min_length=1)] | None = None
    sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _check(self) -> InceptionExtractor:
        if (self.path is None) != (self.sha256 is None):
            raise _Located(
                "evaluation.extractor.sha256",
                self.sha256,
                "a path and its sha256, or null for both: clean-fid downloads it",
            )
        return self


class TorchScriptExtractor(_Strict):
    """A TorchScript file, `scoremodel.evaluation.extractors.inception.TorchScript`."""

    kind: Literal["torchscript"]
    path: Annotated[str, Field(min_length=1)]
    sha256: Sha256


class Likelihood(_Strict):
    """Bits per dimension of held-out data by the probability flow, `scoremodel.likelihood`."""

    count: Annotated[int, Field(ge=2)]
    probes: Annotated[int, Field(ge=2)]
    rtol: Positive = 1e-4
    atol: Positive = 1e-4


class MaskOperator(_Strict):
    """Half of each image's pixels is hidden."""

    kind: Literal["mask"]
    hidden: Literal["lower_half", "random_half"]


class DownsampleOperator(_Strict):
    """Squares of pixels are averaged."""

    kind: Literal["downsample"]
    factor: Annotated[int, Field(ge=2)]


class BlurOperator(_Strict):
    """Pixels are smeared by a Gaussian."""

    kind: Literal["blur"]
    std: Positive


class Inverse(_Strict):
    """Held-out images restored from what is known of them, `scoremodel.inverse`."""

    operator: Annotated[
        MaskOperator | DownsampleOperator | BlurOperator, Field(discriminator="kind")
    ]
    noise_std: Positive
    method: Literal["pigdm", "mmps"]
    iterations: Count = 3
    steps: Count = 18
    count: Annotated[int, Field(ge=2)]
    draws: Annotated[int, Field(ge=2)]


class Latents(_Strict):
    """Held-out data carried to latents and back, and paths between them, `scoremodel.latents`."""

    count: Annotated[int, Field(ge=2)]
    points: Annotated[int, Field(ge=3)] = 10
    rtol: Positive = 1e-5
    atol: Positive = 1e-5


class Failures(_Strict):
    """The three failures of plain score matching, and what noise levels mend, `tasks.failures`."""

    steps: Count
    batch_size: Count
    seeds: Annotated[list[Seed], Field(min_length=2), AfterValidator(_unique)]
    ratio: Positive
    samples: Annotated[int, Field(ge=100)]


class Evaluation(_Strict):
    """How models are judged."""

    count: Annotated[int, Field(ge=8)]
    sampling_seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(_unique)]
    batch_size: Count
    floor_repeats: Annotated[int, Field(ge=2)]
    neighbours: Count
    extractor: Annotated[
        ClassifierExtractor | InceptionExtractor | TorchScriptExtractor,
        Field(discriminator="kind"),
    ]
    likelihood: Likelihood | None = None
    inverse: Inverse | None = None
    latents: Latents | None = None

    @field_validator("neighbours")
    @classmethod
    def _fewer(cls, value: int, info: ValidationInfo) -> int:
        count = info.data.get("count")
        if count is not None and value >= count:
            raise ValueError(f"less than evaluation.count, {count}")
        return value


class Checkpoints(_Strict):
    """Where and how often a training keeps its state, `scoremodel.io.checkpoint.Checkpoints`."""

    folder: Annotated[str, Field(min_length=1)]
    every_steps: Annotated[int, Field(ge=0)]
    every_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Watch(_Strict):
    """How an unfinished training can be watched, `tasks.watch`."""

    grid_every_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    tensorboard: bool


class Params(_Strict):
    """All of `params.yaml`."""

    seed: Seed
    threads: Count
    device: Device
    tf32: bool
    deterministic: bool
    checkpoints: Checkpoints
    watch: Watch
    active: Active
    datasets: dict[Name, Dataset]
    models: dict[Name, Model]
    samplers: dict[Name, Sampler]
    evaluation: Evaluation
    failures: Failures

    @model_validator(mode="after")
    def _active_exist(self) -> Params:
        for kind in ("datasets", "models", "samplers"):
            defined = getattr(self, kind)
            for index, name in enumerate(getattr(self.active, kind)):
                if name not in defined:
                    raise _Located(
                        f"active.{kind}[{index}]", name, f"one of: {', '.join(sorted(defined))}"
                    )
        return self

    @model_validator(mode="after")
    def _paths_are_known(self) -> Params:
        for name, sampler in self.samplers.items():
            for key, value in sampler.path.model_dump().items() if sampler.path else ():
                if value is None:
                    raise _Located(f"samplers.{name}.path.{key}", value, "a number")
        return self

    @model_validator(mode="after")
    def _chains_have_levels_only(self) -> Params:
        for name, model in self.models.items():
            if not isinstance(model.sde, NCSN | DDPM):
                continue
            key, allowed = f"models.{name}.training", f"has no g(t) for a chain ({model.sde.kind})"
            if model.training.weighting == "likelihood":
                raise _Located(f"{key}.weighting", "likelihood", f"sigma2, edm; it {allowed}")
            if model.training.times.kind == "importance":
                raise _Located(
                    f"{key}.times.kind",
                    "importance",
                    f"uniform, stratified, log_normal; it {allowed}",
                )
        return self

    @model_validator(mode="after")
    def _second_derivatives_are_not_compiled(self) -> Params:
        for name, model in self.models.items():
            twice = model.training.objective in ("sliced", "implicit")
            if model.training.compile and (model.energy or twice):
                why = "energy: true" if model.energy else f"objective: {model.training.objective}"
                raise _Located(
                    f"models.{name}.training.compile",
                    True,
                    f"false with {why}, whose second derivatives torch.compile does not have",
                )
        return self

    @model_validator(mode="after")
    def _chains_have_no_flow(self) -> Params:
        for key in ("likelihood", "latents"):
            for model in self.active.models:
                sde = self.models[model].sde
                if getattr(self.evaluation, key) is not None and isinstance(sde, NCSN | DDPM):
                    raise _Located(
                        f"evaluation.{key}",
                        "on",
                        f"null for the active model {model!r}: a chain ({sde.kind}) has no "
                        "probability flow",
                    )
        return self

    @model_validator(mode="after")
    def _guidance_has_classes(self) -> Params:
        for sampler in self.active.samplers:
            guidance = self.samplers[sampler].guidance
            for model in self.active.models:
                dropout = self.models[model].training.label_dropout
                if guidance != 1.0 and not dropout:
                    raise _Located(
                        f"samplers.{sampler}.guidance",
                        guidance,
                        f"1.0 for the active model {model!r}, whose training.label_dropout is "
                        f"{'null' if dropout is None else dropout}: it does not know what no class is",
                    )
        return self

    @model_validator(mode="after")
    def _averages_exist(self) -> Params:
        for sampler in self.active.samplers:
            chosen = self.samplers[sampler].ema_half_life
            for model in self.active.models:
                half_lives = self.models[model].training.ema_half_lives
                if chosen is not None and chosen not in half_lives:
                    raise _Located(
                        f"samplers.{sampler}.ema_half_life",
                        chosen,
                        f"null, {', '.join(f'{h:g}' for h in half_lives)}: what the active model "
                        f"{model!r} keeps (training.ema_half_lives)",
                    )
        return self


class _Located(Exception):
    """A mistake that involves two parts of the file; carries its own key."""

    def __init__(self, key: str, value: Any, allowed: str) -> None:
        super().__init__(key, value, allowed)
        self.key, self.value, self.allowed = key, value, allowed


def load_params(path: str | Path = "params.yaml") -> Params:
    """Return the validated parameters.

    YAML 1.2 rules apply, under which 1e-05 is a number.

    Args:
        path: the file.

    Returns:
        The parameters.

    Raises:
        ParamsError: one line for each mistake: file, dotted key, value, and what is allowed.
    """
    path = Path(path)
    try:
        raw = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError as error:
        raise ParamsError(f"{path}: no such file; run this in the project's folder") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ParamsError(f"{path}{line}: not valid YAML: {problem}") from error
    try:
        return Params.model_validate(raw)
    except _Located as error:
        raise ParamsError(
            f"{path}: {error.key}: {error.value!r} is not allowed, allowed: {error.allowed}"
        ) from None
    except ValidationError as error:
        raise ParamsError("\n".join(_lines(path, raw, error.errors()))) from None


def _lines(path: Path, raw: Any, errors: list[ErrorDetails]) -> list[str]:
    """Return "file: dotted.key: value is not allowed, allowed: …", one line for each wrong key."""
    at: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for error in errors:
        at.setdefault(tuple(_keys(raw, error["loc"])), []).append(error)
    misspelt = {keys[:-1] for keys, here in at.items() if here[0]["type"] == "extra_forbidden"}
    lines = []
    for keys, here in at.items():
        dotted = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in keys).lstrip(".")
        where = f"{path}: {dotted}" if dotted else f"{path}"
        kind = here[0]["type"]
        if kind == "extra_forbidden":
            lines.append(f"{where}: unknown key, allowed: {', '.join(_fields(raw, keys[:-1]))}")
        elif kind == "union_tag_not_found" or kind == "missing":
            if keys[:-1] not in misspelt:
                lines.append(f"{where}: missing" + (" key: kind" if kind != "missing" else ""))
        elif kind == "union_tag_invalid":
            tag, tags = here[0]["ctx"]["tag"], here[0]["ctx"]["expected_tags"]
            lines.append(f"{where}.kind: {tag!r} is not allowed, allowed: {tags}")
        else:
            allowed = " or ".join(_allowed(error) for error in here)
            lines.append(f"{where}: {here[0]['input']!r} is not allowed, allowed: {allowed}")
    return lines


def _allowed(error: ErrorDetails) -> str:
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "a block of keys"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return message.removeprefix("a valid ")


def _keys(raw: Any, loc: tuple[int | str, ...]) -> list[int | str]:
    """Return `loc` without the tags that pydantic adds for unions and for a mapping's own keys."""
    keys: list[int | str] = []
    here = raw
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(here, dict) and (part in here or last) and part != "[key]":
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int):
            here = here[part] if part < len(here) else None
        else:
            continue
        keys.append(part)
    return keys


def _fields(raw: Any, keys: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the schema allows at the place `keys`."""
    schema: Any = Params
    here = raw
    for key in keys:
        here = here[key]
        inside = schema.model_fields[key].annotation if _is_model(schema) else None
        schema = _choose(inside or typing.get_args(schema)[1], here)
    return list(schema.model_fields)


def _choose(annotation: Any, value: Any) -> Any:
    """Return the one of a union's models that `value` names by its kind, or the annotation itself."""
    models = _models(annotation)
    kind = value.get("kind") if isinstance(value, dict) else None
    for model in models[1:]:
        if kind in typing.get_args(model.model_fields["kind"].annotation):
            return model
    return models[0] if models else annotation


def _models(annotation: Any) -> list[Any]:
    """Return the models in an annotation that is one, or a union of some, Annotated or optional."""
    if typing.get_origin(annotation) is Annotated:
        return _models(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return [model for choice in typing.get_args(annotation) for model in _models(choice)]
    return [annotation] if _is_model(annotation) else []


def _is_model(schema: Any) -> bool:
    return isinstance(schema, type) and issubclass(schema, BaseModel)

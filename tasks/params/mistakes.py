"""What can be wrong between two parts of `params.yaml` that are right by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scoremodel.processes.base import PROCESSES
from scoremodel.processes.chain import Chain
from scoremodel.training.times.base import TIMES
from tasks.files.layout import EXTERNAL
from tasks.params.errors import Located, of_names
from tasks.params.schema import Inception, Model, Params

__all__ = ["mistakes"]


def mistakes(params: Params) -> Iterator[Located]:
    """Yield what is wrong between one part of valid parameters and another.

    Args:
        params: all parameters, each valid by itself.

    Yields:
        One mistake at a time.
    """
    for kind in ("datasets", "models", "samplers", "external"):
        defined = getattr(params, kind)
        for index, name in enumerate(getattr(params.active, kind)):
            if name not in defined:
                allowed = f"one of: {of_names(sorted(defined))}"
                yield Located(f"active.{kind}[{index}]", name, allowed)
    for name in params.external:
        if name in params.models:
            yield Located(f"external.{name}", name, "a name that no model has")
    if EXTERNAL in params.samplers:
        allowed = "another name: by this one samples from elsewhere go"
        yield Located(f"samplers.{EXTERNAL}", EXTERNAL, allowed)
    extractor = params.evaluation.extractor
    if isinstance(extractor, Inception) and (extractor.path is None) != (extractor.sha256 is None):
        allowed = "a path and its sha256, or null for both: clean-fid downloads it"
        yield Located("evaluation.extractor.sha256", extractor.sha256, allowed)
    for name, sampler in params.samplers.items():
        for key, value in sampler.path.model_dump().items() if sampler.path else ():
            if value is None:
                yield Located(f"samplers.{name}.path.{key}", value, "a number")
    for name, model in params.models.items():
        if model.pretrained is None:
            yield from _mistakes_of_model(f"models.{name}", model)
    for model_name in params.active.models:
        if model_name in params.models:
            yield from _mistakes_of_pairs(params, model_name, params.models[model_name])


def _is_chain(model: Model) -> bool:
    sde: Any = model.sde  # None is a pretrained model's own, an SDE
    return sde is not None and issubclass(PROCESSES[sde.kind], Chain)


def _mistakes_of_model(key: str, model: Model) -> Iterator[Located]:
    training: Any = model.training
    sde: Any = model.sde
    if _is_chain(model):
        why = f"has no g(t) for a chain ({sde.kind})"
        if training.weighting == "likelihood":
            yield Located(f"{key}.training.weighting", "likelihood", f"sigma2, edm; it {why}")
        if training.times.kind == "importance":
            others = ", ".join(kind for kind in TIMES if kind != "importance")
            yield Located(f"{key}.training.times.kind", "importance", f"{others}; it {why}")
    twice = training.objective in ("sliced", "implicit")
    if training.compile and (model.energy or twice):
        why = "energy: true" if model.energy else f"objective: {training.objective}"
        allowed = f"false with {why}, whose second derivatives torch.compile does not have"
        yield Located(f"{key}.training.compile", True, allowed)


def _mistakes_of_pairs(params: Params, name: str, model: Model) -> Iterator[Located]:
    training: Any = model.training
    sde: Any = model.sde
    for index, application in enumerate(params.active.applications):
        if application in ("likelihood", "latents") and _is_chain(model):
            yield Located(
                f"active.applications[{index}]",
                application,
                f"inverse, field with the active model {name!r}: a chain ({sde.kind}) has no "
                "probability flow",
            )
    for chosen in params.active.samplers:
        sampler = params.samplers.get(chosen)
        if sampler is None:
            continue
        unguided = sampler.autoguide is None
        if sampler.guidance != 1.0 and unguided and not training.label_dropout:
            dropout = "null" if training.label_dropout is None else training.label_dropout
            yield Located(
                f"samplers.{chosen}.guidance",
                sampler.guidance,
                f"1.0 for the active model {name!r}, whose training.label_dropout is {dropout}: it "
                "does not know what no class is",
            )
        if sampler.ema_half_life is not None and sampler.ema_std is not None:
            yield Located(
                f"samplers.{chosen}.ema_std", sampler.ema_std, "null beside ema_half_life"
            )
        for key, asked, of_training in (
            ("ema_half_life", sampler.ema_half_life, "ema_half_lives"),
            ("ema_std", sampler.ema_std, "ema_stds"),
            ("autoguide", sampler.autoguide, "ema_half_lives and ema_stds"),
        ):
            averages = [
                one
                for kind in ("ema_half_lives", "ema_stds")
                if kind in of_training
                for one in getattr(training, kind)
            ]
            if asked is not None and model.pretrained is not None:
                allowed = (
                    f"null for the active model {name!r}, of which there is one set of weights"
                )
                yield Located(f"samplers.{chosen}.{key}", asked, allowed)
            elif asked is not None and asked not in averages:
                kept = ", ".join(["null", *(f"{one:g}" for one in averages)])
                allowed = f"{kept}: what the active model {name!r} keeps (training.{of_training})"
                yield Located(f"samplers.{chosen}.{key}", asked, allowed)

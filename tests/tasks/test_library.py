"""Parameters are the library's own: their names, defaults, bounds and words are said there, once."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import typing
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from scoremodel.bounds import Bounds
from scoremodel.inverse import Method
from scoremodel.networks.adm import ADM
from scoremodel.networks.edm2 import EDM2
from scoremodel.networks.mlp import MLP
from scoremodel.networks.song import DDPMPP, NCSNPP
from scoremodel.networks.unet import UNet
from scoremodel.parametrisation import Preconditioning
from scoremodel.processes.base import PROCESSES
from scoremodel.samplers.base import SAMPLERS
from scoremodel.samplers.grid import GRIDS
from scoremodel.training.config import TrainingConfig
from scoremodel.training.times.base import TIMES
from tasks.params import schema
from tasks.params.json_schema import PATH, json_schema
from tasks.params.load import read_yaml
from tasks.params.schema import Params
from tasks.train import training_config
from tests.workspace import ROOT


def models(annotation: Any) -> dict[str, type[BaseModel]]:
    """Return kind → block of a union of blocks."""
    union = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    found = {}
    for one in get_args(union):
        (kind,) = get_args(one.model_fields["kind"].annotation)
        found[kind] = one
    return found


SAMPLER = models(schema.Sampler)
PROCESS = models(schema.Process)
TIME = models(schema.Training.model_fields["times"].annotation)
OURS = {"guidance", "autoguide", "path", "ema_half_life", "ema_std", "precision"}  # of any sampler


def pairs() -> Iterator[tuple[str, type, type[BaseModel], set[str]]]:
    """Yield every class of the library that has a block, the block, and what the block has more."""
    for registry, blocks, more in (
        (SAMPLERS, SAMPLER, OURS),
        (PROCESSES, PROCESS, set[str]()),
        (TIMES, TIME, set[str]()),
    ):
        for kind, cls in registry.items():  # type: ignore[attr-defined]
            yield kind, cls, blocks[kind], more | {"kind"}
    network = schema.Network.model_fields
    yield "unet", UNet, network["unet"].annotation, set()  # type: ignore[misc]
    yield "mlp", MLP, network["mlp"].annotation, set()  # type: ignore[misc]
    for kind, cls in (("adm", ADM), ("ddpmpp", DDPMPP), ("edm2", EDM2), ("ncsnpp", NCSNPP)):
        yield kind, cls, get_args(network[kind].annotation)[0], set()
    yield "training", TrainingConfig, schema.Training, set()


def parameters(cls: type) -> dict[str, tuple[Any, Any]]:
    """Return name → annotation and default, `...` for none, of what is a key."""
    if not dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
        return {
            name: (hints[name], ... if one.default is inspect.Parameter.empty else one.default)
            for name, one in inspect.signature(cls).parameters.items()
            if name
            not in ("channels", "features", "resolution", "classes")  # which follow from the data
        }
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        field.name: (
            hints[field.name],
            ... if field.default is dataclasses.MISSING else field.default,
        )
        for field in dataclasses.fields(cls)
    }


PAIRS = list(pairs())
IDS = [kind for kind, *_ in PAIRS]


def test_every_kind_has_a_block_and_no_other() -> None:
    assert set(SAMPLER) == set(SAMPLERS)
    assert set(PROCESS) == set(PROCESSES)
    assert set(TIME) == set(TIMES)


@pytest.mark.parametrize(("kind", "cls", "block", "more"), PAIRS, ids=IDS)
def test_a_block_has_the_library_s_parameters_defaults_and_words(
    kind: str, cls: type, block: type[BaseModel], more: set[str]
) -> None:
    expected = parameters(cls)
    assert set(block.model_fields) - more == set(expected)
    for name, (_, default) in expected.items():
        field = block.model_fields[name]
        if default is ... or (kind, name) == ("training", "times"):
            assert field.is_required(), name
        else:
            assert field.default == (list(default) if isinstance(default, tuple) else default), name
        assert field.description, name


def test_the_library_trains_as_the_pipeline_does_by_default_but_for_what_is_short_there() -> None:
    """EDM's noise levels, Adam, a cosine; `TrainingConfig` says which these are."""
    given = read_yaml(ROOT / "params.yaml")["defaults"]["model"]["training"]
    short = re.findall(r"`(\w+)`", (TrainingConfig.__doc__ or "").split("Args:")[0])
    assert len(short) == 9
    there, here = training_config(given), TrainingConfig(steps=1)
    for name, value in vars(there).items():
        assert (value == getattr(here, name)) == (name not in short), name


def bounds(annotation: Any) -> Iterator[tuple[Bounds, bool]]:
    """Yield the bounds in an annotation, and whether they are those of a list's items."""
    for one in getattr(annotation, "__metadata__", ()):
        if isinstance(one, Bounds):
            yield one, False
    for inside in get_args(annotation):
        for one, deep in bounds(inside):
            yield one, deep or get_origin(annotation) is tuple


def outside(bound: Bounds) -> Iterator[float]:
    """Yield the nearest numbers that are refused, and those that are no numbers."""
    for limit, away in ((bound.gt, 0), (bound.lt, 0), (bound.ge, -1), (bound.le, 1)):
        if limit is not None:
            yield limit + away
    yield from (math.inf, math.nan)


BOUNDED = [
    (kind, cls, block, name, bound, in_list)
    for kind, cls, block, _ in PAIRS
    for name, (annotation, _) in parameters(cls).items()
    for bound, in_list in bounds(annotation)
]


@pytest.mark.parametrize(
    ("cls", "block", "name", "bound", "in_list"),
    [rest for _, *rest in BOUNDED],
    ids=[f"{kind}-{name}" for kind, _, _, name, *_ in BOUNDED],
)
def test_what_is_out_of_the_library_s_bounds_is_refused_by_the_schema(
    cls: type, block: type[BaseModel], name: str, bound: Bounds, in_list: bool
) -> None:
    whole = float in _types(parameters(cls)[name][0])
    for value in outside(bound):
        given: Any = value if whole or not math.isfinite(value) else int(value)
        with pytest.raises(ValidationError) as error:
            block.model_validate({name: [given] if in_list else given})
        assert name in {mistake["loc"][0] for mistake in error.value.errors()}, value


def _types(annotation: Any) -> set[Any]:
    inside = get_args(annotation)
    return {annotation} if not inside else {t for one in inside for t in _types(one)}


def test_bounds_are_found_where_there_are_some() -> None:
    found = {(kind, name) for kind, _, _, name, *_ in BOUNDED}
    assert found >= {
        ("ve", "sigma_min"),
        ("ve", "sigma_max"),
        ("heun", "steps"),
        ("ddim", "eta"),
        ("single", "ratio"),
        ("training", "ema_half_lives"),
        ("training", "label_dropout"),
    }


def test_the_schema_allows_what_the_library_has() -> None:
    def named(model: Any, field: str) -> set[str]:
        return set(get_args(model.model_fields[field].annotation))

    assert named(schema.Inverse, "method") == set(get_args(Method))
    assert named(schema.Model, "preconditioning") == set(get_args(Preconditioning))
    for name in ("objective", "weighting", "schedule", "precision"):
        annotation = parameters(TrainingConfig)[name][0]
        assert named(schema.Training, name) == set(get_args(annotation)), name
    (grid, _) = get_args(SAMPLER["heun"].model_fields["grid"].annotation)
    assert set(get_args(grid)) == set(GRIDS)


def test_what_a_class_says_of_its_values_together_is_said_by_the_schema() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(schema.Process)
    for cls in PROCESSES.values():
        fields = parameters(cls)
        if "sigma_max" in fields:
            with pytest.raises(ValidationError, match="greater than sigma_min"):
                adapter.validate_python({"kind": cls.kind, "sigma_min": 5.0, "sigma_max": 4.0})


def test_the_editors_schema_is_up_to_date() -> None:
    """Otherwise: python -m tasks.params.json_schema."""
    assert json.loads((ROOT / PATH).read_text()) == json_schema()


def test_every_block_of_the_schema_says_what_it_is() -> None:
    def blocks(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
        yield model
        for field in model.model_fields.values():
            for one in _types(field.annotation):
                if isinstance(one, type) and issubclass(one, BaseModel):
                    yield from blocks(one)

    for block in blocks(Params):
        assert block.__doc__, block

"""What each factor of a factorial contributes to the distance: effects with their intervals, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scoremodel.evaluation.comparison import SAMPLES, TRAININGS
from scoremodel.evaluation.factorial import Effect, effects
from tasks.results.table import floor_at, floor_said

__all__ = ["FACTORS", "Factor", "effects_of"]

FACTORS = (
    "sde=ve,ve_2021/vp,vp_2021",
    "recipe=ve,vp/ve_2021,vp_2021",
    "sampler=heun/euler_maruyama",
)
"""The factors of `presets/factorial.yaml`, in the words of the command line."""

_Cell = tuple[str, str]


@dataclass(frozen=True)
class Factor:
    """A factor with two levels, each of which some models or some samplers have.

    Args:
        name: the factor's name.
        levels: names of models, or of samplers: those of the low and those of the high level.
    """

    name: str
    levels: tuple[frozenset[str], frozenset[str]]

    @classmethod
    def parse(cls, text: str) -> Factor:
        """Return the factor that a text such as "sde=ve,ve_2021/vp,vp_2021" describes.

        Args:
            text: NAME=LOW,…/HIGH,….

        Returns:
            The factor.

        Raises:
            ValueError: if the text has another form, or a name stands on both sides.
        """
        name, _, said = text.partition("=")
        levels = [frozenset(filter(None, side.split(","))) for side in said.split("/")]
        if not name or len(levels) != 2 or not all(levels) or levels[0] & levels[1]:
            raise ValueError(
                f"--factor: {text!r} is not allowed, allowed: NAME=LOW,…/HIGH,… with different "
                "models, or different samplers, such as sampler=heun/euler_maruyama"
            )
        return cls(name, (levels[0], levels[1]))


def effects_of(
    records: Sequence[dict[str, Any]], factors: Sequence[str] = FACTORS, level: float = 0.95
) -> str:
    """Return the effects on the distance to held-out data, a table for each data set.

    They are of the methods, over training seeds and sampling seeds, where there are three of each;
    else of these checkpoints, over sampling seeds.

    Args:
        records: what `evaluate` wrote; those of other models and samplers are not looked at.
        factors: each as `Factor.parse` takes it.
        level: of the intervals, in (0.5, 1).

    Returns:
        Markdown.

    Raises:
        ValueError: if the factors do not name one model and one sampler for each cell, a record is
            missing, two cannot be compared, or there is one sampling seed only.
    """
    parsed = [Factor.parse(text) for text in factors]
    names = [factor.name for factor in parsed]
    if len(set(names)) != len(names):
        raise ValueError(f"--factor: {', '.join(names)}: two have the same name")
    if not 0.5 < level < 1:
        raise ValueError(f"--level: {level:g} is not allowed, allowed: a number in (0.5, 1)")
    cells = _cells(records, parsed)
    used = [record for record in records if (record["model"], record["sampler"]) in cells]
    if not used:
        wanted = ", ".join(f"{model} with {sampler}" for model, sampler in cells)
        raise ValueError(f"effects: no record of {wanted}")
    datasets = dict.fromkeys(record["dataset"] for record in used)
    tables = []
    for dataset in datasets:
        here = [record for record in used if record["dataset"] == dataset]
        tables.append(_section(dataset, here, cells, factors, names, level))
    return "\n\n".join(tables)


def _cells(records: Sequence[dict[str, Any]], factors: Sequence[Factor]) -> list[_Cell]:
    """Return model and sampler of each cell, the last factor's level running fastest."""
    known = {axis: {record[axis] for record in records} for axis in ("model", "sampler")}
    of = {}
    for factor in factors:
        axes = [axis for axis in known if frozenset.union(*factor.levels) & known[axis]]
        if len(axes) != 1:
            there_are = "; ".join(f"{axis}s {', '.join(sorted(known[axis]))}" for axis in known)
            raise ValueError(
                f"--factor: {factor.name}: must be of models or of samplers that have records, "
                f"there are: {there_are}"
            )
        of[factor.name] = axes[0]

    def only(axis: str, chosen: Sequence[int]) -> str:
        sides = [
            factor.levels[high]
            for factor, high in zip(factors, chosen, strict=True)
            if of[factor.name] == axis
        ]
        found = frozenset.intersection(*sides) if sides else known[axis]
        if len(found) != 1:
            raise ValueError(
                f"--factor: a cell must have one {axis}, {_levels(factors, chosen)} has "
                f"{', '.join(sorted(found)) or 'none'}"
            )
        return str(next(iter(found)))

    combinations = product((0, 1), repeat=len(factors))
    return [(only("model", chosen), only("sampler", chosen)) for chosen in combinations]


def _levels(factors: Sequence[Factor], chosen: Sequence[int]) -> str:
    return ", ".join(
        f"{factor.name}={','.join(sorted(factor.levels[high]))}"
        for factor, high in zip(factors, chosen, strict=True)
    )


def _section(
    dataset: str,
    records: Sequence[dict[str, Any]],
    cells: Sequence[_Cell],
    factors: Sequence[str],
    names: Sequence[str],
    level: float,
) -> str:
    """Return one data set's table, with what it is over."""
    responses, over = _responses(dataset, records, cells)
    found = effects(responses.reshape(*responses.shape[:2], *(2,) * len(names)), names, level)
    first = records[0]
    shown = pd.DataFrame(_rows(found, floor_at(first)))
    return "\n".join(
        [
            f"{dataset}, {first['metric']}, N = {first['count']}, over {over}; the floor is "
            f"{floor_said(first)}. Each factor from its first level to its second: {'; '.join(factors)}.",
            "",
            shown.to_markdown(index=False, disable_numparse=True),
        ]
    )


def _rows(found: Sequence[Effect], floor: float) -> Iterator[dict[str, str]]:
    for one in found:
        # Two digits of the interval's half-width, and no more than a record's rounding leaves.
        half = max((one.high - one.low) / 2, 1e-3)
        digits = max(0, 1 - math.floor(math.log10(half)))
        yield {
            "effect": one.name,
            "on the distance": f"{one.estimate:+.{digits}f}",
            f"{one.level * 100:g} % interval": f"[{one.low:+.{digits}f}, {one.high:+.{digits}f}]",
            "in floors": f"{one.estimate / floor:+.2f}",
            "p, all together (Holm)": "< 0.001" if one.p_holm < 1e-3 else f"{one.p_holm:.2g}",
        }


def _responses(
    dataset: str, records: Sequence[dict[str, Any]], cells: Sequence[_Cell]
) -> tuple[NDArray[np.float64], str]:
    """Return the distances with shape (J, K, cells), and what they are over in words."""
    held = {(r["model"], r["sampler"], r["train_seed"]): r for r in records}
    seeds = sorted({record["train_seed"] for record in records})
    if missing := [
        f"{model}, {sampler}, training seed {seed}"
        for model, sampler in cells
        for seed in seeds
        if (model, sampler, seed) not in held
    ]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(
            f"{dataset}: no record of {missing[0]}{more}; each training seed must have all "
            f"{len(cells)} cells"
        )
    how = {
        f"{record['metric']} of {record['count']} samples of the sampling seeds "
        f"{', '.join(map(str, record['sampling_seeds']))} on data {record['data_sha256'][:8]}"
        for record in records
    }
    if len(how) != 1:
        raise ValueError(
            f"{dataset}: its cells cannot be compared, they were judged by "
            f"{' and '.join(sorted(how))}"
        )
    values = np.array(
        [
            [held[model, sampler, seed]["held_out"]["by_seed"] for model, sampler in cells]
            for seed in seeds
        ],
        float,
    )
    shape = (len(seeds), values.shape[-1])
    over = f"{shape[0]} training seed{'s' * (shape[0] > 1)} × {shape[1]} sampling seeds"
    if shape[1] < 2:
        raise ValueError(f"{dataset}: one sampling seed, effects take two")
    enough = shape[0] >= TRAININGS and shape[1] >= SAMPLES
    of = "the methods" if enough else "these checkpoints only"
    return np.moveaxis(values, 1, 2), f"{over}: {of}, on these held-out data"

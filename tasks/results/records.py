"""Records as they lie on disk: what `evaluate` found of a configuration, and an application of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired

from pydantic import FiniteFloat
from typing_extensions import TypedDict

from scoremodel.io.files import AGAIN
from tasks.files.documents import parse_json, read_text, require_shape

__all__ = ["Spread", "read_record", "record_of"]


class Spread(TypedDict):
    """What `tasks.results.spread.spread` returns."""

    mean: FiniteFloat
    std: FiniteFloat | None
    by_seed: list[FiniteFloat]


class _Floor(TypedDict):
    value: FiniteFloat
    std: FiniteFloat | None
    count: int


class _Record(TypedDict):
    """What a record of any age has."""

    dataset: str
    data_sha256: str
    model: str
    train_seed: int
    sampler: str
    nfe: int | None
    count: int
    sampling_seeds: list[int]
    metric: str
    held_out: Spread
    train: Spread
    ratio_to_floor: FiniteFloat
    floor: _Floor
    agreement: NotRequired[Spread | None]
    environment: dict[str, str]
    external: NotRequired[dict[str, Any]]


class _Whole(_Record):
    """What one of today's has beside it, as the table and the page need it."""

    memorised: bool
    real: dict[str, Spread]
    gaussian: dict[str, Spread]
    classes: dict[str, dict[str, FiniteFloat]]
    warnings: list[str]
    parameters: int | None
    train_images: int | None


class _Application(TypedDict):
    application: str
    dataset: str
    model: str
    train_seed: int
    found: dict[str, Any]


def record_of(
    text: str, name: Path | str, whole: bool = False, remedy: str = AGAIN
) -> dict[str, Any]:
    """Return the record that a text is.

    Args:
        text: the text.
        name: what it is called, for errors.
        whole: whether all is needed that a record of today has.
        remedy: what to do if it is damaged.

    Returns:
        The record.

    Raises:
        DamagedError: if it is none.
    """
    record: dict[str, Any] = parse_json(text, name, remedy=remedy)
    shape = _Application if "application" in record else _Whole if whole else _Record
    require_shape(record, name, shape, remedy)
    return record


def read_record(path: Path) -> dict[str, Any]:
    """Return the record in a file of the workspace.

    Args:
        path: the file.

    Returns:
        The record.

    Raises:
        FileNotFoundError: if there is none yet.
        DamagedError: if it is damaged.
    """
    return record_of(read_text(path), path, whole=True)

"""What a command's NAME stands for, and what there is if it stands for nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from scoremodel.bounds import shown
from tasks.files.layout import Configuration

__all__ = ["dataset_named", "model_named", "samples_named"]

_MOST = 8  # names in an error


def dataset_named(name: str) -> Configuration:
    """Return the data set of this name.

    Args:
        name: such as "digits".

    Returns:
        The data set; its card is there.

    Raises:
        ValueError: if it was not prepared, naming those that were.
    """
    there = _stems(Configuration("*").card.parent.parent.glob("*/card.json"), parent=True)
    if name not in there:
        raise ValueError(_missing(name, "data set", "prepare", there))
    return Configuration(name)


def model_named(name: str) -> Configuration:
    """Return the model of this name.

    Args:
        name: such as "digits-ve-0".

    Returns:
        The model; its weights are there.

    Raises:
        ValueError: if it was not trained, naming those that were.
    """
    there = _stems(Configuration("x", "x").weights.parent.glob("[!.]*.safetensors"))
    return _named(name, "model", 3, "train", there)


def samples_named(name: str) -> Configuration:
    """Return the configuration of this name.

    Args:
        name: such as "digits-ve-0-heun".

    Returns:
        The configuration; its samples are there.

    Raises:
        ValueError: if none were drawn, naming those that were.
    """
    there = _stems(Configuration("x", "x").samples.parent.glob("[!.]*.npz"))
    return _named(name, "samples", 4, "sample", there)


def _named(name: str, what: str, parts: int, stage: str, there: list[str]) -> Configuration:
    given = name.split("-")
    if name not in there or len(given) != parts or not given[2].isdecimal():
        raise ValueError(_missing(name, what, stage, there))
    return Configuration(given[0], given[1], int(given[2]), *given[3:])


def _stems(paths: Iterable[Path], parent: bool = False) -> list[str]:
    return sorted(path.parent.name if parent else path.stem for path in paths)


def _missing(name: str, what: str, stage: str, there: list[str]) -> str:
    few = ", ".join(there[:_MOST]) + (f" and {len(there) - _MOST} more" if there[_MOST:] else "")
    made = f"what is active in params.yaml, after dvc repro {stage}"
    return f"{shown(name)}: no such {what} here, allowed: {f'{few}, or ' if there else ''}{made}"

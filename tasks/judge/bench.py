"""A workspace for one judgement: the pipeline's stages up to `evaluate`, in one process, gone at the end.

What is judged here is judged by the stages' own code, so that a number from here is the number that the
pipeline would write. Nothing of the workspace in which the command is called is changed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from scoremodel.bounds import shown
from tasks.files.arrays import read_arrays, write_arrays
from tasks.files.layout import EXTERNAL, Configuration
from tasks.files.stage import as_stage
from tasks.params.errors import ParamsError
from tasks.params.load import checked, read_yaml
from tasks.params.resolve import resolve, write
from tasks.params.source import read_description
from tasks.results.records import read_record

__all__ = ["Asked", "Bench", "bench", "named"]

_PARAMS = Path("params.yaml")
_DATA = Path("data")
_HELD_OUT = 0.5
_MODEL = "none_0"
"""A model that nothing trains: params.yaml has one at least, by whose name no samples may go."""


@dataclass(frozen=True)
class Asked:
    """What is to be judged, and how.

    Args:
        dataset: name of a folder in `data/raw`.
        sets: the samples' files or folders by the names that they go by.
        said_of: what is known of the files: `scale`, `quantiser`, `channels`, `resize`.
    """

    dataset: str
    sets: Mapping[str, Path] = field(default_factory=dict)
    said_of: Mapping[str, Any] = field(default_factory=dict)


class Bench:
    """The stages of one data set, in the current folder, which is theirs alone.

    Args:
        asked: what is judged.
        raw: the content of `params.yaml`, made for this.
        said: a sentence for each thing that was assumed.
    """

    def __init__(self, asked: Asked, raw: dict[str, Any], said: Sequence[str]) -> None:
        self.asked, self.raw, self.said = asked, raw, tuple(said)
        self.files = Configuration(asked.dataset)
        self._resolve(8, 1)
        self._run("prepare", "extractor", "reference")

    def _resolve(self, count: int, sets: int) -> None:
        """Say as `check` would how many samples and sets are judged."""
        said = self.raw["evaluation"]
        neighbours = min(said["neighbours"], count - 1)
        seeds = list(range(sets))
        now = {**said, "count": count, "sampling_seeds": seeds, "neighbours": neighbours}
        write(resolve(checked({**self.raw, "evaluation": now}, _PARAMS)))

    def _run(self, *stages: str, of: Configuration | None = None) -> None:
        for name in stages:
            with as_stage(name), redirect_stdout(sys.stderr):
                _main(name)(of or self.files)

    def judged(self, count: int, sets: int) -> dict[str, dict[str, Any]]:
        """Return the record of each set of samples, of so many subsets of so many samples.

        Args:
            count: samples of a subset.
            sets: number of subsets.

        Returns:
            Set's name → record, as stage `evaluate` writes it.
        """
        self._resolve(count, sets)
        self._run("baselines")
        found = {}
        for name in self.asked.sets:
            files = Configuration(self.asked.dataset, name, sampler=EXTERNAL)
            try:
                self._run("external", of=files)
            except ValueError as error:  # it names the file by where the stage sees it
                path = str(self.asked.sets[name])
                raise ValueError(str(error).replace(str(files.given), path)) from None
            self._run("features", "evaluate", of=files)
            found[name] = read_record(files.record)
        return found

    def whole(self, count: int) -> dict[str, dict[str, Any]]:
        """Return the record of each set's samples as one: those that `judged` has just judged in parts.

        Args:
            count: samples of all parts of the smallest set.

        Returns:
            Set's name → record.
        """
        self._resolve(count, 1)
        self._run("baselines")
        found = {}
        for name in self.asked.sets:
            files = Configuration(self.asked.dataset, name, sampler=EXTERNAL)
            for path in (files.samples, files.features):
                arrays, info = read_arrays(path)
                joined = np.concatenate(list(arrays.values()))
                if info.get("labels"):
                    info["labels"] = {"set_0": [*chain(*info["labels"].values())]}
                if info.get("agreement"):
                    info["agreement"] = {"set_0": float(np.mean([*info["agreement"].values()]))}
                write_arrays(path, {"set_0": joined}, info)
            panel, info = read_arrays(files.panel_features)
            several = {one: rows.reshape(1, -1, rows.shape[2]) for one, rows in panel.items()}
            write_arrays(files.panel_features, several, info)
            self._run("evaluate", of=files)
            found[name] = read_record(files.record)
        return found


def _main(stage: str) -> Callable[[Configuration], None]:
    main: Callable[[Configuration], None] = import_module(f"tasks.{stage}").main
    return main


@contextmanager
def bench(asked: Asked) -> Iterator[Bench]:
    """Yield a workspace of its own, which is the current folder meanwhile.

    Args:
        asked: what is to be judged.

    Yields:
        It, with the data prepared and the judges at hand.

    Raises:
        ParamsError: if `params.yaml` has mistakes, or there is no such data set.
        ValueError: if the data cannot be read.
    """
    here = Path.cwd()
    if not (here / Configuration(asked.dataset).raw).is_dir():
        there = ", ".join(sorted(one.name for one in (here / _DATA / "raw").glob("[!.]*")))
        raise ParamsError(
            f"--dataset: {shown(asked.dataset)} is not allowed, allowed: {there or 'none'}, the folders "
            f"in {_DATA}/raw"
        )
    raw, said = _params(asked)
    with TemporaryDirectory(prefix="scoremodel-") as folder:
        _lay(here, Path(folder), asked)
        with chdir(folder):
            yield Bench(asked, raw, said)


def _params(asked: Asked) -> tuple[dict[str, Any], list[str]]:
    """Return the content of `params.yaml` for this alone, and what was assumed."""
    raw: Any = read_yaml(_PARAMS)
    checked(raw, _PARAMS)  # a mistake in it is said as it stands there
    said = []
    if asked.dataset not in raw["datasets"]:
        raw["datasets"][asked.dataset] = {"held_out": _HELD_OUT}
        said.append(
            f"{asked.dataset} has no block under datasets in params.yaml: {_HELD_OUT:.0%} of it is held out"
        )
    raw["active"] |= {
        "datasets": [asked.dataset],
        "models": [_MODEL],
        "train_seeds": [0],
        "samplers": [next(iter(raw["samplers"]))],
        "applications": [],
        "studies": [],
        "external": list(asked.sets),
    }
    raw["models"] = {_MODEL: {"sde": {"kind": "vp"}}}
    raw["external"] = {name: dict(asked.said_of) for name in asked.sets}
    extractor = raw["evaluation"]["extractor"]
    if extractor.get("path"):
        extractor["path"] = str(Path(extractor["path"]).resolve())
    return raw, said


def _lay(here: Path, root: Path, asked: Asked) -> None:
    """Lay the data and the samples where the stages look for them."""
    source = here / Configuration(asked.dataset).raw
    target = root / Configuration(asked.dataset).raw
    target.parent.mkdir(parents=True)
    description = read_description(Configuration(asked.dataset).raw)
    if description is None:
        target.symlink_to(source)
    else:
        for key in ("root", "path"):
            if isinstance(description.get(key), str):
                description[key] = str((here / description[key]).resolve())
        target.mkdir()
        (target / "source.yaml").write_text(json.dumps(description), encoding="utf-8")
    for name, path in asked.sets.items():
        given = root / Configuration(asked.dataset, name).given
        given.parent.mkdir(parents=True, exist_ok=True)
        whole = (here / path).resolve()
        if whole.is_dir():
            given.symlink_to(whole)
        else:
            given.mkdir()
            (given / whole.name).symlink_to(whole)


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """Return samples by the names that they go by: their files', as params.yaml takes names.

    Args:
        paths: files or folders.

    Returns:
        Name → path.
    """
    found: dict[str, Path] = {}
    for path in paths:
        stem = re.sub(r"[^a-z0-9]+", "_", path.resolve().stem.lower()).strip("_")[:40] or "samples"
        name, number = stem, 1
        while name in found or name == _MODEL:
            number += 1
            name = f"{stem}_{number}"
        found[name] = path
    return found

"""A workspace for one judgement: the pipeline's stages up to `evaluate`, in one process, gone at the end.

What is judged here is judged by the stages' own code, so that a number from here is the number that the
pipeline would write. Nothing of the workspace in which the command is called is changed; a judge that is
trained here is kept in its folder of unfinished work, for the next call.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from importlib import import_module
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from scoremodel.bounds import shown
from scoremodel.data.exchange import ImageSet
from scoremodel.evaluation.extractors.base import load_extractor
from scoremodel.io.files import atomic_folder
from tasks.files.arrays import read_arrays, read_card, write_arrays
from tasks.files.device import Machine, environment, set_up_device
from tasks.files.extraction import extractor_file
from tasks.files.layout import EXTERNAL, Configuration
from tasks.files.resolved import resolved
from tasks.files.stage import as_stage, code_of
from tasks.files.state import state_folder
from tasks.judge.chosen import extractor_block
from tasks.judge.statistics import Statistics
from tasks.params.errors import ParamsError
from tasks.params.load import checked, read_yaml
from tasks.params.resolve import resolve, write
from tasks.params.source import read_description
from tasks.results.records import read_record

__all__ = ["Asked", "Bench", "bench", "named", "sizes"]

_PARAMS = Path("params.yaml")
_DATA = Path("data")
_HELD_OUT = 0.5
_LEAST = 8
_MODEL = "none_0"
"""A model that nothing trains: params.yaml has one at least, by whose name no samples may go."""


@dataclass(frozen=True)
class Asked:
    """What is to be judged, and how.

    Args:
        dataset: name of a folder in `data/raw`.
        sets: the samples' files or folders by the names that they go by.
        said_of: what is known of the files: `scale`, `quantiser`, `channels`, `resize`.
        extractor: the extractor as the command line names it, None for params.yaml's.
    """

    dataset: str
    sets: Mapping[str, Path] = field(default_factory=dict)
    said_of: Mapping[str, Any] = field(default_factory=dict)
    extractor: str | None = None


class Bench:
    """The stages of one data set, in the current folder, which is theirs alone.

    Args:
        asked: what is judged.
        raw: the content of `params.yaml`, made for this.
        said: a sentence for each thing that was assumed.
        home: the folder of the project, in which trained judges are kept.
    """

    def __init__(self, asked: Asked, raw: dict[str, Any], said: Sequence[str], home: Path) -> None:
        self.asked, self.raw, self.said = asked, raw, tuple(said)
        self.files = Configuration(asked.dataset)
        self._resolve(8, 1)
        self._run("prepare")
        if resolved(f"extractors/{asked.dataset}")["kind"] == "classifier":
            self._train(home)
        else:
            self._run("extractor")
        self._run("reference")

    def _train(self, home: Path) -> None:
        """Train the judge and its panel, or take what was kept of the same training."""
        machine = Machine.read()
        with as_stage("extractor"), redirect_stdout(sys.stderr):
            kept = home / state_folder(
                f"judge-{self.asked.dataset}",
                {
                    "data": read_card(self.files.card)["sha256"],
                    "how": resolved(f"extractors/{self.asked.dataset}"),
                    "panel": resolved("judge/panel"),
                    "environment": environment(set_up_device(machine), machine),
                    "code": code_of(self.files),
                },
            )
        if kept.is_dir():
            shutil.copytree(kept, self.files.extractors)
            with suppress(FileNotFoundError, ValueError):  # a damaged one is trained again
                for number in range(1 + resolved("judge/panel")["panel"]):
                    load_extractor(extractor_file(self.files, number))
                print(f"extractor: as trained before, {kept}", file=sys.stderr)
                return
        self._run("extractor")
        with atomic_folder(kept) as folder:
            shutil.copytree(self.files.extractors, folder, dirs_exist_ok=True)

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

    def require(self, statistics: Statistics) -> None:
        """Refuse others' statistics that are not by this data set's extractor, as far as that is known.

        Args:
            statistics: what the samples are to be compared with.

        Raises:
            ValueError: if they are another extractor's.
        """
        real, info = read_arrays(self.files.real_features, ("metric", "extractor"))
        statistics.require(info["metric"], info["extractor"])
        statistics.require_width(real["held_out"].shape[1])

    def distances(self, statistics: Statistics) -> list[str]:
        """Return how far the samples that were judged are from others' statistics, a sentence for each set.

        Args:
            statistics: theirs.

        Returns:
            The sentences.
        """
        metric = read_arrays(self.files.real_features, ("metric",))[1]["metric"]
        found = []
        for name in self.asked.sets:
            files = Configuration(self.asked.dataset, name, sampler=EXTERNAL)
            values = statistics.distances([*read_arrays(files.features)[0].values()])
            found.append(statistics.sentence(name, metric, f"{np.mean(values):.4g}"))
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
            yield Bench(asked, raw, said, here)


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
    extractor = extractor_block(asked.extractor, raw["evaluation"]["extractor"])
    if extractor.get("path"):
        extractor["path"] = str(Path(extractor["path"]).resolve())
    raw["evaluation"]["extractor"] = extractor
    checked(raw, _PARAMS)
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
        target.mkdir()
        if isinstance(description.get("root"), str):
            description["root"] = str((here / description["root"]).resolve())
        if isinstance(description.get("path"), str):
            path = Path(os.path.normpath(source / description["path"]))
            if path.is_relative_to(source):
                _link(path.relative_to(source), source, target)
            else:
                description["path"] = str(path)
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


def _link(inside: Path, source: Path, target: Path) -> None:
    """Link a data set's own file or folder to where its description, written anew, names it."""
    if inside == Path():  # all that lies beside the description
        for one in source.iterdir():
            if one.name != "source.yaml":
                (target / one.name).symlink_to(one.resolve())
        return
    (target / inside.parent).mkdir(parents=True, exist_ok=True)
    (target / inside).symlink_to((source / inside).resolve())


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


def sizes(sets: Mapping[str, Mapping[str, ImageSet]], subsets: int) -> tuple[int, int]:
    """Return how many samples are judged at once, and how often.

    Args:
        sets: name → what its file or folder holds.
        subsets: how many disjoint ones are made of a single set.

    Returns:
        The number of samples of a subset, the same for all sets, and that of subsets.

    Raises:
        ParamsError: if there are too few samples, or one set beside several.
    """
    counts = [len(one.x) for found in sets.values() for one in found.values()]
    if min(counts) < _LEAST:
        raise ParamsError(f"samples: {min(counts)} are not allowed, allowed: at least {_LEAST}")
    given = [len(found) for found in sets.values()]
    if max(given) > 1:
        if min(given) == 1:
            raise ParamsError(
                f"samples: one set and {max(given)} are not allowed, allowed: two of one set each, or two "
                "folders of several"
            )
        return min(counts), min(given)
    parts = min(subsets, min(counts) // _LEAST)
    return min(counts) // parts, parts

"""Experiments: each in a worktree of its own, their stages run like any other, what they share once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd
from prefect import get_run_logger

from flows.artifacts import publish_summary, publish_table
from flows.hand import Hand, Where, handing
from flows.run import at_work, pedigree
from flows.stages import Place, Places, StageFailedError
from tasks.files.dvc import persist
from tasks.files.git import GitError, git
from tasks.files.graph import stage_graph
from tasks.files.layout import TABLE
from tasks.files.schedule import Done, reasons
from tasks.files.worktree import beside, default_remote
from tasks.results.branch import LENT, commit_results
from tasks.results.gather import gather
from tasks.results.history import experiments, records_at
from tasks.results.trials import Trial, record

__all__ = ["Experiments", "publish_rows"]

_SHOWN = ("dataset", "model", "train_seed", "sampler")


class Experiments:
    """How a flow runs experiments, and what became of their stages.

    Args:
        root: the workspace, which is the current folder.
        stop: ends them.
        where: where their stages run; its repository is that of which the workspace is a worktree.
    """

    def __init__(self, root: Path, stop: threading.Event, where: Where) -> None:
        self.root, self.stop, self.where = root, stop, where
        self.said = pedigree(root)
        self._done: dict[str, Done] = {}
        self._failed: dict[str, str] = {}

    def run(self, trials: list[Trial]) -> tuple[list[str], dict[str, str]]:
        """Run experiments, as far as they are not known, and bring their rows into the ledger.

        Args:
            trials: the experiments.

        Returns:
            The names of those whose results are there, and the reason of each that failed.

        Raises:
            ValueError: with the mistakes in their parameters, before the first one has run.
            StageFailedError: if a result contradicts the ledger.
        """
        failed, left = dict[str, str](), dict[str, str]()
        known = self._known(trials)
        self._done |= {name: Done(name, "up to date") for name in known}
        with self._worktrees([one for one in trials if one.name not in known]) as folders:
            places = [Place(folder, stage_graph(folder), trial.name) for trial, folder in folders]
            nodes = [node for place in places for node in place.nodes]
            with (
                handing(self.where, self.root, nodes, self.stop) as hand,
                self._lent(hand, [trial for trial, _ in folders]),
            ):
                if places:
                    together = Places(places, self.said["revision"], self.stop, hand=hand)
                    together.check()
                    with at_work():
                        done, left = together.run()
                        self._done, self._failed = self._done | done, self._failed | left
                        for trial, folder in folders:
                            mine = {k: why for k, why in left.items() if k.split()[0] == trial.name}
                            if mine:
                                failed[trial.name] = reasons(mine)
                            else:
                                record(self.root, folder, trial)
        found = [trial.name for trial in trials if trial.name not in failed]
        self._collect(found)
        return found, failed

    def _known(self, trials: list[Trial]) -> set[str]:
        return {one.name for one in experiments()} & {trial.name for trial in trials}

    @contextmanager
    def _worktrees(self, trials: list[Trial]) -> Iterator[list[tuple[Trial, Path]]]:
        """Yield a worktree of each; who else runs one of them ends it first."""
        say = get_run_logger().info
        with ExitStack() as stack:
            # In one order, so that two flows never wait for each other.
            folders = []
            for trial in sorted(trials):
                there = beside(self.root, trial.commit, trial.name, say=say, stop=self.stop)
                folders.append((trial, stack.enter_context(there)))
            known = self._known(trials)
            yield [one for one in folders if one[0].name not in known]

    @contextmanager
    def _lent(self, hand: Hand | None, trials: list[Trial]) -> Iterator[None]:
        """Let workers fetch the experiments' commits from a repository elsewhere meanwhile."""
        if hand is None or hand.repository == str(self.root) or not trials:
            yield
            return
        # By names of this run's own, which no other run of the same experiments takes away.
        mine = f"{LENT}/{hand.own}"
        names = {f"{mine}/{trial.name}": trial.commit for trial in trials}
        lent = [f"{commit}:{name}" for name, commit in names.items()]
        git(self.root, "push", "--quiet", "--force", hand.repository, *lent)
        try:
            yield
        finally:
            try:
                git(self.root, "push", "--quiet", hand.repository, *(f":{name}" for name in names))
            except GitError as error:
                get_run_logger().warning("%s in %s stay: %s", mine, hand.repository, error)

    def _collect(self, names: list[str]) -> None:
        lines, agreed = gather(names)
        for line in lines:
            get_run_logger().info("ledger: %s", line)
        if not agreed:
            refused = "; ".join(line for line in lines if "refused" in line)
            raise StageFailedError(f"a result contradicts the ledger: {refused}")

    def keep(self, names: list[str], push: bool, commit_to: str | None) -> None:
        """Push the experiments, and commit the ledger's new rows, as far as that is asked for.

        Args:
            names: the experiments.
            push: whether to push them, with their results, to the repository.
            commit_to: branch to which the rows are committed; None for none.
        """
        logger, message = get_run_logger(), f"Rows of {', '.join(names)}"
        if self.where.repository is not None:
            commit_results(self.root, None, message)  # here at least, whatever comes
        if push:
            cache = [] if default_remote(self.root)[0] else ["--no-cache"]
            arguments = ["exp", "push", *cache, "origin", *names]
            persist("dvc exp push", arguments, self.root, logger.info, self.stop)
        if commit_to is not None:
            made = commit_results(self.root, commit_to, message)
            logger.info("rows: %s", f"{made} on {commit_to}" if made else "nothing new to commit")

    def publish_summary(self) -> None:
        """Show what became of all stages."""
        publish_summary(self._done.values(), self._failed, self.said)


def publish_rows(trials: Mapping[str, Trial], key: str) -> None:
    """Show what the experiments scored, and by which overrides they differ.

    Args:
        trials: the experiments by their names.
        key: the artifact's key.
    """
    rows = pd.DataFrame(
        [
            {
                "experiment": name,
                **{override: str(value) for override, value in trial.values.items()},
                **{part: found[part] for part in _SHOWN},
                "NFE": found["nfe"],
                "to held-out": found["held_out"]["mean"],
                "± std": found["held_out"]["std"],
                "× floor": found["ratio_to_floor"],
            }
            for name, trial in trials.items()
            for found in records_at(name)
        ]
    )
    publish_table(rows, key, f"results of {len(trials)} experiments ({TABLE} of each)")
    get_run_logger().info("\n%s", rows.to_string(index=False, float_format="{:.4g}".format))

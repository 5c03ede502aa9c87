"""Experiments: each in a worktree of its own, their stages run like any other, what they share once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from prefect import get_run_logger
from prefect.runtime import flow_run

from flows.artifacts import publish, publish_summary
from flows.hand import handing
from flows.run import at_work, keep, pedigree
from flows.stages import At, StageFailedError, together
from tasks.files.dvc import persist
from tasks.files.graph import stage_graph
from tasks.files.layout import TABLE
from tasks.files.places import Place
from tasks.files.schedule import Done, reasons
from tasks.files.worktree import beside, default_remote
from tasks.results.branch import lent
from tasks.results.gather import gather
from tasks.results.history import experiments
from tasks.results.shown import trial_rows
from tasks.results.trials import Trial, record

__all__ = ["Experiments", "publish_rows"]


class Experiments:
    """How a flow runs experiments, and what became of their stages.

    Args:
        at: where, and how.
    """

    def __init__(self, at: At) -> None:
        self.at, self.root, self.stop = at, at.root, at.stop
        self.said = pedigree(at.root)
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
        failed = dict[str, str]()
        known = self._known(trials)
        self._done |= {name: Done(name, "up to date") for name in known}
        with self._worktrees([one for one in trials if one.name not in known]) as folders:
            places = [Place(folder, stage_graph(folder), trial.name) for trial, folder in folders]
            nodes = [node for place in places for node in place.nodes]
            with handing(self.at, nodes) as hand, ExitStack() as stack:
                if hand is not None:
                    commits = {trial.name: trial.commit for trial, _ in folders}
                    run, say = str(flow_run.get_id()), get_run_logger().warning
                    stack.enter_context(lent(self.root, hand.repository, run, commits, say))
                if places:
                    stages = together(self.at, places, self.said["revision"], hand)
                    stages.check()
                    with at_work():
                        done, left = stages.run()
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

    def _collect(self, names: list[str]) -> None:
        lines, agreed = gather(names)
        for line in lines:
            get_run_logger().info("ledger: %s", line)
        if not agreed:
            refused = "; ".join(line for line in lines if "refused" in line)
            raise StageFailedError(f"a result contradicts the ledger: {refused}")

    def conclude(self, names: list[str]) -> None:
        """Push experiments and commit the ledger's new rows, as far as that is asked for; show all stages.

        Args:
            names: the experiments whose results are there.
        """
        if names:  # before anything is shown: the server may be away
            cache = [] if default_remote(self.root)[0] else ["--no-cache"]
            arguments = ["exp", "push", *cache, "origin", *names]
            say = get_run_logger().info
            push = partial(persist, "dvc exp push", arguments, self.root, say, self.stop)
            keep(self.at, f"Rows of {', '.join(names)}", push)
        publish_summary(self._done.values(), self._failed, self.said)


def publish_rows(trials: list[Trial], key: str) -> None:
    """Show what experiments scored, and by which overrides they differ.

    Args:
        trials: the experiments.
        key: the artifact's key.
    """
    rows = trial_rows({one.name: one.values for one in trials})
    publish(rows, key, f"results of {len(trials)} experiments ({TABLE} of each)")
    get_run_logger().info("\n%s", rows.to_string(index=False, float_format="{:.4g}".format))

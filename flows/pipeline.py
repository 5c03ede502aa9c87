"""The flow `pipeline`: DVC's stages as Prefect tasks, side by side as far as the cores allow."""

from __future__ import annotations

import argparse
import base64
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pandas as pd
import psutil
from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.graph import StageNode, select, stage_graph
from tasks.check import check
from tasks.layout import REPORT, TABLE, VERDICT
from tasks.params import Params, ParamsError
from tasks.table import COLUMNS, TERMINAL, active_configurations, text

__all__ = ["StageFailedError", "main", "pipeline", "run_stage", "schedule"]


class StageFailedError(RuntimeError):
    """A stage's command ended with an error; its own lines are in the log."""


def _command(stage: str, force: bool) -> list[str]:
    # --wait-for-lock: without it a stage that ends while another holds the lock fails after its
    # work. --single-item: two stages side by side would both claim what they share upstream.
    repro = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item"]
    return [*repro, *(["--force"] if force else []), stage]


def _environment() -> dict[str, str]:
    """Return the child's environment: this Python first on PATH, nothing of this flow run's own."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT__")}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    env.setdefault("TQDM_MININTERVAL", "10")  # a progress bar is a log line here
    env["PYTHONUNBUFFERED"] = "1"
    return env


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:  # universal newlines: a progress bar's "\r" ends a line too
        if line.strip():
            yield line.rstrip()


def _end(process: subprocess.Popen[str]) -> None:
    """End a stage with all that it started: DVC alone would leave the stage's command running."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    for child in family:
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    for child in psutil.wait_procs(family, timeout=5)[1]:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@task(name="stage", task_run_name="{stage}", cache_policy=NO_CACHE)
def run_stage(stage: str, force: bool = False, timeout: float | None = None) -> bool:
    """Run one stage through DVC, its lines in the log.

    Args:
        stage: the stage's name in DVC.
        force: whether to run it although nothing changed.
        timeout: seconds after which it is stopped.

    Returns:
        Whether DVC ran the stage's command; False if it was up to date or restored from the cache.

    Raises:
        StageFailedError: if DVC reports an error or the deadline passes.
    """
    logger = get_run_logger()
    process = subprocess.Popen(
        _command(stage, force),
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # Prefect's own timeout cannot stop a child of a task in a thread.
    late = threading.Event()

    def stop() -> None:
        late.set()
        _end(process)

    timer = threading.Timer(timeout, stop) if timeout else None
    if timer:
        timer.start()
    ran, last = False, ""
    try:
        for line in _lines(process):
            logger.info(line)
            ran = ran or line.startswith("Running stage")
            last = line if line.startswith("error:") else last
        status = process.wait()
    finally:
        if timer:
            timer.cancel()
        if process.poll() is None:
            _end(process)
    if late.is_set():
        raise StageFailedError(f"{stage}: stopped after its deadline of {timeout:g} s")
    if status:
        raise StageFailedError(f"{stage}: {last or f'dvc ended with status {status}'}")
    return ran


class _Result(Protocol):
    """A stage on its way: Prefect's future, or in tests the standard library's."""

    def result(self) -> bool: ...


Future = TypeVar("Future", bound=_Result)


def schedule(
    nodes: list[StageNode],
    cores: int,
    submit: Callable[[StageNode], Future],
    first_done: Callable[[list[Future]], Future],
) -> tuple[dict[str, bool], dict[str, str]]:
    """Run the stages, each when all before it are done and its cores are free.

    A stage that claims more cores than there are runs alone. After a failure the stages that depend
    on it are left out, the others still run.

    Args:
        nodes: the stages in topological order.
        cores: how many cores there are.
        submit: starts a stage.
        first_done: waits for one of the futures.

    Returns:
        Whether each stage that ended well was run, and the reason of each that failed.
    """
    waiting = {node.name: node for node in nodes}
    running: dict[Future, StageNode] = {}
    ran: dict[str, bool] = {}
    failed: dict[str, str] = {}
    while waiting or running:
        for node in list(waiting.values()):
            if any(name in failed for name in node.upstream):
                failed[node.name] = "left out, a stage before it failed"
                del waiting[node.name]
            elif all(name in ran for name in node.upstream):
                free = cores - sum(min(other.cores, cores) for other in running.values())
                if min(node.cores, cores) <= free:
                    running[submit(node)] = waiting.pop(node.name)
        if running:
            future = first_done(list(running))
            node = running.pop(future)
            try:
                ran[node.name] = future.result()
            except Exception as error:  # whatever ended the task: the others go on
                failed[node.name] = str(error)
    return ran, failed


@flow(name="pipeline", task_runner=ThreadPoolTaskRunner(max_workers=16))  # type: ignore[arg-type]
def pipeline(targets: list[str] | None = None, force: bool = False) -> dict[str, bool]:
    """Bring the pipeline's stages up to date through DVC, and show the table and the samples.

    Args:
        targets: stages to run with all they depend on, such as "train" or "train@digits-ve-0"; all
            stages by default.
        force: whether to run stages although nothing changed.

    Returns:
        For each stage whether its command was run.

    Raises:
        ParamsError: if `params.yaml` is wrong; nothing has run then.
        StageFailedError: if a stage failed; those that do not depend on it have run.
    """
    logger = get_run_logger()
    params = check()
    nodes = select(stage_graph(Path.cwd()), targets or [])

    def submit(node: StageNode) -> PrefectFuture[bool]:
        prepared = run_stage.with_options(retries=node.retries)
        future: PrefectFuture[bool] = prepared.submit(node.name, force, node.timeout)
        return future

    def first_done(futures: list[PrefectFuture[bool]]) -> PrefectFuture[bool]:
        return next(iter(as_completed(futures)))

    ran, failed = schedule(nodes, _cores(), submit, first_done)
    for name, reason in failed.items():
        logger.error("%s failed: %s", name, reason)
    if failed:
        raise StageFailedError("; ".join(f"{name}: {reason}" for name, reason in failed.items()))
    logger.info("%d of %d stages were run, the others were up to date", sum(ran.values()), len(ran))
    if any(node.name == "report" for node in nodes):
        publish(params)
    return ran


def publish(params: Params) -> None:
    """Show the table and every active configuration's samples as Prefect artifacts."""
    rows = pd.read_csv(TABLE)
    verdict = VERDICT.read_text(encoding="utf-8")
    create_markdown_artifact(verdict, key="verdict", description="which model is better")
    shown: list[dict[str, Any]] = rows[list(TERMINAL)].rename(columns=COLUMNS).to_dict("records")  # type: ignore[assignment]
    create_table_artifact(
        table=[
            {str(k): None if v != v else v for k, v in row.items()}  # JSON has no NaN
            for row in shown
        ],
        key="results",
        description="distances of the active configurations",
    )
    for configuration in active_configurations(params):
        encoded = base64.b64encode(configuration.grid.read_bytes()).decode()
        create_image_artifact(
            image_url=f"data:image/png;base64,{encoded}",
            key="samples-" + configuration.name.replace("_", "-"),
            description=f"samples of {configuration.name}",
        )
    get_run_logger().info(
        "\n%s\n\n%s\n\nreport: %s", verdict, text(rows), REPORT.resolve().as_uri()
    )


def main() -> None:
    """Run the flow from the command line; exit with 2 for a mistake in the parameters, 1 for a stage."""
    parser = argparse.ArgumentParser(description="Run DVC's stages through Prefect.")
    parser.add_argument("targets", nargs="*", help="stages; all by default")
    parser.add_argument("--force", action="store_true", help="run them although nothing changed")
    given = parser.parse_args()
    try:
        check()
        select(stage_graph(Path.cwd()), given.targets)
    except (ParamsError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    try:
        pipeline(targets=given.targets, force=given.force)
    except StageFailedError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

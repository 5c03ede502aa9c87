"""What orchestration costs: a pipeline that computes nothing, through DVC, the flow, and workers.

`python -m benchmarks.orchestration`. In a folder of its own: N stages in a chain whose command is a
copy, run by `dvc repro`, by the flow `pipeline` with a running server, and by the flow through one
worker; each with everything to do, and again with nothing to do. The time beyond the stages' own is
that of the whole command, Python's start and imports included; the stages' own is what their
commands take without DVC.

`python -m benchmarks.orchestration --wide --stages 50 200 --workers 4`: N stages that do not depend on
each other, through so many workers, and how the time grows with N. Beside it what a stage cannot take
less than: DVC's own time for it, and the start of a worker's process, measured alone; and what the
server and the flow compute for it, of all cores together.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil

from tests.cluster import Cluster

ROOT = Path(__file__).parents[1]

_FIXED, _EACH = 5.0, 1.0  # seconds that the local flow may take beyond its stages, and for each

_DVC = """stages:
{stages}"""
_STAGE = """  s{n:02}:
    cmd: cp {before} {after}
    deps: [{before}]
    outs: [{after}]
    meta: {{pool: cpu}}
"""


def _project(folder: Path, count: int, wide: bool) -> Path:
    """Make the repository: the project's params.yaml, and a chain of copies, or many copies."""
    root = folder / "project"
    root.mkdir(parents=True)
    for name in ("params.yaml", "prefect.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "data/raw", root / "data/raw")
    (root / "out").mkdir()
    (root / "out/.gitignore").write_text("*.txt\n")
    (root / "in.txt").write_text("something\n")
    stages = [
        _STAGE.format(
            n=n,
            before="in.txt" if n == 0 or wide else f"out/{n - 1:02}.txt",
            after=f"out/{n:02}.txt",
        )
        for n in range(count)
    ]
    (root / "dvc.yaml").write_text(_DVC.format(stages="".join(stages)))
    identity = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")
    for command in (
        ["git", "init", "--quiet", "--initial-branch", "main"],
        [sys.executable, "-m", "dvc", "init", "--quiet"],
        [sys.executable, "-m", "dvc", "remote", "add", "--quiet", "--default", "storage",
         str(folder / "storage")],
        ["git", "add", "--all"],
        ["git", *identity, "commit", "--quiet", "--message", "a chain of copies"],
    ):  # fmt: skip
        subprocess.run(command, cwd=root, check=True)
    return root


def _forget(root: Path) -> None:
    """Forget every result, the run-cache's too."""
    for path in (root / "out").glob("*.txt"):
        path.unlink()
    shutil.rmtree(root / ".dvc/cache", ignore_errors=True)
    (root / "dvc.lock").unlink(missing_ok=True)
    subprocess.run(["git", "checkout", "--quiet", "--", "."], cwd=root, check=False)


def _seconds(command: list[str], root: Path, environment: dict[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - began


def _both(command: list[str], root: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Return what it takes with everything to do, and again with nothing to do."""
    both = _seconds(command, root, environment), _seconds(command, root, environment)
    _forget(root)
    return both


_FLOW = [sys.executable, "-m", "flows.pipeline"]
_WORKERS = [*_FLOW, "--executor", "workers"]
_REPRO = [sys.executable, "-m", "dvc", "repro"]


def _chain(folder: Path, count: int) -> None:
    root = _project(folder, count, wide=False)
    began = time.perf_counter()
    for n in range(count):
        subprocess.run(["cp", "in.txt", f"out/{n:02}.txt"], cwd=root, check=True)
    own = time.perf_counter() - began
    _forget(root)
    rows = []
    with Cluster(folder / "cluster", root) as cluster:
        cluster.deploy()
        cluster.start_worker("cpu", "cpu0")
        environment = cluster.environment() | {"PYTHONPATH": str(ROOT)}
        for what, command in (
            ("dvc repro", _REPRO),
            ("flow, local", _FLOW),
            ("flow, workers", _WORKERS),
        ):
            all_new, nothing = _both(command, root, environment)
            rows.append(
                {
                    "through": what,
                    "all to do (s)": all_new,
                    "beyond the stages' own (s)": all_new - own,
                    "per stage (s)": (all_new - nothing - own) / count,
                    "nothing to do (s)": nothing,
                }
            )
    print(f"{count} stages, whose commands take {own:.2f} s; {os.cpu_count()} cores\n")
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".2f"))
    local = next(row for row in rows if row["through"] == "flow, local")
    limit = _FIXED + _EACH * count
    if local["beyond the stages' own (s)"] > limit:
        raise SystemExit(f"the local flow takes more than {limit:.0f} s beyond its stages")


def _start_of_a_run(environment: dict[str, str], root: Path) -> float:
    """Return what the process of a run takes before its flow's first line, nothing else going on."""
    return min(
        _seconds([sys.executable, "-c", "import prefect.engine, flows.worker"], root, environment)
        for _ in range(3)
    )


def _computed(cluster: Cluster) -> dict[str, float]:
    """Return the seconds that the server, and this process's children that have ended, have computed."""
    assert cluster.server is not None
    server = psutil.Process(cluster.server.pid)
    times = [one.cpu_times() for one in (server, *server.children(recursive=True))]
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "server computes, per stage (s)": sum(one.user + one.system for one in times),
        "flow computes, per stage (s)": ended.ru_utime + ended.ru_stime,
    }


def _wide(folder: Path, counts: list[int], workers: int) -> None:
    rows = []
    for count in counts:
        place = folder / str(count)
        root = _project(place, count, wide=True)
        with Cluster(place / "cluster", root) as cluster:
            cluster.deploy()
            environment = cluster.environment() | {"PYTHONPATH": str(ROOT)}
            start = _start_of_a_run(environment, root)
            repro, _ = _both(_REPRO, root, environment)
            for number in range(workers):
                cluster.start_worker("cpu", f"cpu{number}")
            before = _computed(cluster)
            all_new = _seconds(_WORKERS, root, environment)
            after = _computed(cluster)
            nothing = _seconds(_WORKERS, root, environment)
        rows.append(
            {
                "stages": count,
                "flow, workers (s)": all_new,
                "per stage (s)": all_new / count,
                "dvc repro, per stage (s)": repro / count,
                "a run's process starts (s)": start,
                **{what: (after[what] - before[what]) / count for what in after},
                "nothing to do (s)": nothing,
            }
        )
    print(f"{workers} workers, {os.cpu_count()} cores\n")
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".2f"))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=int, nargs="+", default=[10])
    parser.add_argument(
        "--wide", action="store_true", help="stages that do not wait for each other"
    )
    parser.add_argument("--workers", type=int, default=4, help="of the wide ones")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if given.wide:
            _wide(Path(name), given.stages, given.workers)
        else:
            for count in given.stages:
                _chain(Path(name) / str(count), count)


if __name__ == "__main__":
    main()

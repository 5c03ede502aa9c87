"""The flow: its graph is DVC's, its order respects graph and cores, and it runs through Prefect."""

from __future__ import annotations

import concurrent.futures as cf
import threading
import time
from contextlib import chdir
from pathlib import Path

import psutil
import pytest

from tasks.files.graph import StageNode, changed, select, stage_graph
from tasks.files.schedule import Done, schedule
from tests.flows.conftest import Site
from tests.shared import first_out
from tests.workspace import ROOT, Workspace


def test_the_flow_s_stages_are_exactly_dvc_s(finished: Workspace) -> None:
    listed = finished.run("dvc", "stage", "list", "--all", "--name-only").stdout.split()
    nodes = stage_graph(finished.root)
    assert sorted(node.name for node in nodes) == sorted(listed)
    position = {node.name: index for index, node in enumerate(nodes)}
    for node in nodes:
        assert all(position[name] < position[node.name] for name in node.upstream)
    by_name = {node.name: node for node in nodes}
    assert by_name["train@digits-vp-0"].upstream == ("check", "prepare@digits")
    assert "evaluate@digits-vp-0-heun" in by_name["report"].upstream


def test_a_stage_that_dvc_yaml_says_can_be_helped_takes_the_option(finished: Workspace) -> None:
    nodes = [node for node in stage_graph(finished.root) if node.pool is not None]
    modules = {node.name: node.cmd.split("-m tasks.")[1].split()[0] for node in nodes}
    takes = {name for name, module in modules.items()
             if "helped=True" in (ROOT / f"tasks/{module}.py").read_text()}  # fmt: skip
    assert {node.name for node in nodes if node.helped} == takes
    assert {name.split("@")[0] for name in takes} == {"sample", "features", "reference"}


def test_a_stage_added_to_dvc_yaml_appears_with_its_hints(copied: Workspace) -> None:
    text = (copied.root / "dvc.yaml").read_text()
    extra = (
        "  extra:\n    cmd: python -c pass\n    deps: [results/table.csv]\n"
        "    meta: {pool: gpu, cores: 3, gpus: 1, timeout: 5, retries: 1}\n\nplots:"
    )
    (copied.root / "dvc.yaml").write_text(text.replace("\nplots:", "\n" + extra, 1))
    extra_node = {node.name: node for node in stage_graph(copied.root)}["extra"]
    assert extra_node == StageNode(
        "extra", ("report",), pool="gpu", cores=3, gpus=1, timeout=5, retries=1
    )


def test_targets_bring_what_they_depend_on(finished: Workspace) -> None:
    nodes = stage_graph(finished.root)
    names = [node.name for node in select(nodes, ["train"])]
    assert names == ["check", "prepare@digits", "train@digits-vp-0"]
    with pytest.raises(ValueError, match="'trane' is no stage, allowed: check, prepare"):
        select(nodes, ["trane"])


class Recorder:
    """Runs stages in threads, and remembers when each ran."""

    def __init__(self, broken: str = "") -> None:
        self.pool = cf.ThreadPoolExecutor(16)
        self.broken = broken
        self.running: dict[str, int] = {}
        self.most_cores = 0
        self.most_stages = 0
        self.alone = False
        self.order: list[str] = []
        self.lock = threading.Lock()

    def submit(self, node: StageNode) -> cf.Future[Done]:
        return self.pool.submit(self.work, node)

    def work(self, node: StageNode) -> Done:
        with self.lock:
            self.running[node.name] = node.cores
            self.most_stages = max(self.most_stages, len(self.running))
            if node.name == "d":
                self.alone = set(self.running) == {"d"}
            else:
                self.most_cores = max(self.most_cores, sum(self.running.values()))
        time.sleep(0.1)  # as long as others take to start
        with self.lock:
            del self.running[node.name]
            self.order.append(node.name)
        if node.name == self.broken:
            raise RuntimeError("it broke")
        return Done(node.name, "ran")


def diamond() -> list[StageNode]:
    return [
        StageNode("a", ()),
        *(StageNode(f"b{index}", ("a",)) for index in range(6)),
        StageNode("c", ("b0", "b1"), cores=2),
        StageNode("d", ("b5",), cores=9),
    ]


def test_independent_stages_run_side_by_side_within_the_cores() -> None:
    recorder = Recorder()
    ran, failed = schedule(diamond(), recorder.submit, lambda: {"cores": 3})
    assert set(ran) == {node.name for node in diamond()}
    assert not failed
    assert recorder.order[0] == "a"
    assert recorder.order.index("c") > max(recorder.order.index(name) for name in ("b0", "b1"))
    assert recorder.most_cores == 3
    assert recorder.alone  # d claims more cores than there are


def test_after_a_failure_only_what_depends_on_it_is_left_out() -> None:
    recorder = Recorder(broken="b1")
    ran, failed = schedule(diamond(), recorder.submit, lambda: {"cores": 2})
    assert failed == {"b1": "it broke", "c": "left out, a stage before it failed"}
    assert set(ran) == {"a", "b0", "b2", "b3", "b4", "b5", "d"}


@pytest.mark.slow
def test_after_a_repro_the_flow_runs_nothing_and_shows_the_table(copied: Workspace) -> None:
    before = copied.lock()
    said = copied.python("-m", "flows.pipeline")
    count = len(stage_graph(copied.root))
    assert f"0 of {count} stages were run" in said
    assert "FD (classifier" in said
    assert copied.lock() == before


@pytest.mark.slow
def test_the_flow_s_forced_run_gives_dvc_s_bytes(site: Site) -> None:
    """In two processes, where DVC's run was in one."""
    params = site.workspace.params()
    site.workspace.write_params(params | {"processes": 2})
    site.workspace.dvc("repro", "--single-item", "check")
    before = site.workspace.lock()
    said = site.python("-m", "flows.pipeline", "--force")
    count = len(stage_graph(site.workspace.root))
    assert f"{count} of {count} stages were run" in said
    assert "up to date" in site.workspace.dvc("status")
    assert site.workspace.lock() == before


@pytest.mark.slow
def test_a_broken_stage_fails_the_flow_with_its_line(site: Site) -> None:
    Path(site.workspace.root / "data/raw/digits/source.yaml").write_text("kind: digit\n")
    said = site.python("-m", "flows.pipeline", status=1)
    assert "data/raw/digits/source.yaml: kind: 'digit' is unknown, allowed: " in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_stage_past_its_deadline_is_stopped_with_its_children(site: Site) -> None:
    text = (site.workspace.root / "dvc.yaml").read_text()
    extra = (
        "  endless:\n    cmd: python -c 'import time; time.sleep(3600)' deadline-test\n"
        f"    deps: [{first_out(site.workspace, 'check')}]\n    meta: {{timeout: 4}}\n\nplots:"
    )
    (site.workspace.root / "dvc.yaml").write_text(text.replace("\nplots:", "\n" + extra, 1))
    began = time.monotonic()
    said = site.python("-m", "flows.pipeline", "endless", status=1)
    assert "endless: stopped after its deadline of 4 s" in said
    assert time.monotonic() - began < 120
    commands = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if "deadline-test" in command]


def test_what_has_changed_is_seen_from_another_folder_too(
    finished: Workspace, copied: Workspace, tmp_path: Path
) -> None:
    assert changed(finished.root, stage_graph(finished.root)) == set()
    params = copied.params()
    params["samplers"]["heun"]["steps"] = 5
    copied.write_params(params)
    after = {
        "check",
        *(f"{stage}@digits-vp-0-heun" for stage in ("sample", "features", "evaluate")),
    }
    # `check` reads all of params.yaml, and everything is after it.
    with chdir(tmp_path):
        seen = changed(copied.root, stage_graph(copied.root))
    assert after <= seen == {node.name for node in stage_graph(copied.root)}
    (copied.root / "artifacts/shown/digits-vp-0-heun.npz").unlink()
    copied.dvc("repro", "check")
    with chdir(tmp_path):
        assert changed(copied.root, stage_graph(copied.root)) == {
            *after - {"check"},
            "pictures",
            "report",
        }

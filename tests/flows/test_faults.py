"""What goes wrong on real machines, on a real server, worker and remote: nothing is lost."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time

import psutil
import pytest

from tests.flows.conftest import TRAIN, WEIGHTS, Site, until
from tests.shared import first_out

pytestmark = pytest.mark.slow


@pytest.fixture
def site(training_site: Site) -> Site:
    return training_site


WORKERS = ("train", "--executor", "workers")


def at_work(site: Site) -> psutil.Process:
    """Return the one trainer, once it has made a checkpoint."""
    before = {path.name for path in site.states()}

    def found() -> psutil.Process | None:
        trainers = site.trainers()
        assert len(trainers) <= 1
        new = {path.name for path in site.states()} - before
        return trainers[0] if trainers and new else None

    trainer: psutil.Process = until(found, 300)
    return trainer


def read_until(flow: subprocess.Popen[str], text: str) -> str:
    """Return what a flow says until it has said the text, or ends."""
    assert flow.stdout is not None
    lines: list[str] = []
    for line in flow.stdout:
        lines.append(line)
        if text in line:
            break
    return "".join(lines)


def test_a_killed_trainer_is_tried_again_and_goes_on(site: Site) -> None:
    site.train_for(800, every_steps=20)
    whole = site.undisturbed()
    flow = site.flow("train")
    at_work(site).kill()
    said, _ = flow.communicate(timeout=180)
    assert flow.returncode == 0, said
    assert "its process was killed by signal 9" in said
    assert "goes on from" in said
    assert site.digest() == whole


def test_a_killed_worker_s_stage_goes_on_under_the_next_one(site: Site) -> None:
    site.train_for(1200, every_steps=20)
    whole = site.undisturbed()
    site.worker("cpu", "cpu0")
    first = site.worker("gpu", "gpu0", machine="box")
    flow = site.flow(*WORKERS)
    trainer = at_work(site)
    os.killpg(first.pid, signal.SIGKILL)  # the worker and all that has no session of its own
    for process in psutil.process_iter(["cmdline"]):
        # The run's own process, a session of its own.
        line = process.info["cmdline"] or []
        if any("prefect" in part for part in line) and process.pid in _parents(trainer):
            process.kill()
    until(lambda: not trainer.is_running(), 120)
    kept = site.states()
    assert kept
    site.worker("gpu", "gpu1", machine="box")
    at_work(site)
    said, _ = flow.communicate(timeout=240)
    assert flow.returncode == 0, said
    assert "died; it is handed over again" in said or "crashed" in said
    assert "goes on from" in said
    assert site.digest() == whole


def _parents(process: psutil.Process) -> set[int]:
    return {parent.pid for parent in process.parents()}


def test_a_new_flow_takes_over_from_a_killed_one(site: Site) -> None:
    site.train_for(800, every_steps=20)
    whole = site.undisturbed()
    flow = site.flow("train")
    at_work(site)
    flow.kill()
    flow.wait()
    second = site.flow("train")
    said, _ = second.communicate(timeout=180)
    assert second.returncode == 0, said
    assert "goes on from" in said
    assert "is busy" not in said
    assert site.digest() == whole


def test_a_new_flow_waits_for_what_a_killed_one_has_handed_to_a_worker(site: Site) -> None:
    site.train_for(1200, every_steps=20)
    site.worker("cpu", "cpu0")
    site.worker("gpu", "gpu0")
    flow = site.flow(*WORKERS)
    trainer = at_work(site)
    flow.kill()
    flow.wait()
    trainer.suspend()  # until the second flow has found it
    second = site.flow(*WORKERS)
    said = read_until(second, f"{TRAIN}: is under way as")
    trainer.resume()
    said += second.communicate(timeout=180)[0]
    assert second.returncode == 0, said
    assert f"{TRAIN}: is under way as" in said
    assert "goes on from" not in said  # the one training was never interrupted
    assert not trainer.is_running()
    assert (site.workspace.root / WEIGHTS).exists()


def test_a_flow_that_is_cancelled_does_not_take_another_flow_s_stage_along(site: Site) -> None:
    site.train_for(3000, every_steps=20)
    whole = site.undisturbed()
    site.worker("cpu", "cpu0")
    site.worker("gpu", "gpu0")
    first = site.flow(*WORKERS)
    trainer = at_work(site)
    trainer.suspend()  # until the second flow has found it
    second = site.flow(*WORKERS)
    read_until(second, f"{TRAIN}: is under way as")
    trainer.resume()
    second.terminate()
    second.communicate(timeout=120)
    said, _ = first.communicate(timeout=300)
    assert first.returncode == 0, said
    assert "it is handed over again" in said
    assert site.digest() == whole


@pytest.mark.parametrize("executor", [pytest.param("local", marks=pytest.mark.long), "workers"])
def test_a_restart_of_the_server_disturbs_no_stage(site: Site, executor: str) -> None:
    site.train_for(6000, every_steps=20)
    if executor == "workers":
        site.worker("cpu", "cpu0")
        site.worker("gpu", "gpu0")
    flow = site.flow("train", "--executor", executor)
    trainer = at_work(site)
    assert site.cluster.server is not None
    site.cluster.end(site.cluster.server)
    time.sleep(6)
    assert trainer.is_running()
    site.cluster.start_server()
    said, _ = flow.communicate(timeout=240)
    assert flow.returncode == 0, said
    assert "goes on from" not in said
    newest = site.runs("pipeline")[0]
    assert newest["state_type"] == "COMPLETED", newest
    assert (site.workspace.root / WEIGHTS).exists()


@pytest.mark.parametrize("executor", [pytest.param("local", marks=pytest.mark.long), "workers"])
def test_a_cancelled_run_leaves_no_process_and_the_next_one_goes_on(
    site: Site, executor: str
) -> None:
    site.train_for(20000, every_steps=20)
    if executor == "workers":
        site.worker("cpu", "cpu0")
        site.worker("gpu", "gpu0")
    flow = site.flow("train", "--executor", executor)
    trainer = at_work(site)
    run = site.runs("pipeline")[0]
    site.api(f"flow_runs/{run['id']}/set_state", state={"type": "CANCELLING"})
    until(lambda: not trainer.is_running(), 120)
    said, _ = flow.communicate(timeout=120)
    assert flow.returncode == 1, said
    assert site.trainers() == []
    until(lambda: site.runs("pipeline")[0]["state_type"] == "CANCELLED", 120)
    kept = site.states()
    assert kept
    again = site.flow("train", "--executor", executor)
    at_work(site)
    assert int(site.states()[-1].stem[5:]) > int(kept[-1].stem[5:])
    again.terminate()
    until(lambda: not site.trainers(), 120)
    again.communicate(timeout=120)


def test_a_stage_past_its_deadline_is_stopped_on_the_worker_too(site: Site) -> None:
    text = (site.workspace.root / "dvc.yaml").read_text()
    extra = (
        "  endless:\n    cmd: python -c 'import time; time.sleep(3600)' deadline-at-a-worker\n"
        f"    deps: [{first_out(site.workspace, 'check')}]\n"
        "    meta: {pool: cpu, timeout: 4}\n\nplots:"
    )
    (site.workspace.root / "dvc.yaml").write_text(text.replace("\nplots:", "\n" + extra, 1))
    site.commit("a stage without an end")
    site.worker("cpu", "cpu0")
    flow = site.flow("endless", "--executor", "workers")
    said, _ = flow.communicate(timeout=120)
    assert flow.returncode == 1
    assert "error: endless: stopped after its deadline of 4 s" in said
    commands = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if "deadline-at-a-worker" in command]


def test_an_unreachable_remote_is_tried_again_and_then_named(site: Site) -> None:
    site.train_for(60, every_steps=20)
    site.worker("cpu", "cpu0")
    site.worker("gpu", "gpu0")
    site.storage.write_text("a file is no folder\n")
    flow = site.flow(*WORKERS)
    said, _ = flow.communicate(timeout=180)
    assert flow.returncode == 1, said
    assert "dvc push failed 4 times" in said.splitlines()[-1]
    site.storage.unlink()
    again = site.flow(*WORKERS)
    said, _ = again.communicate(timeout=180)
    assert again.returncode == 0, said


def test_a_corrupted_object_is_not_taken_for_a_good_one(site: Site) -> None:
    site.train_for(60, every_steps=20)
    site.worker("cpu", "cpu0")
    site.worker("gpu", "gpu0")
    flow = site.flow(*WORKERS)
    said, _ = flow.communicate(timeout=180)
    assert flow.returncode == 0, said
    good = site.digest()
    md5 = site.workspace.lock().split(f"{WEIGHTS}\n")[1].split("md5: ")[1][:32]
    stored = site.storage / "files/md5" / md5[:2] / md5[2:]
    stored.chmod(0o644)
    stored.write_bytes(b"damaged" + stored.read_bytes()[7:])
    # Another person's clone, which has nothing and fetches everything.
    clone = site.folder / "elsewhere"
    site.workspace.git("clone", "-q", ".", str(clone))
    shutil.copy(site.workspace.root / ".dvc/config.local", clone / ".dvc/config.local")
    original, site.workspace.root = site.workspace.root, clone
    other = site.flow(*WORKERS)
    said, _ = other.communicate(timeout=180)
    site.workspace.root = original
    assert site.digest() == good
    weights = clone / WEIGHTS
    assert other.returncode == 0, said
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == good


def test_a_flow_waits_for_a_person_s_own_repro(site: Site) -> None:
    site.train_for(800, every_steps=20)
    site.workspace.dvc("repro", "--single-item", "check")
    person = site.workspace.start("dvc", "repro", "--single-item", TRAIN)
    trainer = at_work(site)
    trainer.suspend()  # until the flow waits for it
    flow = site.flow("train")
    said = read_until(flow, f"waits for process {person.pid} (")
    trainer.resume()
    said += flow.communicate(timeout=180)[0]
    assert person.wait(timeout=60) == 0, person.communicate()
    assert flow.returncode == 0, said
    assert f"waits for process {person.pid} (" in said
    assert "2 of 3 stages" not in said
    assert len(site.trainers()) == 0


def test_a_pool_without_a_worker_is_named_within_a_minute(site: Site) -> None:
    site.train_for(60, every_steps=20)
    site.forget_workers("gpu")
    began = time.monotonic()
    flow = site.flow(*WORKERS, "--patience", "25")
    said, _ = flow.communicate(timeout=90)
    assert flow.returncode == 1
    line = next(line for line in said.splitlines() if "work pool 'gpu' has no worker" in line)
    assert "; start one: prefect worker start --pool gpu" in line
    assert time.monotonic() - began < 60

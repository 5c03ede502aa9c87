"""Forty kills (or KILLS) of flow, worker, machine, trainer and server, at random moments: the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from tests.flows.conftest import PULSE, Site

KILLS = int(os.environ.get("KILLS", "40"))
SEED = 14
STEPS = 12000
GIVEN_UP = 30  # flows that may end with a stage given up, as after three kills of one trainer


class Victims:
    """What runs, each to be killed and started again as systemd or a person would."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.started = 0
        self.gpu = self._worker()
        site.worker("cpu", "cpu0")
        self.flow = self.start_flow()

    def _worker(self) -> subprocess.Popen[bytes]:
        self.started += 1
        return self.site.worker("gpu", f"gpu{self.started}", machine="box")

    def start_flow(self) -> subprocess.Popen[bytes]:
        """Start the flow, its lines in a file."""
        environment = self.site.cluster.environment(SCOREMODEL_PULSE=PULSE)
        with (self.site.folder / "flow.log").open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.pipeline", "train", "--executor", "workers"],
                cwd=self.site.workspace.root,
                env=self.site.workspace.environment() | environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def kill(self, victim: str) -> None:
        """Kill one, and start it again."""
        if victim == "trainer":
            for process in self.site.trainers():
                process.kill()
        elif victim in ("worker", "machine"):
            _kill(self.gpu, family=victim == "machine")
            self.gpu = self._worker()
        elif victim == "flow":
            _kill(self.flow)
            self.flow = self.start_flow()
        else:
            server = self.site.cluster.server
            assert server is not None
            _kill(server, family=True)
            self.site.cluster.start_server()


def _kill(process: subprocess.Popen[bytes], family: bool = False) -> None:
    gone = [psutil.Process(process.pid)]
    gone += gone[0].children(recursive=True) if family else []
    for one in gone:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


@pytest.mark.long
@pytest.mark.kills
def test_kills_at_random_moments_change_nothing(training_site: Site) -> None:
    site, at_random = training_site, random.Random(SEED)
    left, trained, given_up = KILLS, 0, 0
    killed: dict[str, int] = {}
    victims: Victims | None = None
    while left:
        trained += 1
        site.train_for(STEPS + trained, every_steps=50)
        shutil.rmtree(site.folder / "undisturbed", ignore_errors=True)
        whole = site.undisturbed()
        if victims is None:
            victims = Victims(site)
        else:
            victims.flow = victims.start_flow()
        log = site.folder / "flow.log"
        while (status := victims.flow.poll()) != 0:
            if status is not None:
                given_up += 1
                assert given_up <= GIVEN_UP, log.read_text()[-5000:]
                assert status == 1, log.read_text()[-5000:]
                victims.flow = victims.start_flow()
            if left:
                moment = at_random.uniform(0, 30)
                victim = at_random.choice(["flow", "worker", "machine", "trainer", "server"])
                with suppress(subprocess.TimeoutExpired):
                    victims.flow.wait(timeout=moment)
                    continue
                victims.kill(victim)
                left -= 1
                killed[victim] = killed.get(victim, 0) + 1
                steps = [int(path.stem[5:]) for path in site.states()][-1:]
                print(f"seed {SEED}: after {moment:4.1f} s {victim} killed, at {steps}", flush=True)
            else:
                time.sleep(0.5)
        assert site.digest() == whole
    print(f"{KILLS} kills ({killed}) in {trained} trainings, {given_up} flows started again")
    assert sum(killed.values()) == KILLS

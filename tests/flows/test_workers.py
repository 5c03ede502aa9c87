"""The whole pipeline through workers that share nothing but the server and the DVC remote."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
from ruamel.yaml import YAML

from scoremodel.data.scale import quantise
from scoremodel.io.denoisers import load
from scoremodel.samplers.reverse_sde import EulerMaruyama
from scoremodel.samplers.sampling import sample
from tasks.files.graph import stage_graph
from tests.flows.conftest import Site, until
from tests.workspace import Workspace

SECRET = "a-secret-of-the-remote"


def records(workspace: Workspace) -> dict[str, str]:
    return {
        path.name: path.read_text()
        for path in (workspace.root / "results/records").glob("[!.]*.json")
    }


def from_scratch(site: Site) -> dict[str, str]:
    """Forget all that was made here, and return the records of it."""
    expected = records(site.workspace)
    for name in ("artifacts", "results", ".dvc/cache", "reports", ".scoremodel"):
        subprocess.run(["rm", "-rf", str(site.workspace.root / name)], check=True)
    site.workspace.git("rm", "-q", "--cached", "--ignore-unmatch", "dvc.lock")
    (site.workspace.root / "dvc.lock").unlink()
    return expected


def give_secret_by_block(site: Site) -> None:
    """Give the remote's secret to stages by a Prefect block, and to nobody else."""
    code = (
        "import sys; from prefect.blocks.system import Secret; Secret(value=sys.argv[1]).save('s3')"
    )
    subprocess.run([sys.executable, "-c", code, SECRET], env=site.cluster.environment(), check=True)
    variables = {"env": {"AWS_SECRET_ACCESS_KEY": "{{ prefect.blocks.secret.s3 }}"}}
    for pool in ("cpu", "gpu"):
        found = httpx.get(f"{site.cluster.url}/deployments/name/stage/{pool}").json()
        httpx.patch(
            f"{site.cluster.url}/deployments/{found['id']}", json={"job_variables": variables}
        ).raise_for_status()


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["a folder", pytest.param("S3", marks=pytest.mark.long)])
def test_the_pipeline_through_workers_gives_dvc_s_records(
    site: Site, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = None
    if storage == "S3":
        import boto3
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        secrets = {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for name, value in secrets.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="results")
        site.workspace.dvc("remote", "modify", "--local", "storage", "url", "s3://results/dvc")
    try:
        expected = from_scratch(site)
        without = {}
        if storage == "S3":
            give_secret_by_block(site)
            without = {"AWS_SECRET_ACCESS_KEY": ""}
        site.worker("cpu", "cpu0", **without)
        site.worker("gpu", "gpu0", **without)
        flow = site.flow("--executor", "workers")
        said, _ = flow.communicate(timeout=1500)
    finally:
        if server is not None:
            server.stop()
    assert flow.returncode == 0, said
    assert records(site.workspace) == expected
    nodes = stage_graph(site.workspace.root)
    assert f"{len(nodes)} of {len(nodes)} stages were run" in said
    # What has a pool was run by that pool's worker, in worktrees that are not this folder.
    for node in nodes:
        row = next(line for line in said.splitlines() if line.split()[:2] == [node.name, "ran"])
        assert f" {node.pool}: " in row if node.pool else row.endswith(" here")
    made = {
        name: next(site.folder.glob(f"machines/{name}/project-*/cache"))
        for name in ("cpu0", "gpu0")
    }
    outs = YAML(typ="safe").load(site.workspace.lock())["stages"]["train@digits-vp-0"]["outs"]
    for digest in (out["md5"] for out in outs):
        assert (made["gpu0"] / "files/md5" / digest[:2] / digest[2:]).exists()
        assert not (made["cpu0"] / "files/md5" / digest[:2] / digest[2:]).exists()
    # The seconds of the worker's training are known here.
    rows = [
        json.loads(path.read_text())
        for path in (site.workspace.root / "results/ledger").glob("*.json")
    ]
    assert all(row["seconds"]["train"]["seconds"] > 0 for row in rows)
    assert len(rows) == len(expected)
    # Artifacts on the server: the table, the verdict, the stages; how far each is, only as it runs.
    artifacts = {one["key"]: one for one in site.api("artifacts/latest/filter", limit=200)}
    assert {"results", "verdict", "stages"} <= artifacts.keys()
    progress = [key for key, one in artifacts.items() if one["type"] == "progress"]
    assert not [
        key for key in progress if "digits" in key
    ]  # others are other tests', which were killed
    assert "samples of digits-vp-0-heun" in artifacts["verdict"]["data"]
    revision = site.workspace.git("rev-parse", "HEAD")
    every = site.api("flow_runs/filter", limit=200, sort="START_TIME_DESC")
    runs = [
        run for run in every if any(revision.startswith(t.removeprefix("revision:")[:7])
                                    for t in run["tags"] if t.startswith("revision:"))
    ]  # fmt: skip
    assert len(runs) > len([node for node in nodes if node.pool])
    lines, page = [], None
    while page is None or page:
        wanted = {"flow_run_id": {"any_": [run["id"] for run in runs]}}
        page = site.api("logs/filter", logs=wanted, limit=200, offset=200 * len(lines))
        lines.append(page)
    for shown in (said, artifacts, rows, lines, runs):
        assert SECRET not in json.dumps(shown)
    assert any("Running stage" in line["message"] for page in lines for line in page)


@pytest.mark.slow
def test_other_workers_help_to_draw_samples(site: Site) -> None:
    """The stage's own process stands still while a helper draws all parts but the one that it holds."""
    site.workspace.warm = False
    stage, name = "sample@digits-vp-0-euler_maruyama", "digits-vp-0-euler_maruyama"
    params = site.workspace.params()
    params["checkpoints"]["folder"] = str(site.folder / "shared")
    params["samplers"]["euler_maruyama"]["steps"] = 100
    params["evaluation"] |= {"count": 144, "batch_size": 8, "sampling_seeds": [3]}
    site.workspace.write_params(params)
    site.commit("many small parts")
    for number in range(2):
        site.worker("gpu", f"gpu{number}")
    site.worker("cpu", "cpu0")
    flow = site.flow(stage, "--executor", "workers", "--helpers", "2")
    until(lambda: list((site.folder / "shared").glob("*/begun")))
    (collector,) = [one for one in site.trainers("tasks.sample") if "--helps" not in one.cmdline()]
    collector.suspend()
    drawn = int(until(partial(_said, site, rf"{name}: (\d+) of 18 parts drawn here")))
    collector.resume()
    said, _ = flow.communicate(timeout=900)
    assert flow.returncode == 0, said
    assert drawn >= 9
    assert [run["name"].split(" · ")[::2] for run in _helpers(site)] == [[stage, "helps"]] * 2
    states = [until(partial(_ended, site, run["id"]), 60) for run in _helpers(site)]
    assert {state["type"] for state in states} <= {"COMPLETED", "CANCELLED"}, states
    assert not list((site.folder / "shared").rglob("*.safetensors"))
    model = load(site.workspace.root / "artifacts/models/digits-vp-0.safetensors")
    samples = np.load(site.workspace.root / f"artifacts/samples/{name}.npz")["seed_3"]
    for first in (0, 64, 136):
        x = sample(model, EulerMaruyama(100), 8, 3, start=first, batch_size=8).x
        assert np.array_equal(samples[first : first + 8], quantise(x, 17).numpy())


def _helpers(site: Site) -> list[dict[str, Any]]:
    every = site.api("flow_runs/filter", limit=200, sort="START_TIME_DESC")
    return [run for run in every if any(tag.startswith("helps:") for tag in run["tags"])]


def _said(site: Site, pattern: str) -> str | None:
    """Return what a pattern has found in the helpers' lines."""
    wanted = {"flow_run_id": {"any_": [run["id"] for run in _helpers(site)]}}
    lines = "\n".join(line["message"] for line in site.api("logs/filter", logs=wanted, limit=200))
    found = re.search(pattern, lines)
    return found[1] if found else None


def _ended(site: Site, run: str) -> dict[str, Any] | None:
    found = httpx.get(f"{site.cluster.url}/flow_runs/{run}", timeout=30).json()["state"]
    return None if found["type"] in ("PENDING", "RUNNING", "SCHEDULED") else found


@pytest.mark.slow
def test_helpers_need_a_folder_that_all_see(site: Site) -> None:
    said = site.python("-m", "flows.pipeline", "--executor", "workers", "--helpers", "2", status=2)
    assert said.splitlines()[-1] == (
        "error: helpers: not allowed with params.yaml: checkpoints.folder: '.scoremodel/state', which "
        "is another folder on each machine, allowed with: the absolute path of one that all of them see"
    )


@pytest.mark.slow
def test_workers_are_refused_what_only_this_folder_has(site: Site) -> None:
    (site.workspace.root / "params.yaml").open("a").write("# edited\n")
    (site.workspace.root / "note.txt").write_text("new\n")
    flow = site.flow("--executor", "workers")
    said, _ = flow.communicate(timeout=900)
    assert flow.returncode == 2
    line = said.splitlines()[-1]
    assert line.startswith(
        "error: executor: 'workers' is not allowed while params.yaml, note.txt differ"
    )
    assert "commit them (git add, git commit), or run with executor 'local'" in line

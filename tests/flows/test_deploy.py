"""What is shipped for other machines: deployments, job templates, the image, the server."""

from __future__ import annotations

import importlib
import json
import re
from types import SimpleNamespace
from typing import Any, cast

import jsonschema
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import WorkPool
from ruamel.yaml import YAML

from flows.hand import _Pool
from tests.flows.conftest import Site
from tests.workspace import ROOT

TEMPLATES = ("docker", "kubernetes")


def template(kind: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / f"flows/deploy/{kind}.json").read_text())
    return content


def placeholders(content: Any) -> set[str]:
    return set(re.findall(r"{{ (\w+) }}", json.dumps(content["job_configuration"])))


@pytest.mark.parametrize("kind", [*TEMPLATES, "slurm"])
def test_a_job_template_s_variables_are_those_that_it_uses(kind: str) -> None:
    content = template(kind)
    properties = content["variables"]["properties"]
    assert placeholders(content) == set(properties)
    jsonschema.Draft202012Validator.check_schema(content["variables"])
    defaults = {name: one["default"] for name, one in properties.items() if "default" in one}
    jsonschema.validate(defaults, content["variables"])


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_job_template_keeps_what_must_outlive_a_job(kind: str) -> None:
    content = template(kind)
    assert (
        content["variables"]["properties"]["env"]["default"]["SCOREMODEL_WORKSPACES"]
        == "/workspaces"
    )
    assert "/workspaces" in json.dumps(content["job_configuration"]) + json.dumps(
        content["variables"]["properties"].get("volumes", {})
    )


def test_stages_wait_in_a_pool_s_queue_as_long_as_it_keeps_them() -> None:
    nobody = SimpleNamespace(read_workers_for_work_pool=lambda _: [])

    def pool(type_: str, **template: Any) -> _Pool:
        made = WorkPool(name="gpu", type=type_, base_job_template=template)
        return _Pool(made, cast("SyncPrefectClient", nobody))

    slurm = template("slurm")
    assert "--deadline=now+{{ deadline }} " in slurm["job_configuration"]["command"]
    deadline = slurm["variables"]["properties"]["deadline"]["default"]
    assert (pool("process", **slurm).starting, pool("process", **slurm).room) == (deadline, 100)
    assert (pool("process").starting, pool("process").room) == (180, 2)
    assert (pool("docker", **template("docker")).starting, pool("docker").room) == (1200, 100)


def test_deployments_name_flows_and_parameters_that_exist() -> None:
    content = YAML(typ="safe").load(ROOT / "prefect.yaml")
    names = [one["name"] for one in content["deployments"]]
    assert {"cpu", "gpu", "nightly", "weekly-compare", "manual-gpu0"} <= set(names)
    for one in content["deployments"]:
        module, name = one["entrypoint"].rsplit(".", 1)
        flow = getattr(importlib.import_module(module), name)
        parameters = one.get("parameters", {})
        assert set(parameters) <= set(flow.parameters.properties), one["name"]
        assert parameters["repository"] == "{{ here.repository }}"  # what its workers take
        assert not parameters.get("push")
        assert not parameters.get("commit_to")
        for schedule in one.get("schedules", []):
            assert schedule["timezone"] == "UTC"
            assert one["concurrency_limit"]["collision_strategy"] == "CANCEL_NEW"
    # Every pool that a stage names has its deployment.
    pools = set(re.findall(r"pool: (\w+)", (ROOT / "dvc.yaml").read_text()))
    assert pools == {"cpu", "gpu"} <= set(names)


def test_the_server_s_file_has_no_secret_and_no_open_port() -> None:
    content = YAML(typ="safe").load(ROOT / "flows/deploy/server.compose.yaml")
    (ports,) = (one["ports"] for one in content["services"].values() if "ports" in one)
    assert all(port.startswith("127.0.0.1:") for port in ports)
    for service in content["services"].values():
        for key, value in service["environment"].items():
            if "PASSWORD" in key or "AUTH" in key or "CONNECTION" in key:
                assert ":?" in value, key


@pytest.mark.slow
@pytest.mark.parametrize("kind", TEMPLATES)
def test_prefect_s_server_takes_the_job_template(site: Site, kind: str) -> None:
    path = str(ROOT / f"flows/deploy/{kind}.json")
    command = ("work-pool", "create", f"try-{kind}", "--type", kind, "--base-job-template", path)
    site.cluster.run("prefect", *command)
    shown = site.cluster.run("prefect", "work-pool", "inspect", f"try-{kind}", "--output", "json")
    assert (
        json.loads(shown)["base_job_template"]["job_configuration"]
        == template(kind)["job_configuration"]
    )

"""The automation that tells of runs that have ended."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ruamel.yaml import YAML

from flows.compare import compare
from flows.pipeline import pipeline
from flows.sweep import sweep
from tests.flows.conftest import Site, until
from tests.workspace import ROOT

FILE = ROOT / "flows/deploy/notify.yaml"


def test_it_names_the_flows_that_are_there() -> None:
    related = YAML(typ="safe", pure=True).load(FILE)["trigger"]["match_related"]
    names = [pipeline.name, compare.name, sweep.name]
    assert sorted(related["prefect.resource.name"]) == sorted(names)


@pytest.fixture
def heard() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Return the address of a chat's webhook, and the messages that come there."""
    messages: list[dict[str, Any]] = []

    class Chat(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            messages.append(json.loads(self.rfile.read(length)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Chat) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", messages
        server.shutdown()


@pytest.fixture
def told(training_site: Site, heard: tuple[str, list[dict[str, Any]]]) -> Iterator[Site]:
    """Return a project on a server with the automation."""
    site, (address, _) = training_site, heard
    code = (
        "import sys; from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block;"
        "text = {'text': '{{subject}}\\n{{body}}'};"
        "print(Block(name='chat', url=sys.argv[1], json_data=text).save('chat', overwrite=True))"
    )
    block = site.python("-c", code, address).split()[-1]
    made = Path(site.folder / "notify.yaml")
    made.write_text(FILE.read_text().replace("BLOCK_ID", block))
    site.cluster.run("prefect", "automation", "create", "--from-file", str(made))
    yield site
    for one in site.api("automations/filter"):
        httpx.delete(f"{site.cluster.url}/automations/{one['id']}").raise_for_status()


@pytest.mark.slow
def test_one_is_told_how_a_run_ended(told: Site, heard: tuple[str, list[dict[str, Any]]]) -> None:
    _, messages = heard
    for target, status in (("nowhere", 2), ("check", 0)):
        told.python("-m", "flows.pipeline", target, status=status)
    until(lambda: len(messages) > 1, 60)
    (refused, done) = sorted(
        (one["text"] for one in messages), key=lambda text: "Completed" in text
    )
    name = f"pipeline · {told.workspace.git('rev-parse', 'HEAD')[:7]}"
    assert refused.startswith(f"{name}: Refused\n"), refused
    assert "'nowhere'" in refused
    assert "/runs/flow-run/" in refused.splitlines()[-1]
    assert done.startswith(f"{name}: Completed\n"), done

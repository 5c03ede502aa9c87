"""DVC as a child: what its last lines mean."""

from __future__ import annotations

import pytest

from tasks.files import dvc


@pytest.mark.parametrize(
    ("lines", "status", "kind", "message"),
    [
        (["exited with -9"], 255, dvc.StageKilledError, "killed by signal 9"),
        (["exited with 137"], 255, dvc.StageKilledError, "killed by signal 9"),
        (["exited with 143"], 255, dvc.StageKilledError, "killed by signal 15"),
        (
            ["error: params.yaml: x", "ERROR: exited with 2"],
            255,
            dvc.DvcFailedError,
            "params.yaml: x",
        ),
        (["ERROR: exited with 255"], 255, dvc.DvcFailedError, "exited with 255"),
        ([], -9, dvc.StageKilledError, "DVC's process was killed by signal 9"),
        ([], 1, dvc.DvcFailedError, "dvc ended with status 1"),
    ],
)
def test_only_a_kill_is_worth_another_try(
    lines: list[str], status: int, kind: type[Exception], message: str
) -> None:
    found = dvc.failure(lines, status)
    assert type(found) is kind
    assert message in str(found)

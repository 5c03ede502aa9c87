"""A copy of the project with a tiny configuration, in which real DVC runs real stages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.warm import warm_python

ROOT = Path(__file__).parents[1]

_SPY = """
import atexit, json, os, sys, uuid

def _note():
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is None or not spec.name.startswith("tasks."):
        return
    here = os.getcwd() + os.sep
    files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    inside = sorted(f[len(here):] for f in files if f.startswith(here) and ".venv" not in f)
    name = os.path.join(os.environ["SPY_FOLDER"], uuid.uuid4().hex)
    with open(name, "w") as out:
        stage = spec.name.removeprefix("tasks.").removesuffix(".__main__")
        json.dump({"run": "@".join(filter(None, [stage, "-".join(sys.argv[1:])])), "files": inside}, out)

if "SPY_FOLDER" in os.environ:
    atexit.register(_note)
if "WARM_PYTHON" in os.environ:  # for what starts DVC by it
    sys.executable = os.environ["WARM_PYTHON"]
"""


class Workspace:
    """A folder with its own git and DVC repository, and the commands a person would type in it.

    Args:
        root: the folder.
        warm: whether `python -m` of stages and DVC is a fork of a process that has imported torch and
            the like, on Linux, or a Python of its own, whose process a test may look for.
    """

    def __init__(self, root: Path, warm: bool = True) -> None:
        self.root, self.warm = root, warm and sys.platform == "linux"
        self.spied = root.parent / f"{root.name}-imports"

    @classmethod
    def create(cls, root: Path) -> Workspace:
        """Copy the project's files, git's and not yet git's, and make the configuration tiny."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file() and not name.startswith(("results/", "dvc.lock")):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        workspace = cls(root)
        params = workspace.params()
        params["threads"] = params["cores"] = 1
        params["active"] = {
            "datasets": ["digits"],
            "models": ["vp"],
            "train_seeds": [0],
            "samplers": ["heun", "euler_maruyama"],
            "applications": [],
            "studies": [],
            "external": [],
        }
        params["models"]["vp"]["training"] = {
            "steps": 6,
            "warmup_steps": 6,
            "log_every": 3,
            "batch_size": 16,
            "parts": 2,
        }
        params["models"]["vp"]["network"] = {"unet": {"width": 8}}
        params["samplers"]["heun"]["steps"] = 3
        params["samplers"]["euler_maruyama"]["steps"] = 9
        params["evaluation"] |= {
            "count": 100,
            "sampling_seeds": [0, 1, 2],
            "floor_repeats": 3,
            "batch_size": 64,
        }
        params["evaluation"]["extractor"]["epochs"] = 2
        workspace.write_params(params)
        for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "tiny"]):
            workspace.git(*command)
        workspace.spied.mkdir()
        workspace._spy.mkdir(exist_ok=True)
        (workspace._spy / "sitecustomize.py").write_text(_SPY)
        return workspace

    def params(self) -> Any:
        """Return params.yaml as plain data."""
        return YAML(typ="safe", pure=True).load(self.root / "params.yaml")

    def write_params(self, params: Any) -> None:
        """Replace params.yaml."""
        with (self.root / "params.yaml").open("w") as out:
            YAML().dump(params, out)

    @property
    def interpreter(self) -> str:
        """The `python` of this workspace."""
        return str(warm_python()) if self.warm else sys.executable

    def warmth(self) -> dict[str, str]:
        """Return the variables by which all that is started there takes this workspace's `python`."""
        first = dict.fromkeys(str(Path(one).parent) for one in (self.interpreter, sys.executable))
        path = {"PATH": os.pathsep.join([*first, os.environ["PATH"]])}
        if not self.warm:
            return path
        return path | {"PYTHONPATH": str(self._spy), "WARM_PYTHON": self.interpreter}

    @property
    def _spy(self) -> Path:
        return self.root.parent / "spy"

    def environment(self) -> dict[str, str]:
        """Return the environment of a person in this workspace."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
        return env | self.warmth() | {
            "PYTHONPATH": str(self._spy),
            "SPY_FOLDER": str(self.spied),
            "DVC_NO_ANALYTICS": "true",
            **{f"GIT_{who}_{what}": f"{what}@example.com".lower()
               for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }  # fmt: skip

    def run(self, *command: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command in the workspace; fail with its output unless it exits with `status`."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=1800,
        )
        assert status is None or done.returncode == status, done.stdout + done.stderr
        return done

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in the workspace, its output to be read later."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def git(self, *arguments: str) -> str:
        """Run git and return what it prints."""
        return self.run("git", *arguments).stdout

    def dvc(self, *arguments: str, status: int | None = 0) -> str:
        """Run DVC and return what it prints."""
        done = self.run(self.interpreter, "-m", "dvc", *arguments, status=status)
        return done.stdout + done.stderr

    def python(self, *arguments: str, status: int | None = 0) -> str:
        """Run Python and return what it prints."""
        done = self.run(self.interpreter, *arguments, status=status)
        return done.stdout + done.stderr

    def lock(self) -> str:
        """Return dvc.lock's text."""
        return (self.root / "dvc.lock").read_text()

    def imports(self) -> dict[str, set[str]]:
        """Return, for each run of a stage here ("sample@digits-vp-0-heun"), what it imported of ours."""
        found: dict[str, set[str]] = {}
        for note in self.spied.iterdir():
            content = json.loads(note.read_text())
            found.setdefault(content["run"], set()).update(content["files"])
        return found

"""The flows `compare` and `sweep` from the command line: `python -m flows.experiments --help`."""

from __future__ import annotations

import argparse
import json
from typing import Any, get_args

from flows.compare import compare
from flows.run import finish
from flows.sweep import sweep
from scoremodel.evaluation.comparison import Claim
from tasks.files.terminal import as_command
from tasks.results.verdict import JUDGED

__all__ = ["main"]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None


def main() -> None:
    """Run one of the flows from the command line; exit with 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="python -m flows.experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    comparing = commands.add_parser("compare", help="two models over training seeds")
    comparing.add_argument("models", nargs="*", default=["ve", "vp"], help="ve vp by default")
    comparing.add_argument("--train-seeds", nargs="+", type=int, default=[0, 1, 2])
    comparing.add_argument("--datasets", nargs="+")
    comparing.add_argument("--samplers", nargs="+")
    comparing.add_argument("--metric", choices=JUDGED, default="held_out")
    comparing.add_argument("--level", type=float, default=0.95)
    comparing.add_argument(
        "--until-decided", action="store_true", help="observe more until the verdict decides"
    )
    comparing.add_argument("--budget", default="1h", help="how long at most: 90s, 30m, 2h")
    comparing.add_argument(
        "--of", choices=get_args(Claim), help="methods with three training seeds or more"
    )
    sweeping = commands.add_parser("sweep", help="a grid or a list of overrides")
    sweeping.add_argument("--grid", type=_json, default={}, help='{"a.b": [1, 2]}')
    sweeping.add_argument("--runs", type=_json, default=[], help='[{"a.b": 1, "c": 2}]')
    sweeping.add_argument("--presets", nargs="+", default=[], help="names of files in presets/")
    sweeping.add_argument("--name", default="sweep", help="what the experiments are called")
    for command in (comparing, sweeping):
        command.add_argument(
            "--executor", choices=("local", "workers"), default="local", help="where stages run"
        )
        command.add_argument(
            "--patience", type=float, default=600.0, help="seconds to wait for a worker"
        )
    given = vars(parser.parse_args())
    finish(compare if given.pop("command") == "compare" else sweep, given)


if __name__ == "__main__":
    with as_command():
        main()

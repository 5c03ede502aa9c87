"""What a flow may be asked, said once: Prefect's form and the command line are made of it."""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import Flow, flow
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.run import carry_out, finish, run_name
from tasks.files.terminal import as_command
from tasks.params.asked import Asked

__all__ = ["asked", "command"]


def asked(work: Callable[..., Any]) -> Flow[..., State[Any]]:
    """Make a flow of what does its work; it may be asked all that `Asked` says, too.

    Args:
        work: gets an `At`, and then its own parameters, all of which have a default.

    Returns:
        The flow, of the function's name; the state in which it ends is Completed, with what the function
        returned, Failed, Refused or Cancelled, with the reason.
    """
    own = list(inspect.signature(work, eval_str=True).parameters.values())[1:]
    shared = inspect.signature(Asked, eval_str=True).parameters

    def act(**given: Any) -> State[Any]:
        everywhere = Asked(**{name: given.pop(name) for name in shared if name in given})
        return carry_out(lambda at: work(at, **given), everywhere)

    # Prefect reads from these what its form shows.
    act.__module__, act.__name__, act.__qualname__ = work.__module__, work.__name__, work.__name__
    act.__signature__ = inspect.Signature([*own, *shared.values()])  # type: ignore[attr-defined]
    act.__doc__ = _described(work)
    runner: Any = ThreadPoolTaskRunner(max_workers=256)
    made: Flow[..., State[Any]] = flow(flow_run_name=run_name, task_runner=runner)(act)
    return made


def _described(work: Callable[..., Any]) -> str:
    """Return what the docstring of a flow's work says, with the arguments that all flows have."""
    own, returns, last = (inspect.getdoc(work) or "").partition("\n\nReturns:")
    shared = (inspect.getdoc(Asked) or "").partition("Args:\n")[2]
    return re.sub(r"\n +at: .*", "", own) + f"\n{shared}{returns}{last}"


def command(*acts: Flow[..., State[Any]]) -> None:
    """Run a flow from the command line; exit with 2 for a mistake of the user's, 1 for a failure.

    Args:
        *acts: the flow; of several, the first argument names one.
    """
    with as_command():
        parser = argparse.ArgumentParser(prog=f"python -m flows.{Path(sys.argv[0]).stem}")
        if len(acts) == 1:
            _take(parser, acts[0])
        else:
            commands = parser.add_subparsers(required=True)
            for act in acts:
                said = (act.description or "").split("\n")[0]
                _take(commands.add_parser(act.name, help=said), act)
        given = vars(parser.parse_args())
        finish(given.pop("act"), given)


def _take(parser: argparse.ArgumentParser, act: Flow[..., Any]) -> None:
    """Give a command all that its flow may be asked; the flow itself checks what is given."""
    parser.description = (act.description or "").split("\n")[0]
    parser.set_defaults(act=act)
    for name, entry in act.parameters.properties.items():
        kind = next(one for one in entry.get("anyOf", [entry]) if one["type"] != "null")
        item = kind.get("items", kind)
        how: dict[str, Any] = {"default": argparse.SUPPRESS, "help": entry["description"]}
        option = f"--{name.replace('_', '-')}"
        if kind["type"] == "boolean":
            how["action"] = "store_true"
        elif item["type"] == "object":
            how["type"] = _json
        else:
            how["choices"] = kind.get("enum")
            if kind["type"] == "array":
                how["nargs"] = "+"
                if entry["position"] == 0:
                    option, how["nargs"] = name, "*"
        parser.add_argument(option, **how)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None

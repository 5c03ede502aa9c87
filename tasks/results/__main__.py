"""Read the ledger, compare results, and measure one again: `python -m tasks.results --help`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tasks.files.documents import read_text
from tasks.files.layout import LEDGER, REPORT, TABLE, VERDICT
from tasks.files.stage import run
from tasks.results.crate import export_row
from tasks.results.effects import FACTORS, effects_of
from tasks.results.gather import gather
from tasks.results.history import WORKSPACE, applications_at, records_at
from tasks.results.reproduce import reproduce
from tasks.results.rows import (
    PARTS,
    changes,
    compare_revisions,
    ledger_table,
    measured_seconds,
    rows,
    when,
)
from tasks.results.table import read_table, text
from tasks.results.two_way import two_way
from tasks.results.verdict import JUDGED, details, verdicts

__all__ = ["main"]


def _show(rows: pd.DataFrame, form: str) -> None:
    if form == "json":
        print(rows.to_json(orient="records", force_ascii=False, indent=1))
    elif form == "csv":
        print(rows.to_csv(index=False), end="")
    elif form == "markdown":
        print(rows.to_markdown(index=False, floatfmt=".4g"))
    elif rows.empty:
        print("no rows")
    else:
        print(rows.to_string(index=False, na_rep="—", float_format=lambda value: f"{value:.4g}"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tasks.results", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shown = argparse.ArgumentParser(add_help=False)
    shown.add_argument("--format", choices=("table", "csv", "json", "markdown"), default="table")

    commands.add_parser("table", help="the verdict and the table of what is active")

    listing = commands.add_parser("list", parents=[shown], help="the ledger's rows")
    for part in PARTS:
        listing.add_argument(f"--{part.replace('_', '-')}")
    listing.add_argument("--environment", help="the fingerprint's beginning")

    both = commands.add_parser(
        "compare", parents=[shown], help="two revisions or experiments, or one with the workspace"
    )
    both.add_argument("first")
    both.add_argument("second", nargs="?", default=WORKSPACE)

    verdict = commands.add_parser(
        "verdict", help="VE with VP, or any two models, in a sentence each"
    )
    verdict.add_argument("models", nargs="*", help="two models; all pairs by default")
    verdict.add_argument("--at", default=WORKSPACE, help="a revision or an experiment")
    verdict.add_argument("--metric", choices=JUDGED, default="held_out")
    verdict.add_argument("--level", type=float, default=0.95)

    factorial = commands.add_parser(
        "effects",
        help="what SDE, recipe and sampler, or any factors, contribute: docs/factorial.md",
    )
    factorial.add_argument("at", nargs="?", default=WORKSPACE, help="a revision or an experiment")
    factorial.add_argument(
        "--factor",
        action="append",
        metavar="NAME=LOW,…/HIGH,…",
        help=f"models or samplers of two levels; those of the preset: {' '.join(FACTORS)}",
    )
    factorial.add_argument("--level", type=float, default=0.95)

    seeds = commands.add_parser(
        "seeds", help="the distance by training seed and sampling seed, and what each varies by"
    )
    seeds.add_argument("at", nargs="?", default=WORKSPACE, help="a revision or an experiment")
    seeds.add_argument("--metric", choices=JUDGED, default="held_out")

    history = commands.add_parser(
        "history", parents=[shown], help="one configuration's rows, and what changed between them"
    )
    history.add_argument("configuration", help="such as digits-ve-0-heun")

    commands.add_parser(
        "gather", help="bring experiments' and the workspace's records into the ledger"
    )

    again = commands.add_parser(
        "reproduce", help="measure a row again at the revision that made it"
    )
    again.add_argument("key", help="the beginning of a row's key, or its file")
    again.add_argument("--force", action="store_true", help="run every stage, restore nothing")

    export = commands.add_parser(
        "export", help="a row as an RO-Crate: what it came from, and by what commands"
    )
    export.add_argument("key", help="the beginning of a row's key, or its file")
    export.add_argument("out", type=Path, help="the folder to write")
    export.add_argument("--force", action="store_true", help="replace an earlier export")
    return parser


def _history(configuration: str) -> pd.DataFrame:
    found = [row for row in rows() if row["configuration"] == configuration]
    if not found:
        names = ", ".join(sorted({row["configuration"] for row in rows()}))
        raise ValueError(f"{configuration}: no such configuration in {LEDGER}, there are: {names}")
    found.sort(key=lambda row: (when(row), row["name"]))
    table = ledger_table(found).drop(columns=[*PARTS, "metric"])
    table["changed"] = [
        ""
        if index == 0
        else "; ".join(changes(found[index - 1]["inputs"], row["inputs"])) or "nothing"
        for index, row in enumerate(found)
    ]
    return table


def _table() -> None:
    """Print the verdict and the table, and where the report is."""
    if not TABLE.exists():
        raise FileNotFoundError(f"{TABLE}: no such file; run dvc repro")
    verdict = read_text(VERDICT).splitlines()
    print("\n".join(line for line in verdict if line.startswith("- ")) + "\n")
    print(text(read_table(TABLE)))
    print(f"\ntable:   {TABLE}\nverdict: {VERDICT}\nreport:  {REPORT.resolve().as_uri()}")


def main(arguments: Sequence[str]) -> None:
    """Do what the command line says."""
    given = _parser().parse_args(arguments)
    match given.command:
        case "table":
            _table()
        case "list":
            found = [
                row
                for row in rows()
                if all(getattr(given, part) in (None, str(row[part])) for part in PARTS)
                and row["name"].split("-")[1].startswith(given.environment or "")
            ]
            _show(ledger_table(found), given.format)
        case "compare":
            _show(compare_revisions(given.first, given.second), given.format)
        case "verdict":
            if len(set(given.models)) not in (0, 2) or not 0.5 < given.level < 1:
                raise ValueError(
                    "verdict: allowed: two different models or none, a level in (0.5, 1)"
                )
            records = records_at(given.at)
            known = {record["model"] for record in records}
            if missing := set(given.models) - known:
                raise ValueError(
                    f"verdict: no record of {', '.join(sorted(missing))}, there are: "
                    f"{', '.join(sorted(known))}"
                )
            chosen = [r for r in records if not given.models or r["model"] in given.models]
            chosen.sort(key=lambda r: given.models.index(r["model"]) if given.models else 0)
            judged = verdicts(
                chosen,
                given.metric,
                given.level,
                seconds=measured_seconds(),
                applications=applications_at(given.at),
            )
            for line in (*(one.sentence for one in judged), *details(judged)):
                print(line)
        case "seeds":
            print(two_way(records_at(given.at), given.metric))
        case "effects":
            print(effects_of(records_at(given.at), given.factor or FACTORS, given.level))
        case "history":
            _show(_history(given.configuration), given.format)
        case "gather":
            lines, agreed = gather()
            print("\n".join(lines))
            if not agreed:
                raise SystemExit(1)
        case "export":
            print(f"{export_row(given.key, given.out, given.force)} in {given.out}")
        case "reproduce":
            same, said = reproduce(given.key, given.force)
            print("\n".join(said))
            if not same:
                raise SystemExit(1)


if __name__ == "__main__":
    run(main)

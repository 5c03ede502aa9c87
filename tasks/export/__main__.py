"""Make what others read of a model, its samples or a data set: `python -m tasks.export --help`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from tasks.export.names import dataset_named, model_named, samples_named
from tasks.files.out import require_free
from tasks.files.stage import run
from tasks.judge.bench import Asked, bench
from tasks.judge.statistics import Split, write_statistics

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tasks.export", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("name")
    common.add_argument("out", type=Path)
    common.add_argument("--force", action="store_true", help="replace an earlier export")

    model = commands.add_parser(
        "model", parents=[common], help="weights, code that needs torch alone, and a model card"
    )
    model.add_argument("--as", dest="form", choices=("net", "diffusers"), default="net")
    model.add_argument("--ema-half-life", type=float, help="which averaged weights")
    model.add_argument("--ema-std", type=float, help="which of them by their relative width")

    samples = commands.add_parser("samples", parents=[common], help="samples as images")
    samples.add_argument(
        "--as", dest="form", choices=("npz", "folder", "flat", "zip"), default="npz"
    )
    samples.add_argument("--seed", type=int, help="a sampling seed; the first by default")

    commands.add_parser("data", parents=[common], help="a data set's card as Croissant")

    reference = commands.add_parser(
        "reference", parents=[common], help="mu and sigma of a data set's features, with a card"
    )
    reference.add_argument(
        "--split", choices=get_args(Split), default="held_out", help="of the data"
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Do what the command line says."""
    given = _parser().parse_args(arguments)
    match given.command:
        case "model":
            from tasks.export.model import export_model

            files = model_named(given.name)
            half_life, std = given.ema_half_life, given.ema_std
            export_model(files, given.out, given.form, half_life, given.force, std)
        case "samples":
            from tasks.export.samples import export_samples

            files = samples_named(given.name)
            export_samples(files, given.out, given.form, given.seed, given.force)
        case "data":
            from tasks.export.croissant import export_data

            export_data(dataset_named(given.name), given.out, given.force)
        case "reference":
            out = given.out.resolve()
            require_free(out, given.force)
            with bench(Asked(given.name)):
                write_statistics(out, given.name, given.split)
    print(f"{given.name}: {given.out}")


if __name__ == "__main__":
    run(main)

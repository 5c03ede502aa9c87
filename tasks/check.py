"""Stage check: all of `params.yaml` is valid, and every active source is there."""

from __future__ import annotations

from collections.abc import Sequence

from scoremodel.files import write_text
from tasks.layout import CHECKED, Data
from tasks.params import Params, ParamsError, load_params
from tasks.stage import run

__all__ = ["check", "main"]


def check() -> Params:
    """Return the parameters after checking them.

    Raises:
        ParamsError: one line for each mistake.
    """
    params = load_params()
    for name in params.active.datasets:
        raw = Data(name).raw
        if not raw.is_dir():
            raise ParamsError(
                f"params.yaml: active.datasets: {name!r} has no folder {raw}; put a source.yaml or "
                "images there (`dvc add`), or restore it (`dvc pull`)"
            )
    return params


def main(arguments: Sequence[str]) -> None:
    """Check, and with `--stage` write the constant output on which all other stages depend."""
    check()
    if list(arguments) == ["--stage"]:
        write_text(CHECKED, "params.yaml is valid\n")
    else:
        print("params.yaml is valid")


if __name__ == "__main__":
    run(main)

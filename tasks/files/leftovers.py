"""What no active stage makes, in the folders on which other stages depend as a whole."""

from __future__ import annotations

from pathlib import Path

from tasks.files.layout import CURVES, RECORDS, SHOWN

__all__ = ["put_away_leftovers"]


def put_away_leftovers() -> None:
    """Remove from the gathered folders what no active stage makes.

    A clone, which has no leftovers, would see other dependencies. `check` leaves none, but they come
    back where git and DVC bring another commit's files; DVC hashes what a stage depends on again
    when it has run, so the stages that depend on the folders put them away too. DVC's cache and git
    keep what was made.
    """
    from dvc.repo import Repo  # half a second, which a mistake in params.yaml need not wait for

    with Repo(".") as repo:
        made = {Path(str(out.def_path)) for stage in repo.index.stages for out in stage.outs}
    for folder in (CURVES, SHOWN, RECORDS):
        for path in folder.glob("[!.]*.*"):
            if path not in made:
                path.unlink()

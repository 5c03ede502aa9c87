"""What a stage is told: small files that `check` writes, each of one thing that results depend on.

machine.json             threads, device, tf32, deterministic
datasets/NAME.json       how a source is split
extractors/NAME.json     of which kind a data set's features are
models/DATASET-NAME.json process, network and training of a model on a data set
samplers/NAME.json       a sampler
external/NAME.json       what is known of samples from elsewhere
judge/NAME.json          draws, floor, metrics: how many samples, against what
applications/NAME.json, studies/NAME.json
active.json              what runs
code/STAGE@NAME.json     the code that one run of a stage is, see `tasks.files.code`
keeping.json             cores, processes, sharing, checkpoints and watching, on which no result depends
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.files.documents import read_json
from tasks.files.layout import RESOLVED

__all__ = ["resolved", "resolved_path"]


def resolved_path(name: str) -> Path:
    """Return where one of the files lies, given as "models/digits-ve"."""
    return RESOLVED / f"{name}.json"


def resolved(name: str) -> dict[str, Any]:
    """Return what one of the files says.

    Args:
        name: the file's path in the folder, without its ending.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: if `check` has not written it.
        DamagedError: if it is damaged.
    """
    path = resolved_path(name)
    try:
        content: dict[str, Any] = read_json(path, remedy="run dvc repro --force check")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: no such file; what is named must be active in params.yaml, and "
            "`dvc repro check` have run"
        ) from error
    return content

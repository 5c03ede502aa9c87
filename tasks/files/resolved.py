"""What a stage is told: small files that `check` writes, each of one thing that results depend on.

machine.json             threads, device, tf32, deterministic
datasets/NAME.json       how a source is split
extractors/NAME.json     of which kind a data set's features are
models/DATASET-NAME.json process, network and training of a model on a data set
samplers/NAME.json       a sampler
judge/NAME.json          draws, floor, metrics: how many samples, against what
applications/NAME.json, studies/NAME.json
active.json              what runs
code/STAGE@NAME.json     the code that one run of a stage is, see `tasks.files.code`
keeping.json             checkpoints and watching, on which no result depends
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
        ValueError: if it is damaged.
    """
    path = resolved_path(name)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: no such file; what is named must be active in params.yaml, and "
            "`dvc repro check` have run"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); run dvc repro --force check") from error
    return content

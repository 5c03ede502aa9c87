"""Samples for others: one array, a folder of PNG, or a zip of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scoremodel.bounds import shown
from scoremodel.data.exchange import Form, write_images
from tasks.files.arrays import read_arrays, read_card
from tasks.files.layout import Configuration
from tasks.files.out import require_free
from tasks.sample import array_name

__all__ = ["FORMS", "export_samples"]

FORMS: dict[Form, str | None] = {
    "npz": None,
    "folder": "000000/000000.png",
    "flat": "000000.png",
    "zip": None,
}
"""What samples can be exported as → the name in a folder by which an earlier export is known."""


def export_samples(
    files: Configuration,
    out: Path,
    form: Form = "npz",
    seed: int | None = None,
    force: bool = False,
) -> None:
    """Write the samples of one sampling seed.

    Args:
        files: the configuration that drew them.
        out: the file or folder.
        form: one of `FORMS`.
        seed: the sampling seed; None is the first.
        force: whether an earlier export that is there may be replaced.

    Raises:
        ValueError: if there is something at `out`, the samples are no images, or none were drawn with
            that seed.
    """
    require_free(out, force, FORMS[form])
    arrays, info = read_arrays(files.samples, ["labels", "nfe"])
    card = read_card(files.card)
    if len(card["shape"]) != 3:
        raise ValueError(
            f"{files.name}: vectors, allowed: images; {files.samples} holds them as arrays"
        )
    name = next(iter(arrays)) if seed is None else array_name(seed)
    if name not in arrays:
        seeds = ", ".join(one.rpartition("_")[2] for one in arrays)
        raise ValueError(f"--seed: {shown(seed)} is not allowed, allowed: {seeds}")
    labels = None if info["labels"] is None else np.array(info["labels"][name], np.int64)
    write_images(out, arrays[name], labels, form=form, levels=card["levels"])

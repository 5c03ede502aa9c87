"""Stage reference: the extractors' features of the real data, for one data set."""

from __future__ import annotations

import numpy as np

from tasks.files.arrays import read_card, read_rows, write_arrays
from tasks.files.extraction import extracted, help_extract
from tasks.files.hashes import file_hash
from tasks.files.layout import Configuration
from tasks.files.ranks import with_helpers
from tasks.files.stage import run_stage

__all__ = ["main"]


def main(files: Configuration, helps: bool = False) -> None:
    """Write the features of train and held-out, which rows are new to the extractors, the distance's name.

    Args:
        files: says which data set.
        helps: whether to compute only what the process that writes has not computed yet.
    """
    arrays = read_rows(files.arrays, read_card(files.card))
    splits = {split: arrays[split] for split in ("train", "held_out")}
    data = {"data": file_hash(files.card)}
    if helps:
        help_extract("real", files, splits, data)
        return
    with extracted("real", files, splits, data) as (extractors, where):
        judge, *panel = extractors
        rows = {}
        for split, images in splits.items():
            seen = [one.extractor.has_seen(images) for one in extractors]
            rows[split] = np.flatnonzero(~np.logical_or.reduce(seen))
        kept = rows["held_out"]
        found = {
            "train": judge.features["train"].numpy(),
            "fresh": rows["train"],
            "held_out": judge.features["held_out"].numpy()[kept],
            "held_out_rows": kept,
        }
        warnings = []
        if left_out := len(splits["held_out"]) - len(kept):
            warnings.append(
                f"{left_out} of {len(splits['held_out'])} held-out images are left out: the "
                "extractor was trained on them"
            )
        info = {
            "metric": judge.metric,
            "extractor": judge.digest,
            "environment": where,
            "warnings": warnings,
        }
        write_arrays(files.real_features, found, info)
        write_arrays(
            files.panel_features,
            {one.name: one.features["held_out"].numpy()[kept] for one in panel},
            {"metrics": {one.name: one.metric for one in panel}},
        )
    for warning in warnings:
        print(f"{files.dataset}: {warning}")
    print(
        f"{files.dataset}: {judge.metric}, {found['train'].shape[1]} features, "
        f"{len(rows['train'])} of {len(splits['train'])} training data are new to it"
    )


if __name__ == "__main__":
    run_stage(with_helpers(main), "dataset", helped=True)

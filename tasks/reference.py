"""Stage reference: the extractor's features of the real data, for one data set and one extractor."""

from __future__ import annotations

from tasks.files.arrays import read_rows, write_arrays
from tasks.files.extraction import extracted
from tasks.files.hashes import file_hash
from tasks.files.layout import Configuration
from tasks.files.stage import run_stage

__all__ = ["main", "metric_name"]


def metric_name(kind: str, digest: str, mode: str | None) -> str:
    """Return what the distance is called: only Inception's is FID, others name their extractor.

    Args:
        kind: the extractor's kind.
        digest: the hash of the extractor's file.
        mode: clean-fid's name of how Inception is called, None for others.

    Returns:
        The name, in which eight characters of the hash tell one extractor from another.
    """
    if mode is not None:
        return f"FID (clean-fid {mode}, {digest[:8]})"
    return f"FD ({kind} {digest[:8]})"


def main(files: Configuration) -> None:
    """Write the features of train and held-out, and the name of the distance between them."""
    arrays = read_rows(files.arrays)
    splits = {split: arrays[split] for split in ("train", "held_out")}
    data = {"data": file_hash(files.card)}
    with extracted("real", files, splits, data) as (extractor, features, where):
        digest = file_hash(files.extractor)
        metric = metric_name(extractor.kind, digest, getattr(extractor, "mode", None))
        found = {split: rows.numpy() for split, rows in features.items()}
        info = {"metric": metric, "extractor": digest, "environment": where}
        write_arrays(files.real_features, found, info)
    print(f"{files.dataset}: {metric}, {found['train'].shape[1]} features")


if __name__ == "__main__":
    run_stage(main, "dataset")

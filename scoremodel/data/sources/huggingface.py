"""An image set of Hugging Face's `datasets` that lies on disk: parquet files, or what `save_to_disk` wrote.

Read by pyarrow (the extra `huggingface`): no download, and no script of the set's own is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremodel.bounds import shown
from scoremodel.data.exchange.image_set import ImageSet, stacked
from scoremodel.data.sources.base import SOURCES, RawData, from_images, require_hash
from scoremodel.data.sources.folder import decoded_image, one_line

__all__ = ["load_huggingface"]


@SOURCES.register("huggingface", gives="images")
def load_huggingface(
    path: str,
    image: str | None = None,
    label: str | None = None,
    split: str = "train",
    held_out: str | None = None,
    licence: str | None = None,
    sha256: str | None = None,
) -> RawData:
    """Return an image set on disk: its images, labels and classes' names.

    Args:
        path: a parquet file, a folder of them (SPLIT-….parquet, as on the Hub), or the folder that
            `save_to_disk` wrote.
        image: the column of images; by default the one whose feature is `Image`.
        label: the column of labels; by default the one whose feature is `ClassLabel`, if there is one.
        split: the split that is read, where there are several.
        held_out: the split that becomes the source's own held-out one, if any.
        licence: the data's licence; by default what the set says.
        sha256: of the file, or of a folder's files as an error says it.

    Returns:
        Grey levels with shape (N, C, H, W).

    Raises:
        ValueError: if pyarrow is not installed, or the files are not what they should be.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise ValueError(
            'kind: huggingface needs pyarrow, allowed: once it is installed (pip install "scoremodel'
            '[huggingface]")'
        ) from error
    place, where = Path(path), f"path: {shown(path)}"
    require_hash(path, sha256)
    try:
        splits = [_tables(place, one) for one in (split, held_out) if one is not None]
        return _read(place, splits, image, label, licence)
    except (OSError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise ValueError(f"{where}: cannot be read ({reason})") from error


def _tables(place: Path, split: str) -> list[Path]:
    """Return the files of a split, in their order."""
    where = f"path: {shown(str(place))}"
    if not place.exists():
        raise ValueError(f"{where}: no such file or folder")
    if place.is_file():
        if place.suffix != ".parquet":
            raise ValueError(f"{where}: no .parquet file, allowed: that, or a folder of a set")
        return [place]
    if (place / "dataset_dict.json").is_file():
        splits = _json(place / "dataset_dict.json").get("splits", [])
        if split not in splits:
            raise ValueError(f"split: {shown(split)} is not there, allowed: {shown(splits)}")
        place = place / split
    if (place / "state.json").is_file():
        entries = _json(place / "state.json").get("_data_files", [])
        return [place / Path(str(entry["filename"])).name for entry in entries]
    found = sorted([*place.glob("*.parquet"), *place.glob("*/*.parquet")])
    chosen = [one for one in found if one.stem.partition("-")[0] == split]
    if not chosen:
        there = sorted({one.stem.partition("-")[0] for one in found})
        what = (
            f"split {shown(split)} is not there, there are: {shown(there)}" if found else "no set"
        )
        raise ValueError(
            f"{where}: {what}; allowed: SPLIT-….parquet, or the folder that save_to_disk wrote"
        )
    return chosen


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{one_line(path)}: no JSON") from error
    return content if isinstance(content, dict) else {}


def _read(
    place: Path,
    splits: list[list[Path]],
    image: str | None,
    label: str | None,
    licence: str | None,
) -> RawData:
    files = [path for split in splits for path in split]
    features = _features(files[0]) if files else {}
    image = _column(features, image, "Image", "image")
    label = _column(features, label, "ClassLabel", "label")
    if image is None:
        raise ValueError(
            f"image: no column of images in {one_line(place)}, there are: {shown(list(features))}"
        )
    columns = [one for one in (image, label) if one is not None]
    counts = [sum(len(batch) for path in split for batch in _batches(path, [])) for split in splits]
    labels: list[int | None] = []

    def images() -> Iterator[tuple[str, NDArray[np.uint8]]]:
        for path in files:
            row = 0
            for batch in _batches(path, columns):
                if label is not None:
                    labels.extend(batch.column(label).to_pylist())
                for one in batch.column(image):
                    name = f"{one_line(path)}: {image} {row}"
                    content = one.as_py()
                    if not isinstance(content, dict) or not isinstance(content.get("bytes"), bytes):
                        raise ValueError(
                            f"{name}: no bytes of an image in the file, allowed: images in it"
                        )
                    yield name, decoded_image(content["bytes"], name)
                    row += 1

    if not sum(counts):
        raise ValueError(f"path: {shown(str(place))}: no images")
    x = stacked(images(), sum(counts))
    if label is not None and not all(type(one) is int for one in labels):
        raise ValueError(f"label: column {shown(label)} holds no integers, allowed: class numbers")
    classes = features[label].get("names") if label is not None else []
    if classes is None and label is not None:
        classes = [str(number) for number in range(max(labels, default=-1) + 1)]  # type: ignore[type-var,operator]
    found = ImageSet(x, None if label is None else np.array(labels, np.int64), classes or [])
    held_out = np.arange(len(x)) >= counts[0] if len(splits) > 1 else None
    return from_images(found, str(place), licence or _licence(place, files[0]), held_out=held_out)


def _batches(path: Path, columns: list[str]) -> Iterator[Any]:
    """Yield a file's rows in parts."""
    import pyarrow
    from pyarrow import parquet

    if path.suffix == ".parquet":
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=256, columns=columns)
    else:
        with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as reader:
            for batch in reader:
                yield batch.select(columns)


def _features(path: Path) -> dict[str, dict[str, Any]]:
    """Return what a file's schema says of its columns, in `datasets`' words."""
    import pyarrow
    from pyarrow import parquet

    if path.suffix == ".parquet":
        schema = parquet.read_schema(path)
    else:
        with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as reader:
            schema = reader.schema
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):  # of another writer: names alone
        told = {}
    said = told if isinstance(told, dict) else {}
    return {name: said[name] if isinstance(said.get(name), dict) else {} for name in schema.names}


def _column(
    features: dict[str, dict[str, Any]], chosen: str | None, kind: str, key: str
) -> str | None:
    """Return the column that is asked for, or else the one of a kind, or else the one of that name."""
    if chosen is not None and chosen not in features:
        raise ValueError(f"{key}: {shown(chosen)} is no column, allowed: {shown(list(features))}")
    of_kind = [name for name, feature in features.items() if feature.get("_type") == kind]
    if chosen is None and len(of_kind) > 1:
        raise ValueError(f"{key}: several columns, which is not known; allowed: {shown(of_kind)}")
    return chosen or next(iter(of_kind), key if key in features else None)


def _licence(place: Path, file: Path) -> str:
    """Return what the set says of its licence."""
    for path in (file.parent / "dataset_info.json", place / "dataset_info.json"):
        if path.is_file() and (said := _json(path).get("license")):
            return str(said)
    return "undeclared"

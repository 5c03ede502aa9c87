"""A Hugging Face image set on disk: parquet, or what `save_to_disk` wrote.

Both are read as what they are, tables of Arrow's, without the library `datasets`.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from scoremodel.bounds import shown
from scoremodel.data.sources.base import SOURCES, RawData
from scoremodel.data.sources.file import checked_path
from scoremodel.data.sources.folder import said_path, stacked

__all__ = ["load_huggingface"]

_LABEL, _TRAIN, _TEST = "label", "train", "test"
_MOST_CLASSES = 100_000
_ROWS = 256  # at a time
_DEPTHS = ("", "*/", "*/*/")  # below a set's folder, for its configuration and its split
_SHARD = re.compile(r"(?P<split>.+?)-\d+-of-\d+.*")


@SOURCES.register("huggingface", gives="images")
def load_huggingface(
    path: str,
    image: str = "image",
    label: str | None = None,
    split: str | None = None,
    licence: str = "undeclared",
    sha256: str | None = None,
) -> RawData:
    """Return an image set of the Hugging Face Hub's forms, labelled if it has a column of classes.

    Args:
        path: a parquet file, a folder of such, or a folder that `save_to_disk` wrote.
        image: the column of encoded images.
        label: the column of classes, null for the one called "label" if there is one.
        split: which split; null for the only one, or for train and test, of which test is held out.
        licence: the data's licence.
        sha256: of the file, if `path` is one, compared before it is read.

    Returns:
        Grey levels with shape (N, C, H, W), in the order of the rows.

    Raises:
        ValueError: if the library `pyarrow` is missing, there is no such split or column, an image is
            not held by the table or not readable, or labels are no classes.
    """
    here = checked_path(path, sha256, [".parquet"], folders=True)
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            "kind 'huggingface' needs the library pyarrow, which is not installed; allowed: pip install "
            "'scoremodel[huggingface]'"
        ) from error
    splits = _splits(here)
    chosen = _chosen(splits, split)
    files = [file for name in chosen for file in splits[name]]
    try:
        names, labels = _labels(files, image, label)
        x = stacked(here, lambda: _images(files, image))
        counts = [sum(map(_count, splits[name])) for name in chosen]
    except (pyarrow.ArrowException, OSError, EOFError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"path: {said_path(here)}: cut off or damaged ({reason})") from error
    return RawData(
        x=x,
        labels=labels,
        levels=256,
        classes=names,
        held_out=np.repeat([name == _TEST for name in chosen], counts) if len(chosen) > 1 else None,
        source=f"Hugging Face image set {shown(here.name)}, {' and '.join(chosen)}, {len(x)} images",
        licence=licence,
    )


def _splits(path: Path) -> dict[str, list[Path]]:
    """Return each split's files in their order."""
    if path.is_file():
        return {_split_of(path): [path]}
    if (path / "dataset_dict.json").is_file():
        names = _json(path / "dataset_dict.json", "splits")
        return {name: _saved(path / name) for name in (Path(str(one)).name for one in names)}
    if (path / "state.json").is_file():
        return {str(_json(path / "state.json", "_split") or path.name): _saved(path)}
    found: dict[str, list[Path]] = {}
    files = [file for depth in _DEPTHS for file in path.glob(f"{depth}[!.]*.parquet")]
    for file in sorted(files):
        found.setdefault(_split_of(file), []).append(file)
    if not found:
        raise ValueError(
            f"path: {said_path(path)} holds no image set, allowed: parquet files, or what save_to_disk "
            "wrote"
        )
    for name, files in found.items():
        if odd := next((file for file in files if file.parent != files[0].parent), None):
            raise ValueError(
                f"path: {said_path(path)} has files of {shown(name)} in several folders, such as "
                f"{said_path(files[0])} and {said_path(odd)}; allowed: the folder of one set"
            )
    return found


def _split_of(file: Path) -> str:
    """Return the split that a parquet file is of, by its name or else its folder's."""
    if shard := _SHARD.fullmatch(file.stem):
        return shard["split"]
    return file.parent.name if file.stem.isdecimal() else file.stem


def _saved(folder: Path) -> list[Path]:
    listed = _json(folder / "state.json", "_data_files")
    try:
        files = [folder / Path(one["filename"]).name for one in listed]
    except (TypeError, KeyError) as error:
        raise ValueError(f"path: {said_path(folder / 'state.json')} lists no files") from error
    if not files:
        raise ValueError(f"path: {said_path(folder / 'state.json')} lists no files")
    return files


def _json(file: Path, key: str) -> Any:
    try:
        return json.loads(file.read_bytes())[key]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"path: {said_path(file)} is not what save_to_disk writes") from error


def _chosen(splits: dict[str, list[Path]], split: str | None) -> list[str]:
    if split is None and set(splits) == {_TRAIN, _TEST}:
        return [_TRAIN, _TEST]
    if split is None and len(splits) == 1:
        return list(splits)
    if split not in splits:
        allowed = shown(", ".join(splits))
        raise ValueError(f"split: {shown(split)} is not allowed, allowed: one of {allowed}")
    return [split]


def _opened(file: Path) -> Any:
    """Return a file's table, of which nothing is read yet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix.lower() == ".parquet":
        return pq.ParquetFile(file, memory_map=True)
    return pa.ipc.open_stream(pa.memory_map(str(file)))


def _schema(file: Path) -> Any:
    table = _opened(file)
    return table.schema_arrow if hasattr(table, "schema_arrow") else table.schema


def _count(file: Path) -> int:
    table = _opened(file)
    if hasattr(table, "metadata"):
        return int(table.metadata.num_rows)
    return sum(batch.num_rows for batch in table)


def _column(file: Path, name: str) -> Iterator[Any]:
    """Yield a column in parts."""
    table = _opened(file)
    parts = table.iter_batches(_ROWS, columns=[name]) if hasattr(table, "iter_batches") else table
    for batch in parts:
        yield batch.column(name)


def _type_of(file: Path, name: str, key: str) -> Any:
    schema = _schema(file)
    if schema.names.count(name) != 1:
        raise ValueError(
            f"{key}: {shown(name)} is not allowed, allowed: a column of {said_path(file)}, "
            f"{shown(', '.join(schema.names))}"
        )
    return schema.field(name).type


def _images(files: Sequence[Path], name: str) -> Iterator[tuple[Path, IO[bytes]]]:
    """Yield what each image is called, and its bytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for file in files:
        kind = _type_of(file, name, "image")
        held = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        inside = kind.field("bytes").type if held else kind
        if not (pa.types.is_binary(inside) or pa.types.is_large_binary(inside)):
            raise ValueError(
                f"image: {shown(name)} of {said_path(file)} holds {shown(str(kind))}, allowed: encoded "
                "images"
            )
        number = 0
        for part in _column(file, name):
            for value in pc.struct_field(part, "bytes") if held else part:
                content = value.as_py()
                if content is None:  # a path may stand there, to a file of another machine
                    raise ValueError(f"{said_path(file)}: row {number} holds no image")
                yield file / f"row {number}", io.BytesIO(content)
                number += 1


def _labels(
    files: Sequence[Path], image: str, label: str | None
) -> tuple[list[str], NDArray[np.int64] | None]:
    """Return the classes' names, and each row's class."""
    import pyarrow as pa

    _type_of(files[0], image, "image")
    if label is None and _LABEL not in _schema(files[0]).names:
        return [], None
    column = label or _LABEL
    kind = _type_of(files[0], column, "label")
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (text or pa.types.is_integer(kind)):
        raise ValueError(
            f"label: {shown(column)} of {said_path(files[0])} holds {shown(str(kind))}, allowed: integers "
            "or text"
        )
    values: list[Any] = []
    for file in files:
        if _type_of(file, column, "label") != kind or _names(file, column) != _names(
            files[0], column
        ):
            raise ValueError(
                f"label: {said_path(file)} has other classes than {said_path(files[0])}, allowed: the same"
            )
        for part in _column(file, column):
            values += part.to_pylist()
    if None in values:
        raise ValueError(f"label: row {values.index(None)} of {shown(column)} has none")
    if text:
        names, numbers = np.unique(values, return_inverse=True)
        return names.tolist(), numbers.astype(np.int64)
    given = _names(files[0], column)
    low, high, most = min(values), max(values), len(given) if given else _MOST_CLASSES
    if not 0 <= low <= high < most:
        raise ValueError(
            f"label: {shown(column)} has class numbers from {low} to {high}, allowed: 0 to {most - 1}"
        )
    classes = given or [str(number) for number in range(high + 1)]
    return classes, np.array(values, np.int64)


def _names(file: Path, column: str) -> list[str] | None:
    """Return the classes' names as the table has them."""
    said = (_schema(file).metadata or {}).get(b"huggingface")
    try:
        names = json.loads(said or b"")["info"]["features"][column]["names"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    right = isinstance(names, list) and all(isinstance(n, str) and n.isprintable() for n in names)
    return names if right and names else None

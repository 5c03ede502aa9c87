"""Image sets from a folder, an npz, an npy or an EDM zip.

    folder   images, or one sub-folder of images for each class; EDM's samples, folders by thousand,
             have no classes; a `dataset.json` beside them has the labels
    npz      ADM's `arr_0` (N, H, W, C), labels in `arr_1`; score_sde's `samples`
    npy      the array itself
    zip      EDM's: PNG, or NPY with shape (C, H, W), and `dataset.json`

No pickle is read, and nothing is unpacked to disk.
"""

from __future__ import annotations

import json
import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from scoremodel.bounds import shown
from scoremodel.data.exchange.image_set import (
    ImageSet,
    Scale,
    class_numbers,
    require_room,
    stacked,
)
from scoremodel.data.sources.folder import (
    IMAGE_ENDINGS,
    decoded_image,
    image_files,
    load_folder,
    one_line,
)

__all__ = ["ARRAY_ENDINGS", "read_images"]

ARRAY_ENDINGS = (".npz", ".npy")
_ALLOWED = "a folder of images, .npz, .npy, .zip"
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib")
_IMAGES, _LABELS = ("arr_0", "samples"), "arr_1"
_STATISTICS = {"mu", "sigma"}
_DESCRIPTION = "dataset.json"
_THOUSAND = re.compile(r"(?:img)?(\d+)(\d{3})")
_COLOURS = (1, 3)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError)


def read_images(
    path: str | os.PathLike[str],
    scale: Scale | None = None,
    levels: int = 256,
    key: str | None = None,
    labels_key: str | None = None,
) -> ImageSet:
    """Return the images of a folder, an npz (`arr_0`, `arr_1`; `samples`), an npy or an EDM zip.

    Args:
        path: the folder or file.
        scale: what the numbers of a real-valued array of images mean; without it one is refused.
        levels: number of grey levels of an array: integers are 0 … levels − 1, real values are
            rounded to them, halves to even.
        key: name of an npz's array of images, if it has another one.
        labels_key: name of an npz's array of labels, if it has another one; of an npy, the npy file
            beside it that holds them.

    Returns:
        The images, with what was assumed.

    Raises:
        ValueError: one line that names the file, its member, and what is allowed.
    """
    place = Path(path)
    where, ending = one_line(place), place.suffix.lower()
    if scale is not None and scale not in get_args(Scale):
        raise ValueError(
            f"scale: {shown(scale)} is not allowed, allowed: {', '.join(get_args(Scale))}"
        )
    if not 2 <= levels <= 256:
        raise ValueError(
            f"levels: {shown(levels)} is not allowed, allowed: an integer from 2 to 256"
        )
    try:
        place.stat()
    except OSError as error:
        raise ValueError(f"{shown(str(place))}: {error.strerror}, allowed: {_ALLOWED}") from error
    if place.is_dir():
        found = _read_folder(place)
    elif not place.is_file():
        raise ValueError(f"{where}: is no regular file, allowed: {_ALLOWED}")
    elif ending in _PICKLES:
        raise ValueError(
            f"{where}: a pickle, which would run its code when it is read; allowed: {_ALLOWED}"
        )
    elif ending == ".npz":
        found = _read_npz(place, scale, levels, key, labels_key)
    elif ending == ".npy":
        found = _read_npy(place, scale, levels, labels_key)
    elif ending == ".zip":
        found = _read_zip(place)
    else:
        raise ValueError(
            f"{where}: {shown(ending)} is no ending of image sets, allowed: {_ALLOWED}"
        )
    return found


def _read_folder(folder: Path) -> ImageSet:
    files, _, others = image_files(folder)
    raw = load_folder(folder)
    description = folder / _DESCRIPTION
    left = [path for path in others if path != description]
    said = [f"left aside: {len(left)} other files, such as {one_line(left[0])}"] if left else []
    said += _about_loss(files)
    labels, classes = raw.labels, list(raw.classes)
    if description.is_file():
        names = [path.relative_to(folder).as_posix() for path in files]
        labels, classes = _described(description.read_bytes(), names, one_line(description))
    elif raw.labels is not None and all(map(_is_by_thousand, files)):
        said.append("folders by thousand, named by the images' numbers: taken as no classes")
        labels, classes = None, []
    return ImageSet(raw.x, labels, classes, tuple(said))


def _is_by_thousand(path: Path) -> bool:
    """Return whether an image lies as EDM's samples do, NNN000/NNNnnn.png, or its data, NNN/imgNNNnnn.png."""
    number = _THOUSAND.fullmatch(path.stem)
    return number is not None and path.parent.name in (f"{number[1]}000", number[1])


def _about_loss(files: Iterable[PurePath]) -> list[str]:
    lossy = sum(path.suffix.lower() in (".jpg", ".jpeg") for path in files)
    return [f"{lossy} images are JPEG, whose compression has changed their pixels"] if lossy else []


def _read_npz(
    path: Path, scale: Scale | None, levels: int, key: str | None, labels_key: str | None
) -> ImageSet:
    where = one_line(path)
    with _archive(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        names = ", ".join(map(shown, members)) or "none"
        candidates = [name for name in ((key,) if key else _IMAGES) if name in members]
        if len(candidates) != 1:
            what = (
                "statistics, not images"
                if members.keys() >= _STATISTICS
                else f"arrays {names[:200]}; which of them are the images is not known"
            )
            allowed = shown(key) if key else "arr_0 or samples, one of them"
            raise ValueError(f"{where}: holds {what}, allowed: {allowed}")
        (chosen,) = candidates
        labelled = labels_key or (_LABELS if _LABELS in members and key is None else None)
        if labelled is not None and labelled not in members:
            raise ValueError(
                f"{where}: has no array {shown(labelled)} of labels, there are: {names[:200]}"
            )
        x = _member_array(archive, members[chosen], where)
        labels, classes = _no_labels()
        if labelled is not None:
            given = _member_array(archive, members[labelled], where)
            labels, classes = class_numbers(given, len(x) if x.ndim else 0, f"{where}: {labelled}")
    left = [name for name in members if name not in (chosen, labelled)]
    said = (f"left aside: {', '.join(map(shown, left))[:200]}",) if left else ()
    return _as_images(x, f"{where}: {chosen}", scale, levels, labels, classes, said)


def _read_npy(path: Path, scale: Scale | None, levels: int, beside: str | None) -> ImageSet:
    x = _file_array(path)
    labels, classes = _no_labels()
    if beside is not None:
        place = path.parent / beside
        labels, classes = class_numbers(
            _file_array(place), len(x) if x.ndim else 0, one_line(place)
        )
    return _as_images(x, one_line(path), scale, levels, labels, classes, ())


def _file_array(path: Path) -> NDArray[Any]:
    where = one_line(path)
    try:
        return _array(lambda: path.open("rb"), path.stat().st_size, where)
    except OSError as error:
        raise ValueError(f"{where}: cannot be read ({error.strerror})") from error


def _no_labels() -> tuple[NDArray[np.int64] | None, list[str]]:
    return None, []


def _read_zip(path: Path) -> ImageSet:
    where = one_line(path)
    endings = (*IMAGE_ENDINGS, ".npy")
    with _archive(path) as archive:
        infos = {PurePosixPath(info.filename): info for info in archive.infolist()}
        infos = {path: infos[path] for path in infos if _is_data(path, infos[path])}
        files = sorted(path for path in infos if path.suffix.lower() in endings)
        if not files:
            raise ValueError(f"{where}: no images (allowed endings: {' '.join(endings)})")
        require_room(sum(infos[path].file_size for path in files), where)

        def images() -> Iterator[tuple[str, NDArray[np.uint8]]]:
            for path in files:
                info, member = infos[path], f"{where}: {shown(str(path))}"
                if path.suffix.lower() == ".npy":
                    image = _member_array(archive, info, where)
                    _require_planes(image, member)
                    yield member, image
                else:
                    yield member, decoded_image(_content(archive, info, where), member)

        x = stacked(images(), len(files))
        (labels, classes), said = _no_labels(), _about_loss(files)
        descriptions = [path for path in infos if path.name == _DESCRIPTION]
        for described in descriptions:
            # Where a folder was packed as a whole, it lies one deeper, and so do the images.
            top = "" if described.parent == PurePosixPath() else f"{described.parent}/"
            names = [str(path).removeprefix(top) for path in files]
            content = _content(archive, infos[described], where)
            labels, classes = _described(content, names, f"{where}: {shown(str(described))}")
        if not descriptions and any(len(path.parts) > 1 for path in files):
            said.append(f"no {_DESCRIPTION}: an archive's folders are taken as no classes")
    if left := len(infos) - len(files) - len(descriptions):
        said.append(f"left aside: {left} other files")
    return ImageSet(x, labels, classes, tuple(said))


def _is_data(path: PurePosixPath, info: zipfile.ZipInfo) -> bool:
    """Return whether a member is no folder, not hidden and not macOS's."""
    return not info.is_dir() and not any(
        part == "__MACOSX" or part.startswith(".") for part in path.parts
    )


def _require_planes(image: NDArray[Any], where: str) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or len(image) not in _COLOURS or not image.size:
        raise ValueError(
            f"{where}: array of type {image.dtype} and shape {image.shape}, allowed: uint8 (C, H, W) "
            "with C 1 or 3"
        )


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Yield a zip whose members are named once, lie in it, and can be read."""
    where = one_line(path)
    try:
        archive = zipfile.ZipFile(path)
    except (*_DAMAGE, ValueError) as error:
        reason = getattr(error, "strerror", None) or "cut off or damaged"
        raise ValueError(f"{where}: no readable zip archive ({reason})") from error
    with archive:
        seen: set[PurePosixPath] = set()
        for info in archive.infolist():
            name = shown(info.filename)
            place = PurePosixPath(info.filename.replace("\\", "/"))
            if place in seen:
                raise ValueError(f"{where}: {name}: is there twice, allowed: once")
            seen.add(place)
            if place.is_absolute() or ".." in place.parts or ":" in str(place.parts[:1]):
                raise ValueError(
                    f"{where}: {name}: a path out of the archive, allowed: relative ones"
                )
            if info.flag_bits & 1:
                raise ValueError(f"{where}: {name}: encrypted, allowed: members without a password")
            if info.compress_type not in _METHODS:
                raise ValueError(
                    f"{where}: {name}: compression {info.compress_type}, allowed: stored or deflated"
                )
        yield archive


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> bytes:
    require_room(info.file_size, f"{where}: {shown(info.filename)}")
    try:
        return archive.read(info)
    except _DAMAGE as error:
        raise ValueError(f"{where}: {shown(info.filename)}: cut off or damaged") from error


def _member_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> NDArray[Any]:
    """Return an array that is a member of a zip."""
    member = f"{where}: {shown(info.filename)}"
    try:
        return _array(lambda: archive.open(info), info.file_size, member)
    except _DAMAGE as error:
        raise ValueError(f"{member}: cut off or damaged") from error


def _array(opens: Callable[[], Any], size: int, where: str) -> NDArray[Any]:
    """Return an NPY file's array; what its header claims is held to the file's size before."""
    with opens() as file:
        try:
            version = np.lib.format.read_magic(file)
            reads: dict[Any, Any] = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            shape, _, dtype = reads[version](file)
        except (ValueError, KeyError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise ValueError(f"{where}: no NPY array, cut off or damaged") from error
        there = size - file.tell()
    if dtype.hasobject:
        raise ValueError(
            f"{where}: Python objects, a pickle, which would run its code when it is read; allowed: numbers"
        )
    claimed = math.prod(map(int, shape)) * dtype.itemsize  # Python's integers do not overflow
    if claimed != there:
        raise ValueError(
            f"{where}: cut off or damaged ({there:,} bytes of data, its header says {claimed:,})"
        )
    require_room(2 * claimed, where)
    with opens() as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _described(
    content: bytes, names: Sequence[str], where: str
) -> tuple[NDArray[np.int64] | None, list[str]]:
    """Return the labels that a `dataset.json` gives the images, and the classes' names."""
    try:
        said = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: no JSON") from error
    pairs = said.get("labels") if isinstance(said, dict) else 0
    if pairs is None:
        return None, []
    if not isinstance(pairs, list) or not all(
        isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) for one in pairs
    ):
        raise ValueError(f'{where}: allowed: {{"labels": [[name, number or one-hot list], …]}}')
    given = {name.replace("\\", "/"): label for name, label in pairs}
    there = set(names)
    for wrong, words in (
        ([one for one in names if one not in given], "has no label in it"),
        ([one for one in given if one not in there], "has a label in it, and is not there"),
    ):
        if wrong:
            raise ValueError(
                f"{where}: {shown(wrong[0])} {words}; allowed: one label for each image"
            )
    labels, classes = class_numbers([given[name] for name in names], len(names), where)
    called = said.get("classes", classes)  # ours; others have numbers only
    if not (
        isinstance(called, list)
        and len(called) >= len(classes)
        and all(isinstance(one, str) for one in called)
        and len(set(called)) == len(called)
    ):
        raise ValueError(
            f"{where}: classes: {shown(called)} is not allowed, allowed: {len(classes)} different names"
        )
    return labels, called


def _as_images(
    x: NDArray[Any],
    where: str,
    scale: Scale | None,
    levels: int,
    labels: NDArray[np.int64] | None,
    classes: list[str],
    said: tuple[str, ...],
) -> ImageSet:
    """Return an array as an image set: its channels in front, its values as grey levels."""
    if x.dtype.kind not in "iuf":
        raise ValueError(f"{where}: array of type {x.dtype}, allowed: uint8 or real numbers")
    if not x.size or x.ndim not in (2, 3, 4):
        raise ValueError(
            f"{where}: array of shape {x.shape}, allowed: (N, H, W, C), (N, C, H, W), (N, H, W), or "
            "vectors (N, D), not empty"
        )
    bad = (
        0 if x.dtype.kind != "f" else len(x) - int(np.isfinite(x).reshape(len(x), -1).all(1).sum())
    )
    if bad:
        raise ValueError(f"{where}: {bad:,} of {len(x):,} hold a value that is not finite")
    if x.ndim == 2:
        return _as_vectors(x, where, labels, classes, said)
    x, order = _channels_first(x, where)
    grey, done = _as_levels(x, where, scale, levels)
    quantised = x.dtype.kind == "f"
    return ImageSet(grey, labels, classes, (*said, *order, *done), levels, quantised)


def _as_vectors(
    x: NDArray[Any],
    where: str,
    labels: NDArray[np.int64] | None,
    classes: list[str],
    said: tuple[str, ...],
) -> ImageSet:
    if x.dtype.kind != "f":
        raise ValueError(f"{where}: vectors of type {x.dtype}, allowed: real numbers")
    with np.errstate(over="ignore"):
        vectors = x.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise ValueError(f"{where}: vectors with values beyond single precision's")
    rounded = (f"{x.dtype} rounded to float32",) if x.dtype.itemsize > 4 else ()
    return ImageSet(vectors, labels, classes, (*said, *rounded), levels=None)


def _channels_first(x: NDArray[Any], where: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    if x.ndim == 3:
        return x[:, None], ("no axis of channels: taken as grey images (N, H, W)",)
    last, second = x.shape[3] in _COLOURS, x.shape[1] in _COLOURS
    if last and second and x.shape[1:] != (1, 1, 1):
        raise ValueError(
            f"{where}: array of shape {x.shape}, of which the second axis may be the channels and the "
            "last too; allowed: (N, H, W, C) or (N, C, H, W) that can be told apart"
        )
    if last:
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2)), ()
    if second:
        return x, ("channels before height and width: taken as (N, C, H, W)",)
    raise ValueError(
        f"{where}: array of shape {x.shape}, allowed: 1 or 3 channels, (N, H, W, C) or (N, C, H, W)"
    )


_RANGES: Mapping[str, tuple[float, float]] = {"unit": (0, 1), "symmetric": (-1, 1)}


def _as_levels(
    x: NDArray[Any], where: str, scale: Scale | None, levels: int
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Return values as grey levels 0 … levels − 1: integers as they are, real ones by their scale."""
    lowest, highest = x.min().item(), x.max().item()
    if x.dtype.kind in "iu":
        if scale not in (None, "levels"):
            raise ValueError(
                f"{where}: {x.dtype}, grey levels, allowed: no scale, not {shown(scale)}"
            )
        if lowest < 0 or highest >= levels:
            raise ValueError(
                f"{where}: grey levels from {lowest} to {highest}, allowed: 0 to {levels - 1}"
            )
        as_they_are = () if x.dtype == np.uint8 else (f"{x.dtype} taken as grey levels",)
        return x.astype(np.uint8, copy=False), as_they_are
    if scale is None:
        raise ValueError(
            f"{where}: {x.dtype} from {lowest:.4g} to {highest:.4g}, whose meaning is not said; allowed: "
            "uint8, or with a scale: unit for [0, 1], symmetric for [-1, 1], levels for 0 to "
            f"{levels - 1}"
        )
    low, high = _RANGES.get(scale, (0, levels - 1))
    beyond = (high - low) / 2
    if lowest < low - beyond or highest > high + beyond:
        raise ValueError(
            f"{where}: values from {lowest:.4g} to {highest:.4g} are far out of [{low:g}, {high:g}], "
            f"which scale {scale} says"
        )
    out = int(((x < low) | (x > high)).sum())
    grey = np.empty(x.shape, np.uint8)
    for start in range(0, len(x), 1000):
        # In float64, so that a value that is a grey level in float32 comes out as that level.
        scaled = (x[start : start + 1000].astype(np.float64) - low) * ((levels - 1) / (high - low))
        grey[start : start + 1000] = np.rint(scaled).clip(0, levels - 1)
    told = [f"{x.dtype} in [{low:g}, {high:g}] rounded to {levels} grey levels"]
    if out:
        told.append(
            f"{out / x.size:.2%} of the values lay out of [{low:g}, {high:g}], and were cut off"
        )
    if scale == "symmetric" and lowest >= 0:
        told.append("no value is below 0: if they lie in [0, 1], the scale is unit")
    return grey, tuple(told)

"""Sets of images in the files that other code bases write and read.

    folder      of images, sub-folders as classes; EDM's 000000/000000.png, with its `dataset.json`
    npz         `arr_0`, and `arr_1` for class numbers (ADM), or `samples` (score_sde)
    npy         one array
    zip         of PNG or NPY, with `dataset.json` for class numbers (EDM)

Arrays are grey levels (N, H, W, C), (N, C, H, W) or (N, H, W), real values whose range is said, or
vectors (N, D). Nothing is unpickled, and nothing is guessed in silence: what is assumed of a set, or
done to it, is a sentence in `ImageSet.said`.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scoremodel.bounds import shown
from scoremodel.data.sources.folder import (
    IMAGE_ENDINGS,
    decoded,
    first_image,
    image_files,
    load_folder,
    said_path,
    stacked,
)
from scoremodel.io.files import atomic_folder, atomic_path

__all__ = [
    "ARRAY_FILES",
    "Form",
    "ImageSet",
    "Quantiser",
    "Resize",
    "Scale",
    "ScaleMissingError",
    "fitted",
    "read_images",
    "read_sets",
    "write_images",
]

Scale = Literal["unit", "symmetric"]
"""The range of real-valued images: [0, 1] or [−1, 1]."""
Quantiser = Literal["rounded", "truncated"]
"""How a writer made grey levels of real values; by truncation they are half a level too dark."""
Resize = Literal["box", "bilinear", "bicubic", "lanczos"]
"""Pillow's filters, which take all pixels of the larger image into account."""
Form = Literal["npz", "folder", "flat", "zip"]
"""A `flat` folder has no sub-folders, which some readers do not look into."""

ARRAY_FILES = (".npz", ".npy", ".zip")
"""Endings of files that hold a set each."""
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt")
_IMAGES = ("arr_0", "samples")
_CLASSES = "arr_1"
_LABELS = "dataset.json"
_CHANNELS = (1, 3)
_LARGEST = 2**28  # bytes of one member of an archive
_DATE = (1980, 1, 1, 0, 0, 0)  # of a zip's members, so that its bytes repeat
_GREY = np.array([299, 587, 114])  # thousandths, ITU-R 601-2, as Pillow has them


class ScaleMissingError(ValueError):
    """Real-valued images, of which neither the file nor the caller says the range."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A set of images, or of vectors.

    Args:
        x: grey levels (uint8) with shape (N, C, H, W), or real-valued images of that shape (float32,
            in [−1, 1]), or vectors (float32) with shape (N, D).
        labels: class numbers with shape (N,), or None.
        classes: the classes' names in the order of their numbers.
        said: a sentence for each thing that was assumed of the set or done to it.
    """

    x: NDArray[Any]
    labels: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    said: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of all values, their type and shape, and the class numbers."""
        digest = sha256(f"{self.x.dtype}{self.x.shape}".encode())
        digest.update(np.ascontiguousarray(self.x).data)
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels, np.int64).data)
        return digest.hexdigest()


def read_sets(path: str | os.PathLike[str], scale: Scale | None = None) -> dict[str, ImageSet]:
    """Return the sets of images at a path: several, if it is a folder of array files or archives.

    Args:
        path: what `read_images` takes, or a folder in which nothing lies but such files.
        scale: see `read_images`.

    Returns:
        The sets by their files' names without endings, in the order of these; one goes by the name of
        the folder or file.

    Raises:
        ValueError: as `read_images`, or if arrays lie beside images.
    """
    here = Path(path)
    inside = sorted(here.glob("[!.]*")) if here.is_dir() else []
    files = [one for one in inside if one.suffix.lower() in ARRAY_FILES]
    if not files:
        return {here.stem: read_images(here, scale)}
    if image := first_image(here):
        raise ValueError(
            f"{said_path(files[0])}: lies beside images, such as {said_path(image)}; allowed: the one "
            "or the other"
        )
    names = [one.stem for one in files]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{said_path(here)}: two files of the name {shown(twice)}")
    return {one.stem: read_images(one, scale) for one in files}


def read_images(path: str | os.PathLike[str], scale: Scale | None = None) -> ImageSet:
    """Return a set of images as a folder, npz, npy or zip holds it.

    Args:
        path: the folder or file.
        scale: the range of real-valued images, which no file says.

    Returns:
        The set, in the order of the file, or of the images' paths.

    Raises:
        FileNotFoundError: if there is none.
        ScaleMissingError: of real-valued images without a scale.
        ValueError: one line that names the file and what is wrong with it: damage, a pickle, shapes of
            which it is not clear what they mean, values that are not finite.
    """
    here = Path(path)
    if scale is not None and scale not in get_args(Scale):
        raise ValueError(
            f"scale: {shown(scale)} is not allowed, allowed: {', '.join(get_args(Scale))}"
        )
    try:
        mode = here.stat().st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"{said_path(here)}: no such file or folder") from None
    except OSError as error:  # such as a name that is too long
        raise ValueError(f"{shown(str(here))}: cannot be read ({error.strerror})") from error
    ending = here.suffix.lower()
    if stat.S_ISDIR(mode):
        return _of_folder(here)
    if not stat.S_ISREG(mode):  # reading a FIFO would not end
        raise ValueError(f"{said_path(here)}: neither file nor folder, allowed: one of them")
    if ending in _PICKLES:
        raise ValueError(
            f"{said_path(here)}: a pickle, which would run its code when it is read, allowed: a folder "
            f"of images, {', '.join(ARRAY_FILES)}"
        )
    if ending == ".zip":
        return _of_zip(here, scale)
    if ending == ".npy":
        return _of_array(said_path(here), _loaded(here), scale)
    if ending == ".npz":
        return _of_npz(here, scale)
    raise ValueError(
        f"{said_path(here)}: of an unknown kind, allowed: a folder of images, {', '.join(ARRAY_FILES)}"
    )


def _loaded(source: Path | io.BytesIO, name: str | None = None) -> Any:
    """Return what numpy reads of an npy or npz file: arrays of numbers only."""
    name = name or said_path(Path(str(source)))
    try:
        found = np.load(source, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            return {key: found[key] for key in found.files}
    except PermissionError:
        raise
    except MemoryError as error:  # which a damaged header may ask for too
        raise ValueError(f"{name}: larger than memory, or damaged") from error
    except Exception as error:  # numpy and zipfile name no one kind for a damaged file
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{name}: holds pickled objects, which would run code, or is no array; allowed: arrays "
                "of numbers"
            ) from None
        raise ValueError(f"{name}: cut off or damaged") from error


def _require_room(members: Iterable[zipfile.ZipInfo], name: str) -> None:
    """Refuse an archive of more than half of this machine's memory, which a small one may become."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    if (needed := sum(one.file_size for one in members)) > most:
        raise ValueError(
            f"{name}: {needed / 2**30:.1f} GiB when it is unpacked, allowed: half of this machine's "
            f"memory, {most / 2**30:.1f} GiB"
        )


def _of_npz(path: Path, scale: Scale | None) -> ImageSet:
    if zipfile.is_zipfile(path):
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            _require_room(archive.infolist(), said_path(path))
    arrays = _loaded(path)
    if not isinstance(arrays, dict):
        raise ValueError(f"{said_path(path)}: no npz file")
    names = [name for name in arrays if name in _IMAGES] or list(arrays)
    if len(names) != 1:
        listed = shown(", ".join(arrays) or "nothing")
        raise ValueError(
            f"{said_path(path)}: holds {listed}, allowed: images as arr_0 or samples, class numbers as "
            f"{_CLASSES}"
        )
    found = _of_array(f"{said_path(path)}: {names[0]}", arrays[names[0]], scale)
    if _CLASSES not in arrays:
        return found
    return _labelled(found, f"{said_path(path)}: {_CLASSES}", arrays[_CLASSES])


def _of_array(name: str, array: Any, scale: Scale | None) -> ImageSet:
    if (
        not isinstance(array, np.ndarray)
        or array.dtype.kind not in "uif"
        or 0 in (array.size, array.ndim)
    ):
        kind = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "npz"
        raise ValueError(f"{name}: {kind}, allowed: numbers, at least one")
    if array.dtype.kind == "f":
        bad = int((~np.isfinite(array).reshape(len(array), -1).all(axis=1)).sum())
        if bad:
            raise ValueError(f"{name}: {bad} of {len(array)} hold a value that is not finite")
    if array.ndim == 2:
        with np.errstate(over="ignore"):
            vectors = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(vectors).all():
            raise ValueError(f"{name}: values beyond single precision, allowed: up to 3e38")
        return ImageSet(vectors)
    x, said = _channels_first(name, array)
    if array.dtype.kind == "f":
        return _real(name, x, scale, said)
    low, high = int(x.min()), int(x.max())
    if low < 0 or high > 255:
        raise ValueError(f"{name}: grey levels from {low} to {high}, allowed: 0 to 255")
    return ImageSet(np.ascontiguousarray(x, np.uint8), said=said)


def _channels_first(name: str, array: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return images as (N, C, H, W), and what was assumed of their axes."""
    if array.ndim == 3:
        return array[:, None], ()
    first = array.ndim == 4 and array.shape[1] in _CHANNELS
    last = array.ndim == 4 and array.shape[3] in _CHANNELS
    if first and last:
        raise ValueError(
            f"{name}: shape {array.shape} may be (N, H, W, C) or (N, C, H, W); allowed: sizes of which "
            "it is clear"
        )
    if first:
        return array, ("axes taken as (N, C, H, W)",)
    if last:
        return array.transpose(0, 3, 1, 2), ()
    raise ValueError(
        f"{name}: shape {array.shape}, allowed: (N, H, W, C) or (N, C, H, W) of 1 or 3 channels, "
        "(N, H, W), or vectors (N, D)"
    )


def _real(name: str, x: NDArray[Any], scale: Scale | None, said: tuple[str, ...]) -> ImageSet:
    low, high = float(x.min()), float(x.max())
    if scale is None:
        raise ScaleMissingError(
            f"{name}: real values from {low:.3g} to {high:.3g}, whose range is not said, allowed: "
            "scale unit ([0, 1]) or symmetric ([-1, 1])"
        )
    least = 0.0 if scale == "unit" else -1.0
    if low < least - 1 or high > 2:
        raise ValueError(
            f"{name}: values from {low:.3g} to {high:.3g} are not on the scale {scale}, "
            f"[{least:g}, 1]"
        )
    outside = float(((x < least) | (x > 1)).mean())
    if outside:
        said = (*said, f"{outside:.2%} of the values lie outside [{least:g}, 1] and are clamped")
    x = np.clip(np.asarray(x, np.float32), least, 1)
    if scale == "unit":
        x = 2 * x - 1
    return ImageSet(np.ascontiguousarray(x), said=said)


def _labelled(images: ImageSet, name: str, labels: Any) -> ImageSet:
    found = np.asarray(labels)
    if found.shape != (len(images.x),) or found.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: {found.dtype} of shape {found.shape}, allowed: a class number for each of the "
            f"{len(images.x)} images"
        )
    if (low := int(found.min())) < 0 or int(found.max()) >= 100_000:
        raise ValueError(f"{name}: class numbers from {low} to {int(found.max())}, allowed: from 0")
    classes = tuple(map(str, range(int(found.max()) + 1)))
    return replace(images, labels=found.astype(np.int64), classes=classes)


def _of_folder(folder: Path) -> ImageSet:
    raw = load_folder(folder)
    files = image_files(folder)[0]
    found = ImageSet(raw.x)
    listing = Path(os.path.commonpath({os.path.dirname(file) for file in files})) / _LABELS  # noqa: PTH120
    listing = next((one for one in (listing, folder / _LABELS) if one.is_file()), listing)
    if listing.is_file():
        names = [str(Path(file).relative_to(listing.parent)) for file in files]
        return _with_json(found, listing, listing.read_bytes(), names)
    if raw.labels is None:
        return found
    if all(_numbered(Path(file)) for file in files):
        return replace(
            found, said=("folders by thousand, named by the images' numbers: no classes",)
        )
    return replace(found, labels=raw.labels, classes=tuple(raw.classes))


def _numbered(path: Path) -> bool:
    """Return whether an image lies where EDM puts samples, NNN000/NNNnnn.png, or data, NNN/imgNNNnnn.png."""
    number = re.fullmatch(r"(?:img)?(\d+)\d{3}", path.stem)
    return number is not None and path.parent.name in (f"{number[1]}000", number[1])


def _of_zip(path: Path, scale: Scale | None) -> ImageSet:
    said = said_path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive)
            names = sorted(members)
            endings = {Path(name).suffix.lower() for name in names}
            if endings == {".npy"}:
                parts = (_of_member(path, name, archive.read(name)) for name in names)
                found = _of_parts(path, members, parts, scale)
            elif ".npy" in endings:
                raise _Refused("images beside NPY, allowed: the one or the other")
            else:
                found = ImageSet(
                    stacked(path, lambda: ((path / n, io.BytesIO(archive.read(n))) for n in names))
                )
            top, listing = _listing(archive)
    except _Refused as error:
        raise ValueError(f"{said}: {error}") from None
    except ValueError:
        raise
    except (
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
        EOFError,
    ) as error:
        if isinstance(error, PermissionError):
            raise
        raise ValueError(f"{said}: not a readable zip (cut off or damaged)") from error
    if listing is not None:
        return _with_json(
            found, path / top / _LABELS, listing, [n.removeprefix(top) for n in names]
        )
    if any("/" in name for name in names) and not all(_numbered(Path(name)) for name in names):
        folders = f"no {_LABELS}: the folders of an archive are taken as no classes"
        found = replace(found, said=(*found.said, folders))
    return found


def _listing(archive: zipfile.ZipFile) -> tuple[str, bytes | None]:
    """Return an archive's `dataset.json`, and the folder that holds it and the images, if one was packed."""
    found = [
        name
        for name in archive.namelist()
        if Path(name).name == _LABELS and not name.startswith("__MACOSX/")
    ]
    if len(found) > 1:
        raise _Refused(f"{len(found)} files {_LABELS}, allowed: one")
    return (found[0].removesuffix(_LABELS), archive.read(found[0])) if found else ("", None)


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return an archive's images by name; none is read."""
    found = {
        one.filename: one
        for one in archive.infolist()
        if Path(one.filename).suffix.lower() in (*IMAGE_ENDINGS, ".npy")
        and not any(
            part == "__MACOSX" or (part.startswith(".") and part != "..")
            for part in Path(one.filename).parts
        )
    }
    if not found:
        raise _Refused("no images, allowed: PNG or NPY")
    counted = Counter(one.filename for one in archive.infolist())
    if twice := next((name for name in found if counted[name] > 1), None):
        raise _Refused(f"{shown(twice)}: is there twice, allowed: once")
    for name, one in found.items():
        if name.startswith("/") or ".." in name.split("/"):
            raise _Refused(f"{shown(name)}: a path out of the archive, allowed: relative ones")
        if one.file_size > _LARGEST or one.flag_bits & 1:
            what = "encrypted" if one.flag_bits & 1 else f"{one.file_size:,} bytes"
            raise _Refused(f"{shown(name)}: {what}, allowed: plain, {_LARGEST:,} bytes")
    return found


def _of_parts(
    path: Path,
    members: Mapping[str, zipfile.ZipInfo],
    parts: Iterator[NDArray[Any]],
    scale: Scale | None,
) -> ImageSet:
    """Return the images of NPY files; of grey levels one is in memory at a time."""
    said, names = said_path(path), sorted(members)
    first = next(parts)
    alike = _alike(said, names, chain([first], parts))
    if first.dtype != np.uint8 or not first.size:
        _require_room(members.values(), said)
        found = _of_array(said, np.stack(list(alike)), scale)
    else:
        shape = (len(names), *first.shape)
        about = _channels_first(said, np.broadcast_to(first, shape))[1]
        images = (_channels_first(said, part[None])[0] for part in alike)
        found = ImageSet(decoded(path, len(names), images), said=about)
    if first.ndim == 3 and first.shape[0] in _CHANNELS:
        found = replace(found, said=found.said[1:])  # its order is the format's
    return found


def _alike(
    said: str, names: Sequence[str], parts: Iterator[NDArray[Any]]
) -> Iterator[NDArray[Any]]:
    """Yield arrays, after making sure that each is as the first one."""
    first: NDArray[Any] | None = None
    for name, part in zip(names, parts, strict=True):
        first = part if first is None else first
        if part.shape != first.shape or part.dtype != first.dtype:
            raise ValueError(
                f"{said}: {shown(name)} is {part.dtype} of shape {part.shape} and {shown(names[0])} "
                f"{first.dtype} of {first.shape}; all images must have one type and size"
            )
        yield part


class _Refused(Exception):
    """What is wrong with an archive that can be read."""


def _of_member(path: Path, name: str, content: bytes) -> NDArray[Any]:
    """Return an image (C, H, W) or (H, W)."""
    array = _loaded(io.BytesIO(content), f"{said_path(path)}: {shown(name)}")
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3):
        raise ValueError(f"{said_path(path)}: {shown(name)}: no image, allowed: (C, H, W)")
    return array


def _with_json(images: ImageSet, path: Path, content: bytes, names: Sequence[str]) -> ImageSet:
    """Return a set with the class numbers that EDM's `dataset.json` gives its files."""
    said = said_path(path)
    try:
        labels = json.loads(content)["labels"]
        if labels is None:
            return images
        given = {str(name): label for name, label in labels}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f'{said}: allowed: {{"labels": [[file, class number], …]}}') from error
    if absent := sorted(given.keys() - {name.replace(os.sep, "/") for name in names}):
        raise ValueError(
            f"{said}: {shown(absent[0])} has a label and is not there, allowed: labels of the images"
        )
    numbers = []
    for name in names:
        label = given.get(name.replace(os.sep, "/"))
        if isinstance(label, list) and sorted(label)[:-1] == [0] * (len(label) - 1) and 1 in label:
            label = label.index(1)
        if isinstance(label, bool) or not isinstance(label, int):
            raise ValueError(
                f"{said}: {shown(name)} has the label {shown(label)}, allowed: a class number, or a "
                "list of which one is 1 and the others 0"
            )
        numbers.append(label)
    return _labelled(images, said, np.array(numbers))


def fitted(
    images: ImageSet,
    shape: Sequence[int],
    levels: int | None,
    *,
    grey: bool = False,
    resize: Resize | None = None,
    quantiser: Quantiser | None = None,
) -> ImageSet:
    """Return a set as the data are that it is compared with: their channels, size and grey levels.

    Args:
        images: the set.
        shape: (C, H, W) or (D,) of one data point.
        levels: the data's number of grey levels, None of real-valued data.
        grey: whether colour images may become grey ones (ITU-R 601-2).
        resize: the filter by which images of another size are brought to the data's.
        quantiser: how the images' writer made grey levels; None if that is not known.

    Returns:
        uint8 levels 0 … levels − 1 with shape (N, *shape), or float32 vectors; all that was done to
        them or assumed is said.

    Raises:
        ValueError: one line, if the set does not fit and no argument says what to do about it.
    """
    for name, value, kinds in (("resize", resize, Resize), ("quantiser", quantiser, Quantiser)):
        if value is not None and value not in get_args(kinds):
            allowed = ", ".join(get_args(kinds))
            raise ValueError(f"{name}: {shown(value)} is not allowed, allowed: {allowed}")
    x, said = images.x, list(images.said)
    if levels is None or len(shape) == 1:
        if x.shape[1:] != tuple(shape):
            raise ValueError(
                f"samples of shape {x.shape[1:]} for data of shape {tuple(shape)}, allowed: that shape"
            )
        return replace(images, x=np.asarray(x, np.float32))
    if x.ndim != 4:
        raise ValueError(f"vectors of {x.shape[1]} numbers for images of shape {tuple(shape)}")
    x = _with_channels(x, shape[0], grey, said)
    x = _with_size(x, (shape[1], shape[2]), resize, said)
    return replace(images, x=_with_levels(x, levels, quantiser, said), said=tuple(said))


def _with_channels(x: NDArray[Any], channels: int, grey: bool, said: list[str]) -> NDArray[Any]:
    if x.shape[1] == channels:
        return x
    if x.shape[1] == 1:
        said.append(f"grey images repeated to the data's {channels} channels")
        return np.repeat(x, channels, axis=1)
    if (x == x[:, :1]).all():
        said.append("the three channels are equal; the data's one is taken of them")
        return x[:, :1]
    if not grey:
        raise ValueError(
            f"samples of {x.shape[1]} channels that differ for data of {channels}, allowed: grey "
            "samples, or channels: grey, by which they are made grey (ITU-R 601-2)"
        )
    said.append("colours made grey (ITU-R 601-2)")
    mixed = np.tensordot(x, _GREY, axes=(1, 0))[:, None]
    return mixed / 1000 if x.dtype.kind == "f" else ((mixed + 500) // 1000).astype(np.uint8)


def _with_size(
    x: NDArray[Any], size: tuple[int, int], resize: Resize | None, said: list[str]
) -> NDArray[Any]:
    if x.shape[2:] == size:
        return x
    here, there = (f"{high}×{wide}" for high, wide in (x.shape[2:], size))
    if resize is None:
        raise ValueError(
            f"samples of {here} pixels for data of {there}, allowed: that size, or resize: "
            f"{', '.join(get_args(Resize))}"
        )
    from PIL import Image

    said.append(f"resized from {here} to {there} pixels by Pillow's {resize} filter")
    flat = x.reshape(-1, *x.shape[2:])
    method = Image.Resampling[resize.upper()]
    parts = [np.asarray(Image.fromarray(one).resize(size[::-1], method)) for one in flat]
    return np.stack(parts).reshape(*x.shape[:2], *size)


def _with_levels(
    x: NDArray[Any], levels: int, quantiser: Quantiser | None, said: list[str]
) -> NDArray[np.uint8]:
    if x.dtype.kind == "f":
        said.append(f"real values rounded to the data's {levels} grey levels")
        return np.clip(np.rint((x + 1) * ((levels - 1) / 2)), 0, levels - 1).astype(np.uint8)
    if levels < 256 and x.max() < levels:
        said.append(f"values up to {x.max()} taken as the data's own {levels} grey levels")
        return np.asarray(x)
    if quantiser is None:
        said.append("assumed: grey levels rounded, not truncated (half a level darker)")
    if levels == 256:
        if quantiser == "truncated":
            said.append("truncated grey levels: half a level darker than they were drawn")
        return np.asarray(x)
    half = 0.5 if quantiser == "truncated" else 0.0
    said.append(f"256 grey levels brought to the nearest of the data's {levels}")
    table = np.rint((np.arange(256) + half) * ((levels - 1) / 255)).clip(0, levels - 1)
    nearest: NDArray[np.uint8] = table.astype(np.uint8)[x]
    return nearest


def write_images(
    path: str | os.PathLike[str],
    x: NDArray[np.uint8],
    labels: NDArray[np.integer] | None = None,
    *,
    form: Form = "npz",
    levels: int = 256,
) -> None:
    """Write images as others read them: ADM's npz, or PNG in a folder or zip by EDM's names.

    Grey levels become v · 255 / (levels − 1), so that `fitted` finds the same ones again. In an npz
    grey images have three channels, as those who read it expect; class numbers are `arr_1` there, and
    `dataset.json` elsewhere. The bytes are the same every time.

    Args:
        path: the file or folder, written whole or not at all.
        x: grey levels with shape (N, C, H, W).
        labels: class numbers with shape (N,), if there are any.
        form: what is written.
        levels: number of grey levels of `x`.

    Raises:
        ValueError: if there are no such images, or the form is unknown.
        OSError: if it cannot be written.
    """
    if form not in get_args(Form):
        raise ValueError(f"form: {shown(form)} is unknown, allowed: {', '.join(get_args(Form))}")
    if x.ndim != 4 or x.dtype != np.uint8 or x.shape[1] not in _CHANNELS or not len(x):
        raise ValueError(
            f"{x.dtype} of shape {x.shape}, allowed: uint8 images (N, C, H, W) of 1 or 3 channels"
        )
    if x.max() >= levels:
        raise ValueError(f"a grey level of {x.max()}, allowed: 0 to {levels - 1}")
    pixels = np.rint(np.arange(256) * (255 / (levels - 1))).clip(0, 255).astype(np.uint8)[x]
    pixels = pixels.transpose(0, 2, 3, 1)
    if form == "npz":
        arrays = {"arr_0": np.repeat(pixels, 3 // pixels.shape[3], axis=3)}
        if labels is not None:
            arrays[_CLASSES] = np.asarray(labels, np.int64)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        return
    numbers = range(len(pixels))
    if form in ("folder", "flat"):
        place = "{0:06}/{1:06}.png" if form == "folder" else "{1:06}.png"
        names = [place.format(number // 1000 * 1000, number) for number in numbers]
        with atomic_folder(path) as folder:
            for name, content in _contents(pixels, names, labels).items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        return
    names = [f"{number // 1000:05}/img{number:08}.png" for number in numbers]
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in _contents(pixels, names, labels).items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), content)


def _contents(
    pixels: NDArray[np.uint8], names: Sequence[str], labels: NDArray[np.integer] | None
) -> Mapping[str, bytes]:
    """Return each file's bytes by its name."""
    from PIL import Image

    found = {}
    for name, one in zip(names, pixels, strict=True):
        out = io.BytesIO()
        Image.fromarray(one[..., 0] if one.shape[2] == 1 else one).save(out, format="PNG")
        found[name] = out.getvalue()
    if labels is not None:
        listed = [[name, int(label)] for name, label in zip(names, labels, strict=True)]
        found[_LABELS] = json.dumps({"labels": listed}).encode()
    return found

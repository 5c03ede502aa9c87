"""A folder of images of one's own."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scoremodel.data.sources.base import RawData

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "IMAGE_ENDINGS",
    "decoded",
    "first_image",
    "image_files",
    "load_folder",
    "opened_image",
    "said_path",
    "stacked",
]

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_MODES = ("1", "L", "P", "RGB")  # 8 bits a channel; alpha would have to be dropped
_SIXTEEN_BITS = re.compile(r";16[BLNS]\b")  # how Pillow calls them before it drops the lower eight
_NO_DATA = ("__MACOSX",)  # what archives of macOS hold beside the files
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class _RefusedImage(Exception):
    """What is wrong with an image that can be read."""


@contextmanager
def opened_image(path: Path, content: IO[bytes] | None = None) -> Iterator[Image.Image]:
    """Open an image of one opaque frame of 8 bits.

    Args:
        path: the file, or what `content` is called.
        content: what is in it, None to read the file.

    Yields:
        The image.

    Raises:
        ValueError: if it is none, or cannot be read: one line that names it.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            for category in (UserWarning, RuntimeWarning):  # damage, and sizes near a bomb's
                warnings.simplefilter("error", category)
            with Image.open(content or path, formats=_FORMATS) as image:
                if image.mode not in _MODES:
                    modes = ", ".join(_MODES)
                    raise _RefusedImage(f"pixels of mode {image.mode}, allowed: {modes}")
                if any(_SIXTEEN_BITS.search(str(tile)) for tile in image.tile):
                    raise _RefusedImage("pixels of 16 bits a channel, allowed: 8")
                if image.has_transparency_data:
                    raise _RefusedImage("transparent pixels, allowed: opaque ones")
                if (frames := getattr(image, "n_frames", 1)) > 1:
                    raise _RefusedImage(f"{frames} frames, allowed: one")
                yield image
    except _RefusedImage as error:
        raise ValueError(f"{said_path(path)}: {error}") from None
    except Exception as error:  # of a damaged file Pillow raises whatever its decoders do
        if isinstance(error, UnidentifiedImageError):
            reason = f"none of {', '.join(_FORMATS)}"
        elif isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
            reason = f"it claims more than {Image.MAX_IMAGE_PIXELS:,} pixels"
        else:
            reason = getattr(error, "strerror", None) or "cut off or damaged"
        raise ValueError(f"{said_path(path)}: not a readable image ({reason})") from error


def said_path(path: str | Path) -> str:
    """Return a path in one line, whatever characters it has."""
    return str(path) if str(path).isprintable() else ascii(str(path))


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "no file")


def _walk(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what lies in a folder as data, and below it: paths, each "folder", "image" or "other".

    They are text, of which a million takes a fifth of the memory that as many `Path`s do.

    Links are followed. What is hidden, or lies in something hidden, is no data. Nothing is opened:
    reading a FIFO would not end.
    """
    waiting = [str(folder)]
    seen: dict[tuple[int, int], str] = {}
    while waiting:
        here = waiting.pop()
        try:
            status = Path(here).stat()
            with os.scandir(here) as listed:
                entries = list(listed)
        except OSError as error:
            raise ValueError(f"{said_path(here)}: cannot be read ({error.strerror})") from error
        before = seen.setdefault((status.st_dev, status.st_ino), here)
        if before != here:
            raise ValueError(
                f"{said_path(here)}: is the same folder as {said_path(before)}, whose images would "
                "count twice"
            )
        for entry in entries:
            path = entry.name if here == os.curdir else entry.path
            if entry.name.startswith(".") or entry.name in _NO_DATA:
                continue
            try:
                mode = entry.stat().st_mode
            except OSError as error:
                raise ValueError(
                    f"{said_path(path)}: leads to no file or folder ({error.strerror})"
                ) from error
            if entry.name.lower().endswith(IMAGE_ENDINGS):
                if not stat.S_ISREG(mode):
                    raise ValueError(
                        f"{said_path(path)}: is {_kind(mode)}, allowed: the file of an image"
                    )
                yield path, "image"
            elif stat.S_ISDIR(mode):
                waiting.append(path)
                yield path, "folder"
            elif not stat.S_ISREG(mode):
                raise ValueError(f"{said_path(path)}: is {_kind(mode)}, allowed: files and folders")
            else:
                yield path, "other"


def first_image(folder: Path) -> Path | None:
    """Return an image in a folder or below it, None if there is none."""
    return next((Path(path) for path, kind in _walk(folder) if kind == "image"), None)


def _in_order(path: str) -> str:
    """Return what sorts as the parts of a path do."""
    return path.replace(os.sep, "\0")


def _folder(path: str) -> str:
    """Return the folder in which a path lies, one text for all in it."""
    return sys.intern(path.rpartition(os.sep)[0])


def image_files(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Return a folder's images by how they lie; none is opened.

    Args:
        folder: as `load_folder` has it. Folders in which only one other lies are passed through, as
            archives have them.

    Returns:
        The images in the order of their paths, and each one's class, or nothing if all lie in one folder;
        other files. Paths are text.

    Raises:
        ValueError: if there is none, something is neither file nor folder, or folders are not one for
            each class; its path is named.
    """
    found: dict[str, list[str]] = {"folder": [], "image": [], "other": []}
    for path, kind in _walk(folder):
        found[kind].append(path)
    for paths in found.values():
        paths.sort(key=_in_order)
    files = found["image"]
    if not files:
        endings = " ".join(IMAGE_ENDINGS)
        raise ValueError(f"{said_path(folder)}: no images (allowed endings: {endings})")
    folders = [_folder(path) for path in files]
    base = os.path.commonpath(set(folders))
    loose = next((path for path in files if _folder(path) == base), None)
    deeper = [(path, own) for path, own in zip(files, folders, strict=True) if own != base]
    if loose and deeper:
        raise ValueError(
            f"{said_path(loose)}: lies beside sub-folders of images, such as "
            f"{said_path(deeper[0][0])}; either all images lie in sub-folders, one for each class, or "
            "none does"
        )
    for path, own in deeper:
        if _folder(own) != base:
            raise ValueError(
                f"{said_path(path)}: lies deeper than one folder below {said_path(Path(base))}; allowed: "
                "one sub-folder of images for each class (which part is held out, params.yaml says)"
            )
    used = set(folders)
    for one in map(Path, found["folder"]):
        beside = Path(base).is_relative_to(one.parent) and not Path(base).is_relative_to(one)
        if beside and str(one) not in used and (deeper or one.parent != Path(base)):
            raise ValueError(f"{said_path(one)}: no images, beside folders of images; remove it")
    classes = [sys.intern(Path(own).name) for _, own in deeper]
    for name in set(classes):
        if not name.isprintable():
            raise ValueError(
                f"{said_path(Path(base, name))}: a class's name may have printable characters"
            )
    return files, classes, found["other"]


def decoded(place: Path, count: int, images: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return images as one array, which is a map of a file without a name: one is in memory at a time.

    Args:
        place: where they come from, for the error.
        count: number of images.
        images: yields grey levels of one shape, (C, H, W) or (1, C, H, W).

    Returns:
        Grey levels with shape (N, C, H, W).

    Raises:
        ValueError: if there is no room for them.
    """
    shape: tuple[int, ...] = ()
    with tempfile.TemporaryFile() as file:
        for pixels in images:
            if not shape:
                shape = pixels.shape[-3:]
                _require_room(place, count, *shape)
            file.write(np.ascontiguousarray(pixels).data)
        file.flush()
        return np.memmap(file, dtype=np.uint8, mode="r+", shape=(count, *shape))


def _require_room(place: Path, count: int, channels: int, height: int, width: int) -> None:
    where = tempfile.gettempdir()
    needed, free = count * channels * height * width, shutil.disk_usage(where).free
    if needed > free:
        raise ValueError(
            f"{said_path(place)}: {count:,} images of {width}×{height} pixels take "
            f"{needed / 2**30:.1f} GiB, allowed: what is free in {where}, {free / 2**30:.1f} GiB; TMPDIR "
            "names another folder"
        )


def stacked(
    place: Path, images: Callable[[], Iterable[tuple[Path, IO[bytes] | None]]]
) -> NDArray[np.uint8]:
    """Return images as one array, which is a map of a file: they may be more than fits into memory.

    Args:
        place: where they come from, for the error.
        images: yields each one's file, or what it is called and its content; called twice.

    Returns:
        Grey levels with shape (N, 1, H, W) if every image is greyscale, else (N, 3, H, W); images are
        turned as their EXIF data say.

    Raises:
        ValueError: if one cannot be read or would lose something (transparency, further frames, 16
            bits), sizes differ, or there is no room for them; the image is named.
    """
    from PIL import ImageOps

    grey, count = True, 0
    first: tuple[Path, tuple[int, int]] | None = None
    for path, content in images():  # before any image takes memory
        with opened_image(path, content) as image:
            size, mode = image.size, image.mode
            if image.format == "PNG":
                image.verify()  # its checksums; the other formats have none
        grey, count = grey and mode in ("1", "L"), count + 1
        first = first or (path, size)
        _require_size(path, size, *first, turned=True)
    assert first is not None
    named = first[0]

    def pixels() -> Iterator[NDArray[np.uint8]]:
        upright = None
        for path, content in images():
            with opened_image(path, content) as image:
                found = np.asarray(ImageOps.exif_transpose(image).convert("L" if grey else "RGB"))
            size = found.shape[1], found.shape[0]
            upright = upright or size
            _require_size(path, size, named, upright)
            yield np.atleast_3d(found).transpose(2, 0, 1)

    return decoded(place, count, pixels())


def load_folder(folder: Path) -> RawData:
    """Return the images of a folder, labelled by sub-folder if they lie in sub-folders.

    Args:
        folder: holds images directly, or one sub-folder of images for each class. Links are
            followed, and what is hidden is left aside. Images are turned as their EXIF data say.

    Returns:
        Grey levels with shape (N, 1, H, W) if every image is greyscale, else (N, 3, H, W), in the
        order of their paths.

    Raises:
        ValueError: if there is no image, one cannot be read or would lose something (transparency,
            further frames, 16 bits), sizes differ, or folders are not one for each class; the file is
            named.
    """
    files, names, others = image_files(folder)
    x = stacked(folder, lambda: ((Path(path), None) for path in files))
    classes = sorted(set(names))
    number = {name: index for index, name in enumerate(classes)}
    left = f"; left aside: {len(others)} other, such as {said_path(others[0])}" if others else ""
    return RawData(
        x=x,
        labels=np.array([number[name] for name in names]) if names else None,
        levels=256,
        classes=classes,
        held_out=None,
        source=f"folder of {len(files)} images{left}",
        licence="undeclared",
    )


def _require_size(
    path: Path,
    size: tuple[int, int],
    other: Path,
    first: tuple[int, int],
    turned: bool = False,
) -> None:
    """Refuse an image of another size than the first; `turned` ones may have width and height swapped."""
    if size != first and not (turned and size == first[::-1]):
        raise ValueError(
            f"{said_path(path)}: is {size[0]}×{size[1]} pixels but {said_path(Path(other.name))} is "
            f"{first[0]}×{first[1]}; all images must have one size"
        )

"""Image sets as other code bases read them: the same bytes every time, whole or not at all."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scoremodel.bounds import shown
from scoremodel.io.files import atomic_folder, atomic_path

__all__ = ["Form", "write_images"]

Form = Literal["npz", "folder", "zip"]
"""ADM's npz, EDM's folder of PNGs, EDM's zip."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


def write_images(
    path: str | os.PathLike[str],
    x: NDArray[Any],
    labels: NDArray[Any] | None = None,
    classes: Sequence[str] = (),
    form: Form = "npz",
    levels: int = 256,
) -> tuple[str, ...]:
    """Write images as ADM's npz, EDM's folder of PNGs or EDM's zip.

    Fewer than 256 grey levels L are spread: round(255 v / (L − 1)), from which
    `scoremodel.data.exchange.fitted` gets v back exactly.

    Args:
        path: the file or folder to write; what is there before is replaced.
        x: grey levels (uint8) with shape (N, C, H, W), C 1 or 3.
        labels: class numbers with shape (N,), or None; a folder has no place for them.
        classes: names of the classes, in the order of their numbers, which a zip's `dataset.json` keeps.
        form: "npz" has `arr_0` (N, H, W, 3), grey repeated to three channels since its readers take no
            other, and the labels as `arr_1`; "folder" has 000000/000000.png and so on, by thousand;
            "zip" the same names, stored, with `dataset.json`.
        levels: number of grey levels.

    Returns:
        One sentence for each thing that was done to them.

    Raises:
        ValueError: if the images or labels are none of those.
    """
    if form not in get_args(Form):
        raise ValueError(
            f"form: {shown(form)} is not allowed, allowed: {', '.join(get_args(Form))}"
        )
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[1] not in (1, 3) or not x.size:
        raise ValueError(
            f"x: {x.dtype} of shape {x.shape} is not allowed, allowed: uint8 (N, C, H, W) with C 1 or 3"
        )
    if not 2 <= levels <= 256 or int(x.max()) >= levels:
        raise ValueError(
            f"levels: {shown(levels)} is not allowed, allowed: 2 to 256, more than the images' highest "
            f"grey level, {x.max()}"
        )
    if labels is not None and (labels.shape != x.shape[:1] or labels.dtype.kind not in "iu"):
        raise ValueError(
            f"labels: {labels.dtype} of shape {labels.shape} is not allowed, allowed: integers ({len(x)},)"
        )
    said = []
    if levels < 256:
        said.append(f"{levels} grey levels spread over 0 to 255")
        x = np.rint(np.arange(256) * (255 / (levels - 1))).clip(0, 255).astype(np.uint8)[x]
    if form == "npz":
        if x.shape[1] == 1:
            said.append("grey images: the channel is repeated to three")
        if labels is not None and classes:
            said.append("labels are numbers there: the classes' names are not written")
        _write_npz(path, x, labels)
    elif form == "zip":
        _write_zip(path, x, labels, classes)
    else:
        if labels is not None:
            said.append("the labels are not written: EDM's folder has no place for them")
        with atomic_folder(path) as folder:
            for name, content in _files(x):
                place = folder / name
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(content)
    return tuple(said)


def _files(x: NDArray[np.uint8]) -> Iterator[tuple[str, bytes]]:
    """Yield EDM's name and a PNG for each image."""
    from PIL import Image

    for number, one in enumerate(x):
        pixels = one[0] if len(one) == 1 else one.transpose(1, 2, 0)
        content = BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(content, format="PNG")
        yield f"{number - number % 1000:06d}/{number:06d}.png", content.getvalue()


def _write_npz(path: str | os.PathLike[str], x: NDArray[np.uint8], labels: Any) -> None:
    arrays = {"arr_0": np.broadcast_to(x, (len(x), 3, *x.shape[2:])).transpose(0, 2, 3, 1)}
    if labels is not None:
        arrays["arr_1"] = labels.astype(np.int64)
    with atomic_path(Path(path)) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            with archive.open(_member(f"{name}.npy", deflated=True), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def _write_zip(
    path: str | os.PathLike[str], x: NDArray[np.uint8], labels: Any, classes: Sequence[str]
) -> None:
    names = []
    with atomic_path(Path(path)) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in _files(x):
            archive.writestr(_member(name), content)
            names.append(name)
        numbers = None if labels is None else labels.tolist()
        described: dict[str, Any] = {
            "labels": numbers and [list(pair) for pair in zip(names, numbers, strict=True)]
        }
        if classes:
            described["classes"] = list(classes)
        archive.writestr(_member("dataset.json"), json.dumps(described, ensure_ascii=False))


def _member(name: str, deflated: bool = False) -> zipfile.ZipInfo:
    """Return a member's description without the time at which it was written."""
    info = zipfile.ZipInfo(name, date_time=_EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    return info

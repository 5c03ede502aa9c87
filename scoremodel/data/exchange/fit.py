"""Image sets brought to a data set's channels, size and grey levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scoremodel.bounds import check_arguments
from scoremodel.data.exchange.image_set import ImageSet

__all__ = ["Channels", "Quantiser", "Resize", "fitted"]

Channels = Literal["luma"]
Resize = Literal["box", "bicubic"]
Quantiser = Literal["rounded", "truncated"]


def fitted(
    images: ImageSet,
    shape: Sequence[int],
    levels: int | None,
    channels: Channels | None = None,
    resize: Resize | None = None,
    quantiser: Quantiser | None = None,
    requantise: bool = False,
) -> ImageSet:
    """Return the images with a data set's shape and grey levels; what was done is in `said`.

    Grey levels of a file with F of them become round(v (L − 1) / (F − 1)). Where L < F, what a writer
    has spread over 0 … F − 1 lies within one level of L places, whether it rounded or truncated, and
    comes back exactly; anything else needs `requantise`.

    Args:
        images: the images or vectors.
        shape: the data's, (C, H, W) or (D,).
        levels: the data's number of grey levels, None of vectors.
        channels: "luma" turns colour to grey (ITU-R 601-2), where the data are grey.
        resize: filter with which another size is brought to the data's, antialiased.
        quantiser: how the writer made grey levels of real values, None if that is not known. What
            truncation has taken, half a grey level of the mean, no reader can put back.
        requantise: whether values between the data's grey levels go to the nearest.

    Returns:
        The images as the data are.

    Raises:
        ValueError: one line that says what differs and what is allowed.
    """
    given = {"channels": channels, "resize": resize, "quantiser": quantiser}
    check_arguments("fitted", fitted, given)
    x, wanted, said = images.x, tuple(shape), list(images.said)
    if x.ndim != len(wanted) + 1 or (x.ndim == 2 and x.shape[1:] != wanted):
        raise ValueError(f"{_kind(x.shape[1:])}, allowed: the data's kind, {_kind(wanted)}")
    if x.ndim == 2:
        return images
    assert levels is not None
    assert images.levels is not None
    x, done = _with_channels(x, wanted[0], channels)
    said += done
    resized = x.shape[2:] != wanted[1:]
    if resized:
        if resize is None:
            raise ValueError(
                f"images of {_size(x.shape)} pixels, the data have {_size(wanted)}; allowed: the data's "
                "size, or resize: box or bicubic"
            )
        said.append(
            f"resized from {_size(x.shape)} to {_size(wanted)} pixels ({resize}, antialiased)"
        )
        x = _resized(x, wanted[2], wanted[1], resize)
    x, done, exact = _with_levels(x, images.levels, levels, requantise or resized)
    said += done
    if not (images.quantised or exact):
        said.append(_QUANTISERS[quantiser])
    return replace(images, x=x, said=tuple(said), levels=levels)


_QUANTISERS = {
    None: (
        "assumed: the writer rounded to grey levels; one that truncates lowers the mean by half a grey "
        "level (quantiser: truncated)"
    ),
    "rounded": "rounded to grey levels by the writer, as said",
    "truncated": (
        "truncated to grey levels by the writer, as said: values lie half a grey level too low on average, "
        "which cannot be restored and is part of every distance"
    ),
}


def _kind(shape: Sequence[int]) -> str:
    what = "vectors" if len(shape) == 1 else "images"
    return f"{what} of shape ({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


def _size(shape: Sequence[int]) -> str:
    return f"{shape[-1]}×{shape[-2]}"


def _with_channels(
    x: NDArray[np.uint8], wanted: int, channels: Channels | None
) -> tuple[NDArray[np.uint8], list[str]]:
    have = x.shape[1]
    if have == wanted:
        return x, []
    if (have, wanted) == (1, 3):
        return x.repeat(3, axis=1), ["grey images: the channel is repeated to three"]
    if (have, wanted) != (3, 1):
        raise ValueError(f"images of {have} channels, the data have {wanted}; allowed: 1 or 3")
    coloured = (x != x[:, :1]).any(axis=1)
    if not coloured.any():
        return x[:, :1].copy(), ["three equal channels: one is taken, the data are grey"]
    if channels is None:
        raise ValueError(
            f"colour images ({coloured.mean():.1%} of the pixels), the data are grey; allowed: one "
            "channel, three equal ones, or channels: luma"
        )
    grey = _by_pillow(x, lambda image: image.convert("L"))
    return grey, ["colour turned to grey (luma, ITU-R 601-2)"]


def _by_pillow(x: NDArray[np.uint8], change: Any) -> NDArray[np.uint8]:
    """Return each image as Pillow changes it."""
    from PIL import Image

    def changed(one: NDArray[np.uint8]) -> NDArray[np.uint8]:
        pixels = one[0] if len(one) == 1 else one.transpose(1, 2, 0)
        image = change(Image.fromarray(np.ascontiguousarray(pixels)))
        return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)

    return np.stack([changed(one) for one in x])


def _resized(x: NDArray[np.uint8], width: int, height: int, resize: Resize) -> NDArray[np.uint8]:
    from PIL import Image

    kind = Image.Resampling[resize.upper()]
    return _by_pillow(x, lambda image: image.resize((width, height), kind))


def _with_levels(
    x: NDArray[np.uint8], have: int, wanted: int, requantise: bool
) -> tuple[NDArray[np.uint8], list[str], bool]:
    """Return grey levels of another number of them, what was done, and whether nothing was lost."""
    if have == wanted:
        return x, [], False
    values = np.arange(have)
    nearest = np.rint(values * (wanted - 1) / (have - 1)).astype(np.uint8)
    told = f"{have} grey levels mapped to the data's {wanted}"
    if have < wanted:
        return nearest[x], [told], False
    # A writer may have rounded or truncated: less than one of the file's levels beside the place.
    between = abs(values - nearest * ((have - 1) / (wanted - 1))) >= 1
    off = float(between[x].mean())
    if off and not requantise:
        raise ValueError(
            f"{off:.1%} of the values lie between the data's {wanted} grey levels spread over 0 to "
            f"{have - 1}; allowed: those levels, levels: {wanted} if the file's values are the levels "
            "themselves, or requantise, by which each goes to the nearest"
        )
    told += (
        f": {off:.1%} of the values lay between them and went to the nearest"
        if off
        else ", exactly"
    )
    return nearest[x], [told], not off

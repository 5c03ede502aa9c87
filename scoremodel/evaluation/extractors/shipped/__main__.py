"""Train the shipped classifiers again, and print the table of their checksums."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from scoremodel.data.sources.base import load_source
from scoremodel.evaluation.extractors.base import load_extractor, save_extractor
from scoremodel.evaluation.extractors.classifier import Classifier, accuracy, part, train_classifier
from scoremodel.evaluation.extractors.shipped import NUMBERS

__all__ = ["as_digits", "main"]

_SMALL = (8, 4)  # channels and side of the classifiers of 28×28 pixels, for the size of their files


def as_digits(images: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Return MNIST's images in the form of scikit-learn's digits, 8×8 counts of 4×4 pixels.

    As NIST's preprocessing did (Garris et al. 1994, NISTIR 5469; Kaynak 1995), each digit is made
    upright, its box is brought to 32×20 pixels in the middle of 32×32, black or white, and the pixels
    that are on are counted. What is not known of it is drawn for each image: how much of the slant is
    taken away (0 … 1), the level from which a pixel is on (20 … 120), the width (18 … 24).

    Args:
        images: grey levels 0 … 255 with shape (N, 1, S, S).
        seed: seed of what is drawn.

    Returns:
        Counts 0 … 16 with shape (N, 1, 8, 8).
    """
    draw = torch.Generator().manual_seed(seed)
    upright, threshold, width = (
        low + (high - low) * torch.rand(len(images), 1, generator=draw)
        for low, high in ((0.0, 1.0), (20.0, 120.0), (18.0, 24.0))
    )
    x = torch.from_numpy(images).float()
    side = x.shape[-1]
    at = (torch.arange(side) + 0.5) * (2 / side) - 1  # as grid_sample counts
    weight = x[:, 0] / x[:, 0].sum(dim=(1, 2), keepdim=True)
    rows, columns = weight.sum(2), weight.sum(1)
    down = at - (rows * at).sum(1, keepdim=True)
    across = at - (columns * at).sum(1, keepdim=True)
    mixed = torch.einsum("nyx,ny,nx->n", weight, down, across)[:, None]
    shear = upright * mixed / (rows * down**2).sum(1, keepdim=True)
    one, zero = torch.ones_like(shear), torch.zeros_like(shear)
    back = -shear * (rows * at).sum(1, keepdim=True)
    x = _mapped(x, [one, shear, back, zero, one, zero], side)
    on = x[:, 0] >= threshold[:, :, None]
    (left, right), (top, bottom) = _ends(on.any(1)), _ends(on.any(2))
    box = [
        (right - left) / side * (32 / width.round()), zero, (left + right) / side - 1,
        zero, (bottom - top) / side, (top + bottom) / side - 1,
    ]  # fmt: skip
    small = _mapped(x, box, 32) >= threshold[:, :, None, None]
    return (functional.avg_pool2d(small.float(), 4) * 16).round().to(torch.uint8).numpy()


def _mapped(x: torch.Tensor, matrix: list[torch.Tensor], side: int) -> torch.Tensor:
    """Return images whose points are those of `x` under 2×3 matrices, given by rows."""
    theta = torch.cat(matrix, dim=1).view(-1, 2, 3)
    grid = functional.affine_grid(theta, [len(x), 1, side, side], align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def _ends(on: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where in rows of shape (N, S) the first True begins and the last one ends."""
    first, last = on.float().argmax(1, keepdim=True), on.flip(1).float().argmax(1, keepdim=True)
    return first, on.shape[1] - last


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the classifiers of every name, or of those named, and say how right they are."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root", help="folder of MNIST and FashionMNIST, as torchvision has them")
    parser.add_argument("names", nargs="*", default=["digits", "mnist", "fashion_mnist"])
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in given.names:
        kind = "FashionMNIST" if name == "fashion_mnist" else "MNIST"
        raw = load_source({"kind": "torchvision", "name": kind, "root": given.root})
        assert raw.labels is not None
        assert raw.held_out is not None
        train = np.flatnonzero(~raw.held_out)
        if name == "digits":
            levels, share, size = 17, 1 / 3, (16, 7)
            x, test = as_digits(raw.x, seed=0), load_source({"kind": "digits"})
            new, right = test.x, test.labels
        else:
            levels, share, size = 256, 1 / 6, _SMALL
            x, new, right = raw.x, raw.x[raw.held_out], raw.labels[raw.held_out]
        assert right is not None
        rows = train[part(len(train), share, 0, raw.labels[train])]
        pixels, labels = torch.from_numpy(x[rows]), torch.from_numpy(raw.labels[rows])
        for number in range(NUMBERS):
            path = Path(__file__).with_name(f"{name}_{number}.safetensors")
            trained = train_classifier(
                pixels, labels, levels, number, epochs=15, channels=size[0], side=size[1]
            )
            save_extractor(trained.half(), path)
            loaded = load_extractor(path)
            assert isinstance(loaded, Classifier)
            share_right = accuracy(
                loaded, loaded.features(torch.from_numpy(new)), torch.from_numpy(right)
            )
            print(
                f"# {share_right:.1%} of {len(new)} new images right, {path.stat().st_size} bytes"
            )
            print(f'"{path.name}": "{hashlib.sha256(path.read_bytes()).hexdigest()}",', flush=True)


if __name__ == "__main__":
    main()

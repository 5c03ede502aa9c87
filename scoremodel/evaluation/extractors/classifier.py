"""A small classifier of images, whose penultimate layer gives the features.

Inception's features, made for photographs, say little about 8×8 digits; the authors of FID advise a
classifier trained on the data instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from scoremodel.data.scale import to_unit
from scoremodel.evaluation.extractors.base import (
    EXTRACTORS,
    Extractor,
    equal_batches,
    grey_levels,
    image_hashes,
)
from scoremodel.rng import generator

__all__ = ["Classifier", "accuracy", "part", "rotations", "train_classifier"]


@EXTRACTORS.register("classifier")
class Classifier(Extractor):
    """Convolutions, with stride 2 down to a few pixels, a ReLU layer, the classes.

    Args:
        shape: shape (C, H, W) of one image.
        levels: number of grey levels of its pixels.
        classes: number of classes.
        width: width of the penultimate layer, whose values are the features.
        channels: channels of the first convolution; each stride doubles them, up to 64.
        side: height and width in pixels down to which the strides go, or less.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int,
        classes: int,
        width: int = 64,
        channels: int = 16,
        side: int = 7,
    ) -> None:
        super().__init__(
            {
                "shape": list(shape),
                "levels": levels,
                "classes": classes,
                "width": width,
                "channels": channels,
                "side": side,
            }
        )
        self.levels = levels
        height, breadth = shape[1:]
        layers: list[nn.Module] = [nn.Conv2d(shape[0], channels, 3, padding=1), nn.ReLU()]
        while max(height, breadth) > side:
            wider = min(2 * channels, 64)
            layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1), nn.ReLU()]
            channels, height, breadth = wider, math.ceil(height / 2), math.ceil(breadth / 2)
        flat = channels * height * breadth
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, width), nn.ReLU())
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features with shape (B, width) of images in [−1, 1] with shape (B, C, H, W)."""
        features: Tensor = self.body(x)
        return features

    def features(self, data: Tensor, batch_size: int = 512) -> Tensor:
        device = self.head.weight.device
        with torch.inference_mode():
            parts = [
                self(to_unit(part.to(device), self.levels)).cpu()
                for part in equal_batches(grey_levels(data, self.levels), batch_size)
            ]
        return torch.cat(parts)


def part(
    count: int, share: float, seed: int, labels: NDArray[np.integer] | None = None
) -> NDArray[np.intp]:
    """Return a random share of row numbers: what a classifier is trained on, so that the rest is new to it.

    Args:
        count: number of rows.
        share: which part of them, in (0, 1).
        seed: seed of the choice.
        labels: the rows' class numbers with shape (count,); of each class is taken its share.

    Returns:
        Sorted row numbers.

    Raises:
        ValueError: if the share leaves one side empty.
    """
    order = np.random.default_rng(seed).permutation(count)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    steps = np.floor(np.arange(count + 1) * share)
    chosen = np.sort(order[np.diff(steps) > 0])
    if not 0 < len(chosen) < count:
        raise ValueError(f"share: {share:g} of {count} rows leaves a side empty")
    return chosen


def rotations(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return images turned by 0, 90, 180 and 270 degrees, and the number of quarter turns.

    Images that are not square are mirrored instead: not, across, upside down, and both.

    Telling the turn apart is a task that unlabelled images bring with them (Gidaris, Singh,
    Komodakis 2018, arXiv:1803.07728).

    Args:
        pixels: images with shape (N, C, H, W).

    Returns:
        Images with shape (4 N, C, H, W) and labels with shape (4 N,).
    """
    if pixels.shape[2] == pixels.shape[3]:
        turned = [pixels.rot90(quarter, dims=(2, 3)) for quarter in range(4)]
    else:
        turned = [pixels, pixels.flip(3), pixels.flip(2), pixels.flip(2, 3)]
    return torch.cat(turned), torch.arange(4).repeat_interleave(len(pixels))


def train_classifier(
    pixels: Tensor,
    labels: Tensor,
    levels: int,
    seed: int,
    *,
    epochs: int = 20,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    noise: float = 0.1,
    label_smoothing: float = 0.1,
    device: torch.device | str = "cpu",
    progress: bool = False,
    channels: int = 16,
    side: int = 7,
) -> Classifier:
    """Return a classifier trained on `pixels`, the same weights for the same arguments.

    Args:
        pixels: grey levels with shape (N, C, H, W).
        labels: class numbers 0 … K − 1 with shape (N,).
        levels: number of grey levels.
        seed: seed of initial weights, order and noise.
        epochs: passes over the data.
        batch_size: images per step.
        learning_rate: Adam's.
        noise: standard deviation of the noise added to images in [−1, 1].
        label_smoothing: see torch's cross_entropy.
        device: where to train.
        progress: whether to show a progress bar with the loss.
        channels: as `Classifier` has it.
        side: as `Classifier` has it.

    Returns:
        The classifier in evaluation mode, which knows what it has seen.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "classifier").initial_seed())
        shape, classes = tuple(pixels.shape[1:]), int(labels.max()) + 1
        classifier = Classifier(shape, levels, classes, channels=channels, side=side)
    classifier = classifier.to(device)
    classifier.seen = np.unique(image_hashes(pixels))
    optimiser = torch.optim.Adam(classifier.parameters(), lr=learning_rate, fused=True)
    bar = tqdm(range(epochs), desc="extractor", unit="epoch", disable=not progress)
    for epoch in bar:
        order = torch.randperm(len(pixels), generator=generator(seed, "order", epoch))
        draw = generator(seed, "noise", epoch)
        for index in torch.split(order, batch_size):
            x = to_unit(pixels[index], levels)
            x = (x + noise * torch.randn(x.shape, generator=draw)).to(device)
            logits = classifier.head(classifier(x))
            loss = functional.cross_entropy(
                logits, labels[index].to(device), label_smoothing=label_smoothing
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    return classifier.eval().requires_grad_(False)


def accuracy(classifier: Classifier, features: Tensor, labels: Tensor) -> float:
    """Return the share of images whose most probable class is its label.

    Args:
        classifier: the classifier.
        features: the images' features with shape (N, D), as `Classifier.features` returns them.
        labels: class numbers with shape (N,).

    Returns:
        A share in [0, 1].
    """
    device = classifier.head.weight.device
    logits = classifier.head(features.to(device)).cpu()
    return float((logits.argmax(1) == labels).float().mean())

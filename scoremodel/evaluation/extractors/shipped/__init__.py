"""Classifiers that come with the library, so that the same data are judged by the same judge everywhere.

    digits           scikit-learn's digits, 8×8 pixels, 17 levels
    mnist            MNIST, 28×28 pixels, 256 levels
    fashion_mnist    Fashion-MNIST, 28×28 pixels, 256 levels

The first was trained on 20,000 of MNIST's training images in the form of the digits, the others on
10,000 of the 60,000 training images.

There are three of each, which differ by initial weights, order and noise. `digits` has seen no digit of
scikit-learn's. To train them again, where ROOT holds MNIST and Fashion-MNIST as torchvision has them:

    python -m scoremodel.evaluation.extractors.shipped ROOT

Another kind of processor rounds otherwise, so that the files then are others, and other judges.

Sources: MNIST, Y. LeCun and C. Cortes, CC BY-SA 3.0; Fashion-MNIST, Zalando SE, MIT
(arXiv:1708.07747).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["NUMBERS", "SHA256", "shipped_file", "shipped_for"]

NUMBERS = 3
"""How many there are of each name, with the numbers 0, 1, 2."""

SHA256 = {
    "digits_0.safetensors": "36175425a0e8b087680ff8d71b259583776cb253676545b9e35cc9152801ed7e",
    "digits_1.safetensors": "d6c6996293137e63ae348f0bc2e38c5698c0d350361ef56d88523d72cddd63d2",
    "digits_2.safetensors": "9b1678106a8a7c931cc4930f1bdefb2d8f47b84d4eb340bfda9c131e2ad2e8d1",
    "mnist_0.safetensors": "bea5181faa22edb0a8d476397a285b7b31156a5b0c7a0101a6c6ad9fc3592abf",
    "mnist_1.safetensors": "d3991b2898e32cfcfce907e5c7f06cdb9873914e2f206370671a0f03532cb4d9",
    "mnist_2.safetensors": "f0409622da3a10d2d7985aa6f61c23ddcbe52e26b901f1c70509e0c7847ee818",
    "fashion_mnist_0.safetensors": "686589bab422376a728d16e4a68ac35db4ae0ae18879c71f66f0d992e335b9bf",
    "fashion_mnist_1.safetensors": "a3b07866ed5c2d7d07e627735bf18c7e187458625882fa871a546e12be927896",
    "fashion_mnist_2.safetensors": "2548809aba910705299adcaa41b8d5ab948d7a0b1bfcd05036eeb00caf9b623e",
}
"""File's name → its checksum."""

_OF = {"MNIST": "mnist", "FashionMNIST": "fashion_mnist"}


def shipped_for(source: Mapping[str, Any]) -> str | None:
    """Return the name of the classifiers for a source, None if there are none.

    Args:
        source: what the data come from, as `scoremodel.data.sources.base.load_source` takes it.

    Returns:
        "digits", "mnist", "fashion_mnist" or None.
    """
    if source.get("kind") == "digits":
        return "digits"
    if source.get("kind") == "torchvision":
        return _OF.get(str(source.get("name")))
    return None


def shipped_file(name: str, number: int) -> Path:
    """Return the file of a classifier that comes with the library, for `load_extractor`.

    Args:
        name: "digits", "mnist" or "fashion_mnist".
        number: which of the three, from 0.

    Returns:
        The file, which is what it should be.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if there is none of that name and number, or it is not what it was.
    """
    path = Path(__file__).with_name(f"{name}_{number}.safetensors")
    if path.name not in SHA256:
        allowed = ", ".join(sorted(file.removesuffix(".safetensors") for file in SHA256))
        raise ValueError(f"{name}_{number}: no such classifier, allowed: {allowed}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256[path.name]:
        raise ValueError(
            f"{path}: has SHA-256 {found}, not {SHA256[path.name]}: broken or replaced"
        )
    return path

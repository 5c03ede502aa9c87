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
    "digits_0.safetensors": "8651cad3a5e777e94019c964b47496db10f3f2cef1835d4fab4673ab5d9a34c0",
    "digits_1.safetensors": "44a938fc7b7f96289bf9c826cbb4113965bbecd6a009db3b27895c8a4a94b90a",
    "digits_2.safetensors": "ae1d70b0577d01e52050037f9b9cf4746f0ad517863399bb89b4caa2a791a6d7",
    "mnist_0.safetensors": "9d32c1196f2a7bbbb04f68b402ffdecf2efbd6023b3c738aabec85ec115fd486",
    "mnist_1.safetensors": "91cf5c34ff41df9d123a8716eaa7f2d13781f72dff855b368098299aa32c0579",
    "mnist_2.safetensors": "84fb85c4735a687cc232d75cdf045d71e2cfdb84ed35377c81452d88d7bf8edd",
    "fashion_mnist_0.safetensors": "633efe9e106b33aee645e435523e72ffa9774348e01cc1318ab6277430a0aeb5",
    "fashion_mnist_1.safetensors": "28226ee2f4a67fdde8118347d4d011849e1e4a015e8d8f957fe43b78e4367232",
    "fashion_mnist_2.safetensors": "5beb747f0878fdffe192c67ecc3bf7271d6f9ea5912ad1aed3ec9b44d91d3b20",
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

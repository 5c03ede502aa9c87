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
    "digits_0.safetensors": "d192a393706544d72bed3f6fb5c523a7c9fe3e8272a87979fc7e1e3f15a87738",
    "digits_1.safetensors": "1114a27f2fa1a4e9b26fd5ab689927f3f3410079c8ea93363515ae83b65eed42",
    "digits_2.safetensors": "3eff131cdcd8f015de47e4df5ddfd353f99efdfdd9e971f991f4db4ac0a70fad",
    "mnist_0.safetensors": "37e79d0fd44f400ef421a110301c4e83276b7684b79e32c767058abd3bc9a80a",
    "mnist_1.safetensors": "bd2ff45ab90108fc0cfc903dd59079d0838e8ed1c5e419804c17042b6374378d",
    "mnist_2.safetensors": "ede05a63eceed628f6960f0862444c4d653eb3cb8ee777bbd030cf864e891fe4",
    "fashion_mnist_0.safetensors": "7ebdf02a5e00c022ba2d07dbf8af4b38d34b201ea2f8a6c21708adb5ef111516",
    "fashion_mnist_1.safetensors": "03a936a6cdd2ba94744b23dd29a20da36fb4d5fe0c53a8b5055e831233bae8db",
    "fashion_mnist_2.safetensors": "415f53afd202b6c638cd406ec2f8f6bb5c09f984c3a00e59d18db170497a84e4",
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

"""Stage external: samples from elsewhere → the same file as stage sample makes, for the stages that judge.

Files of arrays or archives are one set each, in the order of their names, and a set stands for a
sampling seed; of a single one that has enough images as many disjoint sets are made as there are
sampling seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoremodel.data.exchange import ImageSet, fitted, read_sets
from tasks.files.arrays import read_card, shown, write_arrays
from tasks.files.layout import Configuration
from tasks.files.resolved import resolved
from tasks.files.stage import run_stage
from tasks.params.errors import ParamsError

__all__ = ["class_numbers", "disjoint", "main"]

_UNKNOWN = "not known: samples from elsewhere"


def class_numbers(images: ImageSet, names: Sequence[str]) -> NDArray[np.int64] | None:
    """Return each image's class in the data's own numbers; None if the classes are not the data's.

    Args:
        images: a set.
        names: the data's classes, in the order of their numbers.

    Returns:
        By name; class numbers that have no name are taken as the data's own.
    """
    if images.labels is None or not names:
        return None
    own = {name: number for number, name in enumerate(names)}
    if images.classes == tuple(map(str, range(len(images.classes)))) and "0" not in own:
        own = {str(number): number for number in range(len(names))}
    if not own.keys() >= set(images.classes):
        return None
    return np.array([own[name] for name in images.classes])[images.labels]


def disjoint(images: ImageSet, count: int, most: int) -> Iterator[NDArray[np.intp]]:
    """Yield which images make disjoint sets, in random order if there are more than one set takes.

    A file's order may be that of its classes, whether it names them or not: the first ones would be of
    one class.

    Args:
        images: all of them.
        count: images of a set.
        most: how many sets at most.

    Yields:
        The numbers of a set's images.
    """
    order = np.arange(len(images.x))
    if len(order) > count:
        order = np.random.default_rng(0).permutation(len(order))
    for number in range(min(most, len(order) // count)):
        yield order[number * count : (number + 1) * count]


def main(files: Configuration) -> None:
    """Write one array for each set, with what is known of the samples.

    Args:
        files: says which samples of which data set.

    Raises:
        ParamsError: if a set has fewer images than are to be judged.
        ValueError: if the samples cannot be read, or do not fit the data; the file is named.
    """
    chosen, draws = resolved(f"external/{files.model}"), resolved("judge/draws")
    card = read_card(files.card)
    count, most = draws["count"], len(draws["sampling_seeds"])
    arrays: dict[str, NDArray[Any]] = {}
    labels: dict[str, list[int]] = {}
    said: dict[str, None] = {}  # in their order, each once
    sets = read_sets(files.given, chosen["scale"])
    for name, found in sets.items():
        if len(arrays) == most:
            break
        try:
            images = fitted(
                found,
                card["shape"],
                card["levels"],
                grey=chosen["channels"] == "grey",
                resize=chosen["resize"],
                quantiser=chosen["quantiser"],
            )
        except ValueError as error:
            raise ValueError(f"{files.given}: {name}: {error}") from None
        if len(images.x) < count:
            raise ParamsError(
                f"params.yaml: evaluation.count: {count} is not allowed for external.{files.model}, "
                f"allowed: at most {len(images.x)}, the samples in {files.given}: {name}"
            )
        classes = class_numbers(images, list(card["class_counts"] or ()))
        said |= dict.fromkeys(images.said)
        if images.labels is not None and classes is None:
            said[f"its classes are not those of {files.dataset}: they are left aside"] = None
        for rows in disjoint(images, count, 1 if len(sets) > 1 else most):
            key = f"set_{len(arrays)}"
            arrays[key] = images.x[rows]
            if classes is not None:
                labels[key] = classes[rows].tolist()
    digest = hashlib.sha256()
    for array in arrays.values():
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    if len(arrays) < most:
        said[f"{len(arrays)} sets of {count} samples, where the models have {most}"] = None
    info = {
        "model": {
            "parameters": chosen["parameters"],
            "train_images": chosen["train_images"],
            "environment": _UNKNOWN,
        },
        "ema_half_life": None,
        "ema_std": None,
        "nfe": chosen["nfe"],
        "labels": labels if len(labels) == len(arrays) else None,
        "environment": _UNKNOWN,
        "external": {
            **chosen,
            "images": sum(len(one.x) for one in sets.values()),
            "sha256": digest.hexdigest(),
            "said": list(said),
        },
    }
    write_arrays(files.samples, arrays, info)
    about = {"picture": "grid", "levels": card["levels"]}
    write_arrays(files.shown, {"data": shown(next(iter(arrays.values())))}, about)
    print(f"{files.name}: {len(arrays)} sets of {count} samples")
    for sentence in said:
        print(f"{files.name}: {sentence}")


if __name__ == "__main__":
    run_stage(main, "dataset", "model", "train_seed", "sampler")

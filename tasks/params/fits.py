"""What params.yaml asks of data that do not have it, by the data's card.

Nothing is computed here, and no torch imported: `prepare` asks too, as soon as it has made a card.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scoremodel.evaluation.distance import most_samples
from tasks.params.errors import Located, ParamsError, shown
from tasks.params.filled import filled
from tasks.params.read import read_yaml

__all__ = ["Doubtful", "Finding", "misfits", "require_fit", "said_of", "share_of"]

Card = Mapping[str, Any]


class Doubtful(NamedTuple):
    """What may be meant, and is worth a line before anything runs.

    Args:
        key: the dotted key to name.
        value: what stands there.
        why: what follows from it, with its number.
    """

    key: str
    value: Any
    why: str

    def __str__(self) -> str:
        return f"{self.key}: {shown(self.value)}: {self.why}"


Finding = Located | Doubtful

_EXTRAPOLATED = 4
"""How many times as many samples as the floor has points: its law of 1/N is fitted from N/4 on."""


def said_of(finding: Finding, path: str = "params.yaml") -> str:
    """Return a finding's line: file, key, value, and what is allowed or what follows from it."""
    return f"{path}: {finding}"


def share_of(extractor: Mapping[str, Any]) -> float | None:
    """Return on which share of the training split an extractor is trained here, None for none.

    Args:
        extractor: its block, "auto" replaced by what it stands for.

    Returns:
        The share.
    """
    return extractor.get("share") if extractor["kind"] == "classifier" else None


def require_fit(card: Card, has_own: bool) -> list[str]:
    """Refuse data that do not have what params.yaml asks of them: before any training, in `prepare`.

    `check` does it too, where it knows the data. Of a params.yaml that it has not accepted nothing is
    said here.

    Args:
        card: the data set's card.
        has_own: whether an extractor that is chosen by `auto` may ship with the library.

    Returns:
        What may be meant, a line each.

    Raises:
        ParamsError: one line for each thing that is not to be had.
    """
    try:
        said, _ = filled(read_yaml(Path("params.yaml")))
        extractor = dict(said["evaluation"]["extractor"])
        if len(card["shape"]) == 1:
            extractor["kind"] = "identity"
        elif extractor["kind"] == "auto" and not has_own:
            extractor["kind"] = "classifier"
        found = list(misfits(card, said, share_of(extractor)))
    except (ParamsError, Located, KeyError, TypeError, AttributeError):
        return []
    if refused := [said_of(one) for one in found if isinstance(one, Located)]:
        raise ParamsError("\n".join(refused))
    return [said_of(one) for one in found]


def misfits(card: Card, said: Mapping[str, Any], share: float | None) -> Iterator[Finding]:
    """Yield what the active models, applications and metrics ask that a data set has not.

    Args:
        card: the data set's card; without "count" what depends on it is left aside.
        said: all of params.yaml as plain data, its defaults filled in.
        share: which share of the training split an extractor is trained on here, None for none.

    Yields:
        One finding at a time.
    """
    if card.get("count") is not None:
        yield from _counts(card, said["evaluation"], share)
    for name in said["active"]["models"]:
        yield from _of_model(card, name, said["models"][name])
    for index, name in enumerate(said["active"]["applications"]):
        where = f"active.applications[{index}]"
        yield from _of_application(card, where, name, said["applications"][name])


def _counts(card: Card, evaluation: Mapping[str, Any], share: float | None) -> Iterator[Finding]:
    """Yield what of the numbers of samples and neighbours the two splits cannot serve."""
    name, train, held_out = card["name"], card["count"]["train"], card["count"]["held_out"]
    count, k = evaluation["count"], evaluation["neighbours"]
    taken = 0 if share is None else math.floor(train * share)
    new = "" if share is None else " that are new to the extractor"
    if share is not None and not 0 < taken < train:
        allowed = f"a share of the {train} training points of {name!r} that leaves no side empty"
        yield Located("evaluation.extractor.share", share, allowed)
        return
    least = min((card["class_counts"] or {"": train}).values())
    if share is not None and card["class_counts"] and least * share < 1:
        rare = next(label for label, n in card["class_counts"].items() if n == least)
        why = (
            f"the class {rare!r} of {name!r} has {least} training images: none may be in that share"
        )
        yield Doubtful("evaluation.extractor.share", share, why)
    half = most_samples(train, share or 0.0)
    if k >= held_out:
        allowed = f"less than the {held_out} held-out points of {name!r}"
        yield Located("evaluation.neighbours", k, allowed)
    floor = (
        f"half of the {train - taken} training points of {name!r}{new}, of which the floor is made"
    )
    if half < 2:
        allowed = f"a data set of at least 4 training points{new}; {name!r} has {train - taken}"
        yield Located("evaluation.count", count, allowed)
    elif k >= min(count, half):
        yield Located("evaluation.neighbours", k, f"less than {half}, {floor}")
    elif count > _EXTRAPOLATED * half:
        allowed = f"at most {_EXTRAPOLATED * half}, {_EXTRAPOLATED} times {floor}"
        yield Located("evaluation.count", count, allowed)
    elif count > half:
        why = f"the floor is of {half} real data, {floor.partition(',')[0]}, not of {count}"
        yield Doubtful("evaluation.count", count, why)
    if k < held_out < count:
        why = (
            f"precision, recall and coverage compare {count} samples with only the {held_out} "
            f"held-out points of {name!r}"
        )
        yield Doubtful("evaluation.count", count, why)


def _of_model(card: Card, name: str, model: Mapping[str, Any]) -> Iterator[Finding]:
    if model.get("pretrained"):  # its training is over
        return
    training, dataset = model["training"], card["name"]
    key = f"models.{name}.training"
    objective = training.get("objective", "denoising")
    if objective == "implicit" and len(card["shape"]) != 1:
        allowed = f"denoising, sliced for the images of {dataset!r}"
        yield Located(f"{key}.objective", objective, allowed)
    if objective == "explicit" and card["mixture"] is None:
        allowed = f"denoising, sliced, implicit for {dataset!r}, whose score is not known"
        yield Located(f"{key}.objective", objective, allowed)
    dropout = training.get("label_dropout")
    if dropout is not None and not card["class_counts"]:
        yield Located(
            f"{key}.label_dropout", dropout, f"null for {dataset!r}, which has no classes"
        )
    augment = training.get("augment")
    networks = [block for block in model["network"].values() if isinstance(block, Mapping)]
    if augment is not None and len(card["shape"]) != 3:
        yield Located(f"{key}.augment", augment, f"null for {dataset!r}, which are no images")
    elif augment is not None and not any(block.get("augmented") for block in networks):
        allowed = (
            "null without a network that is augmented: what it is not told of it would draw too"
        )
        yield Located(f"{key}.augment", augment, allowed)
    network = model["network"]["unet"]
    others = [one for kind, one in model["network"].items() if kind not in ("unet", "mlp")]
    if len(card["shape"]) == 3 and all(one is None for one in others):
        side = max(card["shape"][1:])
        most = 1 + math.ceil(math.log2(side))
        if len(network["multipliers"]) > most:
            allowed = (
                f"at most {most} levels for the images of {dataset!r}, whose {side} pixels are one "
                f"pixel after {most - 1} halvings"
            )
            key = f"models.{name}.network.unet.multipliers"
            yield Located(key, network["multipliers"], allowed)


def _of_application(card: Card, where: str, name: str, how: Mapping[str, Any]) -> Iterator[Finding]:
    dataset, shape = card["name"], card["shape"]
    others = "an application that {!r} has; this one needs {}".format
    if name == "likelihood" and card["levels"] is None:
        yield Located(where, name, others(dataset, "grey levels"))
    if name == "field" and list(shape) != [2]:
        yield Located(where, name, others(dataset, "vectors in the plane"))
    if name == "inverse":
        if len(shape) != 3:
            yield Located(where, name, others(dataset, "images"))
        else:
            yield from _of_operator(dataset, shape, how["operator"])
    if "count" in how and card.get("count") is not None:
        held_out = card["count"]["held_out"]
        if how["count"] > held_out:
            allowed = f"at most the {held_out} held-out points of {dataset!r}"
            yield Located(f"applications.{name}.count", how["count"], allowed)


def _of_operator(
    dataset: str, shape: Sequence[int], operator: Mapping[str, Any]
) -> Iterator[Finding]:
    height, width = shape[1:]
    images = f"the images of {dataset!r} with {height}×{width} pixels"
    if operator["kind"] == "downsample":
        factor = operator["factor"]
        if height % factor or width % factor:
            allowed = f"a divisor of both sides for {images}"
            yield Located("applications.inverse.operator.factor", factor, allowed)
    if operator["kind"] == "blur" and operator["std"] > min(height, width) / 2:
        allowed = f"at most half of a side, {min(height, width) / 2:g}, for {images}"
        yield Located("applications.inverse.operator.std", operator["std"], allowed)

"""What `check` says of parameters that are right by themselves: of the data, the machine and the cost.

What is asked of data that they do not have is refused, and so is what is never sensible. The machine
is another matter: another one may run the stages (a worker), or none at all, where their results are
restored (`dvc repro --pull`). So a device that is not here, or too little memory, is a warning, and the
stage that needs it refuses before it begins; only what no machine has is refused at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from itertools import product
from typing import Any

from scoremodel.evaluation.extractors.base import load_extractor
from scoremodel.evaluation.extractors.shipped import shipped_file
from scoremodel.networks.base import misfit
from scoremodel.processes.base import process_from_config
from scoremodel.processes.ncsn import NCSN
from scoremodel.samplers.base import Sampler
from tasks.files.device import device_name, devices
from tasks.files.known import known_card
from tasks.files.layout import Configuration
from tasks.files.machine import cpu_name
from tasks.params.cost import (
    NOMINAL,
    SHOWN,
    Cost,
    TrainingCost,
    guessed_levels,
    lines,
    measured_rates,
    measured_trainings,
    rate_of,
)
from tasks.params.errors import Located
from tasks.params.fits import Doubtful, Finding, misfits, share_of
from tasks.params.memory import Size, gib, machine_memory, size_of, training_disk, training_memory
from tasks.params.pretrained import unfit
from tasks.params.resolve import FOLDER, extractor_of, network_of, source_of
from tasks.params.schema import Params
from tasks.params.sense import senseless_process
from tasks.sample import build_sampler

__all__ = ["BEYOND", "Survey"]

BEYOND = 16
"""How many times this machine's memory no machine has that would run what is asked for."""

_WAYS = 3  # there, and back to the activations and to the weights
_FLOAT = 4  # bytes
_FEATURES = {"inception": 2048, "classifier": 64, "shipped": 64}
_MATRICES = 3  # of float64: the covariance, its axes, and the identity added to it


class Survey:
    """Parameters, and what is known of their data and of this machine.

    Args:
        params: valid parameters, whose active data sets have their folders.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self.said: dict[str, Any] = params.model_dump()
        self.resolved: dict[str, Any] = params.model_dump(exclude_unset=True)
        self.sources = {name: source_of(Configuration(name).raw) for name in params.active.datasets}
        self.size = cache(self._size)

    @cached_property
    def cards(self) -> dict[str, dict[str, Any] | None]:
        """The data sets' cards, as far as they are known."""
        found = {}
        for name, (source, gives) in self.sources.items():
            split = self.resolved["datasets"][name]
            how = split | {"seed": self.params.seed} | {"gives": gives}
            found[name] = known_card(Configuration(name), how, source)
        return found

    @cached_property
    def _findings(self) -> list[Finding]:
        found = [
            *self._of_data(),
            *self._of_warm_ups(),
            *self._of_seeds(),
            *self._of_processes(),
            *self._of_ladders(),
            *self._of_steps(),
        ]
        if not any(isinstance(one, Located) for one in found):
            found += [*self._of_networks(), *self._of_gaussians(), *self._of_device()]
        return found

    def findings(self, refused: bool) -> list[Finding]:
        """Return what is never right, or what may be.

        Args:
            refused: which of the two.

        Returns:
            One finding for each thing.
        """
        return [one for one in self._findings if isinstance(one, Located) == refused]

    def _of_data(self) -> Iterator[Finding]:
        for name, card in self.cards.items():
            source, gives = self.sources[name]
            held_out = self.said["datasets"][name]["held_out"]
            if source["kind"] == FOLDER and held_out == "source":
                allowed = "a fraction: a folder of images has no test split of its own"
                yield Located(f"datasets.{name}.held_out", held_out, allowed)
            if card is not None:
                for model in self.params.active.models:
                    yield from unfit(model, self.resolved["models"][model], card)
                extractor = extractor_of(self.said["evaluation"]["extractor"], source, gives)
                yield from misfits(card, self.said, share_of(extractor))
                if self.said["evaluation"]["extractor"]["kind"] == extractor["kind"] == "shipped":
                    yield from _of_shipped(card, extractor["name"])

    def _of_warm_ups(self) -> Iterator[Finding]:
        for name in self.params.active.models:
            if self.resolved["models"][name].get("pretrained"):
                continue
            training = self.resolved["models"][name]["training"]
            steps, warmup = training["steps"], training["warmup_steps"]
            if warmup > steps:
                why = (
                    f"the training ends after {steps} steps, when its learning rate has risen to "
                    f"{steps / warmup:.2g} of what was meant"
                )
                yield Doubtful(f"models.{name}.training.warmup_steps", warmup, why)

    def _of_seeds(self) -> Iterator[Finding]:
        """Yield where one model is judged as if it were several."""
        seeds = self.params.active.train_seeds
        for name in self.params.active.models:
            if self.resolved["models"][name].get("pretrained") and len(seeds) > 1:
                why = f"the pretrained model {name!r} is the same for each of them, and counts as several"
                yield Doubtful("active.train_seeds", seeds, why)

    def _of_processes(self) -> Iterator[Finding]:
        active = self.params.active
        blocks = [
            (f"models.{name}.sde", self.resolved["models"][name]["sde"]) for name in active.models
        ]
        blocks += [
            (f"samplers.{name}.path", path)
            for name in active.samplers
            if (path := self.resolved["samplers"][name]["path"]) is not None
        ]
        for (key, config), (dataset, card) in product(blocks, self.cards.items()):
            if None not in config.values():  # else its noise follows from the data
                process = process_from_config(config)
                yield from senseless_process(key, process, card, dataset)

    def _of_ladders(self) -> Iterator[Finding]:
        """Yield which samplers take more levels than a ladder that follows from the data will have.

        The number is guessed, so twice as many are allowed.
        """
        cards = [card for card in self.cards.values() if card is not None]
        for (model, name, config), card in product(self._pairs(), cards):
            if None not in config.values():
                continue
            levels = guessed_levels(config, card)
            try:
                self._sampler(name).plan(NCSN(config["sigma_min"], levels=2 * levels))
            except ValueError:
                allowed = (
                    f"samplers of fewer steps with the active model {model!r}, whose ladder has about "
                    f"{levels} levels on {card['name']!r}"
                )
                index = self.params.active.samplers.index(name)
                yield Located(f"active.samplers[{index}]", name, allowed)

    def _of_steps(self) -> Iterator[Finding]:
        """Yield which samplers amplify the noise instead of taking it away."""
        for model, name, config in self._pairs():
            if None in config.values():  # its ladder follows from the data
                continue
            process, sampler = process_from_config(config), self._sampler(name)
            growth = sampler.growth(sampler.plan(process), process)
            if growth > 1:
                steps = self.resolved["samplers"][name]["steps"]
                why = f"so few steps amplify the noise of the active model {model!r} {growth:.3g} times"
                yield Doubtful(f"samplers.{name}.steps", steps, why)

    def _pairs(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield each active model and sampler, and the process that is sampled along."""
        active = self.params.active
        for model, name in product(active.models, active.samplers):
            path = self.resolved["samplers"][name]["path"]
            yield model, name, path or self.resolved["models"][model]["sde"]

    def _sampler(self, name: str) -> Sampler:
        return build_sampler(self.resolved["samplers"][name])

    def _network(self, dataset: str, model: str) -> tuple[str, dict[str, Any]]:
        networks = self.resolved["models"][model]["network"]
        kind = network_of(self.sources[dataset][1], networks)
        return kind, networks[kind]

    def _size(self, dataset: str, model: str) -> Size | None:
        """Return the size of a model's network on a data set, None if its data are not known."""
        card, block = self.cards.get(dataset), self.resolved["models"].get(model)
        if card is None or block is None or block.get("pretrained"):
            return None
        kind, network = self._network(dataset, model)
        conditional = block["training"]["label_dropout"] is not None
        classes = len(card["class_counts"] or ()) if conditional else None
        return size_of({"kind": kind, **network}, card["shape"], classes)

    def _of_networks(self) -> Iterator[Finding]:
        """Yield which models do not fit into memory."""
        for dataset, model in product(self.cards, self.params.active.models):
            kind, network = self._network(dataset, model)
            key = f"models.{model}.network.{kind}"
            card = self.cards[dataset]
            wrong = card and misfit({"kind": kind, **network}, card["shape"])
            if wrong:
                part, value, allowed = wrong
                yield Located(f"{key}.{part}", value, f"{allowed} ({dataset!r})")
                continue
            try:
                size = self.size(dataset, model)
            except ValueError as error:
                yield Located(key, network, f"a network for {dataset!r}: {error}")
                continue
            if size is None:
                continue
            training = self.resolved["models"][model]["training"]
            least, about = training_memory(size, training, network)
            device = self.params.device if self.params.device in devices() else devices()[0]
            there = machine_memory(device, about)
            if about <= there:
                continue
            needs = f"a training on {dataset!r} is estimated to need {{}}; this machine has {gib(there)}"
            if least > BEYOND * there:
                allowed = f"a smaller network: {needs.format(f'at least {gib(least)}')}"
                yield Located(key, network, allowed)
            elif least > there:
                yield Doubtful(key, network, needs.format(f"at least {gib(least)}"))
            else:
                why = needs.format(f"about {gib(about)}")
                how = f"more training.parts and network.{kind}.checkpointing take less"
                batch = training["batch_size"]
                yield Doubtful(f"models.{model}.training.batch_size", batch, f"{why}; {how}")

    def _of_gaussians(self) -> Iterator[Finding]:
        """Yield which applications compare with a Gaussian whose covariance does not fit into memory."""
        there = machine_memory("cpu")
        for index, name in enumerate(self.params.active.applications):
            for dataset, card in self.cards.items():
                if card is None or name not in ("likelihood", "inverse"):
                    continue
                dimension = math.prod(card["shape"])
                least = _MATRICES * 8 * dimension**2
                if least > there:
                    why = (
                        f"the Gaussian beside it has a covariance of {dimension:,} × {dimension:,}, which "
                        f"takes at least {gib(least)}; this machine has {gib(there)}"
                    )
                    key = f"active.applications[{index}]"
                    if least > BEYOND * there:
                        yield Located(key, name, f"smaller data than {dataset!r}: {why}")
                    else:
                        yield Doubtful(key, name, why)

    def _of_device(self) -> Iterator[Finding]:
        device = self.params.device
        if device not in ("auto", "cpu") and device not in (there := devices()):
            why = f"is not on this machine, which has {', '.join(there)}: no stage can run here"
            yield Doubtful("device", device, why)

    @property
    def _device(self) -> str:
        """What the device is called that the stages would take here."""
        first = devices()[0] if self.params.device == "auto" else self.params.device
        there = first == "cpu" or first not in devices()
        return cpu_name() if there else device_name(first)

    @property
    def _samples(self) -> int:
        """How many samples are drawn with each sampler from one training."""
        return self.params.evaluation.count * len(self.params.evaluation.sampling_seeds)

    def training_lines(self, nominal: float = NOMINAL) -> list[str]:
        """Return what is to be said of the cost of trainings, the dearest first.

        Args:
            nominal: TFLOP/s by which hours are said of what was not measured on this machine.

        Returns:
            A line for each data set and model, as far as their sizes are known; after eight the number
            of those that are left.
        """
        rates, costs = measured_trainings(self._device), []
        for dataset, model in product(self.cards, self.params.active.models):
            size, card = self.size(dataset, model), self.cards[dataset]
            if size is None or card is None:
                continue
            training, trainings = (
                self.resolved["models"][model]["training"],
                len(self.params.active.train_seeds),
            )
            network = self._network(dataset, model)[1]
            again = 1 if network.get("checkpointing") else 0
            images = training["steps"] * training["batch_size"]
            kept, checkpoints = training_disk(size, training)
            each = math.prod(card["shape"]) * (_FLOAT if card["levels"] is None else 1)
            each += _FLOAT * self._features(dataset, card)
            drawn = self._samples * len(self.params.active.samplers) * each
            costs.append(
                TrainingCost(
                    dataset,
                    model,
                    trainings,
                    size.parameters,
                    images,
                    2 * (_WAYS + again) * size.products * images,
                    training_memory(size, training, network)[1],
                    trainings * (kept + drawn),
                    checkpoints,
                    rate_of((dataset, model, ""), rates, self._products),
                    nominal,
                )
            )
        costs.sort(key=lambda one: one.flops, reverse=True)
        more = [f"and {len(costs) - SHOWN} more trainings"] if len(costs) > SHOWN else []
        return [str(one) for one in costs[:SHOWN]] + more

    def _features(self, dataset: str, card: Mapping[str, Any]) -> int:
        """Return the number of features of a data point, of all extractors; 0 if that is not known."""
        source, gives = self.sources[dataset]
        kind = extractor_of(self.said["evaluation"]["extractor"], source, gives)["kind"]
        if kind == "identity":
            return math.prod(card["shape"])
        judges = 1 + self.params.evaluation.panel if kind in ("classifier", "shipped") else 1
        return judges * _FEATURES.get(kind, 0)

    def cost_lines(self) -> list[tuple[bool, str]]:
        """Return what is to be said of the cost of sampling, and of each line whether it is loud."""
        params, costs = self.params, []
        rates = measured_rates(self._device)
        samples = self._samples * len(params.active.train_seeds)
        for dataset, (model, name, config) in product(params.active.datasets, self._pairs()):
            each, about = self._calls(dataset, model, name, config)
            rate = rate_of((dataset, model, name), rates, self._products)
            costs.append(Cost(dataset, model, name, each, samples, rate, about))
        return list(lines(costs))

    def _products(self, dataset: str, model: str) -> int | None:
        size = self.size(dataset, model)
        return None if size is None else size.products

    def _calls(
        self, dataset: str, model: str, name: str, config: Mapping[str, Any]
    ) -> tuple[int | None, bool]:
        """Return a sampler's network calls for a sample, and whether they are guessed."""
        about = None in config.values()
        if about:
            card = self.cards[dataset]
            if card is None:
                return None, True
            process: Any = NCSN(config["sigma_min"], levels=guessed_levels(config, card))
        else:
            process = process_from_config(config)
        sampler = self._sampler(name)
        try:
            each = sampler.calls(sampler.plan(process))
        except ValueError:  # a ladder guessed too short
            return None, about
        training = self.resolved["models"][model]["training"]
        said = self.resolved["samplers"][name]
        guide = said.get("autoguide") is not None
        alone = (1.0,) if guide else (0.0, 1.0)
        doubled = said["guidance"] not in alone and (guide or training["label_dropout"])
        return (each if each is None or not doubled else 2 * each), about


def _of_shipped(card: Mapping[str, Any], name: str) -> Iterator[Finding]:
    config = load_extractor(shipped_file(name, 0)).config
    for key in ("shape", "levels"):
        if config[key] != card[key]:
            allowed = f"one that is made for {card['name']!r}, whose {key} is {card[key]}, not {config[key]}"
            yield Located("evaluation.extractor.name", name, allowed)
            return

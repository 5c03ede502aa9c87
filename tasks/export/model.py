"""A model for others: its weights and code that needs torch alone, or a diffusers folder; and its card.

The card is the Hub's: https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from scoremodel.denoiser import Denoiser
from scoremodel.evaluation.metrics.base import ordered_metrics
from scoremodel.io.denoisers import load
from scoremodel.io.files import atomic_folder, write_text
from scoremodel.io.standalone import CODE, WEIGHTS, write_standalone
from tasks.export.croissant import licence_address
from tasks.files.arrays import read_card
from tasks.files.documents import read_text
from tasks.files.hashes import file_hash
from tasks.files.layout import VERDICT, Configuration
from tasks.files.lock import read_lock
from tasks.files.out import require_free
from tasks.results.ledger import inputs, read_rows
from tasks.results.records import read_record
from tasks.results.rows import is_of, when

__all__ = ["FORMS", "Measured", "export_model", "records_of"]

_LICENCE = Path("LICENSE")
_HUB = {  # what sources call their licences → the Hub's identifiers
    "CC BY 4.0": "cc-by-4.0",
    "CC BY-SA 4.0": "cc-by-sa-4.0",
    "CC0": "cc0-1.0",
    "MIT": "mit",
}
_ALONE = """\
```python
import torch
from net import SIGMA_MAX, SIGMA_MIN, load

net = load()
sigmas = torch.logspace(*torch.tensor([SIGMA_MAX, SIGMA_MIN]).log10().tolist(), steps=64)
x = SIGMA_MAX * torch.randn(16{shape})
for here, there in zip(sigmas, [*sigmas[1:], 0]):
    denoised = net(x, here{labels})
    x = denoised + there / here * (x - denoised)
```

`net(x, sigma{asked})` is the denoised mean E[data | x] of x = data + sigma · noise; the score is
(net(x, sigma) − x) / sigma². The loop is Euler's method for the probability-flow ODE. `net.py` needs
torch and nothing else; `scoremodel.load("{weights}")` reads the same weights.
"""
_DIFFUSERS = """\
```python
from diffusers import DiffusionPipeline

images = DiffusionPipeline.from_pretrained(".")(batch_size=16).images
```
"""
Measured = tuple[dict[str, Any], str | None]
"""A record, and the name of its row in the ledger if there is one."""
FORMS = {"net": CODE, "diffusers": "model_index.json"}
"""What a model can be exported as → the file by which such a folder is known."""


def export_model(
    files: Configuration,
    out: Path,
    form: str = "net",
    ema_half_life: float | None = None,
    force: bool = False,
    ema_std: float | None = None,
) -> None:
    """Write a model's folder: weights, code and card, whole or not at all.

    Args:
        files: the model.
        out: the folder.
        form: one of `FORMS`.
        ema_half_life: which averaged weights; None is the first of them.
        force: whether an earlier export that is there may be replaced.
        ema_std: which averaged weights by their relative width, in place of a half-life.

    Raises:
        ValueError: if there is something at `out`, the model has no such average, or cannot be
            written in that form.
    """
    require_free(out, force, FORMS[form])
    denoiser = load(files.weights, ema_half_life=ema_half_life, ema_std=ema_std)
    card = read_card(files.card)
    records = records_of(files, denoiser)
    with atomic_folder(out) as folder:
        if form == "net":
            write_standalone(denoiser, folder, files.model_name)
            if _LICENCE.is_file():
                write_text(folder / "LICENSE-CODE", read_text(_LICENCE))
        else:
            from scoremodel.io.diffusers import write_folder

            write_folder(denoiser, folder)
        text = "\n".join(_card(files, denoiser, card, records, form, folder))
        write_text(folder / "README.md", text + "\n")


def records_of(files: Configuration, denoiser: Denoiser) -> list[Measured]:
    """Return what was found of these very weights: records, and the names of their rows in the ledger.

    Args:
        files: the model.
        denoiser: the model, which says which averaged weights it is.

    Returns:
        A record for each sampler, by the name of the sampler; none if, by `dvc.lock`, other weights
        were measured, and no name if the ledger has no row of its values and environment.
    """
    lock = read_lock()
    made = {
        out["path"]: out["md5"] for one in lock["stages"].values() for out in one.get("outs", [])
    }
    if made.get(str(files.weights)) != file_hash(files.weights):
        return []
    ledger = sorted(read_rows().items(), key=lambda item: when(item[1]))
    found = []
    for stage in sorted(lock["stages"]):
        if not stage.startswith(f"evaluate@{files.model_name}-"):
            continue
        path = replace(files, sampler=stage.rsplit("-", 1)[1]).record
        try:
            inputs(stage, lock)
        except ValueError:  # it is of an earlier training
            continue
        if not path.is_file() or file_hash(path) != made.get(str(path)):
            continue
        record = read_record(path)
        average = record["ema_half_life"], record.get("ema_std")
        if average == (denoiser.ema_half_life, denoiser.ema_std):
            names = [name for name, row in ledger if is_of(row, record)]
            found.append((record, names[-1] if names else None))
    return found


def _card(
    files: Configuration,
    denoiser: Denoiser,
    card: dict[str, Any],
    records: list[Measured],
    form: str,
    folder: Path,
) -> Iterator[str]:
    """Yield the lines of a model's card."""
    shape = ", ".join(map(str, denoiser.shape))
    what = "images" if len(denoiser.shape) == 3 else "vectors"
    info = denoiser.info
    yield f"---\n{_front(files, denoiser, card, records, form)}---\n"
    yield f"# {files.model_name}\n"
    average = ""
    if denoiser.ema_half_life:
        average = f" The weights are averaged, with a half-life of {denoiser.ema_half_life:.15g} data points."
    elif denoiser.ema_std:
        average = f" The weights are averaged, with a relative width of {denoiser.ema_std:.15g}."
    process = denoiser.process.config().get("kind", type(denoiser.process).__name__)
    yield (
        f"A score-based generative model of {what} with shape ({shape}), trained along the process "
        f"`{process}` on {info['train_images']} data points drawn from {card['count']['train']}; "
        f"{info['parameters']} parameters, training seed {info['train_seed']}.{average}\n"
    )
    yield "## Use it\n"
    if form == "net":
        conditional = denoiser.classes is not None
        yield _ALONE.format(
            shape=f", {shape}",
            labels=f", torch.arange(16) % {denoiser.classes}" if conditional else "",
            asked=", class_labels" if conditional else "",
            weights=WEIGHTS,
        )
    else:
        yield _DIFFUSERS
    if denoiser.levels is not None:
        yield (
            f"Data lie in [−1, 1]: grey level v of {denoiser.levels} is "
            f"{2 / (denoiser.levels - 1):.6g} v − 1.\n"
        )
    if denoiser.classes is not None:
        names = ", ".join(f"{n} {name}" for n, name in enumerate(card["class_counts"] or {}))
        yield f"Classes: {names}; −1 is no class.\n"
    yield "## Data\n"
    yield (
        f"{card['name']}: {card['source']}. Licence: {card['licence']}. {card['count']['train']} training "
        f"and {card['count']['held_out']} held-out data points; SHA-256 of the arrays "
        f"`{card['sha256']}`. Whether these weights are bound by the data's licence is for you to judge"
        f"{'; `net.py` is under the licence in `LICENSE-CODE`' if form == 'net' else ''}.\n"
    )
    yield from _measured(files, records)
    yield "## Files\n"
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            yield f"- `{path.relative_to(folder).as_posix()}`: SHA-256 `{digest}`"


def _measured(files: Configuration, records: list[Measured]) -> Iterator[str]:
    """Yield what was found of the model: a table, and the verdicts that it took part in."""
    yield "## How good it is\n"
    if not records:
        yield "These weights were not measured by the pipeline that exported them.\n"
        return
    yield "| sampler | NFE | to held-out | × floor | precision | recall | coverage | row of the ledger |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for record, name in records:
        cells = [
            record["sampler"],
            str(record["nfe"]),
            _spread(record["held_out"]),
            f"{record['ratio_to_floor']:.2f}",
            *(_spread(record.get(metric)) for metric in ("precision", "recall", "coverage")),
            f"`{name}`" if name else "",
        ]
        yield f"| {' | '.join(cells)} |"
    first = records[0][0]
    yield (
        f"\n*{first['metric']} between {first['count']} samples and the held-out data, mean and spread "
        f"over {len(first['sampling_seeds'])} sampling seeds; the floor is what real data score.*\n"
    )
    samplers = {record["sampler"] for record, _ in records}
    for line in read_text(VERDICT).splitlines() if VERDICT.is_file() else ():
        said = re.match(rf"- {re.escape(files.dataset)}, (\w+), ", line)
        if said and said[1] in samplers and re.search(rf"\b{re.escape(files.model)} \(", line):
            yield f"> {line.removeprefix('- ')}\n"


def _said(metric: str, record: dict[str, Any]) -> str:
    distances = {"held_out": "to held-out data", "train": "to training data"}
    return f"{record['metric']} {distances[metric]}" if metric in distances else metric


def _spread(value: dict[str, Any] | None) -> str:
    if value is None:
        return ""
    return f"{value['mean']:.2f}" + (f" ± {value['std']:.2f}" if value["std"] is not None else "")


def _front(
    files: Configuration,
    denoiser: Denoiser,
    card: dict[str, Any],
    records: list[Measured],
    form: str,
) -> str:
    """Return what the Hub reads of a card, as YAML."""
    licence = card["licence"]
    front: dict[str, Any] = {"license": _HUB.get(licence, "other")}
    if licence not in _HUB:
        front |= {"license_name": licence}
    elif licence_address(licence) != licence:
        front |= {"license_link": licence_address(licence)}
    front |= {"library_name": "diffusers" if form == "diffusers" else "pytorch"}
    if len(denoiser.shape) == 3:
        front |= {"pipeline_tag": "unconditional-image-generation"}
    front |= {"tags": ["score-based", "diffusion", "scoremodel"]}
    if records:
        results = [
            {
                "task": {"type": "unconditional-image-generation"},
                "dataset": {"type": card["name"], "name": card["name"]},
                "metrics": [
                    {
                        "type": metric,
                        "name": f"{_said(metric, record)}, "
                        f"{record['sampler']}, {record['nfe']} NFE",
                        "value": record[metric]["mean"],
                    }
                    for metric in ordered_metrics()
                    if record.get(metric)
                ],
            }
            for record, _ in records
        ]
        front |= {"model-index": [{"name": files.model_name, "results": results}]}
    yaml, text = YAML(typ="safe", pure=True), StringIO()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    yaml.width = 1000
    yaml.dump(front, text)
    return text.getvalue()

"""A model for others: its weights and code that needs torch alone, or a diffusers folder; and its card.

The card is the Hub's: https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
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
from tasks.files.hashes import content_hash, file_hash
from tasks.files.layout import VERDICT, Configuration
from tasks.files.lock import read_lock
from tasks.files.out import require_free
from tasks.results.ledger import inputs, read_rows

__all__ = ["FORMS", "export_model", "rows_of"]

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
x = SIGMA_MAX * torch.randn(16{shape}{generator})
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
FORMS = {"net": CODE, "diffusers": "model_index.json"}
"""What a model can be exported as → the file by which such a folder is known."""


def export_model(
    files: Configuration,
    out: Path,
    form: str = "net",
    ema_half_life: float | None = None,
    force: bool = False,
) -> None:
    """Write a model's folder: weights, code and card, whole or not at all.

    Args:
        files: the model.
        out: the folder.
        form: one of `FORMS`.
        ema_half_life: which averaged weights; None is the first of them.
        force: whether an earlier export that is there may be replaced.

    Raises:
        ValueError: if there is something at `out`, the model has no such average, or cannot be
            written in that form.
    """
    require_free(out, force, FORMS[form])
    denoiser = load(files.weights, ema_half_life=ema_half_life)
    card = read_card(files.card)
    rows = rows_of(files, denoiser)
    with atomic_folder(out) as folder:
        if form == "net":
            write_standalone(denoiser, folder, files.model_name)
            if _LICENCE.is_file():
                write_text(folder / "LICENSE-CODE", read_text(_LICENCE))
        else:
            from scoremodel.io.diffusers import write_folder

            write_folder(denoiser, folder)
        text = "\n".join(_card(files, denoiser, card, rows, form, folder))
        write_text(folder / "README.md", text + "\n")


def rows_of(files: Configuration, denoiser: Denoiser) -> list[dict[str, Any]]:
    """Return the ledger's rows of these very weights, one for each sampler.

    Args:
        files: the model.
        denoiser: the model, which says which averaged weights it is.

    Returns:
        The rows; none if `dvc.lock` is of other weights, or what was measured is of another average.
    """
    lock = read_lock()
    made = lock["stages"].get(f"train@{files.model_name}", {}).get("outs", [])
    known = {out["path"]: out["md5"] for out in made}
    if known.get(str(files.weights)) != file_hash(files.weights):
        return []
    first = load(files.weights).ema_half_life
    by_key: dict[str, dict[str, Any]] = {}
    for row in read_rows().values():
        by_key.setdefault(row["key"], row)
    found = []
    for stage in lock["stages"]:
        if not stage.startswith(f"evaluate@{files.model_name}-"):
            continue
        try:
            its = inputs(stage, lock)
        except ValueError:  # it was measured before this training
            continue
        its["data_sha256"] = denoiser.info["data_sha256"]
        row = by_key.get(content_hash(its))
        if row is None:
            continue
        block = its["params"]["resolved"][f"samplers.{stage.rsplit('-', 1)[1]}"]
        if (block.get("ema_half_life") or first) == denoiser.ema_half_life:
            found.append(row)
    return found


def _card(
    files: Configuration,
    denoiser: Denoiser,
    card: dict[str, Any],
    rows: list[dict[str, Any]],
    form: str,
    folder: Path,
) -> Iterator[str]:
    """Yield the lines of a model's card."""
    shape = ", ".join(map(str, denoiser.shape))
    what = "images" if len(denoiser.shape) == 3 else "vectors"
    info = denoiser.info
    yield f"---\n{_front(files, denoiser, card, rows, form)}---\n"
    yield f"# {files.model_name}\n"
    average = (
        f" The weights are averaged with a half-life of {denoiser.ema_half_life:.15g} images."
        if denoiser.ema_half_life
        else ""
    )
    yield (
        f"A score-based generative model of {what} with shape ({shape}): {info['parameters']} parameters, "
        f"trained on {info['train_images']} images drawn from {card['count']['train']}, along the process "
        f"`{denoiser.process.config()['kind']}`, with training seed {info['train_seed']}.{average}\n"
    )
    yield "## Use it\n"
    if form == "net":
        conditional = denoiser.classes is not None
        yield _ALONE.format(
            shape=f", {shape}",
            generator="",
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
        f"`{card['sha256']}`. Whether these weights are bound by the data's licence is for you to judge; "
        "the code is scoremodel's, under MIT.\n"
    )
    yield from _measured(files, rows)
    yield "## Files\n"
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            yield f"- `{path.relative_to(folder).as_posix()}`: SHA-256 `{digest}`"


def _measured(files: Configuration, rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what was found of the model: a table, and the verdicts that it took part in."""
    yield "## How good it is\n"
    if not rows:
        yield "These weights were not measured by the pipeline that exported them.\n"
        return
    first = rows[0]
    yield "| sampler | NFE | to held-out | × floor | precision | recall | coverage | row of the ledger |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        values = row["values"]
        cells = [
            row["configuration"].rsplit("-", 1)[1],
            str(values["nfe"]),
            _spread(values["held_out"]),
            f"{values['ratio_to_floor']:.2f}",
            *(_spread(values.get(name)) for name in ("precision", "recall", "coverage")),
            f"`{row['key'][:16]}`",
        ]
        yield f"| {' | '.join(cells)} |"
    seeds = len(first["values"]["held_out"]["by_seed"])
    yield (
        f"\n*{first['metric']} between {first.get('count', 'as many')} samples and the held-out data, "
        f"mean and spread over {seeds} sampling seeds; the floor is what real data score.*\n"
    )
    samplers = {row["configuration"].rsplit("-", 1)[1] for row in rows}
    for line in read_text(VERDICT).splitlines() if VERDICT.is_file() else ():
        said = re.match(rf"- {re.escape(files.dataset)}, (\w+), ", line)
        if said and said[1] in samplers and re.search(rf"\b{re.escape(files.model)} \(", line):
            yield f"> {line.removeprefix('- ')}\n"


def _spread(value: dict[str, Any] | None) -> str:
    if value is None:
        return ""
    return f"{value['mean']:.2f}" + (f" ± {value['std']:.2f}" if value["std"] is not None else "")


def _front(
    files: Configuration,
    denoiser: Denoiser,
    card: dict[str, Any],
    rows: list[dict[str, Any]],
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
    if rows:
        task = {"type": "unconditional-image-generation"}
        results = [
            {
                "task": task,
                "dataset": {"type": card["name"], "name": card["name"]},
                "metrics": [
                    {
                        "type": name,
                        "name": f"{row['metric'] if name == 'held_out' else name}, "
                        f"{row['configuration'].rsplit('-', 1)[1]}, {row['values']['nfe']} NFE",
                        "value": row["values"][name]["mean"],
                    }
                    for name in ordered_metrics()
                    if row["values"].get(name)
                ],
            }
            for row in rows
        ]
        front |= {"model-index": [{"name": files.model_name, "results": results}]}
    yaml, text = YAML(typ="safe", pure=True), StringIO()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    yaml.width = 1000
    yaml.dump(front, text)
    return text.getvalue()

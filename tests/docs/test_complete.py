"""What README and docs list by hand is all that there is, and what they name exists."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from ruamel.yaml import YAML

from scoremodel.evaluation.metrics.base import METRICS
from scoremodel.parametrisation import Preconditioning
from scoremodel.processes.base import PROCESSES
from scoremodel.samplers.base import SAMPLERS
from scoremodel.training.config import TrainingConfig
from scoremodel.training.times.base import TIMES
from tasks.params.filled import lay_over
from tasks.params.load import read_yaml
from tasks.params.schema import Active, Applications, Evaluation, Studies
from tests.workspace import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = re.compile(r"`(\w+)`")


def rows(page: str, head: str) -> list[list[str]]:
    """Return the cells of the rows below a table's head, which begins with these words."""
    lines = iter((ROOT / page).read_text(encoding="utf-8").splitlines())
    assert any(line.startswith(f"| {head}") for line in lines), (page, head)
    found = []
    for line in list(lines)[1:]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


def first_names(page: str, head: str) -> list[str]:
    """Return the names in code that begin a table's rows."""
    return [name for row in rows(page, head) for name in NAMES.findall(re.sub(r"\(.*", "", row[0]))]


def choices(annotation: Any) -> set[str]:
    return {one for one in get_args(annotation) if isinstance(one, str)}.union(
        *(choices(one) for one in get_args(annotation) if not isinstance(one, str))
    )


def setting(name: str) -> set[str]:
    """Return the names in the row of training.md that is about a setting."""
    (row,) = [row for row in rows("docs/training.md", "`models.NAME.`") if f"`{name}`" in row[0]]
    return set(NAMES.findall(row[1]))


@pytest.mark.parametrize(
    ("listed", "there_are"),
    [
        (first_names("docs/samplers.md", "`kind`"), SAMPLERS),
        (first_names("docs/evaluation.md", "in the record"), [*METRICS, "classes"]),
        (
            first_names("docs/evaluation.md", "kind"),
            [
                kind
                for model in get_args(Evaluation.model_fields["extractor"].annotation)
                for kind in choices(model.model_fields["kind"].annotation)
            ],
        ),
        (first_names("docs/evaluation.md", "`applications.`"), Applications.model_fields),
    ],
    ids=["samplers", "metrics", "extractors", "applications"],
)
def test_a_table_has_a_row_for_each(listed: list[str], there_are: Iterable[str]) -> None:
    assert sorted(listed) == sorted(there_are)


def test_the_page_on_training_names_every_process_and_every_choice() -> None:
    assert set(PROCESSES) <= setting("sde")
    assert set(TIMES) <= setting("training.times")
    assert set(get_args(Preconditioning)) <= setting("preconditioning")
    hints = get_type_hints(TrainingConfig)
    for name in ("schedule", "objective", "weighting"):
        assert choices(hints[name]) <= setting(f"training.{name}"), name


def test_what_is_active_is_named_by_the_schema_and_the_same() -> None:
    for name, block in (("applications", Applications), ("studies", Studies)):
        assert choices(Active.model_fields[name].annotation) == set(block.model_fields)


def test_the_reference_has_every_module_of_the_library() -> None:
    said = [
        name
        for page in sorted((ROOT / "docs/api").glob("*.md"))
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert len(said) == len(set(said))
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "scoremodel").rglob("*.py")
        if path.stem != "__init__"
    }
    assert modules <= set(said)
    assert all(importlib.util.find_spec(name) for name in said)


def stages() -> dict[str, Any]:
    found: dict[str, Any] = read_yaml(ROOT / "dvc.yaml")["stages"]
    return found


def depends_on() -> Iterator[tuple[str, str]]:
    """Yield what depends on what in `dvc.yaml`: (stage, stage that depends on it)."""

    def paths(stage: dict[str, Any], *keys: str) -> list[str]:
        # What a matrix calls a run is its items' values, joined.
        key = "-".join(f"${{item.{axis}}}" for axis in stage.get("matrix", {}))
        given = [one for part in keys for one in stage.get(part, [])]
        texts = [one if isinstance(one, str) else next(iter(one)) for one in given]
        return [text.replace("${key}", key) for text in texts]

    for name, stage in stages().items():
        outs = paths(stage, "outs", "plots", "metrics")
        for other, later in stages().items():
            for dep in paths(later, "deps"):
                if any(f"{dep}/".startswith(f"{o}/") or o.startswith(f"{dep}/") for o in outs):
                    yield name, other


def closure(edges: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    found = set(edges)
    while more := {(a, d) for a, b in found for c, d in found if b == c} - found:
        found |= more
    return found


def test_the_readme_s_graph_is_the_graph() -> None:
    """Its arrows are, or follow from, those of dvc.yaml, and the other way round."""
    (drawn,) = re.findall(r"``` ?mermaid\nflowchart LR\n(.*?)```", PAGES[0].read_text(), re.DOTALL)
    edges = set()
    for line in drawn.splitlines():
        parts = [part.split(" & ") for part in line.strip().split(" --> ")]
        edges |= {(a, b) for i, j in pairwise(parts) for a in i for b in j}
    assert closure(edges) == closure(depends_on())
    assert set(first_names("README.md", "stage")) == set(stages())


def code(page: Path) -> list[str]:
    """Return what a page shows as code that people type: blocks of shell and code in a line."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^``` ?bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [
        *blocks,
        *re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)),
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_name_what_there_is(page: Path) -> None:
    targets = re.findall(
        r"^([\w ./-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    known = {name for line in targets for name in line.split()}
    for shown in code(page):
        for target in re.findall(r"(?:^|&& |\()make ([a-z][\w./-]*)", shown, re.MULTILINE):
            assert target in known, target
        for module in re.findall(r"python -m ((?:tasks|flows|benchmarks|scoremodel)[\w.]*)", shown):
            if "NAME" not in module:
                assert importlib.util.find_spec(module), module
        for path in re.findall(r"^(?:scoremodel|tasks|flows|tests)/[\w./]+$", shown):
            assert (ROOT / path).exists() or "NAME" in path, path
        for preset in re.findall(r"(?:PRESET=|--preset )([a-z]\w*)", shown):
            assert (ROOT / f"presets/{preset}.yaml").is_file(), preset


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_parameters_on_a_page_are_parameters(page: Path) -> None:
    """What is set with -S stands in params.yaml; what stands in the defaults only has its ++."""
    params = read_yaml(ROOT / "params.yaml")
    defaults = params["defaults"]
    for shown in code(page):
        for plus, key in re.findall(r"-S '?(\+\+)?([\w.]+)=", shown):
            whole = lay_over(
                params,
                {"models": {"ve": lay_over(defaults["model"], params["models"]["ve"])}},
            )
            here, filled = params, whole
            for part in key.split("."):
                filled = filled[part]
                here = here.get(part) if isinstance(here, dict) else None
            assert plus or here is not None, key


def test_a_page_in_the_navigation_exists_and_every_page_is_in_it() -> None:
    nav = re.findall(r'"([\w/]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8"))
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(nav) == sorted(pages)


def test_the_presets_are_yaml() -> None:
    for path in (ROOT / "presets").glob("*.yaml"):
        assert isinstance(YAML(typ="safe").load(path), dict)


def test_readme_s_table_is_the_committed_run_s() -> None:
    """No figure in it is typed: each is the committed verdict's, with two decimals."""
    readme = (ROOT / "README.md").read_text().split("## What comes out")[1].split("## The graph")[0]
    verdict = (ROOT / "results/verdict.md").read_text()

    def cells(text: str) -> list[list[str]]:
        lines = [line for line in text.splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in line[1:].rstrip("|").split("|")] for line in lines]

    def rounded(cell: str) -> str:
        return " ± ".join(f"{float(part):.2f}" for part in cell.split(" ± ")) if cell else ""

    names, _, *rows = cells(verdict)
    header, _, *shown = cells(readme)
    for row, mine in zip(rows, shown, strict=True):
        said = dict(zip(names, row, strict=True))
        for name, cell in zip(header, mine, strict=True):
            as_is = name in ("model", "sampler", "NFE")
            assert cell == (said[name] if as_is else rounded(said[name])), (row[:2], name)
    assert re.search(r"\*FD \(classifier \w{8}\), N = \d+", readme)[0] in verdict  # type: ignore[index]

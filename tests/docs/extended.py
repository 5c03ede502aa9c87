"""What the additions of docs/extend.md do; `test_extend.py` runs this in a copy that has them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

import scoremodel
from scoremodel.data.sources.base import load_source
from scoremodel.denoiser import Denoiser
from scoremodel.evaluation.extractors.base import EXTRACTORS, load_extractor, save_extractor
from scoremodel.evaluation.reference import Reference
from scoremodel.evaluation.scores import score
from scoremodel.oracles import Gaussian
from scoremodel.processes.base import PROCESSES, process_from_config
from scoremodel.processes.sde import SDE
from scoremodel.processes.vp import VP
from scoremodel.samplers.base import SAMPLERS
from scoremodel.training.times.base import TIMES
from tasks.files.arrays import write_arrays, write_rows
from tasks.files.layout import Configuration
from tasks.params import presets
from tasks.params.filled import lay_over
from tasks.params.json_schema import json_schema
from tasks.params.load import checked, load_params, read_yaml
from tasks.params.resolve import resolve, stages
from tasks.params.schema import Params
from tasks.report.figures.base import FIGURES, Results, figures
from tasks.report.pictures.base import draw
from tasks.results.table import COLUMNS, labels, terminal

ROOT = Path.cwd()


def params(**active: list[Any]) -> Params:
    """Return `params.yaml` with other things active."""
    return checked(lay_over(read_yaml(Path("params.yaml")), {"active": active}), ROOT)


def test_this_is_the_copy() -> None:
    assert Path(scoremodel.__file__).is_relative_to(ROOT)
    assert not (ROOT / ".git").exists()


def test_the_sde_is_what_its_formula_says() -> None:
    found: Any = load_params().models["ou"].sde
    assert (found.kind, found.beta) == ("ornstein_uhlenbeck", 12.0)
    process = PROCESSES.make("ornstein_uhlenbeck", beta=8.0)
    assert process_from_config(process.config()) == process
    t = torch.linspace(0.01, 1, 30, dtype=torch.float64)
    torch.testing.assert_close(process.f(t), torch.full_like(t, -4.0))
    torch.testing.assert_close(process.g(t), torch.full_like(t, math.sqrt(8)))
    torch.testing.assert_close(SDE.alpha(process, t), process.alpha(t))
    torch.testing.assert_close(SDE.sigma(process, t), process.sigma(t))
    with pytest.raises(ValueError, match="ornstein_uhlenbeck: beta: 0 is not allowed"):
        PROCESSES.make("ornstein_uhlenbeck", beta=0)


def test_the_sampler_gives_a_gaussian_its_moments() -> None:
    mean = torch.tensor([0.3, -0.2], dtype=torch.float64)
    process, oracle = VP(), Gaussian(mean, 0.25 * torch.eye(2, dtype=torch.float64))
    drawn = scoremodel.sample(
        lambda x, t: oracle.denoised(x, t, process),
        SAMPLERS.make("noisy_flow", steps=400),
        4_000,
        0,
        process=process,
        shape=(2,),
        dtype=torch.float64,
        batch_size=4_000,
    )
    assert drawn.nfe == 400
    assert drawn.x.mean(0).tolist() == pytest.approx(mean.tolist(), abs=0.03)
    assert drawn.x.std(0).tolist() == pytest.approx([0.5, 0.5], rel=0.05)


@pytest.mark.parametrize(("noise", "other"), [(0.0, "euler"), (1.0, "ancestral")])
def test_the_sampler_s_ends_are_known_ones(noise: float, other: str) -> None:
    mine, known = (
        SAMPLERS.make(kind, steps=20, grid="edm", **more).plan(VP())
        for kind, more in [("noisy_flow", {"noise": noise}), (other, {})]
    )
    np.testing.assert_allclose(np.array(mine), np.array(known), rtol=1e-12, atol=1e-12)


def test_the_sampler_has_its_keys_and_costs_nothing_that_does_not_use_it() -> None:
    whole = params(samplers=["heun", "noisy_flow_9"])
    chosen: Any = whole.samplers["noisy_flow_9"]
    assert (chosen.kind, chosen.steps, chosen.noise) == ("noisy_flow", 9, 0.5)
    said = json.dumps(json_schema(), ensure_ascii=False)
    assert "λ; 0 is the probability-flow ODE, 1 the reverse SDE." in said
    code = {name: content["modules"] for name, content in resolve(whole).items() if "code/" in name}
    own = {name for name, modules in code.items() if "scoremodel/samplers/noisy_flow.py" in modules}
    assert "code/sample@digits-ve-0-noisy_flow_9" in own
    assert not own & {"code/sample@digits-ve-0-heun", "code/train@digits-ve-0"}


def test_the_times_are_log_uniform() -> None:
    found: Any = load_params().models["vp_log_uniform"].training
    assert found.times.kind == "log_uniform"
    process = VP()
    times, factors = TIMES.make("log_uniform").draw(1000, process, torch.Generator().manual_seed(0))
    ratios = process.ratio(times.double()).log().sort().values
    assert bool((factors == 1).all())
    steps = ratios.diff()
    assert float(steps.max()) == pytest.approx(float(steps.median()), rel=0.05)


def test_the_network_is_a_denoiser_s() -> None:
    model = Denoiser({"kind": "shallow", "width": 8}, VP(), (2,), [0.0, 0.0], 1.0)
    assert model(torch.zeros(3, 2), torch.full((3,), 0.5)).shape == (3, 2)


def test_the_data_set_is_read_and_active() -> None:
    described = YAML(typ="safe").load(Configuration("rings").raw / "source.yaml")
    raw = load_source(described)
    assert raw.x.shape == (described["count"], 2)
    assert raw.labels is not None
    radius = np.linalg.norm(raw.x, axis=1)
    for label, expected in enumerate([0.5, 1.0]):
        assert radius[raw.labels == label].mean() == pytest.approx(expected, abs=0.01)
    found = resolve(params(datasets=["rings"]))
    assert found["datasets/rings"]["gives"] == "vectors"
    assert found["extractors/rings"] == {"kind": "identity"}
    used = found["code/prepare@rings"]["modules"]
    assert "scoremodel/data/sources/rings.py" in used
    assert "scoremodel/data/sources/digits.py" not in used


def test_the_extractor_is_kept_in_a_file(tmp_path: Path) -> None:
    save_extractor(EXTRACTORS["pixels"](levels=17), tmp_path / "pixels.safetensors")
    again = load_extractor(tmp_path / "pixels.safetensors")
    assert again.kind == "pixels"
    images = torch.tensor([0, 8, 16], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    assert again.features(images).tolist() == [[-1.0] * 4, [0.0] * 4, [1.0] * 4]


def test_the_metric_is_scored_shown_and_in_code() -> None:
    rows = np.random.default_rng(0).standard_normal((300, 4))
    scores = score(rows[:100] + 1.0, Reference(rows[100:200], rows[200:], count=100, seed=0))
    gap = np.linalg.norm(rows[:100].mean(0) + 1.0 - rows[200:].mean(0))
    assert scores.values["mean_gap"] == pytest.approx(gap)
    assert labels()["mean_gap_mean"] == "mean's gap"
    assert list(scores.values).index("mean_gap") == list(scores.values).index("kid") + 1
    code = resolve(params())
    path = "scoremodel/evaluation/metrics/mean_gap.py"
    assert path in code["code/evaluate@digits-ve-0-heun"]["modules"]
    assert path not in code["code/train@digits-ve-0"]["modules"]


def test_the_stage_is_in_the_graph_and_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = ("dataset", "model", "train_seed", "sampler")
    assert stages()["brightness"] == axes
    used = resolve(params())["code/brightness@digits-ve-0-heun"]["modules"]
    assert "tasks/brightness.py" in used
    from tasks.brightness import main  # type: ignore[import-not-found]

    monkeypatch.chdir(tmp_path)
    files = Configuration("digits", "ve", 0, "heun")
    rows = np.arange(10.0)[:, None]
    write_rows(files.arrays, {"train": (rows, np.arange(4, 10)), "held_out": (rows, np.arange(4))})
    write_arrays(files.samples, {"seed_0": np.full((3, 1), 7.0)}, {})
    main(files)
    found = json.loads(Path(f"artifacts/brightness/{files.name}.json").read_text())
    assert found == {"held_out": 1.5, "seed_0": 7.0}


def test_the_flows_see_the_stage_and_its_pool() -> None:
    from tasks.files.graph import stage_graph

    (ROOT / ".dvc").mkdir()
    (ROOT / ".dvc/config").write_text("[core]\n    no_scm = true\n", encoding="utf-8")
    nodes = {node.name: node for node in stage_graph(ROOT)}
    node = nodes["brightness@digits-ve-0-heun"]
    assert {"check", "prepare@digits", "sample@digits-ve-0-heun"} == set(node.upstream)
    assert node.pool == "big"


def test_the_server_is_told_of_the_pool_and_the_schedule() -> None:
    deployments = {
        one["name"]: one for one in YAML(typ="safe").load(Path("prefect.yaml"))["deployments"]
    }
    big, cpu = deployments["big"], deployments["cpu"]
    assert big.keys() == cpu.keys()
    assert (big["entrypoint"], big["work_pool"]) == (
        cpu["entrypoint"],
        cpu["work_pool"] | {"name": "big"},
    )
    nightly = deployments["nightly"]["schedules"]
    assert {one["timezone"] for one in nightly} == {"Europe/Berlin", "UTC"}
    assert "0 12 * * 1-5" in [one["cron"] for one in nightly]


def test_the_figure_is_drawn_in_its_place() -> None:
    rows = pd.DataFrame(
        {
            "model": ["ve", "vp"],
            "train_seed": 0,
            "sampler": "heun",
            "nfe": 35,
            "metric": "FD",
            "recall_mean": [0.9, 0.8],
            "precision_mean": [0.7, 0.6],
            "held_out_mean": 1.0,
            "held_out_std": 0.1,
            "floor": 0.7,
            "floor_std": 0.1,
            "count": 448,
            "floor_count": 448,
        }
    )
    curve = pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0], "band": "all"})
    assert "fidelity" in FIGURES
    titles = [one["title"] for one in figures(Results(rows, {"ve": curve}, {"ve": curve}, [], []))]
    assert titles[:2] == ["Distance against NFE", "Precision against recall"]
    (drawing,) = FIGURES["fidelity"](Results(rows, {}, {}, [], []))
    assert drawing.startswith("<svg")
    assert "vp, heun" in drawing
    assert "tasks/report/figures/fidelity.py" in resolve(params())["code/report"]["modules"]


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    arrays = {"samples": np.arange(50.0), "held-out": np.arange(20.0)}
    write_arrays(tmp_path / "shown.npz", arrays, {"picture": "histogram", "bins": 17})
    made = draw(tmp_path / "shown.npz", tmp_path / "picture")
    assert made == tmp_path / "picture.svg"
    assert "held-out" in made.read_text(encoding="utf-8")
    assert "tasks/report/pictures/histogram.py" in resolve(params())["code/pictures"]["modules"]


def test_the_column_has_its_value() -> None:
    row: Any = type("Row", (), {"record": {"held_out": {"mean": 1.0}, "train": {"mean": 0.75}}})
    assert COLUMNS["overfit"].get(row) == 0.25
    assert "overfit" in terminal()


def test_the_preset_is_listed_and_valid() -> None:
    said = dict(line.split(maxsplit=1) for line in presets.listing().splitlines())
    assert said["few_calls"] == "What VP gives with 18 network calls at most, by four samplers."
    found = presets.laid_over("few_calls")
    assert found.active.models == ["vp"]
    assert found.samplers["noisy_flow_18"].kind == "noisy_flow"  # type: ignore[attr-defined]
    assert "noisy_flow_18" in presets.arguments("few_calls")

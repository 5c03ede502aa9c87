"""What else a model can do, through the pipeline, against numbers computed another way."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits

from scoremodel.denoiser import Denoiser
from scoremodel.io.checkpoint import Chunks
from scoremodel.io.denoisers import load
from scoremodel.likelihood import dequantise
from scoremodel.processes.vp import VP
from tasks import applications
from tasks.applications import build_operator
from tasks.files.arrays import read_rows
from tests.workspace import Workspace

INVERSE = {
    "operator": {"kind": "mask", "hidden": "lower_half"},
    "noise_std": 0.05,
    "method": "pigdm",
    "iterations": 1,
    "steps": 4,
    "count": 12,
    "draws": 2,
}


def record(workspace: Workspace, application: str, model: str = "digits-vp-0") -> dict[str, Any]:
    path = workspace.root / f"results/records/{model}-{application}.json"
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_bits_errors_and_latents_reach_record_table_and_page(copied: Workspace) -> None:
    params = copied.params()
    params["active"] |= {
        "samplers": ["heun"],
        "applications": ["likelihood", "inverse", "latents"],
    }
    params["applications"] |= {
        "likelihood": {"count": 10, "probes": 2, "rtol": 1e-2, "atol": 1e-2},
        "inverse": INVERSE,
        "latents": {"count": 6, "points": 3, "rtol": 1e-4, "atol": 1e-4},
    }
    copied.write_params(params)
    said = copied.dvc("repro")
    ran = {line.split("'")[1] for line in said.splitlines() if line.startswith("Running")}
    asked = {f"applications@digits-vp-0-{name}" for name in params["active"]["applications"]}
    assert ran == {"check", "pictures", "report", *asked}  # no samples are drawn or judged again
    assert copied.imports().keys() >= asked
    for run in asked:
        name = copied.root / f"artifacts/resolved/code/{run}.json"
        assert copied.imports()[run] <= set(json.loads(name.read_text())["modules"]), run
    here = {name: record(copied, name)["found"] for name in params["active"]["applications"]}
    row = pd.read_csv(copied.root / "results/table.csv").iloc[0]
    assert row["bits_per_dim"] == pytest.approx(here["likelihood"]["bits_per_dim"])

    by_image = here["likelihood"]["by_image"]
    assert len(by_image) == here["likelihood"]["count"] == 10
    assert np.mean(by_image) == pytest.approx(here["likelihood"]["bits_per_dim"], rel=1e-5)
    error = np.std(by_image, ddof=1) / math.sqrt(10)
    assert error == pytest.approx(here["likelihood"]["std_error"], rel=1e-4)

    # The Gaussian's bits by scipy, and the best linear estimate by least squares with numpy.
    arrays = read_rows(copied.root / "artifacts/data/digits/arrays")
    train = np.asarray(arrays["train"], float).reshape(-1, 64) / 8 - 1
    covariance = np.cov(train.T) + np.eye(64) * (1 / 8) ** 2 / 12
    pixels = torch.from_numpy(np.array(arrays["held_out"][:10]))
    x = dequantise(pixels, 17, params["seed"]).numpy().reshape(10, 64)
    log_prob = multivariate_normal(train.mean(0), covariance).logpdf(x)
    bits = float(np.mean(-log_prob / 64 / math.log(2) - math.log2(1 / 8)))
    assert here["likelihood"]["gaussian"] == pytest.approx(bits, rel=1e-4)

    truth = np.asarray(arrays["held_out"][:12], float).reshape(12, 64) / 8 - 1
    hidden = np.repeat(np.arange(8) >= 4, 8)
    mean = train.mean(0)
    error = float(np.sqrt(np.mean((truth - mean)[:, hidden] ** 2)))
    assert here["inverse"]["rmse_of_mean"] == pytest.approx(error, rel=1e-4)
    known = covariance[np.ix_(~hidden, ~hidden)] + 0.05**2 * np.eye(32)
    noise = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(params["seed"]))
    seen = (truth + 0.05 * noise.numpy().reshape(12, 64))[:, ~hidden]
    gain = np.linalg.solve(known, covariance[np.ix_(~hidden, hidden)])
    linear = mean[hidden] + (seen - mean[~hidden]) @ gain
    error = float(np.sqrt(np.mean((truth[:, hidden] - linear) ** 2)))
    assert here["inverse"]["rmse_of_linear"] == pytest.approx(error, rel=1e-3)
    assert here["latents"]["round_trip_rmse"] < 0.01

    page = (copied.root / "reports/index.html").read_text()
    assert "What else the models can do" in page
    assert f"{here['inverse']['rmse_of_linear']:.3g} by the best linear estimate" in page
    assert "training.dequantise: true is for this" in page  # this model was not trained so


@pytest.mark.slow
def test_a_plane_s_score_fields_are_on_the_page_and_point_to_the_data(copied: Workspace) -> None:
    params = copied.params()
    params["active"] |= {
        "datasets": ["mixture"],
        "models": ["vp_energy", "vp_sliced", "one_level"],
        "samplers": ["heun", "langevin"],
        "applications": ["field"],
        "studies": ["failures"],
    }
    for model in params["active"]["models"]:
        ours = params["models"][model].setdefault("training", {})
        ours |= {"steps": 300, "log_every": 50, "batch_size": 64}
    params["samplers"]["langevin"]["steps"] = 50
    params["studies"]["failures"] |= {"steps": 300, "seeds": [0, 1], "samples": 1000}
    copied.write_params(params)
    copied.dvc("repro")
    page = (copied.root / "reports/index.html").read_text()
    assert page.count("score at r = 0.3") == 3
    model = load(copied.root / "artifacts/models/mixture-vp_energy-0.safetensors")
    # On the way from the heavier mode outwards the energy rises, and the score points back to it.
    t = model.process.t_of_ratio(torch.tensor([0.3]))
    alpha = model.process.alpha(t)
    places = torch.tensor([[-0.6, -0.6], [-1.2, -1.2]])
    energy = model.energy(alpha * places, t.expand(2)).detach()
    assert energy[1] > energy[0] + 1
    assert (model.score(alpha * places, t.expand(2)).detach()[1] > 0).all()
    code = json.loads((copied.root / "artifacts/resolved/code/failures.json").read_text())
    assert copied.imports()["failures"] == set(code["modules"])
    study = json.loads((copied.root / "results/studies/failures.json").read_text())
    # O9: the exact score gives the modes half each; many levels give the weight of 0.8.
    error = study["weight_std_error"]
    assert abs(study["weights"]["exact score"]["share by Langevin"]["mean"] - 0.5) < 5 * error
    assert abs(study["weights"]["many"]["share by the reverse"]["mean"] - 0.8) < 0.1
    noisy = "error at r = 0.5"
    assert study["manifold"]["many"][noisy]["mean"] < 0.3 * study["manifold"]["none"][noisy]["mean"]


@pytest.mark.parametrize(
    "operator",
    [{"kind": "mask", "hidden": "lower_half"}, {"kind": "blur", "std": 4.0}],
    ids=lambda one: str(one["kind"]),
)
def test_measurements_without_noise_have_a_best_linear_estimate(operator: dict[str, Any]) -> None:
    """No worse than that of next to no noise, though a wide blur leaves hardly anything."""
    images = load_digits().images[:, None].astype(np.uint8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = Denoiser({"kind": "unet", "width": 8}, VP(), (1, 8, 8), [-0.4], 0.75, 17)
    how = INVERSE | {"operator": operator, "draws": 1}

    def found(noise_std: float) -> dict[str, Any]:
        asked = applications._Asked(
            denoiser,
            {"name": "digits"},
            images[:900],
            images[900:],
            how | {"noise_std": noise_std},
            0,
            Chunks("unused"),
        )
        return applications._inverse(asked)[0]

    none, little = found(0.0), found(1e-5)
    assert none["noise_std"] == 0
    if operator["kind"] == "mask":  # what is seen at all is seen well
        assert none["rmse_of_linear"] == pytest.approx(little["rmse_of_linear"], rel=1e-3)
    else:
        assert none["rmse_of_linear"] < little["rmse_of_linear"]
    assert none["rmse_of_linear"] < 0.85 * none["rmse_of_mean"]
    assert math.isfinite(none["rmse"])


def test_operators_hide_what_they_say() -> None:
    lower, hidden = build_operator({"kind": "mask", "hidden": "lower_half"}, (2, 4, 4), 0)
    assert hidden[:, 2:].all()
    assert not hidden[:, :2].any()
    assert float(lower(torch.ones(1, 2, 4, 4)).sum()) == 16
    _, hidden = build_operator({"kind": "mask", "hidden": "random_half"}, (2, 4, 4), 0)
    assert hidden.sum() == 16
    assert torch.equal(hidden[0], hidden[1])
    operator, hidden = build_operator({"kind": "downsample", "factor": 2}, (1, 4, 4), 0)
    assert hidden.all()
    assert operator(torch.ones(1, 1, 4, 4)).shape == (1, 1, 2, 2)
    operator, _ = build_operator({"kind": "blur", "std": 1.0}, (1, 9, 9), 0)
    assert float(operator(torch.ones(1, 1, 9, 9))[0, 0, 4, 4]) == pytest.approx(1)


def test_what_does_not_fit_the_data_is_one_line_before_anything_runs(copied: Workspace) -> None:
    params = copied.params()
    params["active"] |= {"samplers": ["heun"], "applications": ["inverse"]}
    params["applications"]["inverse"] = INVERSE | {"operator": {"kind": "downsample", "factor": 3}}
    copied.write_params(params)
    said = copied.dvc("repro", "applications@digits-vp-0-inverse", status=255)
    assert "applications.inverse.operator.factor: 3 is not allowed, allowed: a divisor of" in said
    assert "Running stage 'applications" not in said
    params["active"] |= {"datasets": ["mixture", "digits"], "applications": ["likelihood", "field"]}
    copied.write_params(params)
    first, second = copied.python("-m", "tasks.check", status=2).splitlines()
    assert (
        "active.applications[0]: 'likelihood' is not allowed, allowed: an application that" in first
    )
    assert "'mixture' has; this one needs grey levels" in first
    assert "active.applications[1]: 'field' is not allowed, allowed: an application that" in second
    assert "'digits' has; this one needs vectors in the plane" in second


@pytest.mark.slow
def test_a_mixture_s_own_score_can_be_the_target(copied: Workspace) -> None:
    params = copied.params()
    params["active"] |= {"datasets": ["mixture"], "samplers": ["heun"]}
    params["models"]["vp"]["training"] |= {
        "objective": "explicit",
        "steps": 300,
        "batch_size": 64,
        "log_every": 50,
    }
    copied.write_params(params)
    copied.dvc("repro", "train@mixture-vp-0")
    curve = pd.read_csv(copied.root / "artifacts/curves/mixture-vp-0.csv")
    # Its smallest value is zero, and that of denoising is not: about 0.5 here.
    assert 0 < curve["loss"].iloc[-1] < 0.1

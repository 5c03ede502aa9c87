"""Where every file of the pipeline lies; `dvc.yaml` declares the same paths."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

__all__ = [
    "AXES",
    "CURVES",
    "EXTERNAL",
    "LEDGER",
    "METRICS",
    "PICTURES",
    "RECORDS",
    "REPORT",
    "RESOLVED",
    "SHOWN",
    "STUDIES",
    "TABLE",
    "TIMINGS",
    "VERDICT",
    "Configuration",
]

_ARTIFACTS = Path("artifacts")

EXTERNAL = "external"
"""What stands in a sampler's place for samples from elsewhere, whose name stands in the model's."""

RESOLVED = _ARTIFACTS / "resolved"
"""What `check` makes of params.yaml and of the code: a small file for each thing to depend on."""
CURVES = _ARTIFACTS / "curves"
SHOWN = _ARTIFACTS / "shown"
"""Arrays that are there to be seen, of which `pictures` makes `PICTURES`."""
PICTURES = _ARTIFACTS / "pictures"
RECORDS = Path("results/records")
STUDIES = Path("results/studies")
TABLE = Path("results/table.csv")
METRICS = Path("results/metrics.json")
LEDGER = Path("results/ledger")
VERDICT = Path("results/verdict.md")
REPORT = Path("reports/index.html")
TIMINGS = Path(".scoremodel/timings")
"""Seconds and device names: never reproducible, so no declared output; see `tasks.files.timing`."""


@dataclass(frozen=True)
class Configuration:
    """What one run of a stage is of, as far as that is said, and where its files lie.

    Args:
        dataset: name of the data set.
        model: name of the model.
        train_seed: seed of its training.
        sampler: name of the sampler.
        application: what else the model is asked for.
    """

    dataset: str = ""
    model: str = ""
    train_seed: int = 0
    sampler: str = ""
    application: str = ""

    @property
    def model_name(self) -> str:
        return f"{self.dataset}-{self.model}-{self.train_seed}"

    @property
    def name(self) -> str:
        """The name by which the stage and its files go: what is said, joined."""
        if not self.model:
            return self.dataset
        parts = (self.model_name, self.sampler, self.application)
        return "-".join(part for part in parts if part)

    @property
    def external(self) -> bool:
        """Whether its samples are from elsewhere."""
        return self.sampler == EXTERNAL

    @property
    def evaluation(self) -> str:
        """The stage that judges its samples."""
        if self.external:
            return f"external_evaluate@{self.dataset}-{self.model}"
        return f"evaluate@{self.name}"

    @property
    def raw(self) -> Path:
        return Path("data/raw") / self.dataset

    @property
    def given(self) -> Path:
        """The folder of samples from elsewhere."""
        return Path("data/samples") / self.dataset / self.model

    @property
    def arrays(self) -> Path:
        return _ARTIFACTS / "data" / self.dataset / "arrays"

    @property
    def card(self) -> Path:
        return _ARTIFACTS / "data" / self.dataset / "card.json"

    @property
    def extractors(self) -> Path:
        """The folder of the data set's extractors: the judge and the panel."""
        return _ARTIFACTS / "extractors" / self.dataset

    @property
    def real_features(self) -> Path:
        return _ARTIFACTS / "features" / f"{self.dataset}.npz"

    @property
    def baselines(self) -> Path:
        return _ARTIFACTS / "baselines" / f"{self.dataset}.json"

    @property
    def weights(self) -> Path:
        return _ARTIFACTS / "models" / f"{self.model_name}.safetensors"

    @property
    def curves(self) -> Path:
        return CURVES / f"{self.model_name}.csv"

    @property
    def bands(self) -> Path:
        return CURVES / f"{self.model_name}-bands.csv"

    @property
    def samples(self) -> Path:
        return _ARTIFACTS / "samples" / f"{self.name}.npz"

    @property
    def features(self) -> Path:
        return _ARTIFACTS / "features" / f"{self.name}.npz"

    @property
    def panel_features(self) -> Path:
        """The panel's features of samples, or of the held-out data if it is of a data set only."""
        return _ARTIFACTS / "features" / f"{self.name}-panel.npz"

    @property
    def shown(self) -> Path:
        return SHOWN / f"{self.name}.npz"

    @property
    def shown_neighbours(self) -> Path:
        return SHOWN / f"{self.name}-neighbours.npz"

    @property
    def record(self) -> Path:
        return RECORDS / f"{self.name}.json"


AXES = tuple(field.name for field in fields(Configuration))
"""What a stage's runs can differ by, in the order in which its command names them."""

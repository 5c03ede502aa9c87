"""Where every file of the pipeline lies; `dvc.yaml` declares the same paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "APPLICATIONS",
    "APPLICATIONS_JSON",
    "CHECKED",
    "LEDGER",
    "RECORDS",
    "REPORT",
    "STUDIES",
    "STUDY_FIGURES",
    "TABLE",
    "TIMINGS",
    "VERDICT",
    "Configuration",
    "Data",
]

_ARTIFACTS = Path("artifacts")

APPLICATIONS = _ARTIFACTS / "applications"
"""What else models can do, a folder for each: `APPLICATIONS_JSON` and pictures."""
APPLICATIONS_JSON = "found.json"

CHECKED = _ARTIFACTS / "checked.txt"
RECORDS = Path("results/records")
STUDIES = Path("results/studies")
STUDY_FIGURES = _ARTIFACTS / "studies"
TABLE = Path("results/table.csv")
LEDGER = Path("results/ledger")
VERDICT = Path("results/verdict.md")
REPORT = Path("reports/index.html")
TIMINGS = Path(".scoremodel/timings")
"""Seconds and device names: never reproducible, so no declared output; see `tasks.timing`."""


@dataclass(frozen=True)
class Data:
    """The files of one data set.

    Args:
        dataset: its name in `params.yaml`.
    """

    dataset: str

    @property
    def raw(self) -> Path:
        return Path("data/raw") / self.dataset

    @property
    def arrays(self) -> Path:
        return _ARTIFACTS / "data" / self.dataset / "arrays"

    @property
    def card(self) -> Path:
        return _ARTIFACTS / "data" / self.dataset / "card.json"

    @property
    def grid(self) -> Path:
        return _ARTIFACTS / "grids" / f"{self.dataset}.png"

    @property
    def extractor(self) -> Path:
        return _ARTIFACTS / "extractors" / f"{self.dataset}.safetensors"

    @property
    def features(self) -> Path:
        return _ARTIFACTS / "features" / f"{self.dataset}.npz"

    @property
    def baselines(self) -> Path:
        return _ARTIFACTS / "baselines" / f"{self.dataset}.json"


@dataclass(frozen=True)
class Configuration:
    """The files of one trained model, and of one sampler on it.

    Args:
        dataset: name of the data set.
        model: name of the model.
        train_seed: seed of its training.
        sampler: name of the sampler; empty for the model itself.
    """

    dataset: str
    model: str
    train_seed: int
    sampler: str = ""

    @property
    def model_name(self) -> str:
        return f"{self.dataset}-{self.model}-{self.train_seed}"

    @property
    def name(self) -> str:
        return f"{self.model_name}-{self.sampler}"

    @property
    def weights(self) -> Path:
        return _ARTIFACTS / "models" / f"{self.model_name}.safetensors"

    @property
    def curves(self) -> Path:
        return _ARTIFACTS / "curves" / f"{self.model_name}.csv"

    @property
    def bands(self) -> Path:
        return _ARTIFACTS / "curves" / f"{self.model_name}-bands.csv"

    @property
    def applications(self) -> Path:
        return APPLICATIONS / self.model_name

    @property
    def samples(self) -> Path:
        return _ARTIFACTS / "samples" / f"{self.name}.npz"

    @property
    def grid(self) -> Path:
        return _ARTIFACTS / "grids" / f"{self.name}.png"

    @property
    def features(self) -> Path:
        return _ARTIFACTS / "features" / f"{self.name}.npz"

    @property
    def neighbours(self) -> Path:
        return _ARTIFACTS / "neighbours" / f"{self.name}.png"

    @property
    def record(self) -> Path:
        return RECORDS / f"{self.name}.json"

"""An extractor's file says by its kind's name what it holds; the names stand in files for good."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scoremodel.evaluation.extractors.base import EXTRACTORS, load_extractor, save_extractor
from scoremodel.evaluation.extractors.identity import Identity
from scoremodel.io.weights import write_weights


def test_the_names_in_files_are_known() -> None:
    known = {"classifier", "identity", "inception", "inception_pytorch", "torchscript"}
    assert known <= set(EXTRACTORS)
    assert all(EXTRACTORS[kind].kind == kind for kind in EXTRACTORS)


def test_vectors_are_their_own_features_also_out_of_a_file(tmp_path: Path) -> None:
    save_extractor(Identity(), tmp_path / "e.safetensors")
    data = torch.arange(6, dtype=torch.float64).reshape(3, 2)
    assert torch.equal(load_extractor(tmp_path / "e.safetensors").features(data), data.float())


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    for stored in ({"kind": "oracle", "config": {}}, {"config": {}}):
        write_weights(tmp_path / "e.safetensors", {}, stored)
        with pytest.raises(ValueError, match=r"e\.safetensors: holds no extractor, allowed: class"):
            load_extractor(tmp_path / "e.safetensors")

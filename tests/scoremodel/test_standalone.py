"""A model as two files: where torch is and this library is not, the same numbers to the bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import scoremodel
from scoremodel.denoiser import as_channels_last
from scoremodel.io.standalone import write_standalone
from scoremodel.networks.base import NETWORKS

_ALONE = """
import sys
from importlib.abc import MetaPathFinder

class Block(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("scoremodel", "tasks", "safetensors", "tqdm", "filelock"):
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Block())
import torch
torch.set_num_threads(1)
given = torch.load("given.pt", weights_only=True)
found = {}
for name, (x, sigma, labels) in given.items():
    sys.path.insert(0, name)
    sys.modules.pop("net", None)
    from net import load
    net = load()
    with torch.inference_mode():
        found[name] = net(x, sigma, labels)
    sys.path.pop(0)
torch.save(found, "found.pt")
"""


def model(
    network: dict[str, Any], shape: tuple[int, ...], process: Any = None, **more: Any
) -> scoremodel.Denoiser:
    """Return a model whose weights are all drawn: fresh ones end with zeros."""
    means = torch.linspace(-0.4, 0.3, shape[0]).tolist()
    denoiser = scoremodel.Denoiser(network, process or scoremodel.VE(), shape, means, 0.6, **more)
    torch.manual_seed(0)
    for weight in denoiser.parameters():
        nn.init.normal_(weight, std=0.2)
    return as_channels_last(denoiser.eval().requires_grad_(False))


UNET = {"kind": "unet", "width": 8, "multipliers": [1, 2], "attention_levels": [1]}
MODELS: dict[str, Any] = {
    "unet": lambda: model(UNET, (3, 9, 8)),
    "classes": lambda: model(UNET, (1, 8, 8), scoremodel.VP(), classes=4),
    "energy": lambda: model(UNET, (1, 6, 6), energy=True),
    "mlp": lambda: model({"kind": "mlp", "width": 16}, (2,), classes=3),
    **{
        kind: lambda kind=kind: model({"kind": "mlp", "width": 16}, (5,), preconditioning=kind)
        for kind in ("noise", "v", "denoised", "ve", "vp")
    },
}


def test_alone_it_gives_the_library_s_numbers_to_the_bit(tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    wanted: dict[str, Any] = {}
    for name, make in MODELS.items():
        denoiser = make()
        (tmp_path / name).mkdir()
        write_standalone(denoiser, tmp_path / name, name)
        t = torch.tensor([0.0, 0.2, 0.7, 1.0])
        labels = None if denoiser.classes is None else torch.tensor([0, 1, -1, 2])
        y = torch.randn(4, *denoiser.shape)
        given[name] = (y, scoremodel.VE().ratio(t), labels)
        with torch.inference_mode():
            wanted[name] = denoiser.along(scoremodel.VE(), labels)(y, t)
    torch.save(given, tmp_path / "given.pt")
    subprocess.run([sys.executable, "-I", "-c", _ALONE], cwd=tmp_path, check=True)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    for name in MODELS:
        assert found[name].std() > 0.01, name
        assert torch.equal(found[name], wanted[name]), name


def test_the_weights_are_the_library_s_own_and_wrong_calls_are_one_line(tmp_path: Path) -> None:
    denoiser = MODELS["classes"]()
    write_standalone(denoiser, tmp_path, "classes")
    again = scoremodel.load(tmp_path / "model.safetensors")
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.3, 0.9])
    assert torch.equal(again(x, t), denoiser(x, t))
    made: dict[str, Any] = {"__file__": str(tmp_path / "net.py")}
    exec((tmp_path / "net.py").read_text(encoding="utf-8"), made)
    net = made["load"]()
    for arguments, said in (
        ((x[:, :, 1:], 1.0), r"x must have shape \(B, 1, 8, 8\), got \(2, 1, 7, 8\)"),
        ((x, 1.0, torch.tensor([0, 4])), "class_labels must be from 0 to 3"),
        ((x, 1.0, torch.eye(4)[:2]), r"class_labels must be 2 integers, got \(2, 4\)"),
    ):
        with pytest.raises(ValueError, match=said):
            net(*arguments)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "import numpy as np\ndef scale(x):\n    return np.sqrt(2) * x\n",
            "imports numpy, allowed: torch",
        ),
        (
            "def scale(x):\n    import diffusers\n    return x\n",
            "imports diffusers, allowed: torch",
        ),
        ("from math import *\ndef scale(x):\n    return sqrt(2) * x\n", "'sqrt' is not defined"),
        (
            "from json import dumps as math\ndef scale(x):\n    return math\n",
            "two things called math, of math and of json.dumps",
        ),
        (
            "n = [1]\nn.append(1)\ndef scale(x):\n    return len(n) * x\n",
            "other values",
        ),
    ],
    ids=["imports", "imports-inside", "star", "names", "state"],
)
def test_what_needs_more_than_torch_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    """Networks of one's own, which do their work in a function beside them."""
    name = f"mine_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(
        "from torch import nn\nfrom scoremodel.networks.base import NETWORKS\n"
        f"{text}@NETWORKS.register({name!r}, dimensions=1)\n"
        "class Mine(nn.Module):\n    def __init__(self, features, classes=None):\n"
        "        super().__init__()\n    def forward(self, x, c_noise, labels=None):\n"
        "        return scale(x)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    __import__(name)
    try:
        denoiser = scoremodel.Denoiser({"kind": name}, scoremodel.VE(), (3,), [0.0] * 3, 1.0)
        with pytest.raises(ValueError, match=said) as error:
            write_standalone(denoiser, tmp_path, "mine")
        assert "\n" not in str(error.value)
    finally:
        del NETWORKS._known[name]

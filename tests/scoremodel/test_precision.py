"""bfloat16 in the network's calls and nowhere else, on the CPU and by CUDA's own list of casts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from scoremodel.denoiser import Denoiser
from scoremodel.networks import embedding, mlp, unet
from scoremodel.networks.base import build_network
from scoremodel.oracles import GaussianMixture
from scoremodel.precision import autocast, resolve_precision
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP
from scoremodel.samplers.base import SAMPLERS, Sampler
from scoremodel.samplers.heun import Heun
from scoremodel.samplers.sampling import sample
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import train

UNET = {"kind": "unet", "width": 16, "multipliers": [1, 2], "attention_levels": [1]}
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def made(network: dict[str, Any], shape: tuple[int, ...], std: float, **options: Any) -> Denoiser:
    """Return a model on VE with random weights of this size."""
    torch.manual_seed(0)
    model = Denoiser(network, VE(), shape, [0.0] * shape[0], 0.5, **options).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=std)
    return model


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_on_a_card_that_has_it(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert resolve_precision("auto", CUDA) == ("bfloat16" if native else "float32")
    assert resolve_precision("auto", CPU) == "float32"
    assert resolve_precision("bfloat16", CPU) == resolve_precision("bfloat16", CUDA) == "bfloat16"
    assert resolve_precision("float32", CUDA) == "float32"


@pytest.fixture(scope="module")
def trained() -> Denoiser:
    """Return a small model of two modes, class-conditional."""
    mixture = GaussianMixture([[-0.6, -0.6], [0.6, 0.6]], [0.1, 0.1], [0.7, 0.3], torch.float32)
    data, labels = mixture.sample(2000, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    network = {"kind": "mlp", "width": 64, "depth": 2}
    model = Denoiser(network, VE(), (2,), data.mean(0).tolist(), float(data.std()), classes=2)
    config = TrainingConfig(
        steps=150, learning_rate=5e-3, ema_half_lives=(4_000,), label_dropout=0.2
    )
    return train(model, data, config, 0, labels=labels).denoiser


@pytest.mark.parametrize("kind", [kind for kind in SAMPLERS if kind != "runge_kutta"])
def test_samples_in_bfloat16_are_float32_s_but_for_rounding(kind: str, trained: Denoiser) -> None:
    """To 0.3 % of the data's width, root mean square; the noise is the same and so are the calls."""
    options: dict[str, Any] = {"steps": 12}
    if kind == "langevin":
        options |= {"step_size": 0.02, "ratio": 0.3}
    sampler: Sampler = SAMPLERS.make(kind, **options)
    seen: set[torch.dtype] = set()
    inside: set[torch.dtype] = set()
    hook = trained.network.blocks[0].inner.register_forward_hook(  # type: ignore[union-attr,index]
        lambda _module, _inputs, out: inside.add(out.dtype)
    )
    given: dict[str, Any] = {"labels": torch.arange(64) % 2, "guidance": 1.5}
    plain = sample(trained, sampler, 64, 0, **given)
    assert inside == {torch.float32}
    inside.clear()
    rounded = sample(
        trained,
        sampler,
        64,
        0,
        precision="bfloat16",
        callback=lambda _, x: seen.add(x.dtype),
        **given,
    )
    hook.remove()
    assert inside == {torch.bfloat16}
    assert seen == {rounded.x.dtype} == {torch.float32}
    assert rounded.nfe == plain.nfe
    away = float((rounded.x - plain.x).square().mean().sqrt()) / trained.std
    assert 0 < away < 0.003


def test_auto_on_a_cpu_changes_no_bit(trained: Denoiser) -> None:
    plain, chosen = (
        sample(trained, Heun(4), 16, 0, precision=one).x for one in ("float32", "auto")
    )
    assert torch.equal(chosen, plain)


def test_bfloat16_is_for_networks_in_float32() -> None:
    model = made({"kind": "mlp"}, (2,), 0.1).double()
    with pytest.raises(
        ValueError, match=r"precision: 'bfloat16' is not allowed of a model in torch\."
    ):
        sample(model, Heun(2), 4, 0, precision="bfloat16")
    plain, chosen = (sample(model, Heun(2), 4, 0, precision=one).x for one in ("float32", "auto"))
    assert torch.equal(chosen, plain)
    with pytest.raises(ValueError, match="precision need a model that is a Denoiser"):
        sample(lambda x, t: x, Heun(2), 4, 0, process=VP(), shape=(2,), precision="bfloat16")
    with pytest.raises(ValueError, match=r"sample: precision: 'half' is not allowed, allowed: "):
        sample(model, Heun(2), 4, 0, precision="half")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("network", "shape"),
    [(UNET, (1, 8, 8)), ({"kind": "mlp", "depth": 1}, (2,))],
    ids=["unet", "mlp"],
)
def test_the_last_layers_are_float32(
    network: dict[str, Any], shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where F is the noise, what is lost of it is lost r times of D: at r = 100, for training too."""
    model = made(network, shape, 0.1, preconditioning="noise")
    draw = torch.Generator().manual_seed(1)
    x = 100 * torch.randn(256, *shape, generator=draw)
    t = VE().t_of_ratio(torch.tensor(100.0)).clamp(max=1).expand(256)
    with torch.no_grad():
        exact = model(x, t)
        found = model.along(VE(), precision="bfloat16")(x, t)
        with autocast("bfloat16", CPU):  # as the training has it
            assert torch.equal(model(x, t), found)
            f = model.network(x / 100, torch.ones(256))
        assert f.dtype == torch.float32
        assert not torch.equal(f, f.bfloat16().float())
        for module in (unet, mlp):
            monkeypatch.setattr(module, "in_float32", lambda last, h: last(h))
        without = model.along(VE(), precision="bfloat16")(x, t)
    error, error_without = (float((one - exact).square().mean().sqrt()) for one in (found, without))
    assert error < 0.75 * error_without


class _Types(TorchDispatchMode):
    """The types of what leaves each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, torch.dtype]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, tuple | list) else out
        if isinstance(first, Tensor):
            self.found[func.overloadpacket.__name__, first.dtype] += 1
        return out


@contextmanager
def cuda_autocast(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Types]:
    """Compute nothing, on a CUDA device that need not be there, under torch's own autocast for CUDA."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Stand in for the kernels, whose choice asks the card."""
        assert q.dtype == k.dtype == v.dtype
        return (q @ k.transpose(-1, -2)).softmax(-1).to(v.dtype) @ v

    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(functional, "scaled_dot_product_attention", attention)
    with torch.autocast("cuda", torch.bfloat16), _Types() as types:
        yield types


def test_norms_and_skips_stay_in_bfloat16_under_cuda_s_autocast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What moves float32 is the noise level's embedding and the last layers, nothing else."""
    with FakeTensorMode(), torch.no_grad():
        with torch.device("cuda"):
            network = build_network(UNET, (3, 7, 7))
            x, c_noise = torch.empty(2, 3, 7, 7), torch.empty(2)
        with cuda_autocast(monkeypatch) as types:
            # What the list does to a norm and to enlarging, so that the rest says something.
            plain = torch.empty(2, 4, 4, 16, dtype=torch.bfloat16, device="cuda")
            assert functional.layer_norm(plain, (16,)).dtype == torch.float32
            assert functional.interpolate(plain, size=7, mode="nearest").dtype == torch.float32
            types.found.clear()
            out = network(x, c_noise)
    assert out.dtype == torch.float32
    assert out.device == torch.device("cuda:0")
    found = types.found
    norms = sum(isinstance(one, nn.LayerNorm) for one in network.modules())
    assert found["native_layer_norm", torch.bfloat16] == norms - 1
    assert found["native_layer_norm", torch.float32] == 1  # the last
    assert found["upsample_nearest2d", torch.bfloat16] == 1
    for name, kept in (
        ("upsample_nearest2d", 0),
        ("addcmul", 0),
        ("avg_pool2d", 0),
        ("add", 0),
        ("cat", 1),  # sines and cosines
        ("silu", 1),  # the last
        ("convolution", 1),  # the last
        ("addmm", 0),
    ):
        assert found[name, torch.float32] == kept, name
        assert found[name, torch.bfloat16] > 0, name


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        # Sines and cosines are joined, and the image is what enters; the last layers are float32.
        ("ddpmpp", {"native_group_norm": 1, "silu": 1, "convolution": 1, "cat": 1}),
        ("ncsnpp", {"native_group_norm": 1, "silu": 1, "convolution": 1, "cat": 1}),
        ("adm", {"native_group_norm": 1, "silu": 1, "convolution": 1, "cat": 1}),
        # 54 norms of weights and of pixels, a number for each row, get their 1e-4.
        ("edm2", {"silu": 0, "convolution": 1, "cat": 1, "add": 54}),
    ],
)
def test_the_published_networks_stay_in_bfloat16_under_cuda_s_autocast(
    kind: str, kept: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"kind": kind, "width": 16, "multipliers": [1, 2], "blocks": 1}
    with FakeTensorMode(), torch.no_grad():
        with torch.device("cuda"):
            network = build_network({**config, "attention_resolutions": [4]}, (3, 8, 8))
            x, c_noise = torch.empty(2, 3, 8, 8), torch.empty(2)
        with cuda_autocast(monkeypatch) as types:
            out = network(x, c_noise)
    assert out.dtype == torch.float32
    of_images = ("native_group_norm", "silu", "convolution", "cat")
    for name in (*of_images, "add", "addcmul", "avg_pool2d", "upsample_nearest2d", "lerp", "clamp"):
        assert types.found[name, torch.float32] == kept.get(name, 0), name
    for name in kept:
        assert types.found[name, torch.bfloat16] > 0, name


def test_a_norm_in_bfloat16_is_float32_s_but_for_rounding() -> None:
    torch.manual_seed(0)
    norm = unet._Norm(16)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 3 + 10 * torch.randn(2, 16, 5, 5)
    with torch.no_grad():
        exact = nn.LayerNorm.forward(norm, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        assert torch.equal(norm(x), exact)
        with autocast("bfloat16", CPU):
            rounded = norm(x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=2e-2, atol=4e-2)


def test_a_training_s_last_layer_gets_float32_gradients() -> None:
    layer = nn.Linear(4, 2)
    with autocast("bfloat16", CPU):
        h = torch.ones(3, 4, dtype=torch.bfloat16, requires_grad=True)
        out = embedding.in_float32(layer, h)
    assert out.dtype == torch.float32
    out.sum().backward()  # type: ignore[no-untyped-call]
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    assert h.grad is not None
    assert h.grad.dtype == torch.bfloat16

"""The published networks: their sizes, their parts against other ways to compute them, and in use."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from scipy.signal import correlate2d, upfirdn
from torch import Tensor, nn
from torch.nn import functional

from scoremodel.denoiser import Denoiser, as_channels_last
from scoremodel.io.denoisers import load, save
from scoremodel.io.standalone import write_standalone
from scoremodel.networks.base import allow_second_derivatives, build_network
from scoremodel.networks.edm2 import EDM2, UnitWeights, mp_cat, mp_silu, mp_sum, normalised
from scoremodel.networks.residual import GroupNorm, Resampling, ResidualUNet, told_as
from scoremodel.networks.song import NCSNPP
from scoremodel.processes.ve import VE
from scoremodel.processes.vp import VP
from scoremodel.training.config import TrainingConfig
from scoremodel.training.loop import train
from tasks.params.memory import _Weightless

CIFAR, IMAGENET, SHAPE = (3, 32, 32), (3, 64, 64), (3, 8, 8)
SMALL: dict[str, Any] = {
    "width": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "attention_resolutions": [4],
}
NETWORKS: dict[str, dict[str, Any]] = {
    "ddpmpp": {"kind": "ddpmpp", **SMALL},
    "ncsnpp": {"kind": "ncsnpp", **SMALL},
    "adm": {"kind": "adm", **SMALL, "head_channels": 4},
    "edm2": {"kind": "edm2", **SMALL, "head_channels": 4},
}


def small(kind: str, classes: int | None = None, std: float = 0.3, **more: Any) -> nn.Module:
    """Return a small network whose weights are all drawn: fresh ones end with zeros."""
    torch.manual_seed(0)
    network = build_network({**NETWORKS[kind], **more}, (3, 8, 8), classes)
    for weight in network.parameters():
        nn.init.normal_(weight, std=std)
    return network


def images(count: int = 4, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(count, 3, 8, 8, generator=draw, dtype=dtype)
    return x, torch.linspace(-1, 1, count, dtype=dtype)


@pytest.mark.parametrize(
    ("config", "shape", "classes", "count"),
    [
        # Song et al. 2021: 61.80, 106.63, 62.76 and 107.59 M.
        ({"kind": "ddpmpp"}, CIFAR, None, 61_804_419),
        ({"kind": "ddpmpp", "blocks": 8}, CIFAR, None, 106_632_579),
        ({"kind": "ncsnpp"}, CIFAR, None, 62_758_787),
        ({"kind": "ncsnpp", "blocks": 8}, CIFAR, None, 107_586_947),
        # Karras et al. 2022: 55.73 M, for FFHQ 61.8 M, for ImageNet 295.9 M.
        ({"kind": "ddpmpp", "multipliers": [2, 2, 2], "augmented": True}, CIFAR, None, 55_733_891),
        ({"kind": "ddpmpp", "multipliers": [2, 2, 2], "augmented": True}, CIFAR, 10, 55_735_299),
        ({"kind": "ddpmpp", "augmented": True}, IMAGENET, None, 61_805_571),
        ({"kind": "adm"}, IMAGENET, 1000, 295_899_267),
        # Karras et al. 2024: 125, 280, 498 and 777 M.
        ({"kind": "edm2", "width": 128}, IMAGENET, 1000, 124_710_821),
        ({"kind": "edm2"}, IMAGENET, 1000, 280_209_253),
        ({"kind": "edm2", "width": 256}, IMAGENET, 1000, 497_803_045),
        ({"kind": "edm2", "width": 320}, IMAGENET, 1000, 777_492_197),
    ],
)
def test_the_number_of_parameters_is_the_published_one(
    config: dict[str, Any], shape: Sequence[int], classes: int | None, count: int
) -> None:
    with _Weightless():
        network = build_network(config, shape, classes)
    assert sum(weight.numel() for weight in network.parameters()) == count


def test_the_page_s_counts_are_the_networks() -> None:
    page = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+): (\{.*?\})` \| ([\d.]+) \| (CIFAR|ImageNet)", page, re.MULTILINE)
    assert len(rows) == 8
    for kind, keys, count, data in rows:
        config = {"kind": kind, **YAML(typ="safe").load(keys)}
        with _Weightless():
            network = build_network(config, *((CIFAR,) if data == "CIFAR" else (IMAGENET, 1000)))
        total = sum(weight.numel() for weight in network.parameters())
        assert f"{total / 1e6:.2f}" == count, (kind, keys)


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_does_not_fit_the_images_gets_a_line(kind: str) -> None:
    line = "at most 2 of them, one a level, for images of 28×14 pixels, which are halved"
    with pytest.raises(ValueError, match=rf"{kind}: multipliers: \[1, 2, 2\] is not .*{line}"):
        build_network({**NETWORKS[kind], "multipliers": [1, 2, 2]}, (1, 28, 14))
    line = r"\[16\] is not allowed, allowed: some of 28, 14, the longer sides"
    with pytest.raises(ValueError, match=rf"{kind}: attention_resolutions: {line}"):
        build_network({**NETWORKS[kind], "attention_resolutions": [16]}, (1, 28, 14))
    if "head_channels" in NETWORKS[kind]:
        with pytest.raises(ValueError, match=r"head_channels: 5 is not allowed, .* of the 16 chan"):
            build_network({**NETWORKS[kind], "head_channels": 5}, (3, 8, 8))


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_resampling_is_scipy_s_filter_along_each_axis(taps: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    down, up = Resampling("down", taps).double(), Resampling("up", taps).double()
    line, edge = np.array(taps) / sum(taps), (len(taps) - 1) // 2
    shorter = longer = x.numpy()
    for axis in (2, 3):
        first = len(taps) - 1 - edge
        kept = range(first, first + shorter.shape[axis], 2)
        shorter = upfirdn(line, shorter, axis=axis).take(kept, axis)
        kept = range(edge, edge + 2 * longer.shape[axis])
        longer = upfirdn(2 * line, longer, up=2, axis=axis).take(kept, axis)
    torch.testing.assert_close(down(x), torch.from_numpy(shorter))
    torch.testing.assert_close(up(x), torch.from_numpy(longer))


def test_the_image_is_filtered_halved_and_convolved() -> None:
    """One kernel of 6×6 at every second pixel, zeros outside."""
    network = NCSNPP(
        3, width=4, multipliers=(1, 1), blocks=1, attention_resolutions=(), resolution=8
    )
    (layer,) = network.double().inputs
    x, _ = images(1, torch.float64)
    line = np.array([1, 3, 3, 1]) / 8
    with torch.no_grad():
        found = layer(x)
    padded = np.pad(x[0].numpy(), [(0, 0), (2, 2), (2, 2)])
    for out in range(4):
        wanted = sum(
            correlate2d(correlate2d(padded[one], np.outer(line, line), "valid"),
                        layer.weight[out, one].detach().numpy(), "valid")[::2, ::2]
            for one in range(3)
        )  # fmt: skip
        np.testing.assert_allclose(found[0, out].numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "groups"), [(4, 1), (24, 6), (60, 15), (128, 32), (384, 32), (180, 30), (3, 1)]
)
def test_groups_are_32_or_of_four_channels_or_what_divides(channels: int, groups: int) -> None:
    norm = GroupNorm(channels, 1e-6)
    assert norm.num_groups == groups
    x = 2 + 3 * torch.randn(2, channels, 5, 5, generator=torch.Generator().manual_seed(0))
    parts = x.reshape(2, groups, -1)
    centred = parts - parts.mean(2, keepdim=True)
    wanted = centred / (centred.square().mean(2, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(norm(x), wanted.reshape(x.shape), rtol=1e-4, atol=1e-5)


def test_networks_are_told_the_noise_level_as_they_were_published() -> None:
    t = torch.linspace(1e-4, 1, 50, dtype=torch.float64)
    c_noise = VP(beta_min=0.1, beta_max=20.0).ratio(t).log() / 4
    torch.testing.assert_close(told_as(c_noise, "vp_time"), 999 * t, rtol=1e-9, atol=0)
    single = told_as(c_noise.float(), "vp_time").double()
    torch.testing.assert_close(single, 999 * t, rtol=2e-5, atol=0)
    # VE of images in [0, 1] has half of the noise that it has on [−1, 1].
    r = VE().ratio(t)
    torch.testing.assert_close(told_as(r.log() / 4, "log_sigma"), (r / 2).log())
    assert told_as(c_noise, "c_noise") is c_noise


def test_song_s_embedding_is_of_sines_then_cosines_and_the_augmentation_is_added() -> None:
    network = small("ddpmpp", 3, told="vp_time", augmented=True).double()
    assert isinstance(network, ResidualUNet)
    condition = network.embedding
    assert condition.table is not None
    assert condition.augmentation is not None
    c_noise = torch.tensor([-0.5, 0.4], dtype=torch.float64)
    numbers = torch.randn(2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = condition(c_noise, torch.tensor([2, -1]), numbers)
    for row, (c, label) in enumerate(zip(c_noise.tolist(), [2, None], strict=True)):
        area = math.log1p(math.exp(8 * c))
        told = 999 * (math.sqrt(0.1**2 + 2 * 19.9 * area) - 0.1) / 19.9
        angles = [told / 10_000 ** (k / 3) for k in range(4)]
        h = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)
        h = h + condition.augmentation.weight @ numbers[row] + condition.table.bias
        if label is not None:
            h = h + math.sqrt(3) * condition.table.weight[:, label]
        h = functional.silu(condition.first.weight @ h + condition.first.bias)
        wanted = functional.silu(condition.second.weight @ h + condition.second.bias)
        torch.testing.assert_close(
            found[row], wanted, rtol=1e-4, atol=1e-5
        )  # float32's frequencies


def test_weights_start_as_published() -> None:
    """Xavier's variance 2 / (fan_in + fan_out), uniform; torch's own in ADM; blocks are their skips."""
    torch.manual_seed(0)
    song = build_network({"kind": "ncsnpp", "width": 64, "blocks": 1}, CIFAR)
    block: Any = song.down[0]  # type: ignore[index]
    limit = math.sqrt(6 / (9 * (64 + 64)))
    assert float(block.conv_in.weight.detach().abs().max()) == pytest.approx(limit, rel=1e-3)
    assert float(block.conv_out.weight.detach().abs().max()) == pytest.approx(
        1e-5 * limit, rel=1e-3
    )
    turns = song.embedding.frequencies / (2 * math.pi)  # type: ignore[operator, union-attr]
    assert float(turns.std()) == pytest.approx(16, rel=4 / math.sqrt(2 * len(turns)))
    adm = build_network({"kind": "adm", "width": 64, "blocks": 1}, IMAGENET, 5)
    block = adm.down[0]  # type: ignore[index]
    assert float(block.conv_in.weight.detach().abs().max()) == pytest.approx(
        1 / math.sqrt(9 * 64), rel=1e-3
    )
    x = torch.randn(2, *IMAGENET, generator=torch.Generator().manual_seed(0))
    assert not adm(x, torch.zeros(2), None).any()


def test_magnitudes_are_kept() -> None:
    """Of N = 10⁶ numbers of N(0, 1) the mean square has a standard error of about sqrt(2 / N)."""
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1000, 400, 1, 1, generator=draw, dtype=torch.float64) for _ in range(2))
    wide = torch.randn(1000, 1200, 1, 1, generator=draw, dtype=torch.float64)
    error = 5 * math.sqrt(2 / a.numel())

    def square(x: Tensor) -> float:
        return float(x.detach().square().mean())

    # The constant itself is rounded to three digits.
    exact = np.polynomial.hermite_e.hermegauss(120)
    known = (exact[1] * (exact[0] / (1 + np.exp(-exact[0]))) ** 2).sum() / math.sqrt(2 * math.pi)
    assert math.sqrt(known) / 0.596 == pytest.approx(1, abs=1e-3)
    assert square(mp_silu(a)) == pytest.approx(known / 0.596**2, abs=3 * error)
    for share in (0.3, 0.5, 1.0):
        assert square(mp_sum(a, b, share)) == pytest.approx(1, abs=error)
        joined = mp_cat(a, wide, share)
        assert square(joined) == pytest.approx(1, abs=error)
        parts = [float(one.square().sum()) for one in joined.split([400, 1200], 1)]
        assert parts[1] / sum(parts) == pytest.approx(
            share**2 / (share**2 + (1 - share) ** 2), abs=error
        )
    torch.testing.assert_close(
        normalised(7 * a).square().mean(1),
        torch.ones(1000, 1, 1, dtype=torch.float64),
        atol=1e-4,
        rtol=0,
    )
    layer = UnitWeights(400, 300, 1).double()
    nn.init.normal_(layer.weight, std=5)
    assert square(layer(a)) == pytest.approx(1, abs=0.02)  # of 300 drawn rows


def test_at_the_start_what_comes_out_has_magnitude_one() -> None:
    """Wherever the noise level is; without its gain it is zero."""
    torch.manual_seed(0)
    network = build_network({"kind": "edm2", "width": 32, "multipliers": [1, 2, 2]}, CIFAR, 5)
    assert isinstance(network, EDM2)
    x, c_noise = torch.randn(8, *CIFAR), torch.linspace(-1.5, 1.5, 8)
    with torch.no_grad():
        assert not network(x, c_noise, None).any()
        nn.init.ones_(network.gain)
        out = network(x, c_noise, torch.arange(8) % 5)
    assert float(out.square().mean().sqrt()) == pytest.approx(1, abs=0.15)


def test_training_sets_rows_to_magnitude_one_and_leaves_them_there() -> None:
    network = small("edm2", std=3.0)
    x, c_noise = images()
    layers = [one.weight for one in network.modules() if isinstance(one, UnitWeights)]
    before = [one.detach().clone() for one in layers]
    with torch.no_grad():
        network(x, c_noise, None)
    network.eval()
    plain = network(x, c_noise, None)
    assert all(torch.equal(one, other) for one, other in zip(layers, before, strict=True))
    network.train()
    first = network(x, c_noise, None)
    assert float((first - plain).norm() / plain.norm()) < 0.01  # what it computes stays
    after = [one.detach().clone() for one in layers]
    for row, old in zip(after, before, strict=True):
        flat = row.flatten(1)
        torch.testing.assert_close(flat.square().mean(1), torch.ones(len(flat)), rtol=2e-5, atol=0)
        directions = functional.cosine_similarity(flat, old.flatten(1))
        torch.testing.assert_close(directions, torch.ones(len(flat)))
    second = network(x, c_noise, None)
    assert torch.equal(second, first)
    assert all(torch.equal(one, other) for one, other in zip(layers, after, strict=True))
    (first.sum() + second.sum()).backward()  # type: ignore[no-untyped-call]
    for weight in layers[2:]:  # what changes a row's length changes nothing
        assert weight.grad is not None
        along = (weight.grad * weight).flatten(1).sum(1)
        assert float(along.abs().max()) < 1e-3 * float(weight.grad.norm() * weight.norm())


def _unit(w: Tensor) -> Tensor:
    """Return rows of norm 1, as `UnitWeights` has them."""
    flat = w.flatten(1)
    n = flat.shape[1]
    return (flat / (1e-4 * math.sqrt(n) + flat.norm(dim=1, keepdim=True))).view_as(w)


@pytest.mark.parametrize("encoder", [True, False])
def test_a_block_of_edm2_is_what_the_paper_draws(encoder: bool) -> None:
    """Written out for one image by sums over channels, in double precision."""
    network = small("edm2").double()
    assert isinstance(network, EDM2)
    ways = network.down if encoder else network.up
    block: Any = next(one for one in ways if one.place.attention and one.place.inside != 16)  # type: ignore[union-attr]
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(1, block.place.inside, 4, 4, generator=draw, dtype=torch.float64)
    embedding = torch.randn(1, 16, generator=draw, dtype=torch.float64)

    def conv(h: Tensor, layer: Any) -> Tensor:
        return functional.conv2d(h, _unit(layer.weight), padding=layer.weight.shape[-1] // 2)

    def pixels(h: Tensor, axis: int) -> Tensor:
        return h / (1e-4 + h.square().mean(axis, keepdim=True).sqrt())

    h = pixels(conv(x, block.skip), 1) if encoder else x
    inner = conv(functional.silu(h) / 0.596, block.conv_in)
    told = 1 + block.gain * (_unit(block.modulation.weight) @ embedding[0])
    inner = conv(functional.silu(inner * told[:, None, None]) / 0.596, block.conv_out)
    base = h if encoder else conv(x, block.skip)
    h = (0.7 * base + 0.3 * inner) / math.sqrt(0.7**2 + 0.3**2)
    qkv = conv(h, block.attention.project_in)[0].flatten(1)  # (3 · heads · d, pixels)
    q, k, v = (pixels(one, 1) for one in qkv.reshape(3, 4, 4, 16))
    weights = (torch.einsum("hcq,hck->hqk", q, k) / 2).softmax(2)
    mixed = torch.einsum("hqk,hck->hcq", weights, v).reshape(1, 16, 4, 4)
    h = (0.7 * h + 0.3 * conv(mixed, block.attention.project_out)) / math.sqrt(0.7**2 + 0.3**2)
    torch.testing.assert_close(block(x, embedding), h)


@pytest.mark.parametrize("kind", NETWORKS)
def test_checkpointing_gives_the_same_gradients(kind: str) -> None:
    found = []
    for checkpointing in (False, True):
        network = small(kind, checkpointing=checkpointing, dropout=0.2)
        x, c_noise = images()
        torch.manual_seed(3)
        network(x, c_noise, None).square().sum().backward()
        found.append([weight.grad for weight in network.parameters()])
    for one, other in zip(*found, strict=True):
        assert one is not None
        assert torch.equal(one, other)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", NETWORKS)
def test_second_derivatives_are_those_of_differences(kind: str) -> None:
    network = small(kind, std=0.2).double().eval()
    allow_second_derivatives(network)
    x, c_noise = images(2, torch.float64)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def gradient(at: Tensor, graph: bool = False) -> Tensor:
        at = at if graph else at.detach().requires_grad_(True)
        out = (at * network(at, c_noise, None)).sum()
        return torch.autograd.grad(out, at, create_graph=graph)[0]

    at = x.clone().requires_grad_(True)
    (exact,) = torch.autograd.grad((gradient(at, graph=True) * v).sum(), at)
    step = 1e-5
    wanted = (gradient(x + step * v) - gradient(x - step * v)) / (2 * step)
    torch.testing.assert_close(exact, wanted, rtol=1e-5, atol=1e-7)


def test_forced_magnitudes_do_not_see_into_how_many_parts_a_batch_is_computed() -> None:
    """A call for each part sets the same weights, so the first gradient is the same but for rounding."""
    data = torch.randint(0, 256, (32, *SHAPE), generator=torch.Generator().manual_seed(0))
    found = []
    for parts in (1, 4):
        torch.manual_seed(0)
        model = Denoiser.for_data(data.to(torch.uint8), NETWORKS["edm2"], VE(), levels=256)
        nn.init.ones_(model.network.gain)  # type: ignore[union-attr, arg-type]
        config = TrainingConfig(steps=2, batch_size=32, parts=parts, log_every=1, warmup_steps=0)
        found.append([row["grad_norm"] for row in train(model, data, config, 0).curves])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_training_in_bfloat16_learns_is_saved_and_stands_alone(kind: str, tmp_path: Path) -> None:
    """Of images that are black or white all over, one a class."""
    torch.manual_seed(0)
    labels = torch.arange(64) % 2
    data = (255 * labels).to(torch.uint8)[:, None, None, None].expand(64, *SHAPE).contiguous()
    model = Denoiser.for_data(data, NETWORKS[kind], VE(), levels=256, classes=2)
    config = TrainingConfig(
        steps=60,
        batch_size=16,
        learning_rate=1e-2,
        warmup_steps=0,
        precision="bfloat16",
        label_dropout=0.1,
        ema_half_lives=(50,),
        log_every=15,
    )
    trained = train(as_channels_last(model), data, config, 0, labels=labels)
    losses = [row["loss"] for row in trained.curves]
    assert losses[-1] < 0.9 * losses[0]
    averaged = trained.averaged[50]
    path = tmp_path / "model.safetensors"
    save(averaged, path)
    again = load(path)
    x, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), 0.5
    assert torch.equal(again(x, t, 1), averaged.eval()(x, t, 1))
    write_standalone(
        averaged, tmp_path, kind
    )  # which compares what the file computes with the model

"""ADM and Song's blocks with diffusers' weights: the same outputs and the same gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scoremodel.networks.base import build_network
from scoremodel.networks.residual import PixelAttention, Place, ResidualBlock
from scoremodel.networks.song import DDPMPP, NCSNPP

pytestmark = pytest.mark.parity
diffusers = pytest.importorskip("diffusers")

Pair = tuple[nn.Parameter, list[nn.Parameter]]
"""A parameter of ours and those of theirs that stand in it, one after the other."""


def layers(*pairs: tuple[Any, Any]) -> Iterator[Pair]:
    for ours, theirs in pairs:
        yield ours.weight, [theirs.weight]
        yield ours.bias, [theirs.bias]


def of_block(ours: Any, theirs: Any, attention: Any = None) -> Iterator[Pair]:
    yield from layers(
        (ours.norm_in, theirs.norm1),
        (ours.conv_in, theirs.conv1),
        (ours.modulation, theirs.time_emb_proj),
        (ours.norm_out, theirs.norm2),
        (ours.conv_out, theirs.conv2),
    )
    if theirs.conv_shortcut is not None:
        yield from layers((ours.skip, theirs.conv_shortcut))
    assert isinstance(ours.skip, nn.Conv2d) == (theirs.conv_shortcut is not None)
    assert isinstance(ours.attention, PixelAttention) == (attention is not None)
    if attention is not None:
        yield from of_attention(ours.attention, attention)


def of_attention(ours: Any, theirs: Any) -> Iterator[Pair]:
    yield from layers((ours.norm, theirs.group_norm), (ours.project_out, theirs.to_out[0]))
    for name in ("weight", "bias"):
        parts = [getattr(one, name) for one in (theirs.to_q, theirs.to_k, theirs.to_v)]
        yield getattr(ours.project_in, name), parts


def joined(ours: Tensor, theirs: list[Tensor]) -> Tensor:
    return torch.cat(theirs).reshape(ours.shape)


def hold(ours: nn.Module, theirs: nn.Module, pairs: list[Pair], given: Any, asked: Any) -> None:
    """Give ours their weights, all drawn; compare outputs, and gradients of every weight and the input."""
    assert {id(one) for one, _ in pairs} == {id(one) for one in ours.parameters()}
    assert {id(one) for _, those in pairs for one in those} == set(map(id, theirs.parameters()))
    torch.manual_seed(0)
    with torch.no_grad():
        for one, those in pairs:
            for weight in those:
                weight.copy_(0.1 * torch.randn(weight.shape) + (one.ndim == 1))
            one.copy_(joined(one, [weight.detach() for weight in those]))
    inputs = [one[0].clone().requires_grad_(True) for one in (given, asked)]
    found, wanted = ours(inputs[0], *given[1:]), theirs(inputs[1], *asked[1:])
    wanted = getattr(wanted, "sample", wanted)
    assert float(wanted.detach().std()) > 1e-3
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    for out in (found, wanted):
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-5, atol=1e-6)
    for one, those in pairs:
        gradients = [weight.grad for weight in those if weight.grad is not None]
        wanted = joined(one, gradients)
        size = float(wanted.abs().max())
        torch.testing.assert_close(one.grad, wanted, rtol=1e-5, atol=1e-6 * max(1.0, size))


def test_adm_is_diffusers_u_net_of_its_kind() -> None:
    theirs = diffusers.UNet2DModel(
        block_out_channels=[128, 256],
        layers_per_block=1,
        down_block_types=["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "ResnetUpsampleBlock2D"],
        downsample_type="resnet",
        upsample_type="resnet",
        attention_head_dim=64,
        attn_norm_num_groups=32,
        resnet_time_scale_shift="scale_shift",
        num_class_embeds=3,
    ).double()
    ours: Any = build_network(
        {
            "kind": "adm",
            "width": 128,
            "multipliers": [1, 2],
            "blocks": 1,
            "attention_resolutions": [4],
        },
        (3, 8, 8),
        3,
    ).double()
    blocks: list[tuple[Any, Any]] = []
    for way, resampled in ((theirs.down_blocks, "downsamplers"), (theirs.up_blocks, "upsamplers")):
        for level in way:
            attentions = getattr(level, "attentions", [None] * len(level.resnets))
            blocks += zip(level.resnets, attentions, strict=True)
            blocks += [(one, None) for one in getattr(level, resampled) or ()]
        if resampled == "downsamplers":
            first, second = theirs.mid_block.resnets
            blocks += [(first, theirs.mid_block.attentions[0]), (second, None)]
    pairs = [
        *layers(
            (ours.embedding.first, theirs.time_embedding.linear_1),
            (ours.embedding.second, theirs.time_embedding.linear_2),
            (ours.enter, theirs.conv_in),
            (ours.leave[0], theirs.conv_norm_out),
            (ours.leave[2], theirs.conv_out),
        )
    ]
    for one, (block, attention) in zip([*ours.down, *ours.up], blocks, strict=True):
        pairs += of_block(one, block, attention)
    # An embedding's rows are a linear layer's columns.
    table = nn.Linear(3, 512, bias=False).double()
    theirs.class_embedding.forward = lambda labels: table(nn.functional.one_hot(labels, 3).double())
    del theirs.class_embedding.weight
    theirs.class_embedding.table = table
    pairs.append((ours.embedding.table.weight, [table.weight]))
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(3, 3, 8, 8, generator=draw, dtype=torch.float64)
    c_noise, labels = torch.tensor([-0.75, 0.0, 1.0], dtype=torch.float64), torch.tensor([0, 2, 1])
    hold(ours, theirs, pairs, (x, c_noise, labels), (x, c_noise, labels))


@pytest.mark.parametrize("how", ["keep", "up", "down"])
@pytest.mark.parametrize("kind", [DDPMPP, NCSNPP])
def test_song_s_block_is_diffusers(kind: type[DDPMPP], how: Any) -> None:
    fir = "fir" if kind is NCSNPP else "sde_vp"
    outside = 256 if how == "keep" else 128
    theirs = diffusers.models.resnet.ResnetBlock2D(
        in_channels=128,
        out_channels=outside,
        temb_channels=32,
        output_scale_factor=2**0.5,
        kernel=fir,
        up=how == "up",
        down=how == "down",
        use_in_shortcut=True,
    ).double()
    ours = ResidualBlock(Place(128, outside, how), 32, kind.style).double()
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(2, 128, 6, 6, generator=draw, dtype=torch.float64)
    embedding = torch.randn(2, 32, generator=draw, dtype=torch.float64)
    # Theirs takes the embedding before its activation.
    given = (x, nn.functional.silu(embedding))
    hold(ours, theirs, list(of_block(ours, theirs)), given, (x, embedding))


def test_song_s_attention_is_diffusers() -> None:
    theirs = diffusers.models.attention_processor.Attention(
        128,
        heads=1,
        dim_head=128,
        rescale_output_factor=2**0.5,
        eps=1e-6,
        norm_num_groups=32,
        residual_connection=True,
        bias=True,
        upcast_softmax=False,
    ).double()
    ours = PixelAttention(128, None, 1e-6, 0.5**0.5).double()
    x = torch.randn(2, 128, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    hold(ours, theirs, list(of_attention(ours, theirs)), (x,), (x,))

"""Random small modules: torch, `irc.evaluate` and the compiled integer library agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import irc

torch: Any = pytest.importorskip("torch", reason="models come from PyTorch: irc-nn[torch]")
nn, F = torch.nn, torch.nn.functional
Module: Any = nn.Module

SIZE = 8
ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.GELU,
    nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus,
)  # fmt: skip
Draw = Callable[[Any], Any]

# ---------------------------------------------------------------- parts: [N, C, H, W] to the like


class Residual(Module):
    """`x + f(x)`."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        return x + self.inner(x)


class Branches(Module):
    """Two convolutions side by side, joined along the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.left = nn.Conv2d(channels, channels // 2, 1)
        self.right = nn.Conv2d(channels, channels // 2, 3, padding=1)

    def forward(self, x: Any) -> Any:
        return torch.cat([self.left(x), F.relu(self.right(x))], 1)


class ChannelsLast(Module):
    """A layer that works on the last axis, over the channels."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        return self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Positions(Module):
    """A layer that works on a sequence, over the flattened positions."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        return self.inner(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


class Gate(Module):
    """Squeeze and excite."""

    def __init__(self, channels: int, gate: Any) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)
        self.gate = gate

    def forward(self, x: Any) -> Any:
        squeezed = F.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * self.gate(self.expand(squeezed))


class SelfAttention(Module):
    """torch's own layer."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.attention(x, x, x, need_weights=False)[0]


class DotProducts(Module):
    """Attention by hand, about `scaled_dot_product_attention`; perhaps of the past alone."""

    def __init__(self, channels: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.qkv, self.project = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.heads, self.causal = heads, causal

    def forward(self, x: Any) -> Any:
        n, length, channels = x.shape
        split = self.qkv(x).reshape(n, length, 3, self.heads, channels // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.project(mixed.transpose(1, 2).reshape(n, length, channels))


# ---------------------------------------------------------------- how they are drawn


def convolution(draw: Draw, channels: int) -> Any:
    kernel, groups = draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 2, channels]))
    dilation = draw(st.sampled_from([1, 2]))
    return nn.Conv2d(
        channels, channels, kernel, padding=kernel // 2 * dilation, groups=groups,
        dilation=dilation, bias=draw(st.booleans()),
    )  # fmt: skip


def norm(draw: Draw, channels: int) -> Any:
    kinds = [
        nn.BatchNorm2d(channels),
        nn.GroupNorm(2, channels),
        ChannelsLast(nn.LayerNorm(channels)),
    ]
    return draw(st.sampled_from(kinds))


def activation(draw: Draw, _: int) -> Any:
    return draw(st.sampled_from(ACTIVATIONS))()


def pool(draw: Draw, _: int) -> Any:
    """Of either kind, at every place or every other."""
    stride = draw(st.sampled_from([1, 2]))
    ceil = draw(st.booleans())
    if draw(st.booleans()):
        return nn.MaxPool2d(3, stride, padding=1, ceil_mode=ceil)
    return nn.AvgPool2d(3, stride, 1, ceil_mode=ceil, count_include_pad=draw(st.booleans()))


def gate(draw: Draw, channels: int) -> Any:
    return Gate(channels, draw(st.sampled_from([nn.Sigmoid, nn.Hardsigmoid]))())


def linear(draw: Draw, channels: int) -> Any:
    """Over the channels: one layer, or two with more between them."""
    if draw(st.booleans()):
        return ChannelsLast(nn.Linear(channels, channels))
    wide = nn.Linear(channels, 2 * channels)
    return ChannelsLast(nn.Sequential(wide, activation(draw, 0), nn.Linear(2 * channels, channels)))


def attention(draw: Draw, channels: int) -> Any:
    heads = draw(st.sampled_from([1, 2]))
    if draw(st.booleans()):
        return Positions(SelfAttention(channels, heads))
    return Positions(DotProducts(channels, heads, causal=draw(st.booleans())))


INNER = (convolution, linear, attention, gate)


def residual(draw: Draw, channels: int) -> Any:
    """About up to three layers; with a norm first, as transformers have it, or without."""
    layers = [draw(st.sampled_from(INNER))(draw, channels)]
    if draw(st.booleans()):
        layers.insert(0, norm(draw, channels))
    if draw(st.booleans()):
        layers.append(activation(draw, channels))
    return Residual(nn.Sequential(*layers))


PARTS: dict[str, Callable[[Draw, int], Any]] = {
    "activation": activation,
    "attention": attention,
    "branches": lambda _, c: Branches(c),
    "conv": convolution,
    "gate": gate,
    "linear": linear,
    "norm": norm,
    "pool": pool,
    "residual": residual,
}


@st.composite
def modules(draw: Draw) -> Any:
    """A stem, up to five parts, and perhaps a classifier."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    channels = draw(st.sampled_from([4, 8]))
    names = draw(st.lists(st.sampled_from(sorted(PARTS)), max_size=5))
    parts = [nn.Conv2d(3, channels, 3, padding=1), *(PARTS[n](draw, channels) for n in names)]
    if draw(st.booleans()):
        parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)]
    module = nn.Sequential(*parts)
    with torch.no_grad():
        module(torch.randn(16, 3, SIZE, SIZE))  # statistics for the norms
    return module.eval()


# ---------------------------------------------------------------- the property


def three_agree(module: Any, seed: int) -> None:
    """torch and `evaluate` to rounding, the library and `evaluate` of integers to the bit, and
    both kinds within what eight bits lose."""
    samples = torch.randn(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    graph = irc.from_torch(module, samples[:1])
    with torch.no_grad():
        expected = module(samples[:1]).numpy()
    feed = {"input": samples[:1].numpy()}
    size = float(np.abs(expected).max())
    found = irc.evaluate(graph, feed)["output"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * size)

    model = irc.compile(irc.quantize(graph, calibration=samples))
    integers = irc.compile(model.graph, backend="reference")
    compiled = model(feed)["output"]
    np.testing.assert_array_equal(compiled, integers(feed)["output"])
    assert np.abs(compiled - expected).max() < 0.2 * size


@settings(max_examples=4, phases=(Phase.explicit, Phase.generate))
@given(modules(), st.integers(0, 100))
def test_torch_evaluate_and_the_library_agree(module: Any, seed: int) -> None:
    three_agree(module, seed)


@pytest.mark.long
@settings(max_examples=60, phases=(Phase.explicit, Phase.generate))
@given(modules(), st.integers(0, 100))
def test_many_of_them_agree(module: Any, seed: int) -> None:
    three_agree(module, seed)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
@settings(max_examples=2, phases=(Phase.explicit, Phase.generate), derandomize=True)
@given(st.data())
def test_each_part_agrees_alone(part: str, data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    layer = PARTS[part](data.draw, 8)
    three_agree(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), layer).eval(), 0)

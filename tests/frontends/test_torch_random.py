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
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.Sigmoid, nn.LeakyReLU, nn.Tanh)


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


def convolution(draw: Callable[[Any], Any], channels: int) -> Any:
    kernel, groups = draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 2, channels]))
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=groups)


PARTS: dict[str, Callable[[Callable[[Any], Any], int], Any]] = {
    "conv": convolution,
    "norm": lambda _, c: nn.BatchNorm2d(c),
    "activation": lambda draw, _: draw(st.sampled_from(ACTIVATIONS))(),
    "max pool": lambda _, __: nn.MaxPool2d(3, 1, padding=1),
    "average pool": lambda _, __: nn.AvgPool2d(3, 1, padding=1),
    "residual": lambda draw, c: Residual(convolution(draw, c)),
    "branches": lambda _, c: Branches(c),
}


@st.composite
def modules(draw: Callable[[Any], Any]) -> Any:
    """A stem, up to five parts that keep the shape, and perhaps a classifier."""
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


@settings(max_examples=4, phases=(Phase.explicit, Phase.generate))
@given(modules(), st.integers(0, 100))
def test_torch_evaluate_and_the_library_agree(module: Any, seed: int) -> None:
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

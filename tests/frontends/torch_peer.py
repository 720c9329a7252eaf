"""What the tests of the PyTorch frontend share: small modules, and the comparison with torch.

Importing this where there is no torch skips the test file that does.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

import irc
from irc.graph import Graph

torch: Any = pytest.importorskip("torch", reason="models come from PyTorch: irc-nn[torch]")
nn, F = torch.nn, torch.nn.functional
Module: Any = nn.Module


needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None,
    reason="networks come from torchvision: pip install --no-deps torchvision",
)


class Block(Module):
    """A residual block; its activation is called twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Any) -> Any:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.conv2(y)
        y += x
        return self.relu(y)


class Net(Module):
    """A small network with blocks in sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.layers = nn.Sequential(Block(8), Block(8))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(8, 5))

    def forward(self, image: Any) -> Any:
        x = self.layers(self.stem(image))
        return self.head(F.adaptive_avg_pool2d(x, 1))


def net() -> Any:
    torch.manual_seed(0)
    return Net().eval()


def image(n: int = 1) -> Any:
    return torch.rand((n, 3, 8, 8), generator=torch.Generator().manual_seed(n))


def difference(graph: irc.Graph, module: Any, *inputs: Any) -> float:
    """The largest difference from torch, relative to the largest element."""
    with torch.no_grad():
        expected = module(*inputs).numpy()
    feed = {v.name: i.numpy() for v, i in zip(graph.inputs, inputs, strict=True)}
    (found,) = irc.evaluate(graph, feed).values()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


class Function(Module):
    """A function as a module."""

    def __init__(self, f: Callable[..., Any]) -> None:
        super().__init__()
        self.f = f

    def forward(self, *args: Any) -> Any:
        return self.f(*args)


def reals(*shape: int, seed: int = 0) -> Any:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 4 - 2


def agree(module: Any, *inputs: Any, names: Iterable[str] = ("output",)) -> Graph:
    """Import, evaluate, compare with torch; differences count against the largest element.
    `names` say in failures which result differs."""
    made = (module if isinstance(module, Module) else Function(module)).eval()
    graph = irc.from_torch(made, inputs)
    with torch.no_grad():
        expected = made(*inputs)
    several = torch.utils._pytree.tree_leaves(expected)
    feed = {v.name: i.numpy() for v, i in zip(graph.inputs, inputs, strict=True)}
    found = irc.evaluate(graph, feed)
    assert len(found) == len(several)
    called = [*names, *map(str, range(len(several)))]
    for name, array, tensor in zip(called, found.values(), several, strict=False):
        wanted = tensor.numpy()
        assert array.shape == wanted.shape, name
        size = max(1.0, float(np.abs(wanted.astype(np.float64)).max(initial=0)))
        np.testing.assert_allclose(array, wanted, rtol=1e-5, atol=1e-5 * size, err_msg=name)
    return graph

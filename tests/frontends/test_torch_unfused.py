"""Eager quantization-aware training whose activations are not fused with their layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irc
from tests.frontends.torch_peer import Module, image, nn, torch


class Normed(Module):
    """Batch norms that were not fused with their convolutions."""

    def __init__(self) -> None:
        super().__init__()
        ao = torch.ao.quantization
        self.quant, self.dequant = ao.QuantStub(), ao.DeQuantStub()
        self.first, self.norm, self.relu = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
        self.second, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.sum = torch.ao.nn.quantized.FloatFunctional()
        self.head = nn.Linear(8, 5)
        for norm in (self.norm, self.last):
            nn.init.uniform_(norm.weight, -2, 2)

    def forward(self, x: Any) -> Any:
        x = self.relu(self.norm(self.first(self.quant(x))))
        x = self.relu(self.sum.add(self.last(self.second(x)), x))
        return self.dequant(self.head(x.mean((2, 3))))


class Unfused(Module):
    """A ReLU has no scale of its own; a ReLU6 has."""

    def __init__(self) -> None:
        super().__init__()
        ao = torch.ao.quantization
        self.quant, self.dequant = ao.QuantStub(), ao.DeQuantStub()
        self.first, self.relu = nn.Conv2d(3, 8, 3), nn.ReLU()
        self.second, self.six = nn.Conv2d(8, 8, 3, padding=1), nn.ReLU6()
        self.sum = torch.ao.nn.quantized.FloatFunctional()
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = self.relu(self.first(self.quant(x)))
        x = self.relu(self.sum.add(x, self.six(self.second(x))))
        return self.dequant(self.head(x.mean((2, 3))))


def trained(module: Any) -> Any:
    """The module as a few steps of quantization-aware training leave it."""
    module.train().qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
    torch.ao.quantization.prepare_qat(module, inplace=True)
    for _ in range(4):
        module(torch.randn(4, 3, 8, 8))
    return module.apply(torch.ao.quantization.disable_observer).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [Unfused, Normed])
def test_compiles_without_calibration(kind: Any) -> None:
    torch.manual_seed(0)
    module = trained(kind())
    graph = irc.from_torch(module, image())
    model = irc.compile(graph)
    for n in range(4):
        x = torch.randn(1, 3, 8, 8)
        found = model({graph.inputs[0].name: x.numpy()})["output"]
        with torch.no_grad():
            expected = module(x).numpy()
        step = float(module.head.activation_post_process.scale)
        assert np.abs(found - expected).max() < 1.001 * step, n

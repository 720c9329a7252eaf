"""Eager quantization-aware training whose activations are not fused with their layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irc
from tests.frontends.torch_peer import Module, image, nn, torch


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


@pytest.mark.filterwarnings("ignore")
def test_compiles_without_calibration() -> None:
    torch.manual_seed(0)
    module = Unfused().train()
    module.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
    torch.ao.quantization.prepare_qat(module, inplace=True)
    for _ in range(4):
        module(torch.randn(4, 3, 8, 8))
    module.apply(torch.ao.quantization.disable_observer).eval()
    graph = irc.from_torch(module, image())
    found = irc.compile(graph)({graph.inputs[0].name: image().numpy()})["output"]
    with torch.no_grad():
        expected = module(image()).numpy()
    step = float(module.head.activation_post_process.scale)
    assert np.abs(found - expected).max() < 3 * step  # the mean keeps its operand's scale

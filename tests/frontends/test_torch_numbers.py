"""Whole numbers that torch computes in floats, and that become places in tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irc
from tests.frontends.torch_peer import Module, nn, torch


class Positions(Module):
    """Places counted from where their segment begins, as in TAPAS."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step, self.rows, self.head = step, nn.Embedding(20, 8), nn.Linear(8, 4)

    def forward(self, segments: Any) -> Any:
        places = torch.arange(20.0)[None] * self.step
        none = torch.full((1, 4), 19.0 * self.step)
        first = none.scatter_reduce(1, segments, places, "amin", include_self=False).long()
        at = torch.arange(20)[None] * self.step - first.gather(1, segments)
        return self.head(self.rows(at // self.step))


@pytest.mark.parametrize("step", [1, 30])  # 19, which 8 bits hold, and 570
def test_places_that_floats_count_are_exact(step: int) -> None:
    torch.manual_seed(0)
    module = Positions(step).eval()
    samples = [np.random.default_rng(n).integers(0, 4, (1, 20)) for n in range(5)]
    graph = irc.from_torch(module, torch.from_numpy(samples[0]))
    quantized = irc.quantize(graph, calibration=[{"segments": s} for s in samples[1:]])
    with torch.no_grad():
        wanted = module(torch.from_numpy(samples[0])).numpy()
    (found,) = irc.evaluate(quantized, {"segments": samples[0]}).values()
    assert 10 * np.log10(np.sum(wanted**2) / np.sum((found - wanted) ** 2)) > 30
    model = irc.compile(quantized, backend="reference")
    assert next(iter(model({"segments": samples[0]}).values())).dtype == np.int8

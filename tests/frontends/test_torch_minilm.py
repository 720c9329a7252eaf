"""A sentence encoder of BERT's architecture, its mask an input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irc
from irc.graph import Graph
from irc.types import Array

torch: Any = pytest.importorskip("torch", reason="models come from PyTorch: irc-nn[torch]")
minilm: Any = pytest.importorskip("bench.torch_minilm")


def sentence(tokens: int, vocabulary: int) -> dict[str, Any]:
    """Token numbers, the last two of them padding."""
    ids = torch.randint(0, vocabulary, (1, tokens), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(tokens) < tokens - 2).long()[None]
    return {"ids": ids, "mask": mask}


def check(module: Any, feed: dict[str, Any], snr: float) -> None:
    """Float agrees with torch, integers come close."""
    graph: Graph = irc.from_torch(module, feed)
    arrays = {name: tensor.numpy() for name, tensor in feed.items()}
    with torch.no_grad():
        wanted = module(**feed).numpy()
    found = irc.evaluate(graph, arrays)["output"]
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
    model = irc.compile(irc.quantize(graph, calibration=[arrays]), backend="reference")
    ours = reals(model.graph, model(arrays)["output"])
    assert 10 * np.log10((wanted**2).sum() / ((ours - wanted) ** 2).sum()) > snr


def reals(graph: Graph, array: Array) -> Array:
    """Of a result that stays integer because no input is a float."""
    t = graph.outputs[0].type
    return np.asarray((array.astype(np.float64) - t.zero) * t.scale)


def test_a_small_encoder() -> None:
    torch.manual_seed(0)
    check(minilm.MiniLM(minilm.Shape(100, 32, 2, 48, 96, 4, 2)).eval(), sentence(12, 100), 20)


@pytest.mark.slow
def test_trained_weights() -> None:
    module = minilm.trained()
    check(module, sentence(32, 20_000), 12)

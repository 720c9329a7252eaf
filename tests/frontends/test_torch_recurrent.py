"""Recurrent layers as torch computes them."""

from __future__ import annotations

from typing import Any

import pytest

from irc.ops.recurrent import GruState, LstmCell, TanhState
from tests.frontends.torch_peer import agree, nn, reals, torch


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(("bidirectional", "batch_first"), [(False, True), (True, False)])
def test_stacked_layers(kind: str, bidirectional: bool, batch_first: bool) -> None:
    torch.manual_seed(0)
    given: dict[str, Any] = {"bidirectional": bidirectional, "batch_first": batch_first}
    graph = agree(getattr(nn, kind)(4, 3, num_layers=2, **given), reals(5, 2, 4))
    cells = [v for v in graph.order if isinstance(v, LstmCell | GruState | TanhState)]
    steps = 2 if batch_first else 5
    assert len(cells) == 2 * steps * (2 if bidirectional else 1)


def test_given_states() -> None:
    torch.manual_seed(0)

    class Streamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LSTM(4, 3, bias=False)

        def forward(self, x: Any, h: Any, c: Any) -> Any:
            y, (h, c) = self.layer(x, (h, c))
            return y, h, c

    agree(Streamed(), reals(1, 1, 4), reals(1, 1, 3, seed=1), reals(1, 1, 3, seed=2))


def test_other_layers() -> None:
    agree(nn.RNN(4, 3, nonlinearity="relu"), reals(3, 1, 4))
    agree(nn.GRU(4, 3, bias=False), reals(3, 4))  # without a batch


def test_cells() -> None:
    """Torch takes them apart."""
    x, h = reals(2, 4), reals(2, 3, seed=1)
    agree(nn.GRUCell(4, 3), x, h)
    agree(nn.RNNCell(4, 3), x, h)


def test_projected_states() -> None:
    torch.manual_seed(0)
    agree(nn.LSTM(4, 3, proj_size=2), reals(3, 1, 4))
    agree(nn.LSTM(4, 3, 2, proj_size=2, bias=False, bidirectional=True), reals(3, 2, 4))

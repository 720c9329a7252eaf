"""Pools and paddings that only look as if they could be put together: values stay."""

from __future__ import annotations

import numpy as np
import pytest

from irc.graph import Graph
from irc.ops.activation import Clip
from irc.ops.core import Input
from irc.ops.pool import AvgPool2d, MaxPool2d
from irc.ops.shape import Pad
from irc.passes.float.pooling import RULES, global_pool, pad_into_window
from irc.rewrite import rewrite
from irc.types import DType
from irc.value import Value
from tests.passes.rules import applied, check_equal

X = Input(DType.F32, (1, 2, 2, 3), name="x")
ROUND = ((0, 0), (1, 1), (1, 1), (0, 0))
FAR = ((0, 0), (2, 2), (2, 2), (0, 0))
DEEP = ((0, 0), (1, 1), (1, 1), (0, 1))
END = (0, 0, 1, 1)
WHOLE: dict[str, Value] = {
    "padding counts": AvgPool2d(X, (3, 3), pads=END, count_include_pad=True),
    "taps lie apart": MaxPool2d(X, (2, 2), pads=END, dilations=(2, 2)),
    "pixels are left out": MaxPool2d(X, (1, 2)),
    "windows are several": MaxPool2d(X, (2, 2), pads=END),
}
PADDED: dict[str, Value] = {
    "zeros win": MaxPool2d(Pad(Clip(X, -4.0, -1.0), ROUND), (2, 2)),
    "windows see nothing but zeros": MaxPool2d(Pad(Clip(X, 0.0, 4.0), FAR), (2, 2)),
    "others than zeros": AvgPool2d(Pad(X, ROUND, 1.0), (2, 2)),
    "edges": AvgPool2d(Pad(X, ROUND, mode="edge"), (2, 2)),
    "a window of nothing but zeros": AvgPool2d(Pad(X, FAR), (2, 2)),
    "a window of nothing": Clip(MaxPool2d(Pad(X, FAR, -np.inf), (2, 2)), -9.0, 9.0),
    "a window of padding of both":
        AvgPool2d(Pad(X, ROUND), (2, 2), pads=END, count_include_pad=True),
    "channels": AvgPool2d(Pad(X, DEEP), (2, 2)),
    "padding that does not count": AvgPool2d(Pad(X, ROUND), (2, 2), pads=END),
}


def graph(v: Value) -> Graph:
    return Graph("g", (X,), (v,), ("y",))


@pytest.mark.parametrize("name", [*WHOLE, *PADDED])
def test_what_stays_apart(name: str) -> None:
    before = graph({**WHOLE, **PADDED}[name])
    rule = global_pool if name in WHOLE else pad_into_window
    assert str(applied(rule, before)) == str(before)
    check_equal(before, rewrite(before, RULES))


@pytest.mark.parametrize("v", [
    AvgPool2d(X, (3, 3), pads=END), MaxPool2d(X, (3, 4), pads=(0, 0, 1, 2)),
    MaxPool2d(Pad(Clip(X, 0.0, 4.0), ROUND), (2, 2)), MaxPool2d(Pad(X, ROUND, -np.inf), (3, 3)),
    AvgPool2d(Pad(X, ROUND), (3, 3), pads=END, count_include_pad=True),
])  # fmt: skip
def test_what_goes_together(v: Value) -> None:
    after = rewrite(graph(v), RULES)
    assert len(after.order) < len(graph(v).order) or v.op not in {n.op for n in after.order}
    check_equal(graph(v), after)

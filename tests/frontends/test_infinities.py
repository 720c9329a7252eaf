"""What is not finite among a graph's constants."""

from __future__ import annotations

import numpy as np
import pytest

from irc.frontends.infinities import without_infinities
from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.types import DType


@pytest.mark.parametrize("infinity", [np.inf, -np.inf])
def test_what_nothing_reads_is_finite(infinity: float) -> None:
    """A constant that is an output, too."""
    x = Input(DType.F32, (2,), name="x")
    infinite = Const(np.asarray([1, infinity], np.float32), name="c")
    made = without_infinities(Graph("g", (x,), (x, infinite), ("x", "c")))
    assert all(np.isfinite(v.array).all() for v in made.order if isinstance(v, Const))

"""What calibration never saw but as 0 has a scale that sums can take."""

import numpy as np

import irc
from irc.graph import Graph, evaluate
from irc.ops.cast import Cast
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.logic import Less
from irc.types import DType
from irc.value import Value


def test_spikes_that_calibration_did_not_see_are_counted() -> None:
    """Neurons that none of the samples makes fire: their counts are 0 throughout."""
    x = Input(DType.F32, (1, 8), name="x")
    half = Const(np.asarray(0.5, np.float32))
    fired: list[Value] = [
        Cast(Less(Const(np.asarray(t, np.float32)), x), DType.F32) for t in (2.0, 2.25, 2.5)
    ]
    y: Value = Mul(x, half)
    once = Add(fired[0], fired[1])
    graph = Graph("spikes", (x,), (y, Add(once, fired[2])), ("y", "count"))
    rng = np.random.default_rng(0)
    quiet = [{"x": rng.uniform(-1, 1, (1, 8)).astype(np.float32)} for _ in range(2)]
    model = irc.compile(irc.quantize(graph, quiet))
    for feed in quiet:
        np.testing.assert_allclose(model(feed)["count"], evaluate(graph, feed)["count"])

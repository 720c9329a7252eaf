"""A QDQ graph in exact reals."""

import numpy as np

import irc
from bench.exactly import exact


def test_reals_are_those_of_the_graph_but_for_their_precision() -> None:
    graph = irc.parse(
        """graph @g(%x: f32[1,3]) {
  %q = quantize(%x) {dtype = u8, quant = q(0.5, 3)} : u8[1,3] q(0.5, 3)
  %y = dequantize(%q) : f32[1,3]
  %z = mul(%y, %y) : f32[1,3]
  return %z
}"""
    )
    x = np.array([[0.26, 2.0, -9.0]], np.float32)
    found = exact(graph)({"x": x})
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [[0.25, 4.0, 2.25]])
    np.testing.assert_array_equal(found, irc.evaluate(graph, {"x": x})["z"])

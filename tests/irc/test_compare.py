"""SQNR per layer against its definition."""

import math
from dataclasses import replace

import numpy as np
import pytest

import irc
from irc import driver
from irc.compare import LayerError, compare, explanation, poor_results, worst_first
from irc.errors import DataError

FLOAT = """
graph @g(%x: f32[1,6]) {
  %r = relu(%x) : f32[1,6]
  %y = neg(%r) : f32[1,6]
  return %y
}
"""
INTEGER = """
graph @g(%x: u8[1,6] q(0.5, 128)) {
  %r = requantize(%x) {m = 1073741824, s = 30, clamp = [128, 255]} : u8[1,6] q(0.5, 128)
  return %r
}
"""


def test_sqnr_is_signal_over_noise() -> None:
    x = np.array([[0.1, 0.7, 1.2, -3.0, 2.0, 0.0]], np.float32)
    (error,) = compare(irc.parse(FLOAT), irc.parse(INTEGER), [{"x": x}, {"x": 2 * x}])
    real = np.maximum(np.stack([x, 2 * x]), 0).astype(np.float64)
    ours = 0.5 * np.rint(real / 0.5)
    assert error.name == "r"
    assert error.sqnr == pytest.approx(
        10 * math.log10((real**2).sum() / ((real - ours) ** 2).sum())
    )
    assert error.error == pytest.approx(np.abs(real - ours).max())
    assert error.magnitude == pytest.approx(4.0)


def test_no_error_is_infinite() -> None:
    x = np.array([[0, 1, 2, 3, 4, 5]], np.float32)
    (error,) = compare(irc.parse(FLOAT), irc.parse(INTEGER), [{"x": x}])
    assert error.sqnr == math.inf


def test_no_sample_is_an_error() -> None:
    with pytest.raises(DataError, match="no sample"):
        compare(irc.parse(FLOAT), irc.parse(INTEGER), [])


def test_a_quantized_graph_against_its_float_graph() -> None:
    graph = irc.parse(FLOAT)
    data = {"x": np.random.default_rng(0).normal(0, 1, (32, 6)).astype(np.float32)}
    errors = driver.compare(graph, irc.quantize(graph, data), data, None)
    assert [e.name for e in errors] == ["y"]
    assert worst_first(errors)[0].sqnr > 30


LENGTH = """
graph @g(%x: f32[4,16]) {
  %squares = mul(%x, %x) : f32[4,16]
  %n = reduce_sum(%squares) {axes = [1], keepdims = true} : f32[4,1]
  %n#2 = sqrt(%n) : f32[4,1]
  %y = add(%n#2, %n#2) : f32[4,1]
  return %y
}
"""


def test_a_part_of_a_decomposed_operator_is_held_against_that_part() -> None:
    graph = irc.parse(LENGTH)
    data = {"x": np.random.default_rng(0).normal(0, 1, (8, 4, 16)).astype(np.float32)}
    errors = {e.op: e for e in driver.compare(graph, irc.quantize(graph, data), data, None)}
    assert errors["qreduce_sum"].name == "n"
    assert errors["qreduce_sum"].sqnr > 30
    assert errors["qreduce_sum"].magnitude > 20


SQUARE = """
graph @g(%x: f32[1,4,4]) {
  %s = sigmoid(%x) : f32[1,4,4]
  %s#2 = transpose(%s) {perm = [0, 2, 1]} : f32[1,4,4]
  %y = matmul(%s, %s#2) : f32[1,4,4]
  return %y
}
"""


def test_a_function_is_not_held_against_its_transpose() -> None:
    graph = irc.parse(SQUARE)
    data = {"x": np.random.default_rng(0).normal(0, 3, (8, 1, 4, 4)).astype(np.float32)}
    errors = {e.op: e for e in driver.compare(graph, irc.quantize(graph, data), data, None)}
    assert errors["lookup"].sqnr > 30


ATTENTION = """
graph @g(%x: f32[1,4,8], %m: b1[1,1,4]) {
  %k = transpose(%x) {perm = [0, 2, 1]} : f32[1,8,4]
  %a = matmul(%x, %k) : f32[1,4,4]
  %f = const [0.25] : f32[]
  %a#2 = mul(%a, %f) : f32[1,4,4]
  %least = const [-3.4028234663852886e+38] : f32[]
  %none = const [0.0] : f32[]
  %bias = where(%m, %least, %none) : f32[1,1,4]
  %s = add(%a#2, %bias) : f32[1,4,4]
  %p = softmax(%s) {axis = 2} : f32[1,4,4]
  %y = matmul(%p, %x) : f32[1,4,8]
  return %y
}
"""


def test_scores_with_their_factor_and_mask() -> None:
    graph, rng = irc.parse(ATTENTION), np.random.default_rng(0)
    x = rng.normal(0, 1, (8, 1, 4, 8)).astype(np.float32)
    data = {"x": x, "m": rng.random((8, 1, 1, 4)) < 0.3}
    errors = driver.compare(graph, irc.quantize(graph, data), data, None)
    assert {"a", "s", "p", "y"} <= {e.name for e in errors}
    assert all(e.sqnr > 25 and e.magnitude < 20 for e in errors)


def test_masks_that_scores_are_added_to() -> None:
    """-1e9 and a score is rounded to less in magnitude."""
    graph = irc.parse(ATTENTION.replace("-3.4028234663852886e+38", "-1e9").replace("0.25", "9.0"))
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (8, 1, 4, 8)).astype(np.float32)
    data = {"x": x, "m": rng.random((8, 1, 1, 4)) < 0.3}
    errors = {e.name: e for e in driver.compare(graph, irc.quantize(graph, data), data, None)}
    assert errors["s"].sqnr > 25


def test_large_numbers_are_no_masks() -> None:
    graph = irc.parse("""graph @g(%x: f32[1,64]) {
      %f = const [2e9] : f32[]
      %s = sigmoid(%x) : f32[1,64]
      %y = mul(%s, %f) : f32[1,64]
      return %y
    }""")
    data = {"x": np.random.default_rng(0).normal(0, 1, (8, 1, 64)).astype(np.float32)}
    (error,) = driver.compare(graph, irc.quantize(graph, data), data, None)
    assert error.magnitude > 1e9
    assert 30 < error.sqnr < 60


CHAIN = """
graph @g(%x: u8[1,6] q(0.5, 128)) {
  %r = requantize(%x) {m = 1073741824, s = 34, clamp = [0, 255]} : u8[1,6] q(8.0, 128)
  %y = requantize(%r) {m = 1073741824, s = 30, clamp = [0, 255]} : u8[1,6] q(8.0, 128)
  return %y
}
"""
PLAIN = """
graph @g(%x: f32[1,6]) {
  %r = clip(%x) {lo = -1e30, hi = 1e30} : f32[1,6]
  %y = clip(%r) {lo = -1e30, hi = 1e30} : f32[1,6]
  return %y
}
"""


def chain(scale: float) -> list[LayerError]:
    x = scale * np.array([[3.0, -5.0, 7.0, 10.0, -12.0, 6.0]], np.float32)
    return compare(irc.parse(PLAIN), irc.parse(CHAIN), [{"x": x}])


def test_a_layer_by_itself() -> None:
    """The second layer only hands on the noise of the first."""
    first, second = chain(1.0)
    assert first.sqnr == second.sqnr == pytest.approx(first.alone)
    assert second.alone == pytest.approx(second.sqnr)  # what it reads is coarse even if exact


def test_poor_results_are_explained() -> None:
    text = explanation(chain(1.0))
    assert "output y has" in text
    assert "--min-sqnr 20" in text
    assert "The first result below 15 dB is r (requantize)" in text
    assert explanation(chain(5.0)) == ""
    assert explanation([]) == ""


def test_each_poor_output_is_named() -> None:
    """Not the last layer alone, and outputs that are reshaped too."""
    plain = PLAIN.replace("return %y", "%z = reshape(%r) : f32[6]\n  return \"first\" = %z, %y")
    coarse = CHAIN.replace(
        "return %y", "%z = reshape(%r) : u8[6] q(8.0, 128)\n  return \"first\" = %z, %y"
    )
    x = np.array([[3.0, -5.0, 7.0, 10.0, -12.0, 6.0]], np.float32)
    first, second = compare(irc.parse(plain), irc.parse(coarse), [{"x": x}])
    assert (first.outputs, second.outputs) == (("first",), ("y",))
    assert [e.outputs for e in poor_results([first, second])] == [("first",), ("y",)]
    good = replace(second, sqnr=40.0)
    assert poor_results([first, good]) == [first]
    assert "output first has" in explanation([first, good])

"""Biases that bring the means of channels back to float's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import irc
from irc.graph import Graph, evaluate
from irc.ops.activation import Relu
from irc.ops.core import Const, Input
from irc.ops.linear import Linear
from irc.ops.quantization import Dequantize, Quantize
from irc.ops.ranking import ArgMax
from irc.passes.calibration.moments import channel_means
from irc.passes.quantize import sensitivity
from irc.passes.quantize.bias_correction import FEWEST, nearer, recentred
from irc.passes.quantize.sensitivity import Known
from irc.types import Array, DType, Quant
from tests.passes.nets import Net

QUANT = Quant((0.5, 0.25), 0, 0)


def layer(bias: tuple[int, int] = (3, -8)) -> Graph:
    """`y = x + bias`, of biases in units of a half and a quarter."""
    x = Input(DType.F32, (2, 2), name="x")
    b = Dequantize(Const(np.array(bias, np.int32), QUANT, name="b.q"), name="b")
    y = Linear(x, Const(np.eye(2, dtype=np.float32)), b, name="layer")
    return Graph("net", (x,), (y,), ("y",))


def biases(graph: Graph) -> Array:
    (found,) = (v.array for v in graph.order if isinstance(v, Const) and v.name == "b.q")
    return found


def samples(count: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((2, 2)).astype(np.float32)} for _ in range(count)]


def means(graph: Graph, feeds: list[dict[str, Array]]) -> Array:
    return np.stack([channel_means(evaluate(graph, f)["y"]) for f in feeds])


def test_a_bias_makes_up_for_what_is_off_in_every_sample() -> None:
    graph, feeds = layer(), samples(8)
    (y,) = graph.outputs
    made = recentred(graph, {y: means(graph, feeds) + np.array([2.0, -1.0])}, feeds)
    assert biases(made).tolist() == [3 + 4, -8 - 4]
    np.testing.assert_allclose(
        means(made, feeds), means(graph, feeds) + np.array([2.0, -1.0]), atol=1e-6
    )


def test_what_was_computed_on_the_way_is_known() -> None:
    graph, feeds, known = layer(), samples(8), Known()
    (y,) = graph.outputs
    made = recentred(graph, {y: means(graph, feeds) + np.array([2.0, -1.0])}, feeds, run=known)
    for feed in feeds:
        assert (id(made), id(feed)) in known.made
        np.testing.assert_allclose(known(made, feed)["y"], evaluate(made, feed)["y"], atol=1e-6)


def test_what_is_known_is_forgotten_before_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, feeds, known = layer(), samples(8), Known()
    each = known(graph, feeds[0])["y"].nbytes
    monkeypatch.setattr(sensitivity, "MEMORY", 3 * each)
    for feed in feeds[1:]:
        known(graph, feed)
        known(graph, feeds[0])
    assert set(known.made) == {(id(graph), id(feeds[i])) for i in (0, -1, -2)}


def test_what_may_be_chance_is_left_alone() -> None:
    graph, feeds = layer(), samples(8)
    (y,) = graph.outputs
    chance = np.array([1, -1] * 4)[:, None] * np.array([20.0, 30.0]) + 1.0
    made = recentred(graph, {y: means(graph, feeds) + chance}, feeds)
    assert biases(made).tolist() == [3, -8]


def test_of_what_varies_a_part_is_taken() -> None:
    graph, feeds = layer(), samples(8)
    (y,) = graph.outputs
    varying = np.array([1, -1] * 4)[:, None] * np.array([0.0, 8.0]) + 10.0
    made = recentred(graph, {y: means(graph, feeds) + varying}, feeds)
    first, second = (biases(made) - np.array([3, -8])) * np.array([0.5, 0.25])
    # s² = 64 * 8 / 7 / 8: 1 - 4 s² / 100 of the second is certain
    assert first == 10.0
    assert second == pytest.approx(10.0 * (1 - 4 * (64 / 7) / 100), abs=0.25)


def test_few_samples_tell_nothing() -> None:
    graph, feeds = layer(), samples(FEWEST - 1)
    (y,) = graph.outputs
    assert recentred(graph, {y: means(graph, feeds) + 5.0}, feeds) is graph


def test_layers_are_corrected_in_order() -> None:
    """The second layer sees the first one corrected, and has nothing to make up for."""
    graph = layer()
    one = graph.outputs[0]
    b = Dequantize(Const(np.zeros(2, np.int32), QUANT, name="c.q"), name="c")
    two = Linear(one, Const(np.ones((2, 2), np.float32)), b, name="second")
    both = Graph("net", graph.inputs, (two,), ("y",))
    feeds = samples(8)
    first = means(graph, feeds) + 2.0
    made = recentred(both, {one: first, two: first @ np.ones((2, 2))}, feeds)
    assert biases(made).tolist() == [3 + 4, -8 + 8]
    (second,) = (v.array for v in made.order if isinstance(v, Const) and v.name == "c.q")
    assert second.tolist() == [0, 0]


def test_outputs_that_come_out_further_from_float_refute_it() -> None:
    x = Input(DType.F32, (1, 2), name="x")
    b = Dequantize(Const(np.array([0, 0], np.int32), QUANT, name="b.q"), name="b")
    made = Graph("net", (x,), (Linear(x, Const(np.eye(2, dtype=np.float32)), b),), ("y",))
    (y,) = made.outputs
    feeds = [{"x": f["x"][:1]} for f in samples(8)]
    shifted = np.stack([f["x"][0] for f in feeds]) + 5.0
    assert biases(recentred(made, {y: shifted}, feeds)).tolist() == [10, 20]
    assert nearer(made, made, {y: shifted}, feeds) is made


def test_places_of_the_largest_refute_nothing() -> None:
    """An index is no nearer to another for being smaller."""
    x = Input(DType.F32, (1, 2), name="x")
    b = Dequantize(Const(np.array([0, 0], np.int32), QUANT, name="b.q"), name="b")
    y = Linear(x, Const(np.eye(2, dtype=np.float32)), b)
    made = Graph("net", (x,), (ArgMax(y, 1, True),), ("place",))
    feeds = [{"x": f["x"][:1]} for f in samples(8)]
    shifted = np.stack([f["x"][0] for f in feeds]) + np.array([0.0, 9.0])
    assert biases(nearer(made, made, {y: shifted}, feeds)).tolist() == [0, 36]


def test_layers_of_tokens_keep_their_biases() -> None:
    graph, feeds = layer(), samples(8)
    (y,) = graph.outputs
    assert nearer(graph, graph, {y: means(graph, feeds) + 2.0}, feeds) is graph


def drift(graph: Graph, made: Graph, feeds: list[Any]) -> float:
    """How far the means of the outputs' channels are off."""
    (name,) = graph.output_names
    runs = ((evaluate(graph, f)[name], evaluate(made, f)[name]) for f in feeds)
    return float(np.abs(np.mean([channel_means(a - b) for a, b in runs], 0)).max())


def stated(y: Any) -> Any:
    """A value that the model's author has quantized."""
    return Dequantize(Quantize(y, DType.U8, Quant(0.02, 0), name="first.q"), name="first")


@pytest.mark.parametrize("first", [Relu, stated], ids=["float", "quantized in part"])
def test_ranges_that_cut_off_move_no_mean(first: Callable[[Any], Any]) -> None:
    net = Net()
    y: Any = first(net.conv(net.x, 8))
    for _ in range(2):
        y = Relu(net.conv(y, 8))
    graph = net.graph(net.conv(y, 4))
    data = np.abs(net.samples(16))
    feeds = [{"x": x} for x in data]
    without, corrected = (
        irc.quantize(graph, data, method="percentile", percentile=95.0, bias_correction=on)
        for on in (False, True)
    )
    assert drift(graph, corrected, feeds) < 0.2 * drift(graph, without, feeds)

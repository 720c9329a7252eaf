"""Pruning: ties hold, dead channels cost nothing, redundant ones are made up for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

import irc
from irc import driver
from irc.channels import Channels, components
from irc.graph import Graph, evaluate
from irc.ops.activation import Relu
from irc.ops.conv import Conv2d
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.linear import Linear, MatMul
from irc.ops.reduce import ReduceMean
from irc.ops.shape import Concat, Reshape, Slice, Transpose
from irc.ops.softmax import Softmax
from irc.passes.prune import Options, prune
from irc.summary import layers, widths
from irc.types import Array, DType
from irc.value import Value
from tests.passes.nets import Net
from tests.passes.networks import Network


def afters(graph: Graph, ratio: float = 0.5, multiple: int = 1) -> list[int]:
    """Channels that the layers keep."""
    pruned = prune(graph, None, Options(ratio, multiple=multiple))
    assert [v.shape for v in pruned.outputs] == [v.shape for v in graph.outputs]
    evaluate(pruned, {v.name: np.ones(v.shape, np.float32) for v in graph.inputs})
    return [w.after for w in widths(graph, pruned)]


def test_inputs_and_outputs_keep_their_channels() -> None:
    net = Net()
    assert afters(net.graph(net.conv(Relu(net.conv(net.x, 8)), 6))) == [4, 6]


def test_what_is_added_is_pruned_alike() -> None:
    net = Net()
    y = net.conv(net.x, 8)
    z = Add(y, net.conv(Relu(y), 8))
    graph = net.graph(net.conv(z, 3))
    assert afters(graph) == [4, 4, 3]
    pruned = prune(graph, None, Options(0.5, multiple=1))
    first, second, last = (v for v in pruned.order if isinstance(v, Conv2d))
    assert second.w.shape[3] == first.w.shape[0] == second.w.shape[0] == last.w.shape[3] == 4


def test_an_output_fixes_all_that_is_tied_to_it() -> None:
    net = Net()
    y = net.conv(net.x, 8)
    with pytest.raises(irc.IRCError, match="no channels to remove"):
        prune(net.graph(Add(y, net.conv(y, 8))), None, Options(0.5))


def test_a_graph_without_ops_has_no_channels() -> None:
    net = Net()
    with pytest.raises(irc.IRCError, match="no channels to remove"):
        prune(net.graph(net.x), None, Options(0.5))


def test_depthwise_goes_with_its_input() -> None:
    net = Net()
    y = net.conv(net.conv(net.x, 8), 8, groups=8)
    graph = net.graph(net.conv(y, 3, k=1))
    pruned = prune(graph, None, Options(0.5, multiple=1))
    assert [v.groups for v in pruned.order if isinstance(v, Conv2d)] == [1, 4, 1]
    assert [w.after for w in widths(graph, pruned)] == [4, 4, 3]


def test_grouped_convolutions_lose_whole_groups() -> None:
    net = Net()
    y = net.conv(net.conv(net.x, 8), 16, groups=4)
    graph = net.graph(net.conv(y, 3, k=1))
    pruned = prune(graph, None, Options(0.5, multiple=1))
    assert [v.groups for v in pruned.order if isinstance(v, Conv2d)] == [1, 2, 1]
    assert [w.after for w in widths(graph, pruned)] == [4, 8, 3]


def test_concat_and_slice_keep_their_parts_apart() -> None:
    net = Net()
    joined = Concat((net.conv(net.x, 4), net.conv(net.x, 8)), 3)
    half = Slice(joined, (0, 0, 0, 2), (1, 8, 8, 10), (1, 1, 1, 1))
    assert afters(net.graph(net.conv(half, 3))) == [2, 4, 3]


def test_channels_after_a_flatten_live_at_every_position() -> None:
    net = Net(shape=(1, 4, 4, 3))
    y = net.conv(net.x, 8)
    flat = Reshape(y, (1, 4 * 4 * 8))
    planar = Reshape(Transpose(net.conv(net.x, 8), (0, 3, 1, 2)), (1, 8 * 4 * 4))
    graph = net.graph(Add(net.linear(flat, 5), net.linear(planar, 5)))
    pruned = prune(graph, None, Options(0.5, multiple=1))
    assert [v.w.shape for v in pruned.order if isinstance(v, Linear)] == [(5, 64), (5, 64)]


def test_a_channel_shuffle_keeps_its_groups() -> None:
    net = Net()
    y = Reshape(net.conv(net.x, 8), (1, 8, 8, 2, 4))
    shuffled = Reshape(Transpose(y, (0, 1, 2, 4, 3)), (1, 8, 8, 8))
    assert afters(net.graph(net.conv(shuffled, 3))) == [4, 3]


def test_heads_lose_the_same_features() -> None:
    x = Input(DType.F32, (5, 12), name="x")
    rng = np.random.default_rng(0)

    def linear(v: Value, out: int) -> Value:
        return Linear(v, Const(rng.standard_normal((out, v.shape[-1])).astype(np.float32)))

    def heads(v: Value) -> Value:
        return Transpose(Reshape(v, (5, 3, 8)), (1, 0, 2))

    q, k, v = (heads(linear(x, 24)) for _ in range(3))
    weights = Softmax(MatMul(q, Transpose(k, (0, 2, 1))), 2)
    seen = Reshape(Transpose(MatMul(weights, v), (1, 0, 2)), (5, 24))
    graph = Graph("attention", (x,), (linear(seen, 12),), ("y",))
    assert afters(graph) == [12, 12, 12, 12]


def test_squeeze_and_excite_gates_go_with_what_they_scale() -> None:
    net = Net()
    y = net.conv(net.x, 8)
    gate = net.conv(net.conv(ReduceMean(y, (1, 2), True), 4, k=1), 8, k=1)
    assert afters(net.graph(net.conv(Mul(y, gate), 3))) == [4, 2, 4, 3]


@given(seed=st.integers(0, 1000), ratio=st.sampled_from([0.2, 0.5, 0.9]))
def test_random_networks_stay_whole(seed: int, ratio: float) -> None:
    graph = driver.simplify(Network(seed).graph(4))
    try:
        pruned = prune(graph, None, Options(ratio, multiple=1))
    except irc.IRCError as error:
        if "no channels to remove" not in str(error):
            raise
        reject()
    before, after = (sum(row.parameters for row in layers(g)) for g in (graph, pruned))
    assert after <= before
    assert [v.type for v in pruned.outputs] == [v.type for v in graph.outputs]
    x = np.random.default_rng(seed).standard_normal(graph.inputs[0].shape).astype(np.float32)
    evaluate(pruned, {"x": x})
    assert all(0 < w.after <= w.before for w in widths(graph, pruned))


def dead(net: Net, v: Conv2d, every: int) -> Conv2d:
    """The convolution with every n-th output channel made constant 0."""
    assert isinstance(v.w, Const)
    assert isinstance(v.b, Const)
    w, b = v.w.array.copy(), v.b.array.copy()
    w[::every], b[::every] = 0, 0
    return v.replace(w=Const(w), b=Const(b))


def test_dead_channels_are_the_first_to_go_and_cost_nothing() -> None:
    net = Net()
    y = dead(net, net.conv(net.x, 8), 2)
    z = dead(net, net.conv(Relu(y), 12), 2)
    graph = net.graph(net.conv(Relu(z), 3))
    x = {"x": net.samples(1)[0]}
    for samples in (None, [x]):
        pruned = prune(graph, samples, Options(0.5, multiple=1))
        np.testing.assert_allclose(
            evaluate(pruned, x)["y0"], evaluate(graph, x)["y0"], rtol=1e-4, atol=1e-4
        )


def copies(array: Array) -> Array:
    """Second half of the rows a copy of the first."""
    half = len(array) // 2
    return np.concatenate([array[:half], array[:half]])


def test_what_the_rest_tells_is_made_up_for() -> None:
    """Channels 4 to 7 repeat 0 to 3: half of them can go without loss, if the weights follow."""
    net = Net()
    y = net.conv(net.x, 8, k=1)
    assert isinstance(y.w, Const)
    assert isinstance(y.b, Const)
    y = y.replace(w=Const(copies(y.w.array)), b=Const(copies(y.b.array)))
    weights = net.const(3, 1, 1, 8)
    graph = net.graph(Conv2d(Relu(y), weights, None))
    samples = [{"x": x} for x in net.samples(6)]
    want = evaluate(graph, samples[0])["y0"]

    def error(**options: bool) -> float:
        pruned = prune(graph, samples, Options(0.5, multiple=1, **options))
        return float(np.abs(evaluate(pruned, samples[0])["y0"] - want).max())

    kept = np.unique(Channels(graph).of(y, y, 3))
    assert len(kept) == 8
    assert error(compensate=False) > 10 * error(compensate=True)


def test_kept_channels_are_a_multiple() -> None:
    net = Net()
    graph = net.graph(net.conv(net.conv(net.conv(net.x, 20), 3), 2))
    assert afters(graph, 0.5, 8) == [8, 2, 2]
    assert afters(graph, 0.0) == [20, 3, 2]
    assert [Options(0.0).left(n) for n in (3, 10, 27)] == [3, 10, 27]


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 2.0, float("nan")])
def test_ratios_out_of_bounds_are_refused(ratio: float) -> None:
    net = Net()
    with pytest.raises(irc.IRCError, match="must lie in"):
        irc.prune(net.graph(net.x), ratio)


def test_quantized_graphs_are_refused() -> None:
    net = Net()
    graph = net.graph(net.conv(net.conv(net.x, 8), 3))
    with pytest.raises(irc.IRCError, match="prune the float model"):
        irc.prune(irc.quantize(graph, net.samples()), 0.5)


def test_pruned_graphs_quantize_and_compile() -> None:
    net = Net()
    y = Relu(net.conv(net.x, 16))
    graph = net.graph(net.linear(ReduceMean(Relu(Add(y, net.conv(y, 16))), (1, 2), False), 5))
    small = irc.prune(graph, 0.25, net.samples())
    quantized = irc.quantize(small, net.samples())
    feed = {"x": net.samples(1)[0]}
    np.testing.assert_array_equal(
        irc.compile(quantized)(feed)["y0"], irc.compile(quantized, backend="reference")(feed)["y0"]
    )


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29))))
def test_components_are_those_of_a_walk(count: int, edges: list[tuple[int, int]]) -> None:
    edges = [(a % count, b % count) for a, b in edges]
    root = list(range(count))
    for _ in range(count):
        for a, b in edges:
            root[a] = root[b] = min(root[a], root[b])
    ends = np.array(edges, np.int64).reshape(-1, 2)
    assert components(count, ends[:, 0], ends[:, 1]).tolist() == root

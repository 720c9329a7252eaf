"""NHWC inside, and no transposes between image ops."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import irc
from irc.graph import Graph, evaluate
from irc.ops.activation import Relu
from irc.ops.core import Input
from irc.ops.elementwise import Add
from irc.ops.linear import MatMul
from irc.ops.shape import Reshape, Transpose
from irc.parser import parse
from irc.passes import PIPELINES
from irc.passes.float import layout, sink_transposes
from irc.passes.float.canonicalize import Canonicalize
from irc.passes.float.grouping import grouped
from irc.passes.float.layout import Layout
from irc.pipeline import Pipeline
from irc.value import Value
from tests.passes.networks import Network
from tests.passes.rules import AnyRule, check_equal, check_rule, parametrize, random_inputs


@parametrize(
    (*sink_transposes.RULES, *layout.MERGING, layout.transpose_is_reshape, *layout.USE_RULES)
)
def test_rule(rule: AnyRule) -> None:
    check_rule(rule)


def inner_transposes(graph: Graph) -> list[str]:
    """Transposes that stand neither at an input nor at an output."""
    return [
        f"{v.x.op} {v.x.type} {v.perm} -> {[u.op for u in graph.users[v]]}"
        for v in graph.order
        if isinstance(v, Transpose)
        and not isinstance(v.x, Input)
        and not (v in graph.outputs and not graph.users[v])
    ]


def check_layout(graph: Graph) -> None:
    shuffles = "(0, 1, 2, 4, 3)"  # of channels: real work, which has to stay
    assert [t for t in inner_transposes(graph) if shuffles not in t] == []
    assert sum(isinstance(v, Transpose) and isinstance(v.x, Input) for v in graph.order) <= 1


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), blocks=st.integers(0, 6))
def test_random_networks(seed: int, blocks: int) -> None:
    before = Network(seed).graph(blocks)
    after = Layout()(Canonicalize()(before))
    check_equal(before, after)
    check_layout(after)
    assert str(Layout()(after)) == str(after)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), blocks=st.integers(0, 6))
def test_random_quantized_networks(seed: int, blocks: int) -> None:
    before = Network(seed, quantized=True).graph(blocks)
    after = Layout()(before)
    check_layout(after)
    feeds = random_inputs(before)
    a, b = evaluate(before, feeds)["y"], evaluate(after, feeds)["y"]
    # Sums in another order may flip a rounding, by one step of a scale.
    np.testing.assert_allclose(b, a, rtol=0, atol=0.05 * max(1.0, float(np.abs(a).max())))
    constants = [v.operands[0].op for v in after.order if v.op == "dequantize"]
    assert constants.count("const") == sum(v.type.dtype.value == "i8" for v in after.constants)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), blocks=st.integers(0, 6))
def test_whole_pipeline(seed: int, blocks: int) -> None:
    before = Network(seed).graph(blocks)
    after = Pipeline(PIPELINES["float"])(before)
    check_equal(before, after)
    check_layout(after)
    assert not {"batch_norm", "relu", "matmul"} & {v.op for v in after.order}


@pytest.mark.parametrize(
    ("before", "after", "groups"),
    [
        ((2, 3, 4), (2, 12), [((0,), (0,)), ((1, 2), (1,))]),
        ((1, 5, 1, 1), (1, 5), [((0,), (0,)), ((1, 2, 3), (1,))]),
        ((6, 4), (2, 3, 2, 2), [((0,), (0, 1)), ((1,), (2, 3))]),
        ((6, 4), (4, 6), [((0, 1), (0, 1))]),
        ((), (1,), []),
        ((0, 3), (3, 0), []),
    ],
)
def test_groups_of_a_reshape(
    before: tuple[int, ...], after: tuple[int, ...], groups: list[tuple[object, object]]
) -> None:
    assert [(g.before, g.after) for g in grouped(before, after)] == groups


@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=5), data=st.data())
def test_groups_hold_every_axis_once(shape: list[int], data: st.DataObject) -> None:
    size = int(np.prod(shape))
    other: list[int] = []
    while size > 1 or not other:
        d = data.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        other, size = [*other, d], size // d
        if len(other) > 6:
            other, size = [*other, size], 1
    groups = grouped(tuple(shape), tuple(other))
    assert [a for g in groups for a in g.before] == list(range(len(shape)))
    assert [a for g in groups for a in g.after] == list(range(len(other)))
    for g in groups:
        assert np.prod([shape[a] for a in g.before]) == np.prod([other[a] for a in g.after])


def test_pixel_shuffle_before_a_convolution_is_one_transpose() -> None:
    before = parse(
        """graph @g(%x: f32[1,4,4,12], %w: f32[2,1,1,3]) {
          %t = transpose(%x) {perm = [0, 3, 1, 2]} : f32[1,12,4,4]
          %r = reshape(%t) : f32[1,3,2,2,4,4]
          %p = transpose(%r) {perm = [0, 1, 4, 2, 5, 3]} : f32[1,3,4,2,4,2]
          %s = reshape(%p) : f32[1,3,8,8]
          %u = transpose(%s) {perm = [0, 2, 3, 1]} : f32[1,8,8,3]
          %y = conv2d(%u, %w, -) {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1],
            groups = 1} : f32[1,8,8,2]
          return %y
        }"""
    )
    after = Layout()(before)
    check_equal(before, after)
    assert sum(isinstance(v, Transpose) for v in after.order) == 1


def test_attention_gains_no_transpose() -> None:
    before = parse(
        """graph @g(%x: f32[1,4,2,3], %w: f32[6,6]) {
          %t = transpose(%x) {perm = [0, 2, 1, 3]} : f32[1,2,4,3]
          %m = tanh(%t) : f32[1,2,4,3]
          %u = transpose(%m) {perm = [0, 2, 1, 3]} : f32[1,4,2,3]
          %r = reshape(%u) : f32[1,4,6]
          %y = linear(%r, %w, -) : f32[1,4,6]
          return %y
        }"""
    )
    after = Layout()(before)
    check_equal(before, after)
    assert [v.op for v in after.order] == ["input", "input", "tanh", "reshape", "linear"]


def test_float_pipeline_on_a_small_network(golden: Callable[[str], None]) -> None:
    """Stem with an unfolded batch norm, a squeeze-and-excitation block, a residual, a flat head."""
    network = Network(7)
    y: Value = network.conv(network.x, 8, kernel=3)
    y = Relu(network.norm(y))
    y = Add(network.squeeze(y), y)
    y = MatMul(Reshape(y, (1, 288)), network.const(288, 3))
    before = Graph("net", (network.x,), (y,), ("y",))
    after = Pipeline(PIPELINES["float"])(before)
    check_equal(before, after)
    golden(str(after))


def test_convolutions_of_one_dimension_meet_their_activations() -> None:
    """The frontend's normal form of 1-D ops: height 1 by reshape, NHWC by transpose."""
    before = parse(
        """graph @g(%x: f32[1,2,8], %w: f32[2,1,3,2]) {
          %r = reshape(%x) : f32[1,2,1,8]
          %t = transpose(%r) {perm = [0, 2, 3, 1]} : f32[1,1,8,2]
          %c = conv2d(%t, %w, -) {strides = [1, 1], pads = [0, 1, 0, 1], dilations = [1, 1],
            groups = 1} : f32[1,1,8,2]
          %u = transpose(%c) {perm = [0, 3, 1, 2]} : f32[1,2,1,8]
          %s = reshape(%u) : f32[1,2,8]
          %a = relu(%s) : f32[1,2,8]
          %b = add(%a, %x) : f32[1,2,8]
          %q = reshape(%b) : f32[1,2,1,8]
          %v = transpose(%q) {perm = [0, 2, 3, 1]} : f32[1,1,8,2]
          %y = conv2d(%v, %w, -) {strides = [1, 1], pads = [0, 1, 0, 1], dilations = [1, 1],
            groups = 1} : f32[1,1,8,2]
          return %y
        }"""
    )
    after = Layout()(before)
    check_equal(before, after)
    (activation,) = [v for v in after.order if v.op == "relu"]
    assert activation.operands[0].op == "conv2d"
    assert sum(isinstance(v, Transpose) for v in after.order) <= 1


MODELS = sorted((Path(__file__).parents[3] / "examples" / "models").glob("*.onnx"))


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_trained_models_have_no_transpose(path: Path) -> None:
    """One channel in, a vector out: nothing is left to move even at the edges."""
    before = irc.load(path)
    after = Pipeline(PIPELINES["float"])(before)
    check_equal(before, after)
    assert not [v for v in after.order if isinstance(v, Transpose)]
    assert {"batch_norm", "relu"}.isdisjoint(v.op for v in after.order)

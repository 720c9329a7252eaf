"""Moving and selecting against onnxruntime, on floats; and their integer twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from irc.errors import IRCError, TypeCheckError
from irc.graph import Graph, evaluate
from irc.loops import Binary, walk
from irc.ops.cast import Cast
from irc.ops.core import Const, Input
from irc.ops.logic import Equal, Relation
from irc.ops.moving import Moving
from irc.ops.quantization import Requantize
from irc.ops.selection import Gather, Where
from irc.ops.shape import Concat, Expand, Pad, Reshape, Slice, Transpose
from irc.types import Array, DType, Quant, Shape, TensorType
from irc.value import Value
from tests.ops import peer, twins
from tests.ops.sampling import Sample, load_samples

SAMPLES = load_samples()


def i64(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def as_onnx(v: Value, arrays: list[Array]) -> Array:
    """What onnxruntime makes of the node."""
    match v:
        case Reshape():
            return peer.run("Reshape", [*arrays, i64(*v.dims)])
        case Transpose():
            return peer.run("Transpose", arrays, **({"perm": v.perm} if v.perm else {}))
        case Concat():
            return peer.run("Concat", arrays, axis=v.axis)
        case Slice():
            # ONNX counts a stop of -1 from the end: far below means that index 0 is taken.
            stops = i64(*(b if b >= 0 else -(2**31) for b in v.stops))
            over = i64(*range(len(v.starts)))
            return peer.run("Slice", [*arrays, i64(*v.starts), stops, over, i64(*v.steps)])
        case Pad():
            pads = i64(*(p[0] for p in v.pads), *(p[1] for p in v.pads))
            value = np.array(v.value, arrays[0].dtype)
            return peer.run("Pad", [*arrays, pads, value], mode=v.mode)
        case Expand():
            return peer.run("Expand", [*arrays, i64(*v.dims)])
        case Gather():
            return peer.run("Gather", arrays, axis=v.axis)
        case Where():
            return peer.run("Where", arrays)
        case Relation():
            return peer.run(type(v).__name__, arrays)
    raise AssertionError(v.op)


def floating(sample: Sample) -> tuple[Value, dict[Value, Array]]:
    """The sample's node over small floats instead of its integers, and arrays for its operands;
    conditions and indices stay."""
    node, arrays = sample.graph.outputs[0], dict[Value, Array]()

    def real(v: Value) -> Value:
        if isinstance(v, Const):
            arrays[v] = v.array
            return v
        array = sample.feeds[v.name]
        keep = (isinstance(node, Gather) and v is node.indices) or (
            isinstance(node, Where) and v is node.condition
        )
        if keep:
            arrays[v] = array
            return v
        made = Input(DType.F32, v.shape, name=v.name)
        arrays[made] = np.asarray(array.astype(np.int64) % 5 - 2, np.float32)
        return made

    return node.map_operands(real), arrays


@pytest.mark.parametrize(
    "name",
    [
        "reshape", "transpose", "concat", "slice", "pad", "expand", "gather", "where", "equal",
        "less", "less_or_equal",
    ],
)  # fmt: skip
@settings(max_examples=40)
@given(data=st.data())
def test_floats_as_onnx(name: str, data: st.DataObject) -> None:
    node, arrays = floating(data.draw(SAMPLES[name]))
    if isinstance(node, Gather):
        extent = node.x.shape[node.axis]
        arrays[node.indices] = np.asarray(arrays[node.indices].clip(-extent, extent - 1))
    expected = as_onnx(node, [arrays[v] for v in node.operands])
    found = np.asarray(node.call(arrays.__getitem__))
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape == node.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["reshape", "transpose", "slice", "pad", "expand"])
@settings(max_examples=40)
@given(data=st.data())
def test_twins_of_one_operand(name: str, data: st.DataObject) -> None:
    node = data.draw(SAMPLES[name]).graph.outputs[0]
    x = twins.activation(data.draw, "x", node.operands[0].shape)
    changes: dict[str, Any] = {"value": 0.0} if isinstance(node, Pad) else {}
    twins.check_twin(data.draw, node.replace(x=x.real, **changes), (x,))


@given(st.data())
def test_twin_of_concat_requantizes_each_operand(data: st.DataObject) -> None:
    parts = tuple(twins.activation(data.draw, f"x{i}", (2, i + 1, 3)) for i in range(3))
    node = Concat(tuple(p.real for p in parts), 1, name="joined")
    twin = twins.check_twin(data.draw, node, parts)
    assert isinstance(twin, Concat)
    assert twin.name == "joined"


@given(st.data())
def test_twin_of_where_leaves_the_condition(data: st.DataObject) -> None:
    condition = Input(DType.BOOL, (2, 1), name="condition")
    a, b = (twins.activation(data.draw, n, (2, 3)) for n in "ab")
    node = Where(condition, a.real, b.real)
    result = TensorType(DType.U8, (2, 3), Quant(0.5, 3))
    twin = node.quantized((condition, a.integer, b.integer), result)
    assert isinstance(twin, Where)
    assert twin.condition is condition
    assert twin.type == result


def test_twin_of_gather_keeps_indices() -> None:
    at = Const(i64(2, -1), name="at")
    x = Input(DType.U8, (4, 3), Quant(0.5, 3), name="x")
    node = Gather(Input(DType.F32, (4, 3), name="x"), at, 0)
    twin = node.quantized((x, at), TensorType(DType.I8, (2, 3), Quant(0.5, 3)))
    assert isinstance(twin, Requantize)
    assert isinstance(twin.x, Gather)
    assert twin.x.indices is at


def test_pads_take_their_value_in_the_tensors_scale() -> None:
    x = Input(DType.U8, (1,), Quant(0.5, 3), name="x")
    around = ((1, 2),)
    one = np.array([77], np.uint8)
    assert Pad(x, around).evaluate(one).tolist() == [3, 77, 3, 3]
    assert Pad(x, around, 2.0).evaluate(one).tolist() == [7, 77, 7, 7]
    assert Pad(x, around, -np.inf).evaluate(one).tolist() == [0, 77, 0, 0]


def test_slices_from_the_end_to_the_start() -> None:
    x = Input(DType.I32, (5,), name="x")
    found = Slice(x, (4,), (-1,), (-1,)).evaluate(np.arange(5, dtype=np.int32))
    assert found.tolist() == [4, 3, 2, 1, 0]


def test_empty_results() -> None:
    x = Input(DType.F32, (2, 5), name="x")
    assert Slice(x, (0, 3), (2, 3), (1, 1)).shape == (2, 0)
    empty = Slice(x, (0, 5), (2, 5), (1, 1))
    assert empty.evaluate(np.ones((2, 5), np.float32)).shape == (2, 0)
    assert Reshape(empty, (0, 7)).shape == (0, 7)


def test_indices_of_run_time_are_clamped() -> None:
    x, at = Input(DType.I32, (4,), name="x"), Input(DType.I64, (4,), name="at")
    feeds = {"x": np.arange(4, dtype=np.int32), "at": i64(-9, -1, 3, 9)}
    graph = Graph("g", (x, at), (Gather(x, at, 0),), ("y",))
    assert evaluate(graph, feeds)["y"].tolist() == [0, 3, 3, 3]


@pytest.mark.parametrize(
    ("dims", "made"),
    [((2, 3, 4), (2, 3, 4)), ((2, 1, 3), (2, 3)), ((6,), (1, 6, 1)), ((2, 1), (1, 2, 1, 1))],
)
def test_reshapes_that_only_move_ones_do_not_divide(dims: Shape, made: Shape) -> None:
    nest = Reshape(Input(DType.I8, dims, name="x"), made).loops().result
    assert not [e for e in walk(nest.value) if isinstance(e, Binary)]


def test_transposed_scales_move_along() -> None:
    w = Const(np.ones((2, 3), np.int8), Quant((0.5, 0.25), 0, 0))
    assert Transpose(w, (1, 0)).type.quant == Quant((0.5, 0.25), 0, 1)
    with pytest.raises(TypeCheckError, match="scales along an axis"):
        Reshape(w, (6,))


X = Input(DType.F32, (2, 5), name="x")
A = Input(DType.U8, (2,), Quant(0.5, 3), name="a")
B = Input(DType.U8, (2,), Quant(0.5, 4), name="b")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reshape(X, (3, 3)), "does not fit shape"),
        (lambda: Transpose(X, (0, 0)), "does not permute"),
        (lambda: Concat((A, B), 0), "agree in dtype and scale"),
        (lambda: Concat((X, Input(DType.F32, (2, 5, 1), name="y")), 1), "differ in more than"),
        (lambda: Concat((X, X), 2), "axis 2 of a tensor with 2 axes"),
        (lambda: Concat((), 0), "at least one"),
        (lambda: Slice(X, (0,), (2,), (1,)), "per axis"),
        (lambda: Slice(X, (0, 0), (2, 5), (1, 0)), "is not normal"),
        (lambda: Slice(X, (0, 0), (2, 6), (1, 1)), "is not normal"),
        (lambda: Slice(X, (0, 5), (2, -1), (1, -1)), "is not normal"),
        (lambda: Pad(X, ((0, 0),)), "no pairs"),
        (lambda: Pad(X, ((0, 0), (-1, 0))), "no pairs"),
        (lambda: Pad(X, ((2, 0), (0, 0)), mode="reflect"), "can't be padded"),
        (lambda: Pad(X, ((2, 0), (0, 0)), mode="wrap"), "none of constant"),
        (lambda: Expand(X, (5,)), "does not broadcast"),
        (lambda: Gather(X, X, 0), "i32 or i64"),
        (lambda: Gather(X, Const(i64(2)), 0), "index 2"),
        (lambda: Where(X, X, X), "must be b1"),
        (lambda: Equal(A, B), "agree in dtype and scale"),
        (lambda: Cast(A, DType.F32), "must not be quantized"),
    ],
)
def test_bad_operands(make: Callable[[], Value], message: str) -> None:
    with pytest.raises(TypeCheckError, match=message):
        make()


def test_casts_without_integer_code() -> None:
    with pytest.raises(IRCError, match="no integer code"):
        Cast(Input(DType.I64, (2,), name="x"), DType.F32, name="n").loops()
    integer = Cast(X, DType.I64, name="n")
    with pytest.raises(IRCError, match="no integer form"):
        integer.quantized((A,), TensorType(DType.U8, (2, 5), Quant(1.0, 0)))
    between_floats = Cast(X, DType.F64)
    x = Input(DType.U8, (2, 5), Quant(1.0, 0), name="x")
    assert between_floats.quantized((x,), x.type) is x


def test_moving_ops_say_so() -> None:
    assert all(cls.moves for cls in Moving.__subclasses__())


def test_loops_over_nothing() -> None:
    assert Reshape(Input(DType.U8, (2, 0), name="x"), (0, 3)).loops().result.axes[0].extent == 0

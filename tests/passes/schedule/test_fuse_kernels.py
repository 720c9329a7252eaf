"""What goes into one kernel, and what stays outside."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from irc.graph import Graph, evaluate
from irc.ops.core import Const, Input, Kernel
from irc.ops.linear import QLinear, QMatMul
from irc.ops.pool import MaxPool2d
from irc.ops.qelementwise import QAdd
from irc.ops.quantization import Lookup, Requantize
from irc.ops.resize import ResizeNearest
from irc.ops.shape import Concat, Reshape, Slice, Transpose
from irc.passes.schedule.fuse_kernels import FuseKernels, copy_kernel, is_view, wrap
from irc.types import DType, Quant
from irc.value import Value
from tests.backends.graphs import integer_graphs
from tests.backends.harness import examples, same_bits
from tests.ops.sampling import Sample

Q = Quant(0.5, 128)
TABLE = Const(np.arange(255, -1, -1, dtype=np.uint8), name="table")
X = Input(DType.U8, (6, 8), Q, name="x")
Y = Input(DType.U8, (6, 5), Q, name="y")


def linear(x: Value) -> QLinear:
    b, m, s = np.zeros(5, np.int32), np.full(5, 2**30, np.int32), np.full(5, 37, np.int8)
    return QLinear(x, Const(np.ones((5, 8), np.int8)), Const(b), Const(m), Const(s), (0, 255),
                   DType.U8, Q, name="linear")  # fmt: skip


def table(x: Value) -> Lookup:
    return Lookup(x, TABLE, Q)


def add(a: Value, b: Value) -> QAdd:
    return QAdd(a, b, 1 << 20, 1 << 20, 20, (0, 255), DType.U8, Q, name="sum")


def fused(*outputs: Value) -> list[list[str]]:
    """The ops of each kernel, in order."""
    names = tuple(f"y{i}" for i in range(len(outputs)))
    graph = FuseKernels()(Graph("g", (X, Y), outputs, names))
    bodies = [v.body for v in graph.order if isinstance(v, Kernel)]
    return [[v.op for v in body.order if v.operands] for body in bodies]


@examples(80)
@given(integer_graphs())
def test_fusing_changes_no_bit_and_all_work_is_inside(drawn: Sample) -> None:
    graph = FuseKernels()(drawn.graph)
    expected = evaluate(drawn.graph, drawn.feeds)
    same_bits("fused", evaluate(graph, drawn.feeds), expected, graph)
    for v in graph.order:
        assert isinstance(v, Input | Const | Kernel) or is_view(v)


def test_an_elementwise_tail_joins_its_producer() -> None:
    assert fused(table(add(linear(X), Y))) == [["qlinear", "qadd", "lookup"]]


def test_a_product_of_activations_reads_and_writes_transposed() -> None:
    heads = Reshape(X, (6, 2, 4))
    left, right = Transpose(heads, (1, 0, 2)), Transpose(heads, (1, 2, 0))
    product = QMatMul(left, right, 2**30, 40, (0, 255), DType.U8, Q)
    merged = Transpose(product, (1, 0, 2))
    assert fused(merged) == [["transpose", "transpose", "qmatmul", "transpose"]]
    columns_last = Transpose(heads, (2, 1, 0))  # neither k nor columns lie side by side
    product = QMatMul(Const(np.ones((6, 2), np.uint8), quant=Q), columns_last, 2**30, 40, (0, 255),
                      DType.U8, Q)  # fmt: skip
    assert fused(product) == [["transpose"], ["qmatmul"]]


def test_a_value_read_twice_stays_a_result() -> None:
    made = linear(X)
    assert fused(add(table(made), made)) == [["qlinear"], ["lookup", "qadd"]]
    assert fused(table(made), made) == [["qlinear"], ["lookup"]]


def test_of_two_producers_the_later_takes_the_sum() -> None:
    first = table(Y)
    second = linear(X)
    assert fused(add(first, second)) == [["lookup"], ["qlinear", "qadd"]]


def test_of_two_producers_the_wider_takes_the_sum() -> None:
    wide = linear(X).replace(clamp=(-32768, 32767), dtype=DType.I16, quant=Quant(0.5))
    total = QAdd(wide, table(Y), 1 << 12, 1 << 20, 20, (0, 255), DType.U8, Q)
    assert fused(total) == [["lookup"], ["qlinear", "qadd"]]


def test_a_sum_reads_through_what_picks_pixels() -> None:
    image = Reshape(X, (1, 6, 8, 1))
    coarse = Slice(image, (0, 0, 0, 0), (1, 6, 8, 1), (1, 2, 2, 1))
    picked = ResizeNearest(coarse, (6, 8))
    assert fused(add(table(image), picked)) == [["lookup", "resize_nearest", "qadd"]]
    assert fused(add(table(image), picked), picked) == [["resize_nearest"], ["lookup", "qadd"]]


def test_reductions_begin_a_kernel() -> None:
    image = Reshape(table(X), (1, 6, 8, 1))
    assert fused(MaxPool2d(image, (2, 2))) == [["lookup"], ["max_pool2d"]]
    assert fused(linear(table(X))) == [["lookup"], ["qlinear"]]


def test_what_reads_elsewhere_begins_a_kernel() -> None:
    assert fused(Transpose(table(X), (1, 0))) == [["lookup"], ["transpose"]]
    # A table behind a transposition is in step with it.
    assert fused(table(Transpose(X, (1, 0)))) == [["transpose", "lookup"]]


def test_views_stay_outside() -> None:
    part = Slice(X, (0, 0), (6, 4), (1, 1))
    assert fused(table(Reshape(Concat((part, part), 1), (48,)))) == [["lookup"]]
    assert is_view(part)
    assert not is_view(Slice(X, (5, 0), (-1, 4), (-1, 1))), "backwards must be copied"


def test_constants_are_operands_so_that_equal_bodies_can_share_code() -> None:
    graph = FuseKernels()(Graph("g", (X, Y), (table(linear(X)),), ("y",)))
    (kernel,) = (v for v in graph.order if isinstance(v, Kernel))
    assert not kernel.body.constants
    assert sum(isinstance(a, Const) for a in kernel.args) == 5
    assert kernel.args.count(X) == 1


def test_an_operand_used_twice_is_passed_once() -> None:
    graph = FuseKernels()(Graph("g", (X, Y), (add(X, X),), ("y",)))
    (kernel,) = (v for v in graph.order if isinstance(v, Kernel))
    assert kernel.args == (X,)


def test_kernels_are_left_alone() -> None:
    once = FuseKernels()(Graph("g", (X, Y), (table(linear(X)),), ("y",)))
    twice = FuseKernels()(once)
    assert [v.op for v in twice.order] == [v.op for v in once.order]


def test_kernels_are_named_for_their_result() -> None:
    graph = FuseKernels()(Graph("g", (X, Y), (add(linear(X), Y),), ("y",)))
    assert [v.name for v in graph.order if isinstance(v, Kernel)] == ["sum"]


def test_copies_and_single_nodes() -> None:
    requantized = Requantize(X, 2**30, 31, (0, 255), DType.U8, Q, name="r")
    feed = np.arange(48, dtype=np.uint8).reshape(6, 8)
    for kernel in (wrap(requantized), copy_kernel(X)):
        assert kernel.args == (X,)
        made = evaluate(Graph("g", (X,), (kernel,), ("y",)), {"x": feed})["y"]
        expected = feed if kernel.name == "x" else requantized.evaluate(feed)
        assert made.tolist() == expected.tolist()

"""No two live values share memory, and little of it is wasted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given

from irc.graph import Graph, evaluate
from irc.ops.core import Const, Input, Kernel
from irc.ops.qelementwise import QAdd
from irc.ops.quantization import Lookup
from irc.ops.shape import Concat, Pad, Reshape, Slice
from irc.passes.schedule.fuse_kernels import FuseKernels
from irc.passes.schedule.plan import Block, PlanMemory, allocate, lower_bound
from irc.plan import ARENA, Buffer, Plan
from irc.properties import is_scheduled
from irc.types import DType, Quant
from irc.value import Value
from tests.backends.graphs import integer_graphs
from tests.backends.harness import examples, same_bits, schedule
from tests.ops.sampling import Sample
from tests.passes.simulation import Simulation, busiest

Q = Quant(0.5, 128)
TABLE = Const(np.arange(255, -1, -1, dtype=np.uint8), name="table")


def image(name: str = "x", channels: int = 4) -> Input:
    return Input(DType.U8, (1, 3, 5, channels), Q, name=name)


def table(x: Value, name: str = "") -> Lookup:
    return Lookup(x, TABLE, Q, name=name)


def graph_of(*outputs: Value, inputs: tuple[Input, ...]) -> Graph:
    names = tuple(f"y{i}" for i in range(len(outputs)))
    return Graph("net", inputs, outputs, names)


def kernels(graph: Graph) -> list[Kernel]:
    return [v for v in graph.order if isinstance(v, Kernel)]


def buffer(graph: Graph, v: Value) -> Buffer:
    assert graph.plan is not None
    found = graph.plan.buffers[graph.order.index(v)]
    assert found is not None
    return found


@examples(100)
@given(integer_graphs())
def test_every_kernel_finds_what_it_reads(drawn: Sample) -> None:
    for in_place in (False, True):
        scheduled = schedule(drawn.graph, in_place=in_place)
        assert is_scheduled(scheduled)
        try:
            Simulation(scheduled).run()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{scheduled}") from None


@examples(60)
@given(integer_graphs())
def test_copies_change_nothing(drawn: Sample) -> None:
    scheduled = schedule(drawn.graph)
    expected = evaluate(drawn.graph, drawn.feeds)
    same_bits("scheduled", evaluate(scheduled, drawn.feeds), expected, scheduled)


@examples(100)
@given(integer_graphs())
def test_the_arena_is_near_what_is_needed(drawn: Sample) -> None:
    scheduled = schedule(drawn.graph)
    assert scheduled.plan is not None
    least, arena = lower_bound(scheduled), scheduled.plan.arena
    assert busiest(scheduled) <= arena
    assert least <= arena
    # Greedy by size is within a third of the optimum on real nets; each block may lose an
    # alignment's worth.
    assert arena <= 1.5 * least + 64 * (1 + len(kernels(scheduled))), scheduled


@examples(60)
@given(integer_graphs())
def test_working_in_place_never_takes_more(drawn: Sample) -> None:
    inside, outside = (schedule(drawn.graph, in_place=p).plan for p in (True, False))
    assert inside is not None
    assert outside is not None
    assert inside.arena <= outside.arena + 64


def test_the_simulation_sees_a_wrong_plan() -> None:
    """The checker itself: with every arena offset 0, live values overlap."""
    x = image()
    a, b = Pad(x, ((0, 0),) * 3 + ((1, 1),), 0.0), Pad(x, ((0, 0),) * 3 + ((1, 1),), 5.0)
    y = QAdd(a, Pad(b, ((0, 0),) * 4, 0.0), 1 << 20, 1 << 20, 20, (0, 255), DType.U8, Q)
    graph = schedule(graph_of(y, Slice(a, (0,) * 4, (1, 1, 1, 1), (1,) * 4), inputs=(x,)))
    Simulation(graph).run()
    plan = graph.plan
    assert plan is not None
    buffers = tuple(
        dataclasses.replace(b, offset=0) if b is not None and b.base == ARENA else b
        for b in plan.buffers
    )
    wrong = Plan(plan.arena, plan.align, buffers, plan.scratch)
    with pytest.raises(AssertionError, match=r"finds something else|half overlaps|out of order"):
        Simulation(dataclasses.replace(graph, plan=wrong)).run()


# ---------------------------------------------------------------- what is saved


def test_a_concatenation_is_written_by_its_operands() -> None:
    x = image()
    y = Concat((table(x, "a"), table(x, "b")), 3)
    graph = schedule(graph_of(y, inputs=(x,)))
    a, b = kernels(graph)
    assert (buffer(graph, a).base, buffer(graph, b).base) == ("output y0", "output y0")
    assert (buffer(graph, a).offset, buffer(graph, b).offset) == (0, 4)
    assert buffer(graph, a).strides == (120, 40, 8, 1)


def test_nested_concatenations_are_one_place() -> None:
    x = image()
    inner = Concat((table(x), table(x)), 3)
    graph = schedule(graph_of(Concat((table(x), inner), 3), inputs=(x,)))
    assert len(kernels(graph)) == 3
    assert [buffer(graph, k).offset for k in kernels(graph)] == [0, 4, 8]


def test_a_value_twice_in_a_concatenation_is_copied() -> None:
    x = image()
    a = table(x)
    graph = schedule(graph_of(Concat((a, a), 3), inputs=(x,)))
    assert len(kernels(graph)) == 3
    Simulation(graph).run()


def test_an_input_as_an_output_is_copied() -> None:
    x = image()
    graph = schedule(graph_of(x, x, inputs=(x,)))
    assert len(kernels(graph)) == 2
    Simulation(graph).run()


def test_a_reshape_of_a_slice_is_copied_and_of_a_kernel_is_not() -> None:
    x = image()
    part = Slice(x, (0, 0, 0, 1), (1, 3, 5, 3), (1, 1, 1, 1))
    assert len(kernels(schedule(graph_of(table(Reshape(part, (30,))), inputs=(x,))))) == 2
    assert len(kernels(schedule(graph_of(Reshape(table(x), (60,)), inputs=(x,))))) == 1


def test_an_elementwise_kernel_works_in_place() -> None:
    x = image()
    a = Pad(x, ((0, 0),) * 3 + ((0, 4),), 0.0)
    b = Pad(table(a), ((0, 0),) * 3 + ((0, 0),), 0.0)
    c = QAdd(b, a, 1 << 20, 1 << 20, 20, (0, 255), DType.U8, Q)
    d = Pad(c, ((0, 0),) * 3 + ((0, 1),), 0.0)
    graph = schedule(graph_of(d, inputs=(x,)))
    sizes = {b.offset for b in graph.plan.buffers if b and b.base == ARENA}  # type: ignore[union-attr]
    assert len(sizes) == 2, graph


def test_slices_are_addresses() -> None:
    x = image()
    part = Slice(Slice(x, (0, 1, 0, 0), (1, 3, 5, 4), (1, 1, 2, 1)), (0, 0, 1, 1), (1, 2, 3, 3),
                 (1, 1, 1, 1))  # fmt: skip
    graph = schedule(graph_of(table(part), inputs=(x,)))
    (kernel,) = kernels(graph)
    place = buffer(graph, kernel.args[0])
    assert place == Buffer(20 + 8 + 1, (60, 20, 8, 1), "input x")


def test_an_empty_graph_has_an_empty_arena() -> None:
    x = image()
    plan = schedule(graph_of(table(x), inputs=(x,))).plan
    assert plan is not None
    assert plan.arena == 0


def test_allocation_by_hand() -> None:
    early, late = Block(100, birth=0, death=1), Block(100, birth=2, death=3)
    through, short = Block(64, birth=0, death=3), Block(10, birth=1, death=2)
    arena = allocate([early, late, through, short])
    assert early.offset == late.offset == 0
    assert {through.offset, short.offset} == {128, 192}
    assert arena == 256


def test_plan_needs_no_fused_kernels_but_integers() -> None:
    x = image()
    graph = FuseKernels()(graph_of(table(x), inputs=(x,)))
    assert graph.plan is None
    assert PlanMemory()(graph).plan is not None

"""A memory plan, checked by playing it: each byte remembers which element was written to it last,
and every kernel must find the elements that it reads, where it reads them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from irc.compose import compose
from irc.graph import Graph
from irc.loops import Load, Nest, walk
from irc.ops.core import Const, Input, Kernel
from irc.ops.shape import Concat, Reshape, Slice
from irc.plan import ARENA, Buffer
from irc.types import Array, Shape
from irc.value import Value

GARBAGE = -1


def byte_places(b: Buffer, shape: Shape, itemsize: int) -> Array:
    """Byte addresses i64[*shape, itemsize] of every element of a buffer."""
    at: Array = np.zeros(shape, np.int64)
    for axis, stride in enumerate(b.strides):
        steps = np.arange(shape[axis]) * stride * itemsize
        at = at + steps.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return b.offset + at[..., None] + np.arange(itemsize)


@dataclass
class Simulation:
    """Plays a scheduled graph; raises `AssertionError` where its plan is wrong."""

    graph: Graph
    memory: dict[str, Array] = field(default_factory=dict)
    elements: dict[Value, Array] = field(default_factory=dict)
    """Which elements a value consists of, each a number of its own."""
    numbered: int = 0

    def run(self) -> None:
        """Every kernel in order, then the outputs."""
        plan = self.graph.plan
        assert plan is not None
        assert plan.arena % plan.align == 0
        assert len(plan.buffers) == len(plan.scratch) == len(self.graph.order)
        self.buffers = dict(zip(self.graph.order, plan.buffers, strict=True))
        self._memories(plan.arena)
        for v, scratch in zip(self.graph.order, plan.scratch, strict=True):
            self._node(v, scratch)
        for v, name in zip(self.graph.outputs, self.graph.output_names, strict=True):
            buffer = self.buffers[v]
            assert buffer is not None
            assert buffer.base == f"output {name}", f"output {name} lies in {buffer.base}"
            assert buffer.offset == 0, f"output {name} starts at {buffer.offset}"
            assert buffer.is_dense(v.type), f"output {name} has gaps"
            self._check(v, "the caller")

    def _memories(self, arena: int) -> None:
        sizes = {ARENA: arena}
        sizes |= {f"input {v.name}": v.type.nbytes for v in self.graph.inputs}
        sizes |= {f"output {n}": t.nbytes for n, t in self.graph.output_types.items()}
        self.memory = {base: np.full(n, GARBAGE, np.int64) for base, n in sizes.items()}

    def _node(self, v: Value, scratch: int | None) -> None:
        if isinstance(v, Const):
            assert self.buffers[v] is None, "constants have no place"
            return
        match v:
            case Input():
                self._write(v)
            case Reshape(x=x):
                self.elements[v] = self.elements[x].reshape(v.shape)
            case Slice(x=x):
                parts = zip(v.starts, v.stops, v.steps, strict=True)
                self.elements[v] = self.elements[x][tuple(slice(*p) for p in parts)]
            case Concat(xs=xs):
                self.elements[v] = np.concatenate([self.elements[x] for x in xs], v.axis)
            case Kernel():
                self._kernel(v, scratch)
            case _:
                raise AssertionError(f"{v.op} stands outside of a kernel")

    def _kernel(self, v: Kernel, scratch: int | None) -> None:
        temps = compose(v.body).temps
        assert (scratch is not None) == bool(temps), f"%{v.name}: temporaries without scratch"
        if scratch is not None:
            assert scratch % 64 == 0
            nbytes = sum(-(-np.prod(t.shape, dtype=int) * t.element.bits // 8 // 64) * 64
                         for t in temps)  # fmt: skip
            assert scratch + nbytes <= len(self.memory[ARENA])
            self.memory[ARENA][scratch : scratch + nbytes] = GARBAGE
        for a in v.args:
            if not isinstance(a, Const):
                self._check(a, f"kernel %{v.name}")
        self._apart(v, scratch)
        self._write(v)

    def _apart(self, v: Kernel, scratch: int | None) -> None:
        """The result may lie on an operand only if each element is read for itself alone."""
        mine = set(self._places(v).reshape(-1).tolist())
        base = self.buffers[v].base  # type: ignore[union-attr]
        for a, formal in zip(v.args, v.body.inputs, strict=True):
            if isinstance(a, Const) or self.buffers[a].base != base:  # type: ignore[union-attr]
                continue
            places = self._places(a)
            if not mine & set(places.reshape(-1).tolist()):
                continue
            assert np.array_equal(places, self._places(v)), f"%{v.name} half overlaps %{a.name}"
            nests = compose(v.body).nests
            assert len(nests) == 1, f"%{v.name} overwrites %{a.name} between its nests"
            for e in walk(nests[0].value):
                if isinstance(e, Load) and e.source is formal:
                    assert _same_place(e, nests[0]), f"%{v.name} reads %{a.name} out of order"
        if scratch is not None and base == ARENA:
            nbytes = sum(t.element.bits // 8 * int(np.prod(t.shape)) for t in compose(v.body).temps)
            assert not mine & set(range(scratch, scratch + nbytes)), f"%{v.name} on its scratch"

    def _places(self, v: Value) -> Array:
        buffer = self.buffers[v]
        assert buffer is not None
        assert buffer.offset % v.type.dtype.numpy.itemsize == 0, f"%{v.name} is not aligned"
        return byte_places(buffer, v.shape, v.type.dtype.numpy.itemsize)

    def _write(self, v: Value) -> None:
        count = v.type.size
        numbers = self.numbered + np.arange(count).reshape(v.shape)
        self.numbered += count
        self.elements[v] = numbers
        places = self._places(v)
        memory = self.memory[self.buffers[v].base]  # type: ignore[union-attr]
        assert not count or (places.min() >= 0 and places.max() < len(memory)), (
            f"%{v.name} leaves its memory"
        )
        assert len(np.unique(places)) == places.size, f"%{v.name} overlaps itself"
        memory[places] = numbers[..., None]

    def _check(self, v: Value, who: str) -> None:
        places = self._places(v)
        found = self.memory[self.buffers[v].base][places]  # type: ignore[union-attr]
        right = found == self.elements[v][..., None]
        assert right.all(), f"{who} finds something else where %{v.name} ({v.op}) should be"


def _same_place(e: Load, nest: Nest) -> bool:
    """Whether a load reads the element that the nest writes (on an axis of 1, any index is it)."""
    pairs = zip(e.index, nest.axes, strict=True)
    return e.fill is None and all(i is axis or axis.extent == 1 for i, axis in pairs)


def busiest(graph: Graph) -> int:
    """Bytes of arena that no plan can do without: the most that one kernel reads and writes in
    it, counted by the memory that its plan has it touch."""
    simulation = Simulation(graph)
    simulation.run()
    most = 0
    for v in graph.order:
        if isinstance(v, Kernel):
            touched = {
                place
                for o in (v, *v.args)
                if not isinstance(o, Const) and simulation.buffers[o].base == ARENA  # type: ignore[union-attr]
                for place in simulation._places(o).reshape(-1).tolist()
            }
            most = max(most, len(touched))
    return most

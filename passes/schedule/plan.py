"""The memory plan: offsets by lifetime in one static arena, concatenation and slicing by address,
outputs written straight to the caller's memory, elementwise kernels in place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from irc.compose import compose, reads_in_step
from irc.graph import Graph
from irc.loops import Load, walk
from irc.ops.core import Const, Input, Kernel
from irc.ops.shape import Concat, Reshape, Slice, bare
from irc.passes.schedule.fuse_kernels import copy_kernel, wrap
from irc.pipeline import Pass
from irc.plan import ARENA, Buffer, Plan, aligned, dense_strides
from irc.types import Shape
from irc.value import Value

ALIGN = 64


@dataclass(frozen=True)
class PlanMemory(Pass):
    """Give every value its place. Views that can't be mere addresses become copy kernels."""

    name: ClassVar[str] = "plan"
    requires: ClassVar[tuple[str, ...]] = ("integer",)
    ensures: ClassVar[tuple[str, ...]] = ("integer", "scheduled")
    in_place: bool = True

    def run(self, graph: Graph) -> Graph:
        """The same graph with its plan."""
        graph = materialize(graph)
        return dataclasses.replace(graph, plan=_Planner(graph, self.in_place).plan())


# ------------------------------------------------------------ which views are mere addresses


def materialize(graph: Graph) -> Graph:
    """Insert copy kernels so that every view that is left is no more than an address."""
    homes = concat_homes(graph)
    new: dict[Value, Value] = {}
    for v in graph.order:
        made = v.map_operands(new.__getitem__)
        if isinstance(made, Concat):
            made = made.replace(xs=tuple(
                x if homes.get(old) is v and made.xs.count(x) == 1 else copy_kernel(x)
                for old, x in zip(v.operands, made.xs, strict=True)
            ))  # fmt: skip
        elif isinstance(made, Reshape) and not _dense(v.operands[0], homes):
            made = wrap(made)
        new[v] = made
    return graph.with_outputs(_own_outputs(graph, homes, new))


def concat_homes(graph: Graph) -> dict[Value, Value]:
    """For values that can be written straight into a concatenation, that concatenation: the
    first one that takes them. A value that is an output or gets reshaped stays dense."""
    homes: dict[Value, Value] = {}
    outputs = set(graph.outputs)
    for v in graph.order:
        for x in v.operands if isinstance(v, Concat) else ():
            movable = isinstance(x, Kernel | Concat) and x not in homes and x not in outputs
            if movable and not any(isinstance(u, Reshape) for u in graph.users[x]):
                homes[x] = v
    return homes


def _dense(v: Value, homes: Mapping[Value, Value]) -> bool:
    """Whether a value will lie dense in memory."""
    match v:
        case Slice():
            return False
        case Reshape(x=x):
            return _dense(x, homes) if isinstance(x, Reshape) else True
    return v not in homes


def _own_outputs(
    graph: Graph, homes: Mapping[Value, Value], new: Mapping[Value, Value]
) -> tuple[Value, ...]:
    """The outputs; each owns the memory that it is written to, else it becomes a copy."""
    taken: set[Value] = set()
    outputs: list[Value] = []
    for v in graph.outputs:
        root = bare(new[v])
        owns = isinstance(root, Kernel | Concat) and root not in taken and v not in homes
        taken.add(root)
        outputs.append(new[v] if owns else copy_kernel(new[v]))
    return tuple(outputs)


# ------------------------------------------------------------ places


@dataclass(eq=False)
class Block:
    """A piece of memory that lives from its first write to its last read."""

    nbytes: int
    base: str = ARENA
    birth: int = -1
    death: int = -1
    offset: int = 0

    def touch(self, time: int) -> None:
        """Be alive at `time`."""
        self.birth = time if self.birth < 0 else min(self.birth, time)
        self.death = max(self.death, time)

    def meets(self, other: Block) -> bool:
        """Whether both live at one time."""
        return self.birth <= other.death and other.birth <= self.death


@dataclass(frozen=True)
class Place:
    """A view of a block: bytes from its start, and strides in elements."""

    block: Block
    offset: int
    strides: Shape


@dataclass
class _Planner:
    graph: Graph
    in_place: bool
    places: dict[Value, Place] = field(default_factory=dict)
    scratch: dict[Value, Block] = field(default_factory=dict)

    def plan(self) -> Plan:
        """All places, allocated."""
        self._place_roots()
        self._live()
        if self.in_place:
            self._reuse()
        blocks = {p.block: None for p in self.places.values() if p.block.base == ARENA}
        arena = allocate([*blocks, *self.scratch.values()])
        order = self.graph.order
        scratch = tuple(self.scratch[v].offset if v in self.scratch else None for v in order)
        return Plan(arena, ALIGN, tuple(self._buffer(v) for v in order), scratch)

    def _buffer(self, v: Value) -> Buffer | None:
        if isinstance(v, Const):
            return None
        place = self.places[v]
        return Buffer(place.block.offset + place.offset, place.strides, place.block.base)

    def _place_roots(self) -> None:
        """Outputs first, then users before operands, so that a concatenation's place is known
        when its operands ask; what views others follows."""
        order = self.graph.order
        views = [v for v in order if isinstance(v, Reshape | Slice)]
        for v, name in zip(self.graph.outputs, self.graph.output_names, strict=True):
            self._root(bare(v), f"output {name}")
        for v in reversed(order):
            if not isinstance(v, Const | Reshape | Slice):
                base = f"input {v.name}" if isinstance(v, Input) else ARENA
                self._root(v, base)
            if isinstance(v, Concat):
                self._place_operands(v)
        for v in views:
            self.places[v] = self._view(v)

    def _root(self, v: Value, base: str) -> None:
        if v not in self.places:
            self.places[v] = Place(Block(v.type.nbytes, base), 0, dense_strides(v.shape))

    def _place_operands(self, v: Concat) -> None:
        whole, start = self.places[v], 0
        for x in v.xs:
            step = start * whole.strides[v.axis] * v.type.dtype.numpy.itemsize
            self.places[x] = Place(whole.block, whole.offset + step, whole.strides)
            start += x.shape[v.axis]

    def _view(self, v: Value) -> Place:
        whole = self.places[v.operands[0]]
        if isinstance(v, Reshape):
            return Place(whole.block, whole.offset, dense_strides(v.shape))
        assert isinstance(v, Slice)
        item = v.type.dtype.numpy.itemsize
        first = sum(a * s for a, s in zip(v.starts, whole.strides, strict=True)) * item
        strides = tuple(s * t for s, t in zip(whole.strides, v.steps, strict=True))
        return Place(whole.block, whole.offset + first, strides)

    def _live(self) -> None:
        for time, v in enumerate(self.graph.order):
            if not isinstance(v, Kernel):
                continue
            self.places[v].block.touch(time)
            for operand in v.operands:
                if operand in self.places:
                    self.places[operand].block.touch(time)
            temps = compose(v.body).temps
            if temps:
                block = Block(scratch_bytes(v))
                block.touch(time)
                self.scratch[v] = block

    def _reuse(self) -> None:
        """In place: a kernel's result takes the memory of an operand that it reads last and only
        at the same index."""
        for time, v in enumerate(self.graph.order):
            if isinstance(v, Kernel):
                target = self.places[v]
                fit = [a for a in in_place_operands(v) if self._replaceable(v, a, target, time)]
                if fit:
                    self._merge(target.block, self.places[fit[0]].block)

    def _replaceable(self, v: Kernel, operand: Value, target: Place, time: int) -> bool:
        if operand not in self.places:
            return False
        place = self.places[operand]
        others = [self.places[a] for a in v.args if a is not operand and a in self.places]
        if any(p.block is place.block for p in others):
            return False
        return (
            place.block is not target.block
            and place.block.base == target.block.base == ARENA
            and place.block.death == time
            and target.block.birth == time
            and place.block.nbytes == target.block.nbytes
            and place.offset == target.offset == 0
            and place.strides == target.strides
        )

    def _merge(self, block: Block, into: Block) -> None:
        into.touch(block.death)
        for v, p in self.places.items():
            if p.block is block:
                self.places[v] = dataclasses.replace(p, block=into)


def in_place_operands(v: Kernel) -> list[Value]:
    """The operands that a kernel reads only at the index that it writes, of the same size."""
    loops = compose(v.body)
    if loops.temps:
        return []
    read = {e.source for e in walk(loops.result.value) if isinstance(e, Load)}
    return [
        operand
        for operand, formal in zip(v.args, v.body.inputs, strict=True)
        if formal in read
        and operand.shape == v.shape
        and operand.type.dtype.bits == v.type.dtype.bits
        and reads_in_step(loops.result, formal)
    ]


def scratch_bytes(v: Kernel) -> int:
    """Bytes of a kernel's temporaries, laid one after the other, each aligned."""
    return sum(
        aligned(_nbytes(t.shape, t.element.numpy.itemsize), ALIGN)
        for t in compose(v.body).temps
    )


def _nbytes(shape: Shape, itemsize: int) -> int:
    size = itemsize
    for d in shape:
        size *= d
    return size


def allocate(blocks: list[Block]) -> int:
    """Give every block an offset, largest first, each as low as it fits among the blocks that
    live at its time (greedy by size); returns the arena's bytes."""
    placed: list[Block] = []
    for block in sorted(blocks, key=lambda b: (-b.nbytes, b.birth)):
        near = sorted((p for p in placed if p.meets(block)), key=lambda p: p.offset)
        block.offset = 0
        for p in near:
            if block.offset + block.nbytes <= p.offset:
                break
            block.offset = max(block.offset, aligned(p.offset + p.nbytes, ALIGN))
        placed.append(block)
    return aligned(max((b.offset + b.nbytes for b in blocks), default=0), ALIGN)


def lower_bound(graph: Graph) -> int:
    """Bytes that are alive at the busiest moment: no arena can be smaller."""
    planner = _Planner(graph, in_place=True)
    planner.plan()
    blocks = {p.block for p in planner.places.values() if p.block.base == ARENA}
    blocks |= set(planner.scratch.values())
    times = range(len(graph.order))
    return max((sum(b.nbytes for b in blocks if b.birth <= t <= b.death) for t in times), default=0)

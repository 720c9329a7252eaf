"""Kernels become functions: one per different work, shared by all kernels that do the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.code.address import Place
from irc.backends.llvm.code.functions import I64, PTR, bytes_global, declare, offset
from irc.backends.llvm.code.numbers import Numbers, lifted
from irc.backends.llvm.code.ranges import Range
from irc.backends.llvm.kernels import select
from irc.backends.llvm.module.call import Address, Call, Calls, most_tasks
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import Chooser, KernelFunction, MicroKernel, Work, shift_classes
from irc.compose import compose, describe
from irc.errors import CompileError
from irc.graph import Graph
from irc.loops import Source, Temp
from irc.ops.core import Const, Kernel
from irc.plan import ARENA, Buffer, Plan, aligned, dense_strides
from irc.types import Array, DType
from irc.value import Value

ALIGN = 64


@dataclass
class Constants:
    """The read-only data of a library: every array once, each 64-byte aligned."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    offsets: dict[bytes, int] = field(default_factory=dict)

    def add(self, array: Array) -> int:
        """Where the array lies, in bytes from the start."""
        content = np.ascontiguousarray(array).tobytes()
        if content not in self.offsets:
            padding = aligned(self.size, ALIGN) - self.size
            self.offsets[content] = self.size + padding
            self.parts += [bytes(padding), content]
            self.size += padding + len(content)
        return self.offsets[content]

    @property
    def content(self) -> bytes:
        """All of it; never empty."""
        return b"".join(self.parts) or bytes(1)


@dataclass(frozen=True)
class Emitted:
    """What became of one kernel: told in the manifest and the report."""

    name: str
    function: str
    kernel: str
    reason: str
    choice: str
    proof: str


@dataclass
class Emitter:
    """Emits the kernels of one scheduled graph into a module."""

    module: Any
    graph: Graph
    target: Target
    prefix: str
    choose: Chooser = select
    constants: Constants = field(default_factory=Constants)
    functions: dict[str, Any] = field(default_factory=dict)
    emitted: list[Emitted] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    scratch: int = 0
    """Bytes of scratch that micro-kernels need, behind the arena."""
    task_scratch: int = 0
    """Bytes of scratch that those need which several threads share."""
    asks: bool = False
    """Whether the library finds out at run time if it may use the target's tiles."""

    data: Any = None

    def __post_init__(self) -> None:
        if self.data is None:
            self.data = bytes_global(self.module, f"{self.prefix}_constants", 1)

    @property
    def plan(self) -> Plan:
        """The graph's memory plan."""
        return planned(self.graph)

    @property
    def buffers(self) -> Mapping[Value, Buffer | None]:
        """Each node's place by the plan."""
        return places(self.graph)

    @property
    def bases(self) -> tuple[str, ...]:
        """What kernels address memory by: inputs, outputs, the workspace."""
        names = [f"input {v.name}" for v in self.graph.inputs]
        return (*names, *(f"output {n}" for n in self.graph.output_names), ARENA)

    def run(self) -> None:
        """Emit the kernels, and make the list of their calls."""
        caller = _Caller(self, self.buffers)
        for index, v in enumerate(self.graph.order):
            if isinstance(v, Kernel):
                self.calls.extend(caller.kernel(v, self.plan.scratch[index]))

    @property
    def scratch_start(self) -> int:
        """Where scratch begins in the workspace."""
        return aligned(self.plan.arena, ALIGN)

    def calling(self, more_scratch: int) -> Calls:
        """The calls, once `run` has made them; tasks behind the first have their scratch from
        `more_scratch` on."""
        return Calls(self.module, self.prefix, self.target, self.bases, self.data, self.calls,
                     self.scratch_start, self.task_scratch, more_scratch)  # fmt: skip

    def function(self, work: Work, micro: MicroKernel) -> Any:
        """The function that does this work, emitted at first need."""
        key = _key(work, micro)
        if key not in self.functions:
            self.functions[key] = self._define(work, micro)
        return self.functions[key]

    def _define(self, work: Work, micro: MicroKernel) -> Any:
        read = _Read.of(work, micro)
        pointers = 3 + len(read.formals) + len(micro.arrays) + (read.numbers is not None)
        bounds = [I64, I64] if micro.units > 1 else []
        ops = dict.fromkeys(v.op for v in work.body.order if v.operands)
        label = micro.name if micro.in_place else "_".join(ops)[:40]
        name = f"{self.prefix}_k{len(self.functions)}_{label}"
        function = declare(self.module, name, [PTR] * pointers + bounds, self.target)
        if self.target.is_x86 and self.target.vector_bytes > 16:
            # Else what registers leave on the stack lies across lines of the cache.
            function.attributes.add('"stackrealign"')
        if not work.aliased:
            for own in function.args[:3]:
                own.add_attribute("noalias")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        out, temps, scratch, *rest = function.args[:pointers]
        inputs, rest = rest[: len(read.formals)], rest[len(read.formals) :]
        places = {} if micro.in_place else self._places(builder, work, inputs, temps)
        if read.numbers is not None:
            rest[-1].add_attribute("noalias")
            places[read.numbers.source] = Place(rest.pop(), (1,), DType.I32)
        begin, end = function.args[pointers:] or (0, micro.units)
        micro.emit(
            KernelFunction(
                builder=builder,
                places=places,
                result=Place(out, work.result_strides, work.kernel.type.dtype),
                arrays=tuple(rest),
                scratch=scratch,
                work=work,
                target=self.target,
                begin=begin,
                end=end,
                asks=self.asks,
            )
        )
        builder.ret_void()
        return function

    def _places(
        self, builder: Any, work: Work, inputs: Sequence[Any], temps: Any
    ) -> dict[Source, Place]:
        places: dict[Source, Place] = {}
        for v, pointer, strides in zip(work.body.inputs, inputs, work.strides, strict=True):
            places[v] = Place(pointer, strides, v.type.dtype)
        for const in work.body.constants:
            pointer = self.constant(builder, const.array)
            places[const] = Place(pointer, dense_strides(const.shape), const.type.dtype)
        start = 0
        for temp in work.loops.temps:
            pointer = offset(builder, temps, start)
            places[temp] = Place(pointer, dense_strides(temp.shape), temp.element)
            start += aligned(_nbytes(temp), ALIGN)
        return places

    def constant(self, builder: Any, array: Array) -> Any:
        """Pointer to an array in the read-only data."""
        return offset(builder, self.data, self.constants.add(array))


def _nbytes(temp: Temp) -> int:
    return int(np.prod(temp.shape, dtype=np.int64)) * temp.element.numpy.itemsize


@dataclass(frozen=True)
class _Read:
    """What a function reads besides the result and its arrays: nothing where it works in place."""

    formals: Sequence[Value] = ()
    actuals: Sequence[Value] = ()
    numbers: Numbers | None = None

    @classmethod
    def of(cls, work: Work, micro: MicroKernel) -> _Read:
        """What a micro-kernel for a work reads."""
        return cls() if micro.in_place else cls(work.body.inputs, work.kernel.args, work.numbers)


@dataclass
class _Caller:
    emitter: Emitter
    buffers: Mapping[Value, Buffer | None]

    def kernel(self, v: Kernel, temps: int | None) -> Iterator[Call]:
        """The calls that do one kernel, their functions emitted if they are new."""
        e, work = self.emitter, work_of(v, self.buffers, shift_classes(self.emitter.target))
        micro = e.choose(work, e.target)
        tasks = most_tasks(work, micro)
        first = self.call(work, micro, temps, tasks, work.products)
        told = (micro.name, micro.reason, micro.choice, micro.proof)
        e.emitted.append(Emitted(v.name, first.function.name, *told))
        yield first
        if micro.then is not None:
            yield self.call(work, micro.then, temps, tasks)

    def call(
        self, work: Work, micro: MicroKernel, temps: int | None, tasks: int, macs: int = 0
    ) -> Call:
        """The call of one function, by so many tasks at most."""
        e = self.emitter
        if min(micro.units, tasks) < 2:
            micro = dataclasses.replace(micro, units=1)
        read = _Read.of(work, micro)
        actuals = [
            None if formal in micro.replaces else self.address(actual)
            for formal, actual in zip(read.formals, read.actuals, strict=True)
        ]
        numbers = () if read.numbers is None else (read.numbers.values,)
        arrays = [Address(None, e.constants.add(a)) for a in (*micro.arrays, *numbers)]
        scratch = aligned(micro.scratch, ALIGN)
        e.scratch = max(e.scratch, scratch)
        e.task_scratch = max(e.task_scratch, scratch if micro.units > 1 else 0)
        operands = (self.address(work.kernel), Address(ARENA, temps or 0))
        function = e.function(work, micro)
        return Call(
            function, operands, (*actuals, *arrays), micro.units, min(micro.units, tasks),
            work.kernel.name, micro.name, macs,
        )  # fmt: skip

    def address(self, v: Value) -> Address:
        """Where the first element of a node lies."""
        if isinstance(v, Const):
            return Address(None, self.emitter.constants.add(v.array))
        place = self.buffers[v]
        if place is None:
            raise CompileError(f"{v.op} %{v.name} has no place in the memory plan")
        return Address(place.base, place.offset)


def planned(graph: Graph) -> Plan:
    """A scheduled graph's memory plan."""
    if graph.plan is None:
        raise CompileError(f"graph {graph.name} has no memory plan: schedule it first")
    return graph.plan


def places(graph: Graph) -> Mapping[Value, Buffer | None]:
    """Each node's place by the plan."""
    return dict(zip(graph.order, planned(graph).buffers, strict=True))


def works(graph: Graph, classes: tuple[Range, ...] = ()) -> list[Work]:
    """The kernels of a scheduled graph, in the order in which they run; `classes` as in `Work`."""
    buffers = places(graph)
    return [work_of(v, buffers, classes) for v in graph.order if isinstance(v, Kernel)]


def work_of(
    v: Kernel, buffers: Mapping[Value, Buffer | None], classes: tuple[Range, ...] = ()
) -> Work:
    """The kernel with what the plan says of its operands and result; `classes` as in `Work`."""
    result = buffers[v]
    assert result is not None, "a kernel's result has a place"
    operands = [buffers[a] for a in v.args]
    strides = tuple(
        dense_strides(a.shape) if p is None else p.strides
        for a, p in zip(v.args, operands, strict=True)
    )
    aliased = any(
        p is not None and _overlap(result, v, p, a)
        for a, p in zip(v.args, operands, strict=True)
    )
    loops, numbers = lifted(compose(v.body))
    return Work(v, loops, strides, result.strides, aliased, classes, numbers)


def _overlap(a: Buffer, v: Value, b: Buffer, w: Value) -> bool:
    return a.base == b.base and (
        a.offset < b.offset + b.extent(w.type) and b.offset < a.offset + a.extent(v.type)
    )


def _key(work: Work, micro: MicroKernel) -> str:
    """All that the function's code depends on."""
    code = (micro.name, micro.key, micro.units)
    if micro.in_place:
        return f"{code} in place {work.kernel.shape} {work.result_strides} {work.aliased}"
    return f"{code} {describe_work(work)}"


def describe_work(work: Work) -> str:
    """Canonical text of a work, its run-time constants left aside; equal texts mean equal work."""
    names: dict[Source, str] = {v: f"arg{i}" for i, v in enumerate(work.body.inputs)}
    names |= {v: f"const#{v.digest}" for v in work.body.constants}
    if work.numbers is not None:
        names[work.numbers.source] = "numbers"
    facts = sorted((names[s], r) for s, r in work.facts.items() if isinstance(s, Value))
    layout = (work.strides, work.result_strides, work.aliased, work.kernel.type.dtype.value)
    return f"{layout} {facts}\n{describe(work.loops, names)}"

"""The calls of a network's kernels: one after the other, or each shared among threads.

A kernel that can be cut is done by tasks, each of which takes the next part of its units: the cut
depends on nothing but the number of tasks, and no task touches what another writes. Between two
kernels all tasks are awaited; nothing else must be told to each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.division import divide_unsigned, lacks_division
from irc.backends.llvm.code.functions import I8, I32, I64, PTR, declare, offset
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import MicroKernel, Work
from irc.loops import Reduce, walk

TASK_CYCLES: float = 2000
"""Estimated cycles below which a part is not worth telling another thread of it."""
_CLOCK = "llvm.readcyclecounter"
_FAST, _SLOW, _ELEMENTS = 32, 2, 4
"""Products per cycle of a micro-kernel and of plain loops; results per cycle of either."""


def most_tasks(work: Work, micro: MicroKernel) -> int:
    """Into how many parts a work is worth being cut; 0 and 1 say that it is not."""
    cycles = micro.cycles or estimate(work, fast=bool(micro.arrays))
    return int(cycles / TASK_CYCLES)


def estimate(work: Work, *, fast: bool) -> float:
    """Cycles that a work takes, roughly; `fast` says that a micro-kernel multiplies."""
    cycles = 0.0
    for nest in work.loops.nests:
        size = prod(v.extent for v in nest.axes)
        inner = [e for e in walk(nest.value) if isinstance(e, Reduce)]
        products = sum(prod(v.extent for v in e.axes) for e in inner)
        cycles += size / _ELEMENTS + size * products / (_FAST if fast else _SLOW)
    return cycles


@dataclass(frozen=True)
class Address:
    """Bytes from a base: an input, output or the workspace by name, None for the constants."""

    base: str | None
    offset: int


@dataclass(frozen=True)
class Call:
    """One call of a kernel's function.

    `operands` are result and temporaries, `inputs` what is read (None: null); between them stands
    the scratch of the task. A function of more than one unit takes the first, and the one behind
    the last; `tasks` is into how many parts it is worth being cut. `layer`, `kernel` and `macs`
    tell what it does.
    """

    function: Any
    operands: tuple[Address, ...]
    inputs: tuple[Address | None, ...]
    units: int
    tasks: int
    layer: str = ""
    kernel: str = ""
    macs: int = 0

    def emit(
        self, builder: Any, bases: Mapping[str | None, Any], scratch: Any, *part: Any
    ) -> None:
        """The call itself; `part` is the units to do, default all."""

        def pointer(a: Address | None) -> Any:
            if a is None:
                return ir.Constant(PTR, None)
            return offset(builder, bases[a.base], a.offset)

        bounds = list(part) or [ir.Constant(I64, 0), ir.Constant(I64, self.units)]
        arguments = [*map(pointer, self.operands), scratch, *map(pointer, self.inputs)]
        builder.call(self.function, arguments + (bounds if self.units > 1 else []))


@dataclass(frozen=True)
class Calls:
    """All calls of a network, in order, and the memory that they speak of.

    `scratch` is where scratch begins in the workspace. Tasks behind the first have theirs from
    `more_scratch` on, `task_scratch` bytes each.
    """

    module: Any
    name: str
    target: Target
    bases: tuple[str, ...]
    data: Any
    calls: Sequence[Call]
    scratch: int
    task_scratch: int
    more_scratch: int = 0

    def serial(self, *, timed: bool = False) -> Any:
        """`void body(inputs…, outputs…, workspace)`: the calls, one after the other. If `timed`,
        there is one argument more, and after each call, and before the first, the CPU's clock is
        read into the next i64 of it."""
        function = self._function("body", len(self.bases), timed=timed)
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        arguments, ticks = function.args[: len(self.bases)], function.args[len(self.bases) :]
        bases = self._bases(arguments)
        self._read_clock(builder, ticks, 0)
        for index, call in enumerate(self.calls):
            call.emit(builder, bases, offset(builder, arguments[-1], self.scratch))
            self._read_clock(builder, ticks, index + 1)
        builder.ret_void()
        return function

    def parallel(self, *, timed: bool = False) -> Any:
        """`void parallel(inputs…, outputs…, workspace, executor)`: the same calls, those that can
        be cut as tasks of the executor; `timed` as in `serial`, before the executor. It keeps what
        tasks must know in a frame on its stack: the bases, and into how many parts the call is
        cut."""
        function = self._function("parallel", len(self.bases) + 1, timed=timed)
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        arguments, ticks = function.args[: len(self.bases)], function.args[len(self.bases) : -1]
        executor = function.args[-1]
        word = self.target.pointer_bits // 8
        frame: Any = builder.alloca(ir.ArrayType(I8, len(arguments) * word + 8))
        frame.align, frame.type = 8, PTR
        for i, argument in enumerate(arguments):
            builder.store(argument, offset(builder, frame, 8 + i * word), align=word)
        threads = builder.load(offset(builder, executor, 2 * word), typ=I32, align=4)
        bases = self._bases(arguments)
        self._read_clock(builder, ticks, 0)
        for index, call in enumerate(self.calls):
            if call.units > 1:
                tasks = _clamped(builder, threads, call.tasks)
                builder.store(tasks, frame, align=4)
                self._execute(builder, executor, tasks, self._task(index, call), frame)
            else:
                call.emit(builder, bases, offset(builder, arguments[-1], self.scratch))
            self._read_clock(builder, ticks, index + 1)
        builder.ret_void()
        return function

    def _read_clock(self, builder: Any, ticks: Sequence[Any], index: int) -> None:
        """The clock, into an i64 of `ticks`, which holds no pointer where nothing is timed."""
        for pointer in ticks:
            clock = self.module.globals.get(_CLOCK)
            if clock is None:
                clock = ir.Function(self.module, ir.FunctionType(I64, []), _CLOCK)
            builder.store(builder.call(clock, []), offset(builder, pointer, 8 * index), align=8)

    def _execute(self, builder: Any, executor: Any, tasks: Any, task: Any, frame: Any) -> None:
        """`executor->parallel_for(executor->context, tasks, task, frame)`."""
        word = self.target.pointer_bits // 8
        context = builder.load(executor, typ=PTR, align=word)
        kind = ir.PointerType(ir.FunctionType(ir.VoidType(), [PTR, I32, PTR, PTR]))
        parallel_for = builder.load(offset(builder, executor, word), typ=kind, align=word)
        builder.call(parallel_for, [context, tasks, task, frame])

    def _task(self, index: int, call: Call) -> Any:
        """`void task(frame, index)`: one part of a call."""
        name = f"{self.name}_task{index}"
        function = declare(self.module, name, [PTR, I32], self.target)
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        frame, number = function.args
        word = self.target.pointer_bits // 8
        places = [
            builder.load(offset(builder, frame, 8 + i * word), typ=PTR, align=word)
            for i in range(len(self.bases))
        ]
        tasks = builder.zext(builder.load(frame, typ=I32, align=4), I64)
        number = builder.zext(number, I64)
        divide = divide_unsigned if lacks_division(builder, I64) else type(builder).udiv
        bounds = [
            divide(builder, builder.mul(n, ir.Constant(I64, call.units)), tasks)
            for n in (number, builder.add(number, ir.Constant(I64, 1)))
        ]
        call.emit(builder, self._bases(places), self._scratch(builder, places[-1], number), *bounds)
        builder.ret_void()
        return function

    def _scratch(self, builder: Any, workspace: Any, number: Any) -> Any:
        """The scratch of a task by number."""
        first = offset(builder, workspace, self.scratch)
        if self.task_scratch == 0:
            return first
        step = ir.Constant(I64, self.task_scratch)
        start = ir.Constant(I64, self.more_scratch - self.task_scratch)
        bytes_ = builder.add(builder.mul(number, step), start)
        other = builder.gep(workspace, [bytes_], inbounds=True, source_etype=I8)
        is_first = builder.icmp_unsigned("==", number, ir.Constant(I64, 0))
        return builder.select(is_first, first, other)

    def _bases(self, pointers: Sequence[Any]) -> dict[str | None, Any]:
        return {**dict(zip(self.bases, pointers, strict=True)), None: self.data}

    def _function(self, what: str, arguments: int, *, timed: bool) -> Any:
        what, arguments = (f"{what}_timed", arguments + 1) if timed else (what, arguments)
        function = declare(self.module, f"{self.name}_{what}", [PTR] * arguments, self.target)
        for argument in function.args:
            argument.add_attribute("noalias")
        return function


def _clamped(builder: Any, threads: Any, most: int) -> Any:
    """At least 1 and at most `most`, i32."""
    one, limit = ir.Constant(I32, 1), ir.Constant(I32, most)
    at_least = builder.select(builder.icmp_signed("<", threads, one), one, threads)
    return builder.select(builder.icmp_signed("<", at_least, limit), at_least, limit)

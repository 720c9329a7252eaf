"""The seam between the backend and its micro-kernels.

A `Work` is one kernel to be emitted: its nests, the constants behind its operands, the strides of
everything. `irc.backends.llvm.kernels.select(work, target)` answers with a `MicroKernel` that
emits the function, or None: then the generic renderer does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

from irc.backends.llvm.address import Place
from irc.backends.llvm.numbers import Numbers
from irc.backends.llvm.ranges import Range
from irc.backends.llvm.target import Target
from irc.graph import Graph
from irc.loops import Load, Loops, MulShift, Source, walk
from irc.ops.core import Const, Kernel
from irc.types import Array, Shape
from irc.value import Value


@dataclass(frozen=True)
class Work:
    """One kernel of a scheduled graph, ready to be emitted.

    `loops` load the body's inputs (one for one for `kernel.args`), constants inside of the body,
    and temporaries. `strides` are in elements, per body input; `aliased` says that the result may
    share memory with an operand, element on element, so neither may be assumed unaliased.
    """

    kernel: Kernel
    loops: Loops
    strides: tuple[Shape, ...]
    result_strides: Shape
    aliased: bool = False
    numbers: Numbers | None = None

    @property
    def body(self) -> Graph:
        """The body graph."""
        return self.kernel.body

    def constant(self, source: Source) -> Array | None:
        """The array behind a body input or constant; None for what is computed at run time."""
        if isinstance(source, Const):
            return source.array
        for formal, actual in zip(self.body.inputs, self.kernel.args, strict=True):
            if formal is source and isinstance(actual, Const):
                return actual.array
        return None

    @cached_property
    def facts(self) -> Mapping[Source, Range]:
        """Intervals of constants that code may rely on: of the shifts of equation (6), rounded to
        the classes that matter (`SHIFT_CLASSES`), so that few kernels differ by them."""
        found: dict[Source, Range] = {}
        for source in _shifts(self.loops):
            array = self.constant(source)
            if array is not None and array.size:
                low, high = int(array.min()), int(array.max())
                found[source] = next(c for c in SHIFT_CLASSES if c[0] <= low and high <= c[1])
        return found


SHIFT_CLASSES: tuple[Range, ...] = (
    *((low, min(30 + low, 62)) for low in range(33, 24, -1)), (1, 32), (1, 62), (-128, 127),
)  # fmt: skip
"""By the smallest shift, which tells how far an accumulator must be shifted left to make all of
them exceed 32; else all at most 32, which is one step; else any."""


def _shifts(loops: Loops) -> list[Source]:
    """What the shifts of the nests are loaded from, in order of first use."""
    found: dict[Source, None] = {}
    for nest in loops.nests:
        for e in walk(nest.value):
            if isinstance(e, MulShift) and isinstance(e.s, Load):
                found[e.s.source] = None
    return list(found)


THREADS = (2, 3, 4, 8)
"""What a cut is judged by."""


def balance(units: int) -> float:
    """How evenly so many units fall on a few threads: 1 where each has as much to do, on the
    average over `THREADS`."""
    return sum(units / (t * ceil(units / t)) for t in THREADS) / len(THREADS)


def outer_axis(shape: Shape) -> int | None:
    """The axis but the last along which a tensor is cut, None where there is none: the outermost
    of those that balance well, as matrices of a batch and rows of images are cut, so that a thread
    finds in its cache what it wrote."""
    outer = [i for i in range(len(shape) - 1) if shape[i] > 1]
    best = max((balance(shape[i]) for i in outer), default=0)
    return next((i for i in outer if balance(shape[i]) >= 0.9 * best), None)


@dataclass(frozen=True)
class KernelFunction:
    """What a function is emitted into. `builder` stands in its entry block; the block where
    `emit` leaves it is closed by the caller with `ret void`."""

    builder: Any
    places: Mapping[Source, Place]
    """Where each body input, inner constant and temporary lies."""
    result: Place
    arrays: tuple[Any, ...]
    """Pointers to `MicroKernel.arrays`, 64-byte aligned."""
    scratch: Any
    """Pointer to `MicroKernel.scratch` bytes, 64-byte aligned, garbage at entry."""
    work: Work
    target: Target
    begin: Any = 0
    end: Any = 1
    """Which of `MicroKernel.units` to do: from `begin` (less than `end`) on; numbers where all are
    done at once, else i64."""
    asks: bool = False
    """Whether the library finds out at run time if it may use the target's tiles."""

    @property
    def split(self) -> bool:
        """Whether a call does some of the units only."""
        return not isinstance(self.begin, int)


@dataclass(frozen=True)
class MicroKernel:
    """A fast way to do a `Work`.

    Kernels with equal `name`, `key`, loops and strides share one function: `name` and `key` must
    tell everything that `emit` depends on besides those, the contents of `arrays` excepted.
    """

    name: str
    """Its specification: type, op, tile, instruction (u8i8 conv 4x16 maddubs)."""
    emit: Callable[[KernelFunction], None]
    key: str = ""
    arrays: tuple[Array, ...] = ()
    """Constants in the layout that `emit` wants (packed weights); stored in the library."""
    replaces: tuple[Value, ...] = ()
    """Body inputs that `emit` does not read because `arrays` stand for them: they are passed as
    null and not stored."""
    scratch: int = 0
    """Bytes of scratch memory that `emit` needs, temporaries of `loops` aside; each task that runs
    at the same time has its own."""
    units: int = 1
    """Pieces of equal cost that the work can be cut into. Whichever are done together, on one
    thread or on several at once, each writes results of its own and the same bits. A kernel with
    more than one does those from `KernelFunction.begin` to `end`; one that doesn't say runs as a
    whole."""
    cycles: float = 0
    """What all units take, roughly, if the kernel knows better than `call.estimate`."""
    then: MicroKernel | None = None
    """What is to be done with the result when all units are: it has units and arrays of its own,
    but no `then`."""
    in_place: bool = False
    """Whether it reads nothing but the result and `arrays`: then no operands are passed, and all
    works of one shape share a function."""
    reason: str = ""
    """What speaks for it, for the report."""
    choice: str = "cost model"
    """What chose it, for the report: the cost model, or times of it and of the others."""
    proof: str = ""
    """What was proved, for the manifest."""


Chooser = Callable[[Work, Target], MicroKernel]
"""Says how a work is done."""

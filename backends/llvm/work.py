"""The seam between the backend and its micro-kernels.

A `Work` is one kernel to be emitted: its nests, the constants behind its operands, the strides of
everything. `irc.backends.llvm.kernels.select(work, target)` answers with the `MicroKernel` that
emits the function; the generic one, plain loops, does what no other is made for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod
from typing import Any

from irc.backends.llvm.code.address import Place
from irc.backends.llvm.code.numbers import Numbers
from irc.backends.llvm.code.ranges import Range
from irc.backends.llvm.target import Target
from irc.graph import Graph
from irc.loops import Binary, Expr, Load, Loops, MulShift, Reduce, Source, terms, walk
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
    classes: tuple[Range, ...] = ()
    """Of shifts, which a target does better than others (`shift_classes`): `facts` tell of them."""
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

    @property
    def products(self) -> int:
        """Multiply-accumulates: of its sums of products, one per round."""
        total = 0
        for nest in self.loops.nests:
            size = prod(v.extent for v in nest.axes)
            sums = [e for e in walk(nest.value) if isinstance(e, Reduce) and e.kind == "add"]
            multiplied = [e for e in sums if isinstance(e.body, Binary) and e.body.kind == "mul"]
            total += size * sum(prod(v.extent for v in e.axes) for e in multiplied)
        return total

    @cached_property
    def facts(self) -> Mapping[Source, Range]:
        """Intervals of constants that code may rely on: of the shifts of equation (6), and where
        these are small of what is added to a sum before it, rounded to the classes that matter,
        so that few kernels differ by them."""
        found: dict[Source, Range] = {}
        for e in _rescalings(self.loops):
            shifts = self._interval(e.s, (*self.classes, *SHIFT_CLASSES))
            found |= shifts
            if any(low <= HIGH_HALF for low, _ in shifts.values()):
                for addend in terms(e.a):
                    found |= self._interval(addend, ADDEND_CLASSES)
        return found

    def _interval(self, e: Expr, classes: Sequence[Range]) -> dict[Source, Range]:
        """The class of a loaded constant; empty for what is none."""
        array = self.constant(e.source) if isinstance(e, Load) else None
        if not isinstance(e, Load) or array is None or not array.size:
            return {}
        low, high = int(array.min()), int(array.max())
        return {e.source: next(c for c in classes if c[0] <= low and high <= c[1])}


SHIFT_CLASSES: tuple[Range, ...] = (
    *((low, min(30 + low, 62)) for low in range(33, 24, -1)), (1, 32), (1, 62), (-128, 127),
)  # fmt: skip
"""By the smallest shift, which tells how far an accumulator must be shifted left to make all of
them exceed 32; else all at most 32, which is one step; else any."""


NEAR_SHIFTS: tuple[Range, ...] = tuple(
    (low, low + 12) for low in (33, 39, 45, *range(32, 24, -1))
)
"""Shifts that can be brought to one, where that is all that CPUs shift lanes by."""
SMALL_SHIFTS: tuple[Range, ...] = ((33, 39),)
"""Shifts that a product of 16 bits does, where results are rounded so."""
HIGH_HALF = 32
"""A larger shift takes the high half of the product without shifting the accumulator first."""
ADDEND_CLASSES: tuple[Range, ...] = tuple((-(2**k), 2**k) for k in (20, 24, 27, 31))
"""By how far an accumulator may at least be shifted left, its products being small enough."""


def shift_classes(target: Target) -> tuple[Range, ...]:
    """Those that a target does better than others."""
    if not target.shifts_lanes:
        return NEAR_SHIFTS
    return SMALL_SHIFTS if target.rounds_words else ()


def _rescalings(loops: Loops) -> list[MulShift]:
    """Where nests compute equation (6), in order."""
    found = (e for nest in loops.nests for e in walk(nest.value) if isinstance(e, MulShift))
    return list(dict.fromkeys(found))


THREADS = (2, 3, 4, 8)
"""What a cut is judged by."""

OTHERS_BYTES = 2.5
"""Per cycle, of what lies in another core's cache."""


def balance(units: int) -> float:
    """How evenly so many units fall on a few threads: 1 where each has as much to do, on the
    average over `THREADS`."""
    return sum(units / (t * ceil(units / t)) for t in THREADS) / len(THREADS)


def shared_cycles(units: int, cycles: float, more: float) -> float:
    """Cycles of threads that share a work of so many, on the average over `THREADS`, one thread's
    being as many; where the work is shared, each takes `more` for what is not its own part."""
    each = (cycles * t * ceil(units / t) / units + more * (t - 1) for t in THREADS)
    return sum(each) / len(THREADS)


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

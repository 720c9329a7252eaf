"""Kernels whose last step is a table of 256 bytes: sigmoid, hard-swish, SiLU, GELU after a
convolution, or alone.

All before the table is done by whichever kernel fits, which leaves the table's indices where the
result is to lie; then one pass over it, whole vectors at a time, looks them up, or computes what
they would give (`swish`). The pass reads what is still in the cache, so it costs less than narrow
look-ups inside of that kernel's tiles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.address import Place
from irc.backends.llvm.code.constants import shuffle_mask
from irc.backends.llvm.code.loop import I64, counted
from irc.backends.llvm.kernels.tables.shuffle import ByteShuffle, LookUp, byte_shuffle
from irc.backends.llvm.kernels.tables.swish import HardSwish, hard_swish
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import KernelFunction, MicroKernel, Work, outer_axis
from irc.compose import reads_in_step
from irc.loops import Binary, Cast, Expr, Int, Load, Loops, Nest, Source, walk
from irc.ops.quantization import Lookup
from irc.types import Array, DType, Shape
from irc.value import Value

I8 = ir.IntType(8)
AT_ONCE = 4
"""Vectors that share the loads of a table's rows."""

ByteFunction = ByteShuffle | HardSwish
"""A function of every byte of a vector of `nbytes`, from constants in memory."""
Candidates = Callable[[Work, Target], Iterator[MicroKernel]]


def tables(work: Work, target: Target, candidates: Candidates) -> Iterator[MicroKernel]:
    """A table behind each of the `candidates` for the rest."""
    root = work.loops.result.value
    found = table_index(root)
    if found is None or not isinstance(root, Load):
        return
    entries = work.constant(root.source)
    if entries is None or work.result_strides[-1:] not in ((), (1,)) or 0 in work.kernel.shape:
        return
    chosen = byte_function(work, target, root.source, entries, found.dtype)
    if chosen is None:
        return
    function, stored = chosen
    source = _plain(work, found)
    replaced = (root.source,) if isinstance(root.source, Value) else ()
    used = tuple(v for v in replaced if v in work.body.inputs and not _is_loaded(found, v))
    if source is not None:
        yield MicroKernel(
            name=f"table_{function.name}", emit=_Alone(function, source).emit,
            key=function.key, arrays=(stored,), replaces=used, units=_units(work.kernel.shape),
            reason="bytes are looked up a vector at a time",
        )  # fmt: skip
        return
    inner = indices_of(work, found)
    for micro in candidates(inner, target):
        if micro.then is None:
            yield _behind(micro, function, inner, found.dtype, stored, used)


def byte_function(
    work: Work, target: Target, table: Source, entries: Array, index: DType
) -> tuple[ByteFunction, Array] | None:
    """The shortest way to a table's entries, and its constants as stored."""
    shuffle = byte_shuffle(target)
    if shuffle is None:
        return None
    if shuffle.kind == "pshufb":
        for node in work.body.order:
            if isinstance(node, Lookup) and node.table is table:
                swish = hard_swish(entries, node.x.type, node.type, shuffle.nbytes)
                if swish is not None:
                    return swish
    return shuffle, shuffle.stored(entries, index)


def _behind(
    micro: MicroKernel, function: ByteFunction, inner: Work, dtype: DType, stored: Array,
    used: tuple[Value, ...],
) -> MicroKernel:  # fmt: skip
    """The kernel that finds the indices, then the table."""
    behind = _Behind(function, micro, inner, dtype)
    return dataclasses.replace(
        micro,
        name=f"{micro.name}_table_{function.name}",
        key=f"{micro.key} {dtype.value}",
        emit=behind.indices,
        replaces=(*micro.replaces, *used),
        then=MicroKernel(
            name=f"table_{function.name}_in_place", emit=behind.look_up, arrays=(stored,),
            key=f"{dtype.value} {function.key}", in_place=True, units=_units(inner.kernel.shape),
        ),
    )  # fmt: skip


def _units(shape: Shape) -> int:
    axis = outer_axis(shape)
    return 1 if axis is None else shape[axis]


def table_index(e: Expr) -> Expr | None:
    """The 8-bit expression that a load from a table of 256 bytes is indexed by."""
    if not isinstance(e, Load) or e.source.shape != (256,) or e.dtype.bits != 8:
        return None
    match e.index[0]:
        case Cast(a=a) if a.dtype is DType.U8:
            return a
        case Binary(kind="sub", a=Cast(a=a), b=Int(value=-128)) if a.dtype is DType.I8:
            return a
    return None


def indices_of(work: Work, found: Expr) -> Work:
    """The work that ends before its table."""
    nest = work.loops.result
    loops = Loops((*work.loops.nests[:-1], Nest(nest.axes, found, None)))
    return dataclasses.replace(work, loops=loops)


def _is_loaded(e: Expr, source: Value) -> bool:
    return any(isinstance(x, Load) and x.source is source for x in walk(e))


def _plain(work: Work, found: Expr) -> Value | None:
    """The body input that the indices are, element by element, if they are no more than that."""
    nest = work.loops.result
    if not isinstance(found, Load) or not isinstance(found.source, Value):
        return None
    source = found.source
    inputs = work.body.inputs
    if len(work.loops.nests) > 1 or source not in inputs or source.shape != work.kernel.shape:
        return None
    strides = work.strides[[i is source for i in inputs].index(True)]
    return source if reads_in_step(nest, source) and strides[-1:] in ((), (1,)) else None


@dataclass(frozen=True)
class _Alone:
    """From a tensor to the result."""

    function: ByteFunction
    source: Value

    def emit(self, f: KernelFunction) -> None:
        _pass(f, self.function, f.places[self.source], f.arrays[0])


@dataclass(frozen=True)
class _Behind:
    """Behind another kernel, in its result's place."""

    function: ByteFunction
    before: MicroKernel
    inner: Work
    index: DType

    def indices(self, f: KernelFunction) -> None:
        """The kernel before."""
        self.before.emit(dataclasses.replace(f, work=self.inner, result=self._place(f)))

    def look_up(self, f: KernelFunction) -> None:
        """The pass."""
        _pass(f, self.function, self._place(f), f.arrays[0])

    def _place(self, f: KernelFunction) -> Place:
        return Place(f.result.pointer, f.result.strides, self.index)


def _pass(f: KernelFunction, function: ByteFunction, source: Place, stored: Any) -> None:
    """Look up every element of the work's shape, or those of the function's units."""
    look_up = function.prepare(f.builder, stored)
    shape, both = f.work.kernel.shape, (source.strides, f.result.strides)
    cut = outer_axis(shape) if f.split else None
    inner = 0 if cut is None else cut + 1
    outer, run = runs(shape[inner:], (both[0][inner:], both[1][inner:]))
    outer += inner

    def axes(depth: int, offsets: tuple[Any, Any]) -> None:
        if depth == outer:
            pointers = [
                at(f.builder, p.pointer, o)
                for p, o in zip((source, f.result), offsets, strict=True)
            ]
            _run(f.builder, function, look_up, pointers, run)
            return
        begin, end = (f.begin, f.end) if depth == cut else (0, shape[depth])
        with counted(f.builder, end, begin=begin, label="i") as loop:
            first, second = (
                f.builder.add(o, times(f.builder, loop.index, s[depth]))
                for o, s in zip(offsets, both, strict=True)
            )
            axes(depth + 1, (first, second))

    axes(0, (ir.Constant(I64, 0), ir.Constant(I64, 0)))


def runs(shape: Shape, strides: tuple[Shape, ...]) -> tuple[int, int]:
    """How many outer axes are needed to reach runs of elements side by side, and their length."""
    outer = len(shape)
    while outer and all(
        s[outer - 1] == prod(shape[outer:]) or shape[outer - 1] == 1 for s in strides
    ):
        outer -= 1
    return outer, prod(shape[outer:])


def _run(
    builder: Any, function: ByteFunction, look_up: LookUp, pointers: list[Any], nbytes: int
) -> None:
    """One run, maybe in place: the last piece, which overlaps the others, is read before they are
    written, and written after them."""
    source, to = pointers
    piece = min(function.nbytes, 1 << (nbytes.bit_length() - 1))
    whole, rest = nbytes // piece * piece, nbytes % piece
    last = look_up([_load(builder, source, nbytes - piece, piece, function)]) if rest else []
    many = whole // (AT_ONCE * piece) * AT_ONCE * piece
    for start, stop, count in ((0, many, AT_ONCE), (many, whole, 1)):
        if start == stop:
            continue
        with counted(builder, stop - start, step=count * piece, label="byte") as loop:
            at_index = [
                builder.add(loop.index, ir.Constant(I64, start + i * piece)) for i in range(count)
            ]
            found = look_up([_load(builder, source, i, piece, function) for i in at_index])
            for i, value in zip(at_index, found, strict=True):
                _store(builder, to, i, piece, value)
    if last:
        _store(builder, to, nbytes - piece, piece, last[0])


def _load(builder: Any, pointer: Any, offset: Any, piece: int, function: ByteFunction) -> Any:
    """`piece` bytes as a whole vector."""
    vector = ir.VectorType(I8, piece)
    value = builder.load(at(builder, pointer, offset), typ=vector, align=1)
    return resized(builder, value, function.nbytes)


def _store(builder: Any, pointer: Any, offset: Any, piece: int, value: Any) -> None:
    builder.store(resized(builder, value, piece), at(builder, pointer, offset), align=1)


def resized(builder: Any, value: Any, count: int) -> Any:
    """The vector with more lanes, of any content, or with fewer."""
    before = value.type.count
    if before == count:
        return value
    mask = shuffle_mask([i % before for i in range(count)])
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)

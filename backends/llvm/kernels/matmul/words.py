"""The right side of a product of two activations, packed in words: four bytes of each column side
by side, as `vpdpbusd` and `tdpbusd` multiply them, their top bits changed where they are unsigned.

With x as it lies and y signed, the sum of `(x - zx)(y - zy)` over k is
`sum xy - zx sum y - zy sum x + K zx zy`: all but the third term is known of a column alone, and is
found when it is packed; the third is 0 for the most common zero point, that in the middle.

A run of words that would end past the last k begins earlier, so that no byte is read past a row of
the left side: what it has in common with the run before is 0 in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.constants import constant, shuffle_mask
from irc.backends.llvm.code.loop import I32, counted, i64, spanned, splat
from irc.backends.llvm.kernels.matmul.matrices import MatMul
from irc.backends.llvm.kernels.vectors.dot import DotProduct
from irc.backends.llvm.kernels.vectors.memory import at, times
from irc.backends.llvm.kernels.vectors.operands import zero_point
from irc.backends.llvm.work import KernelFunction
from irc.plan import aligned

I8 = ir.IntType(8)
WORD = 4
"""Bytes, and the columns and words that are transposed together."""
LINE = 64


@dataclass(frozen=True)
class Run:
    """Words that are side by side in a row of the left side, from the byte `start` on, and packed
    side by side, from the word `first` on; the leading `old` bytes are another run's."""

    first: int
    words: int
    start: int
    old: int


def runs(depth: int, longest: int) -> tuple[Run, ...] | None:
    """All k as runs of one length, `longest` words at most; None where there are fewer bytes."""
    words = ceil(depth / WORD)
    count = ceil(words / longest)
    each = ceil(words / count)
    if each * WORD > depth:
        return None
    starts = [min(i * each * WORD, depth - each * WORD) for i in range(count)]
    return tuple(Run(i * each, each, s, i * each * WORD - s) for i, s in enumerate(starts))


def straight(depth: int) -> tuple[Run, ...] | None:
    """All k as one run of whole words, and one for a last word that is none."""
    whole, rest = divmod(depth, WORD)
    if not whole:
        return None
    one = Run(0, whole, 0, 0)
    return (one, Run(whole, 1, depth - WORD, WORD - rest)) if rest else (one,)


@dataclass(frozen=True)
class Block:
    """Columns that are multiplied together: the first of them, how many vectors, how many
    columns, and how many such blocks follow each other."""

    first: int
    vectors: int
    columns: int
    count: int


@dataclass(frozen=True)
class Words:
    """How the right side lies packed: block by block of `vectors` vectors of columns, in a block
    word by word, of `lanes` columns each vector."""

    m: MatMul
    runs: Sequence[Run]
    lanes: int
    vectors: int
    zero: int
    """The zero point of the left side as it is multiplied."""

    @property
    def words(self) -> int:
        """Words of a column."""
        return sum(r.words for r in self.runs)

    @property
    def panels(self) -> int:
        """Vectors of columns."""
        return ceil(self.m.columns / self.lanes)

    @property
    def terms(self) -> int:
        """Where the columns' terms begin, in bytes."""
        return aligned(self.panels * self.words * self.lanes * WORD, LINE)

    @property
    def nbytes(self) -> int:
        """Of all of it."""
        return self.terms + aligned(self.panels * self.lanes * 4, LINE)

    @property
    def zeros(self) -> tuple[int, int]:
        """The zero points as the sides are multiplied: of the left one, and of the right one, which
        is signed."""
        right = self.m.right
        return self.zero, right.of.zero - (0 if right.signed else 128)

    @property
    def key(self) -> str:
        """What code depends on of the zero points: whether they are 0."""
        return f"zeros {self.zeros[0] == 0} {self.zeros[1] == 0}"

    def loaded_zeros(self, f: KernelFunction) -> tuple[Any, Any]:
        """`zeros` as code has them, i32."""
        left, right = self.m.left.of, self.m.right.of
        return (
            f.builder.add(zero_point(f, left), ir.Constant(I32, self.zeros[0] - left.zero)),
            f.builder.add(zero_point(f, right), ir.Constant(I32, self.zeros[1] - right.zero)),
        )

    @property
    def corrected(self) -> bool:
        """Whether columns have terms that are not 0."""
        return self.zeros[0] != 0

    @property
    def blocks(self) -> list[Block]:
        """The whole blocks, then the rest."""
        size = self.vectors * self.lanes
        whole, rest = divmod(self.m.columns, size)
        done = whole * size
        last = Block(done, self.panels - whole * self.vectors, rest, 1)
        return [b for b in (Block(0, self.vectors, size, whole), last) if b.count and b.columns]

    def stride(self, block: Block) -> int:
        """Bytes from one word of a block to the next."""
        return block.vectors * self.lanes * WORD

    def size(self, block: Block) -> int:
        """Bytes of a block."""
        return self.words * self.stride(block)

    def offset(self, block: Block) -> int:
        """Bytes before the first of such blocks."""
        return block.first * self.words * WORD


def merged(runs: Sequence[Run]) -> list[Run]:
    """The same words as a few runs: those that take up where the one before ends are one."""
    found: list[Run] = []
    for run in runs:
        last = found[-1] if found else None
        if last is not None and run.old == 0:
            found[-1] = Run(last.first, last.words + run.words, last.start, last.old)
        else:
            found.append(run)
    return found


class Packer:
    """Packs one matrix after the other to the same place."""

    def __init__(self, f: KernelFunction, words: Words) -> None:
        self.f, self.builder, self.words, self.to = f, f.builder, words, f.scratch
        self.right = words.m.right
        self.across = self.right.k == 1 and self.right.axes[-1] != 1

    def pack(self, source: Any) -> None:
        """The words of all columns, and their terms."""
        builder, lanes, step = self.builder, self.words.lanes, self.right.axes[-1]
        for block in self.words.blocks:
            first = at(builder, self.to, self.words.offset(block))
            columns = at(builder, source, block.first * step)
            with counted(builder, block.count, label="block") as number:
                to = at(builder, first, times(builder, number.index, self.words.size(block)))
                start = at(builder, columns, times(builder, number.index, block.columns * step))
                whole, rest = divmod(block.columns, lanes)
                if whole:
                    with spanned(builder, 0, whole, label="panel") as v:
                        self._panel(
                            at(builder, start, times(builder, v, lanes * step)),
                            at(builder, to, times(builder, v, lanes * WORD)),
                            self.words.stride(block), lanes,
                        )  # fmt: skip
                if rest:
                    self._panel(
                        at(builder, start, whole * lanes * step),
                        at(builder, to, whole * lanes * WORD), self.words.stride(block), rest,
                    )  # fmt: skip
                if self.words.corrected:
                    self._terms(block, number.index, to)

    # ------------------------------------------------------------ words

    def _panel(self, source: Any, to: Any, stride: int, columns: int) -> None:
        """One vector of columns, of which so many exist."""
        for run in merged(self.words.runs):
            place = at(self.builder, to, run.first * stride)
            start = at(self.builder, source, run.start * self.right.k)
            zeros, partial = divmod(run.old, WORD)
            nothing = constant(ir.VectorType(I32, self.words.lanes), 0)
            for word in range(zeros):
                self.builder.store(nothing, at(self.builder, place, word * stride), align=16)
            if partial:
                self._word(start, place, i64(zeros), stride, columns, old=partial)
            done = zeros + (partial > 0)
            self._words(start, place, (done, run.words), stride, columns)

    def _words(
        self, source: Any, to: Any, span: tuple[int, int], stride: int, columns: int
    ) -> None:
        """Words from one to before another."""
        begin, end = span
        many = begin + (end - begin) // WORD * WORD if self.across else begin
        if many > begin:
            with spanned(self.builder, begin, many, step=WORD, label="words") as word:
                self._transposed(source, to, word, stride, columns)
        if many < end:
            with spanned(self.builder, many, end, label="word") as word:
                self._word(source, to, word, stride, columns)

    def _word(
        self, source: Any, to: Any, word: Any, stride: int, columns: int, old: int = 0
    ) -> None:
        """One word of every column, the first `old` bytes of which are 0."""
        builder, lanes = self.builder, self.words.lanes
        start = at(builder, source, times(builder, word, WORD * self.right.k))
        found = self._gathered(start, columns) if self.across else self._rows(start, columns)
        value = builder.bitcast(self._signed(found), ir.VectorType(I32, lanes))
        if old:
            mask = constant(value.type, -(1 << 8 * old))
            value = builder.and_(value, mask)
        builder.store(value, at(builder, to, times(builder, word, stride)), align=16)

    def _rows(self, start: Any, columns: int) -> Any:
        """Bytes of columns that lie side by side: four rows, their bytes in turns."""
        builder, lanes = self.builder, self.words.lanes
        vector = ir.VectorType(I8, columns)
        rows = [
            builder.load(at(builder, start, k * self.right.k), typ=vector, align=1)
            for k in range(WORD)
        ]
        turns = _mask(lane % columns + side * columns for lane in range(lanes) for side in (0, 1))
        first, second = (builder.shuffle_vector(a, b, turns) for a, b in (rows[:2], rows[2:]))
        pairs = ir.VectorType(ir.IntType(16), lanes)
        both = (builder.bitcast(first, pairs), builder.bitcast(second, pairs))
        order = _mask(lane + side * lanes for lane in range(lanes) for side in (0, 1))
        return builder.bitcast(
            builder.shuffle_vector(*both, order), ir.VectorType(I8, lanes * WORD)
        )

    def _gathered(self, start: Any, columns: int) -> Any:
        """A word of columns that lie apart, one after the other."""
        builder, lanes = self.builder, self.words.lanes
        found = ir.Constant(ir.VectorType(I32, lanes), ir.Undefined)
        for lane in range(lanes):
            value = builder.load(self._column(start, lane, columns), typ=I32, align=1)
            found = builder.insert_element(found, value, ir.Constant(I32, lane))
        return builder.bitcast(found, ir.VectorType(I8, lanes * WORD))

    def _column(self, start: Any, lane: int, columns: int) -> Any:
        """Where a column lies; what is none has the last one's place."""
        return at(self.builder, start, min(lane, columns - 1) * self.right.axes[-1])

    def _transposed(self, source: Any, to: Any, word: Any, stride: int, columns: int) -> None:
        """Four words of every column, four columns at a time."""
        builder = self.builder
        start = at(builder, source, times(builder, word, WORD))
        place = at(builder, to, times(builder, word, stride))
        bytes_ = ir.VectorType(I8, WORD * WORD)
        for lane in range(0, self.words.lanes, WORD):
            loaded = [
                builder.load(self._column(start, lane + i, columns), typ=bytes_, align=1)
                for i in range(WORD)
            ]
            square = ir.VectorType(I32, WORD)
            rows = [builder.bitcast(self._signed(x), square) for x in loaded]
            for i, value in enumerate(_transpose(builder, rows)):
                builder.store(value, at(builder, place, i * stride + lane * WORD), align=16)

    def _signed(self, value: Any) -> Any:
        """Bytes with their top bits changed, if they are unsigned."""
        if self.right.signed:
            return value
        return self.builder.xor(value, constant(value.type, -128))

    # ------------------------------------------------------------ terms

    def _terms(self, block: Block, number: Any, packed: Any) -> None:
        """`K zx zy - zx sum y` of every column of a block."""
        builder, lanes = self.builder, self.words.lanes
        dot = DotProduct("vpdpbusd", lanes * 4)
        vector, bytes_ = ir.VectorType(I32, lanes), ir.VectorType(I8, lanes * WORD)
        ones, (zx, zy) = constant(bytes_, 1), self.words.loaded_zeros(self.f)
        both = builder.mul(builder.mul(zx, zy), ir.Constant(I32, self.words.m.depth))
        summand = splat(builder, both, lanes)
        first = at(builder, self.to, self.words.terms + block.first * 4)
        first = at(builder, first, times(builder, number, block.columns * 4))
        for v in range(block.vectors):
            panel = at(builder, packed, v * lanes * WORD)
            none = constant(vector, 0)
            with counted(builder, self.words.words, carry=none, label="term") as loop:
                place = at(builder, panel, times(builder, loop.index, self.words.stride(block)))
                y = builder.load(place, typ=bytes_, align=16)
                loop.carry = dot.accumulate(builder, loop.carry, ones, y)
            product = builder.mul(loop.carry, splat(builder, zx, lanes))
            to = at(builder, first, v * lanes * 4)
            builder.store(builder.sub(summand, product), to, align=16)


def _transpose(builder: Any, rows: Sequence[Any]) -> list[Any]:
    """The columns of a square of 4x4."""
    low, high = _mask((0, 4, 1, 5)), _mask((2, 6, 3, 7))
    a, b = (builder.shuffle_vector(rows[0], rows[1], m) for m in (low, high))
    c, d = (builder.shuffle_vector(rows[2], rows[3], m) for m in (low, high))
    first, second = _mask((0, 1, 4, 5)), _mask((2, 3, 6, 7))
    return [builder.shuffle_vector(x, y, m) for x, y in ((a, c), (b, d)) for m in (first, second)]


def _mask(lanes: Iterable[int]) -> Any:
    order = list(lanes)
    return shuffle_mask(order)

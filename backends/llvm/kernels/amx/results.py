"""What follows the products of `layers`: the results of a group of tiles are finished from its
stored accumulators, some pixels at a time, while the next group is multiplied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product as cross
from math import ceil
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.loop import I32, I64, i64, minimum, spanned
from irc.backends.llvm.code.ranges import Ranges
from irc.backends.llvm.kernels.amx.tiling import LANES, ROW_BYTES, TILE_ROWS, Blocks, chunks
from irc.backends.llvm.kernels.amx.walk import Walk
from irc.backends.llvm.kernels.results.epilogue import Kept, column_groups, finish, fixed
from irc.backends.llvm.kernels.results.narrow import AT_ONCE
from irc.backends.llvm.kernels.vectors.lanes import join
from irc.backends.llvm.kernels.vectors.memory import at, prefetch, times
from irc.backends.llvm.kernels.vectors.rows import row_offset
from irc.backends.llvm.work import KernelFunction
from irc.loops import Expr, Load, walk

STRAIGHT = 2
"""Rounds for each chunk that are emitted one after the other."""
MANY, ADDING = 6, 2
"""Rounds for each chunk that take longer than its products; how many one counts for that adds to
the results."""
SINK_BYTES = 4 * ROW_BYTES
"""Where results go that are none: a round's vectors at their widest."""


class Pending:
    """What a group of tiles, whose accumulators are stored, still waits for, as variables: `done`
    tells how many of its rounds are finished, `side` which of two places its accumulators have, in
    bytes; the next group's go to the other one."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        names = ("done", "number", "wanted", "channel", "side")
        with builder.goto_entry_block():
            self._places = {name: builder.alloca(I64) for name in names}

    def set(self, **values: Any) -> None:
        """Give variables a value, i64."""
        for name, value in values.items():
            self.builder.store(value, self._places[name])

    def get(self, name: str) -> Any:
        """The value of a variable."""
        return self.builder.load(self._places[name], typ=I64)


@dataclass(frozen=True)
class Columns:
    """Columns (channels) that are finished together: where the accumulators of a row (a pixel)
    begin, in bytes, the first column (i64), how many vectors and columns, and what is known of them
    before any row."""

    offset: int
    first: Any
    vectors: int
    width: int
    known: Mapping[Expr, Any]


class Results:
    """Emits what finishes groups: in rounds, each of some pixels of all channels of a block.

    Scratch holds the accumulators of two groups, one that is pending and one that is multiplied,
    and behind them what takes results that are none.
    """

    def __init__(self, f: KernelFunction, walk: Walk) -> None:
        self.f, self.builder = f, f.builder
        self.walk, self.p, self.tiling = walk, walk.p, walk.tiling
        self.ranges = Ranges(f.work.facts)
        self.pending = Pending(f.builder)
        self.operands = self._operands()

    def _operands(self) -> list[Load]:
        """What is read where the result is written: to be added to it, mostly."""
        nest = self.f.work.loops.result
        loads = (e for e in walk(nest.value) if isinstance(e, Load))
        return [e for e in loads if e.index[-2:] == nest.axes[-2:]]

    def _plus(self, value: Any, number: int) -> Any:
        return self.builder.add(value, ir.Constant(I64, number), flags=("nuw", "nsw"))

    # -------------------------------------------------------- groups

    def none(self, blocks: Blocks) -> None:
        """No group is pending."""
        done, zero = i64(self.rounds(blocks)), i64(0)
        self.pending.set(done=done, number=zero, wanted=zero, channel=zero, side=zero)

    def stored(self, first: Any, wanted: Any, channel: Any) -> None:
        """The group that begins with a tile is pending now, the one before is finished."""
        side = self._other_side
        self.pending.set(done=i64(0), number=first, wanted=wanted, channel=channel, side=side)

    @property
    def next_place(self) -> Any:
        """Where the accumulators of the next group go: per pixel, those of its channels."""
        return at(self.builder, self.f.scratch, self._other_side)

    @property
    def _other_side(self) -> Any:
        return self.builder.sub(i64(self.tiling.stored), self.pending.get("side"))

    # -------------------------------------------------------- rounds

    def _tile_rounds(self, blocks: Blocks) -> int:
        return ceil(self.tiling.rows / blocks.pixels)

    def rounds(self, blocks: Blocks) -> int:
        """How many finish a group."""
        return self.tiling.tiles * self._tile_rounds(blocks)

    def of_chunk(self, blocks: Blocks) -> int:
        """How many there are for each chunk of products."""
        return ceil(self.rounds(blocks) / chunks(self.p))

    def outlast(self, blocks: Blocks) -> bool:
        """Whether they take longer than the products."""
        return self.of_chunk(blocks) * (ADDING if self.operands else 1) >= MANY

    def columns(self, blocks: Blocks, channel: Any = None) -> list[Columns]:
        """A block's channels, by default the pending group's, as many vectors at a time as are
        packed together."""
        channel = self.pending.get("channel") if channel is None else channel
        found = []
        for start, count, width in column_groups(blocks.channels, LANES, AT_ONCE):
            first = self._plus(channel, start * LANES)
            known = fixed(self.f, self.ranges, self.p.reduce, first, width)
            found.append(Columns(start * ROW_BYTES, first, count, width, known))
        return found

    def some(self, n: Any, chunk: Any, columns: Sequence[Columns], blocks: Blocks) -> None:
        """As many of the pending group's rounds as there are for one chunk: one or two without a
        loop, whose end the CPU would not foresee."""
        builder, count, each = self.builder, self.rounds(blocks), self.of_chunk(blocks)
        if each > STRAIGHT or count % each:
            until = times(builder, self._plus(chunk, 1), each)
            self.finish(n, columns, blocks, minimum(builder, until, count))
            return
        done = self.pending.get("done")
        with builder.if_then(builder.icmp_unsigned("<", done, i64(count))):
            for i in range(each):
                self._round(n, self._plus(done, i), columns, blocks)
            self.pending.set(done=self._plus(done, each))

    def finish(
        self, n: Any, columns: Sequence[Columns], blocks: Blocks, until: Any = None
    ) -> None:
        """The pending group's rounds up to `until`, by default all."""
        builder, done = self.builder, self.pending.get("done")
        until = i64(self.rounds(blocks)) if until is None else until
        with (
            builder.if_then(builder.icmp_unsigned("<", done, until)),
            spanned(builder, done, until, label="r") as number,
        ):
            self._round(n, number, columns, blocks)
            self.pending.set(done=self._plus(number, 1))

    def _round(self, n: Any, number: Any, columns: Sequence[Columns], blocks: Blocks) -> None:
        """The expression around the reduction for some pixels of the pending group."""
        builder, stride = self.builder, blocks.vectors * ROW_BYTES
        per_tile = ir.Constant(I64, self._tile_rounds(blocks))
        tile = builder.udiv(number, per_tile)
        row = times(builder, builder.urem(number, per_tile), blocks.pixels)
        line = at(builder, self.f.scratch, self.pending.get("side"))
        line = at(builder, line, times(builder, tile, TILE_ROWS * stride))
        line = at(builder, line, times(builder, row, stride))
        tile = builder.add(self.pending.get("number"), tile)
        place = partial(self.walk.pixel, builder, tile, self.pending.get("wanted"))
        beyond = self.tiling.rows % blocks.pixels != 0
        places = [place(self._plus(row, i), beyond=beyond) for i in range(blocks.pixels)]
        sink = at(builder, self.f.scratch, 2 * self.tiling.stored)
        keep = [None if p.new is None else Kept(p.new, sink) for p in places]
        if self.outlast(blocks):
            self._fetch_ahead([(n, p.y, p.x) for p in places], columns)
        for c in columns:
            totals = [
                ((n, p.y, p.x, c.first), self._totals(at(builder, line, i * stride + c.offset), c))
                for i, p in enumerate(places)
            ]
            finish(self.f, self.ranges, self.p.reduce, totals, c.width, c.known, keep)

    def _fetch_ahead(self, pixels: Sequence[Any], columns: Sequence[Columns]) -> None:
        """The operands of as many pixels in the next group, into the first-level cache: results
        that no products hide would wait for them."""
        builder, ahead = self.builder, self.tiling.tiles * self.tiling.rows
        for e, pixel, c in cross(self.operands, pixels, columns):
            place = self.f.places[e.source]
            offset = builder.add(row_offset(builder, pixel, place.strides), c.first)
            line = place.address(builder, self._plus(offset, ahead * place.strides[-2]))
            for start in range(0, c.width * place.bytes, ROW_BYTES):
                prefetch(builder, line, start, near=True)

    def _totals(self, pointer: Any, c: Columns) -> Any:
        full = ir.VectorType(I32, LANES)
        loaded = [
            self.builder.load(at(self.builder, pointer, j * ROW_BYTES), typ=full, align=ROW_BYTES)
            for j in range(c.vectors)
        ]
        return join(self.builder, loaded, c.width)

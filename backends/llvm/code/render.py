"""Expressions become LLVM instructions, on scalars or on vectors.

One renderer does both tiers. With `lanes > 1` one loop variable is the vector's lane: what depends
on it is a vector, all else stays scalar until it meets a vector. A micro-kernel that has computed a
node by itself binds the node to its value, and the rest of the expression is rendered around it.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.address import Place, flat_index, slope
from irc.backends.llvm.code.constants import constant
from irc.backends.llvm.code.division import Division
from irc.backends.llvm.code.loop import counted, splat
from irc.backends.llvm.code.ranges import Ranges
from irc.backends.llvm.code.rescale import (
    high_pairs,
    high_signed,
    in_pairs,
    kept,
    mul_shift_vector,
    paired,
)
from irc.backends.llvm.target import Target
from irc.errors import CompileError
from irc.loops import (
    WRAPPING,
    Binary,
    Cast,
    Compare,
    Expr,
    Int,
    Load,
    MulShift,
    Reduce,
    Select,
    Source,
    Var,
    children,
)
from irc.types import DType

I1, I8, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
_SIGNED = (DType.I8, DType.I16, DType.I32, DType.I64)
_LIKE = {"lt": "<", "le": "<=", "eq": "=="}
_PLAIN = {"and": "and_", "or": "or_", "xor": "xor", "shl": "shl"}


def int_type(dtype: DType) -> Any:
    """The LLVM type of a computed value (a boolean is an i1)."""
    return I1 if dtype is DType.BOOL else ir.IntType(dtype.bits)


def is_vector(value: Any) -> bool:
    """Whether an LLVM value is a vector."""
    return isinstance(value.type, ir.VectorType)


@dataclass(frozen=True)
class High:
    """High words of products, i32, the shifts that end them, the largest that these can be, and
    which of the elements the lanes hold."""

    words: Any
    shifts: Any
    most: int
    order: tuple[int, ...]


class Renderer:
    """Renders expressions at the builder's position.

    `bindings` gives values to nodes that are already computed: loop variables, and whatever a
    micro-kernel has by itself (scalars, or vectors of `lanes`). With `lanes > 1`, `lane_var` must
    be bound to the scalar index of the first lane.
    """

    def __init__(
        self,
        builder: Any,
        places: Mapping[Source, Place],
        bindings: Mapping[Expr, Any],
        *,
        ranges: Ranges | None = None,
        lanes: int = 1,
        lane_var: Var | None = None,
        target: Target | None = None,
    ) -> None:
        self.builder = builder
        self.places = places
        self.ranges = ranges or Ranges()
        self.lanes = lanes
        self.lane_var = lane_var
        self.target = target
        self.memo: ChainMap[Expr, Any] = ChainMap(dict(bindings))
        self._varies: dict[Expr, bool] = {e: is_vector(v) for e, v in bindings.items()}
        self.base: Renderer | None = None
        if lanes > 1:
            self._open_lanes(bindings)

    def _open_lanes(self, bindings: Mapping[Expr, Any]) -> None:
        scalars = {e: v for e, v in bindings.items() if not is_vector(v)}
        self.base = Renderer(
            self.builder, self.places, scalars, ranges=self.ranges, target=self.target
        )
        if self.lane_var is not None:
            del self.memo[self.lane_var]
            self._varies[self.lane_var] = True

    def varies(self, e: Expr) -> bool:
        """Whether `e` differs from lane to lane."""
        if e not in self._varies:
            self._varies[e] = any(self.varies(c) for c in children(e))
        return self._varies[e]

    def render(self, e: Expr) -> Any:
        """The value of `e`: a vector if it differs from lane to lane, else a scalar."""
        if e in self.memo:
            return self.memo[e]
        if self.base is not None and not self.varies(e):
            return self.base.render(e)
        self.memo[e] = value = self._compute(e)
        return value

    def render_vector(self, e: Expr) -> Any:
        """The value of `e` as a vector of `lanes` (as it is, with one lane)."""
        return self.wide(self.render(e))

    def render_bounded(self, e: Expr, bits: int) -> Any:
        """As `render_vector`, where the reader clamps what leaves -2^bits to 2^bits: there the
        value may be any other beyond these."""
        if isinstance(e, MulShift) and e not in self.memo and self.lanes > 1 and self.varies(e):
            return self._mul_shift(e, bits)
        return self.render_vector(e)

    def wide(self, value: Any) -> Any:
        """`value` on every lane."""
        if self.lanes == 1 or is_vector(value):
            return value
        return splat(self.builder, value, self.lanes)

    def _type(self, dtype: DType) -> Any:
        scalar = int_type(dtype)
        return scalar if self.lanes == 1 else ir.VectorType(scalar, self.lanes)

    def _compute(self, e: Expr) -> Any:
        match e:
            case Int(value=value):
                return ir.Constant(int_type(e.dtype), value)
            case Var():
                return self._variable(e)
            case Load():
                return self._load(e)
            case Binary():
                return self._binary(e)
            case Compare():
                return self._compare(e)
            case Select():
                condition, a, b = (self.render_vector(x) for x in (e.condition, e.a, e.b))
                return self.builder.select(condition, a, b)
            case Cast():
                inner = same_integer(e.a, self.memo)
                return self._cast(self.render(inner), inner.dtype, e.to)
            case MulShift():
                return self._mul_shift(e)
            case Reduce():
                return self._reduce(e)
        raise CompileError(f"no code for a {type(e).__name__}")

    def _variable(self, e: Var) -> Any:
        if e is not self.lane_var or self.base is None:
            raise CompileError(f"loop variable {e.label} is not bound")
        steps = constant(ir.VectorType(I64, self.lanes), range(self.lanes))
        return self.builder.add(self.wide(self.base.render(e)), steps, flags=("nsw",))

    # ------------------------------------------------------------ arithmetic

    def _binary(self, e: Binary) -> Any:
        a, b = self.render_vector(e.a), self.render_vector(e.b)
        build, signed = self.builder, e.dtype in _SIGNED
        match e.kind:
            case "add" | "sub" | "mul":
                if e.dtype is DType.BOOL:
                    raise CompileError(f"{e.kind} of booleans")
                flags = ("nsw",) if signed else ("nuw",)
                return getattr(build, e.kind)(a, b, flags=flags)
            case "wrap_add" | "wrap_sub" | "wrap_mul":
                return getattr(build, WRAPPING[e.kind])(a, b)
            case "min" | "max":
                compare = build.icmp_signed if signed else build.icmp_unsigned
                return build.select(compare("<" if e.kind == "min" else ">", a, b), a, b)
            case "shr":
                return build.ashr(a, b) if signed else build.lshr(a, b)
            case "floordiv" | "mod":
                return Division(build, self.ranges).divide(e, a, b)
        return getattr(build, _PLAIN[e.kind])(a, b)

    def _compare(self, e: Compare) -> Any:
        a, b = self.render_vector(e.a), self.render_vector(e.b)
        if e.a.dtype in _SIGNED:
            return self.builder.icmp_signed(_LIKE[e.kind], a, b)
        return self.builder.icmp_unsigned(_LIKE[e.kind], a, b)

    def _cast(self, value: Any, source: DType, to: DType) -> Any:
        """The same integer in another width."""
        element = int_type(to)
        full = ir.VectorType(element, value.type.count) if is_vector(value) else element
        before = int_type(source).width
        if to is DType.BOOL:
            return self.builder.icmp_unsigned("!=", value, constant(value.type, 0))
        if element.width < before:
            return self.builder.trunc(value, full)
        if element.width == before:
            return value
        extend = self.builder.sext if source in _SIGNED else self.builder.zext
        return extend(value, full)

    # ------------------------------------------------------------ equation (6)

    def _mul_shift(self, e: MulShift, bits: int | None = None) -> Any:
        a, m, s = (self.render_vector(x) for x in (e.a, e.m, e.s))
        if self.lanes % 2 == 0 and self.lanes > 1 and e.a.dtype is DType.I32:
            return self._mul_shift_words(e, a, m, self._cast(s, e.s.dtype, DType.I32), bits)
        wide = DType.I64
        a, m, s = (
            self._cast(v, x.dtype, wide) for v, x in zip((a, m, s), (e.a, e.m, e.s), strict=True)
        )
        total = self.builder.mul(a, m, flags=("nsw",))
        if e.half:
            one = constant(a.type, 1)
            half = self.builder.shl(one, self.builder.sub(s, one))
            total = self.builder.add(total, half, flags=("nsw",))
        return self._cast(self.builder.ashr(total, s), wide, e.dtype)

    def _mul_shift_words(
        self, e: MulShift, a: Any, m: Any, s: Any, bits: int | None = None
    ) -> Any:
        """On vectors of i32. Where the interval of a allows it, a is shifted left first, so that
        every shift is above 32: the cheapest form. Where lanes can't be shifted by different
        amounts, they are multiplied by powers of two, so that one amount is left: before the
        product, or where the result is `bits` wide behind it."""
        low, high = self.ranges.of(e.s)
        x86 = self.target is None or self.target.is_x86
        alike = self.target is not None and not self.target.shifts_lanes
        top = max(high, 33)
        if alike and self._has_room(e, top - low):
            one, same = constant(a.type, 1), constant(a.type, top)
            power = self.builder.shl(one, self.builder.sub(same, s))
            a = self.builder.mul(a, kept(self.builder, power))
            return mul_shift_vector(self.builder, a, m, same, (top, top), x86=x86, half=e.half)
        a, s, (low, high) = self._raised(e, a, s)
        return mul_shift_vector(
            self.builder, a, m, s, (low, high), x86=x86, half=e.half, bits=bits if alike else None
        )

    def _raised(self, e: MulShift, a: Any, s: Any) -> tuple[Any, Any, tuple[int, int]]:
        """a shifted left where its interval allows it, so that every shift is above 32; the
        shifts, and their bounds."""
        low, high = self.ranges.of(e.s)
        left = max(33 - low, 0)
        if left and high + left <= 63 and self._has_room(e, left):
            a = self.builder.shl(a, constant(a.type, left), flags=("nsw",))
            s = self.builder.add(s, constant(s.type, left))
            low, high = low + left, high + left
        return a, s, (low, high)

    def render_high(self, e: Expr) -> High | None:
        """Of equation (6), on vectors of x86-64, the high words of the products and how far they
        are still to be shifted and rounded; None where it is something else, or shifts may be 32 or
        less. Lanes are in the order of `rescale.paired` where nothing can leave some of them as
        they are."""
        whole = isinstance(e, MulShift) and e.half and e.a.dtype is DType.I32 and e not in self.memo
        if not whole or self.lanes % 4 or not self.varies(e):
            return None
        assert isinstance(e, MulShift)
        a, m, s = (self.render_vector(x) for x in (e.a, e.m, e.s))
        s = self._cast(s, e.s.dtype, DType.I32)
        a, s, (low, high) = self._raised(e, a, s)
        if low <= 32:
            return None
        shifts, most = self.builder.sub(s, constant(s.type, 32)), high - 32
        if self.target is not None and self.target.masks_lanes:
            words, order = high_signed(self.builder, a, m), range(self.lanes)
            return High(words, shifts, most, tuple(order))
        shifts = in_pairs(self.builder, shifts)
        return High(high_pairs(self.builder, a, m), shifts, most, tuple(paired(self.lanes)))

    def _has_room(self, e: MulShift, bits: int) -> bool:
        """Whether a, shifted left, fits 32 bits."""
        bound = 2**31 >> bits
        return self.ranges.within(e.a, -bound, bound - 1)

    # ------------------------------------------------------------ loads

    def _load(self, e: Load) -> Any:
        if e.fill is not None and prod(e.source.shape) == 0:
            return self.render_vector(e.fill)
        place = self.places[e.source]
        tests = [] if e.fill is None else self._tests(e)
        flat = flat_index(e.index, place.strides)
        if self.lanes == 1:
            return self._load_scalar(e, place, flat, tests)
        assert self.base is not None
        inside_varies = any(is_vector(t) for t in tests)
        if self.lane_var is not None and not inside_varies and slope(flat, self.lane_var) == 1:
            return self._load_vector(e, place, flat, tests)
        return self._gather(e, place, flat, tests)

    def _tests(self, e: Load) -> list[Any]:
        """The bounds tests that are not known to hold."""
        tests: list[Any] = []
        for i, extent in zip(e.index, e.source.shape, strict=True):
            if not self.ranges.within(i, 0, extent - 1):
                value = self.render(i)
                bound = constant(value.type, extent)
                tests.append(self.builder.icmp_unsigned("<", value, bound))
        return tests

    def _all(self, tests: Sequence[Any]) -> Any:
        wide = any(is_vector(t) for t in tests)
        together = None
        for test in tests:
            t = self.wide(test) if wide else test
            together = t if together is None else self.builder.and_(together, t)
        return together

    def _load_scalar(self, e: Load, place: Place, flat: Expr, tests: Sequence[Any]) -> Any:
        offset = self.render(flat)
        return self._guarded(e, tests, offset, lambda o: self._read(place, o, 1))

    def _load_vector(self, e: Load, place: Place, flat: Expr, tests: Sequence[Any]) -> Any:
        """Neighbouring elements. Where a test fails, the tensor's first elements are read in
        their stead: as many exist, because the lane's axis is as long."""
        assert self.base is not None
        offset = self.base.render(flat)
        return self._guarded(e, tests, offset, lambda o: self._read(place, o, self.lanes))

    def _guarded(
        self, e: Load, tests: Sequence[Any], offset: Any, read: Callable[[Any], Any]
    ) -> Any:
        inside = self._all(tests)
        if inside is None or e.fill is None:
            return read(offset)
        value = read(self.builder.select(inside, offset, constant(offset.type, 0)))
        return self.builder.select(inside, value, self.render_vector(e.fill))

    def _gather(self, e: Load, place: Place, flat: Expr, tests: Sequence[Any]) -> Any:
        offsets = self.render_vector(flat)
        wide_tests = [self.wide(t) for t in tests]
        return self._guarded(e, wide_tests, offsets, lambda o: self._read_each(place, o))

    def _read_each(self, place: Place, offsets: Any) -> Any:
        element = int_type(place.dtype)
        result = ir.Constant(ir.VectorType(element, self.lanes), ir.Undefined)
        for lane in range(self.lanes):
            at = ir.Constant(I32, lane)
            value = self._read(place, self.builder.extract_element(offsets, at), 1)
            result = self.builder.insert_element(result, value, at)
        return result

    def _read(self, place: Place, offset: Any, lanes: int) -> Any:
        stored = ir.IntType(place.dtype.bits)
        full = stored if lanes == 1 else ir.VectorType(stored, lanes)
        address = place.address(self.builder, offset)
        value = self.builder.load(address, typ=full, align=place.bytes)
        if place.dtype is DType.BOOL:
            return self.builder.icmp_unsigned("!=", value, constant(full, 0))
        return value

    def store(self, place: Place, index: Sequence[Expr], value: Any) -> None:
        """Store what `render` gave at an index; vectors go to neighbouring elements."""
        scalar = self.base or self
        offset = scalar.render(flat_index(index, place.strides))
        value = self.wide(value)
        if place.dtype is DType.BOOL:
            stored = I8 if self.lanes == 1 else ir.VectorType(I8, self.lanes)
            value = self.builder.zext(value, stored)
        self.builder.store(value, place.address(self.builder, offset), align=place.bytes)

    # ------------------------------------------------------------ reductions

    def _reduce(self, e: Reduce) -> Any:
        """Inner loops with the accumulator in a phi; the last axis is the innermost."""
        return self._reduce_axes(e, e.axes, self._neutral(e))

    def _neutral(self, e: Reduce) -> Any:
        value = {"add": 0, "max": e.dtype.min, "min": e.dtype.max}[e.kind]
        return constant(self._type(e.dtype), value)

    def _reduce_axes(self, e: Reduce, axes: Sequence[Var], acc: Any) -> Any:
        if not axes:
            return self._combine(e, acc, self.render_vector(e.body))
        with counted(self.builder, axes[0].extent, carry=acc, label=axes[0].label) as loop:
            self.push(axes[0], loop.index)
            loop.carry = self._reduce_axes(e, axes[1:], loop.carry)
            self.pop()
        return loop.carry

    def _combine(self, e: Reduce, acc: Any, value: Any) -> Any:
        if e.kind == "add":
            return self.builder.add(acc, value)
        compare = self.builder.icmp_signed if e.dtype in _SIGNED else self.builder.icmp_unsigned
        return self.builder.select(compare("<" if e.kind == "min" else ">", acc, value), acc, value)

    def push(self, variable: Var, index: Any) -> None:
        """Enter a loop: bind its variable. What is rendered inside is forgotten by `pop`."""
        self.memo = self.memo.new_child({variable: index})
        if self.base is not None:
            self._varies[variable] = False
            self.base.push(variable, index)

    def pop(self) -> None:
        """Leave the innermost loop."""
        self.memo = self.memo.parents
        if self.base is not None:
            self.base.pop()


def same_integer(e: Expr, known: Mapping[Expr, Any]) -> Expr:
    """What a cast to one dtype on the way to another is of: a cast never changes the integer, so
    the one between need not be done, unless its value is known."""
    while isinstance(e, Cast) and e not in known and DType.BOOL not in (e.to, e.a.dtype):
        e = e.a
    return e

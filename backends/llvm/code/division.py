"""Division: by shifts, in 32 bits where the intervals of both sides allow it, or as the CPU has it.

Where a CPU has no 64-bit division LLVM would call a runtime library, and ours call nothing: there
`divide_unsigned` does it, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.constants import constant
from irc.backends.llvm.code.loop import I32, I64, counted
from irc.backends.llvm.code.ranges import Ranges
from irc.loops import Binary, Expr, Int

NAME = "irc_udiv64"


@dataclass(frozen=True)
class Division:
    """Divides rendered integers, scalars or vectors, as `ranges` knows their intervals."""

    builder: Any
    ranges: Ranges

    def divide(self, e: Binary, a: Any, b: Any) -> Any:
        """`e`, a floordiv or mod, whose sides are `a` and `b`: rounded down."""
        power = _power_of_two(e.b)
        if power is not None and e.kind == "floordiv":
            shift = self.builder.ashr if e.dtype.min < 0 else self.builder.lshr
            return shift(a, constant(a.type, power))
        if power is not None:
            return self.builder.and_(a, constant(a.type, (1 << power) - 1))
        if self.ranges.of(e.a)[0] >= 0 and self.ranges.of(e.b)[0] >= 0:
            return self._natural(e, a, b)
        return self._floor(e, a, b)

    def _natural(self, e: Binary, a: Any, b: Any) -> Any:
        """Neither side negative; in 32 bits where both fit: cheaper, and no call on 32-bit CPUs."""
        build, full = self.builder, a.type
        narrow, a, b = self._narrow(e, a, b, 0, 2**32)
        soft = lacks_division(build, a.type)
        divide = partial(divide_unsigned, build) if soft else build.udiv
        result = divide(a, b) if e.kind == "floordiv" or soft else build.urem(a, b)
        if soft and e.kind == "mod":
            result = build.sub(a, build.mul(result, b))
        return build.zext(result, full) if narrow else result

    def _floor(self, e: Binary, a: Any, b: Any) -> Any:
        """Rounded down, in 32 bits where both fit: the machine rounds toward zero, which is one
        more where signs differ."""
        build, full = self.builder, a.type
        narrow, a, b = self._narrow(e, a, b, 1 - 2**31, 2**31)
        q = divide_signed(build, a, b) if lacks_division(build, a.type) else build.sdiv(a, b)
        r = build.sub(a, build.mul(q, b))
        zero = constant(a.type, 0)
        opposite = build.icmp_signed("<", build.xor(r, b), zero)
        down = build.and_(opposite, build.icmp_signed("!=", r, zero))
        if e.kind == "floordiv":
            result = build.select(down, build.sub(q, constant(q.type, 1)), q)
        else:
            result = build.select(down, build.add(r, b), r)
        return build.sext(result, full) if narrow else result

    def _narrow(self, e: Binary, a: Any, b: Any, low: int, stop: int) -> tuple[bool, Any, Any]:
        """Whether both sides of 64 bits lie in [low, stop), and then these, in 32 bits."""
        if e.dtype.bits < 64 or not all(self.ranges.within(x, low, stop - 1) for x in (e.a, e.b)):
            return False, a, b
        small = ir.VectorType(I32, a.type.count) if isinstance(a.type, ir.VectorType) else I32
        return True, self.builder.trunc(a, small), self.builder.trunc(b, small)


def _power_of_two(e: Expr) -> int | None:
    if isinstance(e, Int) and e.value > 0 and e.value & (e.value - 1) == 0:
        return e.value.bit_length() - 1
    return None


def lacks_division(builder: Any, type_: Any) -> bool:
    """Whether dividing this type by a variable needs `divide_unsigned`: 64 bits on 32-bit Arm."""
    element = type_.element if isinstance(type_, ir.VectorType) else type_
    triple: str = builder.module.triple
    return element.width == 64 and triple.startswith(("arm", "thumb"))


def divided(builder: Any, a: Any, b: Any) -> Any:
    """`a / b` for unsigned i64, by whichever way the CPU has."""
    return divide_unsigned(builder, a, b) if lacks_division(builder, I64) else builder.udiv(a, b)


def divide_unsigned(builder: Any, a: Any, b: Any) -> Any:
    """`a / b` for unsigned i64, scalar or lane by lane."""
    function = _function(builder.module)
    if not isinstance(a.type, ir.VectorType):
        return builder.call(function, [a, b])
    result = ir.Constant(a.type, ir.Undefined)
    for lane in range(a.type.count):
        at = ir.Constant(ir.IntType(32), lane)
        pair = [builder.extract_element(v, at) for v in (a, b)]
        result = builder.insert_element(result, builder.call(function, pair), at)
    return result


def divide_signed(builder: Any, a: Any, b: Any) -> Any:
    """`a / b` for signed i64, rounded toward zero."""
    zero = constant(a.type, 0)
    negative = builder.icmp_signed("<", builder.xor(a, b), zero)
    magnitudes = [
        builder.select(builder.icmp_signed("<", v, zero), builder.sub(zero, v), v) for v in (a, b)
    ]
    quotient = divide_unsigned(builder, *magnitudes)
    return builder.select(negative, builder.sub(zero, quotient), quotient)


def _function(module: Any) -> Any:
    """Long division, bit by bit."""
    if NAME in module.globals:
        return module.globals[NAME]
    function = ir.Function(module, ir.FunctionType(I64, [I64, I64]), NAME)
    function.linkage = "internal"
    for attribute in ("nounwind", "noinline", "readnone"):
        function.attributes.add(attribute)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    a, b = function.args
    state = ir.Constant(ir.ArrayType(I64, 2), [0, 0])  # quotient, remainder
    with counted(builder, 64, carry=state, label="bit") as loop:
        quotient, rest = (builder.extract_value(loop.carry, i) for i in (0, 1))
        shift = builder.sub(ir.Constant(I64, 63), loop.index)
        bit = builder.and_(builder.lshr(a, shift), ir.Constant(I64, 1))
        rest = builder.or_(builder.shl(rest, ir.Constant(I64, 1)), bit)
        fits = builder.icmp_unsigned(">=", rest, b)
        rest = builder.select(fits, builder.sub(rest, b), rest)
        one = builder.shl(builder.zext(fits, I64), shift)
        carry = builder.insert_value(loop.carry, builder.or_(quotient, one), 0)
        loop.carry = builder.insert_value(carry, rest, 1)
    builder.ret(builder.extract_value(loop.carry, 0))
    return function

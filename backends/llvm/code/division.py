"""64-bit division by a variable where the CPU has none: there LLVM would call a runtime library,
and ours call nothing."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from irc.backends.llvm.code.loop import I64, counted

NAME = "irc_udiv64"


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
    zero = _constant(a.type, 0)
    negative = builder.icmp_signed("<", builder.xor(a, b), zero)
    magnitudes = [
        builder.select(builder.icmp_signed("<", v, zero), builder.sub(zero, v), v) for v in (a, b)
    ]
    quotient = divide_unsigned(builder, *magnitudes)
    return builder.select(negative, builder.sub(zero, quotient), quotient)


def _constant(type_: Any, value: int) -> Any:
    if isinstance(type_, ir.VectorType):
        return ir.Constant(type_, [value] * type_.count)
    return ir.Constant(type_, value)


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

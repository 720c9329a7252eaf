"""The float edge: `NAME_run_f32` quantizes, runs, and dequantizes. The only floats there are."""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir

from irc.backends.llvm.functions import I64, PTR, declare
from irc.backends.llvm.loop import counted
from irc.backends.llvm.target import Target
from irc.types import DType, TensorType

F32, F64 = ir.FloatType(), ir.DoubleType()
ROUND = 1.5 * 2.0**52
"""Added and taken away again, it leaves a double below 2^51 rounded half to even: the rounding
mode of IEEE 754 does it, without a libm."""


def quantize_function(module: Any, name: str, type_: TensorType, target: Target) -> Any:
    """`void name(const float *source, Q *target)`: equation (2) over all elements.

    Clamping comes before rounding, with integer bounds: the same value, and no overflow.
    """
    function, builder = _define(module, name, target)
    source, result = function.args
    low, high = type_.dtype.min - type_.zero, type_.dtype.max - type_.zero
    with _elements(builder, type_) as loop:
        real = builder.fpext(_load(builder, source, loop.index, F32), F64)
        real = builder.fdiv(real, _double(type_.scale))
        real = _clamped(builder, real, float(low), float(high))
        rounded = builder.fsub(builder.fadd(real, _double(ROUND)), _double(ROUND))
        number = builder.select(
            builder.fcmp_unordered("uno", real, real), _double(0.0), rounded
        )
        q = builder.fptosi(number, _wide(type_))
        q = builder.add(q, ir.Constant(q.type, type_.zero))
        _store(builder, q, result, loop.index, type_)
    builder.ret_void()
    return function


def dequantize_function(module: Any, name: str, type_: TensorType, target: Target) -> Any:
    """`void name(const Q *source, float *target)`: equation (1) over all elements, in double."""
    function, builder = _define(module, name, target)
    source, result = function.args
    signed = type_.dtype.min < 0
    with _elements(builder, type_) as loop:
        q = _load(builder, source, loop.index, ir.IntType(type_.dtype.bits))
        wide = _wide(type_)
        if type_.dtype.bits < wide.width:
            q = builder.sext(q, wide) if signed else builder.zext(q, wide)
        difference = builder.fsub(builder.sitofp(q, F64), _double(float(type_.zero)))
        real = builder.fmul(difference, _double(type_.scale))
        address = builder.gep(result, [loop.index], inbounds=True, source_etype=F32)
        builder.store(builder.fptrunc(real, F32), address, align=4)
    builder.ret_void()
    return function


def _define(module: Any, name: str, target: Target) -> tuple[Any, Any]:
    function = declare(module, name, [PTR, PTR], target)
    function.args[1].add_attribute("noalias")
    return function, ir.IRBuilder(function.append_basic_block("entry"))


def _elements(builder: Any, type_: TensorType) -> Any:
    return counted(builder, type_.size)


def _wide(type_: TensorType) -> Any:
    """An integer type that holds q and q - zero point."""
    return ir.IntType(32 if type_.dtype.bits < 32 else 64)


def _clamped(builder: Any, x: Any, low: float, high: float) -> Any:
    x = builder.select(builder.fcmp_ordered("<", x, _double(low)), _double(low), x)
    return builder.select(builder.fcmp_ordered(">", x, _double(high)), _double(high), x)


def _load(builder: Any, pointer: Any, index: Any, type_: Any) -> Any:
    address = builder.gep(pointer, [index], inbounds=True, source_etype=type_)
    align = 4 if type_ is F32 else type_.width // 8
    return builder.load(address, typ=type_, align=align)


def _store(builder: Any, q: Any, pointer: Any, index: Any, type_: TensorType) -> None:
    element = ir.IntType(type_.dtype.bits)
    address = builder.gep(pointer, [index], inbounds=True, source_etype=element)
    value = builder.trunc(q, element) if element.width < q.type.width else q
    builder.store(value, address, align=element.width // 8)


def _double(value: float) -> Any:
    assert math.isfinite(value)
    return ir.Constant(F64, value)


def needs_edge(type_: TensorType) -> bool:
    """Whether the float edge can convert this type (quantized, at most 32 bits)."""
    return type_.quant is not None and type_.dtype not in (DType.I64, DType.U64)


__all__ = ["I64", "dequantize_function", "needs_edge", "quantize_function"]

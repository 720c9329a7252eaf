"""The float edge: `NAME_run_f32` quantizes, runs, and dequantizes. The only floats there are."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llvmlite import ir

from irc.backends.llvm.functions import PTR, declare, offset
from irc.backends.llvm.interface import Interface, Port
from irc.backends.llvm.loop import counted
from irc.backends.llvm.rounding import F32, F64, Decisions, divided
from irc.backends.llvm.target import Target
from irc.types import DType, TensorType


def quantize_function(module: Any, name: str, type_: TensorType, target: Target) -> Any:
    """`void name(const float *source, Q *target)`: equation (2) over all elements.

    Clamping comes before dividing, between the reals of the least and the largest integer: the
    same value, and nothing overflows.
    """
    function, builder = _define(module, name, target)
    source, result = function.args
    low, high = type_.dtype.min - type_.zero, type_.dtype.max - type_.zero
    decisions = Decisions.of(type_) if target.fused else None
    with _elements(builder, type_) as loop:
        real = _load(builder, source, loop.index, F32)
        number = builder.fcmp_ordered("ord", real, real)
        real = builder.select(number, real, ir.Constant(F32, 0.0))
        if decisions is None:
            real = builder.fpext(real, F64)
        real = _clamped(builder, real, low * type_.scale, high * type_.scale)
        if decisions is None:
            whole = divided(builder, real, type_.scale)
        else:
            whole = decisions.emit(builder, real)
        q = builder.trunc(whole, ir.IntType(type_.dtype.bits))
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
    least, most = ir.Constant(x.type, low), ir.Constant(x.type, high)
    x = builder.select(builder.fcmp_ordered("<", x, least), least, x)
    return builder.select(builder.fcmp_ordered(">", x, most), most, x)


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


def emit_edge(
    builder: Any, interface: Interface, target: Target, arguments: Sequence[Any], body: Any
) -> Any:
    """Emit a run with floats around `body`, which takes integers: inputs are quantized into the
    workspace, outputs dequantized out of it. Returns what the body returns."""
    *pointers, workspace = arguments
    inner = [
        offset(builder, workspace, start) if crosses(port) else pointer
        for port, pointer, start in zip(
            interface.ports, pointers, interface.offsets, strict=True
        )
    ]
    conversions = list(zip(range(len(pointers)), pointers, inner, strict=True))
    count = len(interface.inputs)
    for i, outside, inside in conversions[:count]:
        if inside is not outside:
            builder.call(_convert(builder.module, interface, i, target), [outside, inside])
    result = builder.call(body, [*inner, workspace])
    for i, outside, inside in conversions[count:]:
        if inside is not outside:
            builder.call(_convert(builder.module, interface, i, target), [inside, outside])
    return result


def _convert(module: Any, interface: Interface, index: int, target: Target) -> Any:
    port = interface.ports[index]
    quantize = port.kind == "input"
    name = f"{interface.name}_{'quantize' if quantize else 'dequantize'}{index}"
    if port.type.size == 0:
        function = declare(module, name, [PTR, PTR], target)
        ir.IRBuilder(function.append_basic_block("entry")).ret_void()
        return function
    make = quantize_function if quantize else dequantize_function
    return make(module, name, port.type, target)


def crosses(port: Port) -> bool:
    """Whether the float edge converts a tensor of the interface."""
    return port.state is None and needs_edge(port.type)


def needs_edge(type_: TensorType) -> bool:
    """Whether the float edge converts this type: one scale for all of it, at most 32 bits."""
    quant = type_.quant
    return quant is not None and quant.axis is None and type_.dtype not in (DType.I64, DType.U64)


def has_edge(
    inputs: Mapping[str, TensorType], outputs: Mapping[str, TensorType], left: Collection[str] = ()
) -> bool:
    """Whether the float edge does what callers expect of floats: it takes some, and gives some for
    every output that has a scale, those `left` as integers aside."""
    taken = [t for n, t in inputs.items() if n not in left]
    given = [t for n, t in outputs.items() if n not in left]
    whole = all(t.quant is None or needs_edge(t) for t in (*taken, *given))
    return whole and any(map(needs_edge, taken))

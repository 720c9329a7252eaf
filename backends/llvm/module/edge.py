"""The float edge: `NAME_run_f32` quantizes, runs, and dequantizes. The only floats there are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from llvmlite import ir

from irc import fixedpoint
from irc.backends.llvm.code.functions import PTR, declare, offset
from irc.backends.llvm.code.loop import counted
from irc.backends.llvm.code.rounding import F32, F64, Decisions, divided
from irc.backends.llvm.module.interface import Interface, Port
from irc.backends.llvm.target import Target
from irc.types import Array, DType, TensorType


def quantize_function(module: Any, name: str, type_: TensorType, target: Target) -> Any:
    """`void name(const float *source, Q *target)`: equation (2) over all elements.

    Clamping comes before dividing, between the reals of the least and the largest integer: the
    same value, and nothing overflows.
    """
    function, builder = _define(module, name, target)
    source, result = function.args
    low, high = (np.subtract(end, _points(type_)) for end in type_.ends)
    missing = fixedpoint.quant_of(type_).missing
    ends = [_numbers(builder, f"{name}.{n}", end * _scales(type_))
            for n, end in (("low", low), ("high", high))]  # fmt: skip
    scale = _numbers(builder, f"{name}.scale", _scales(type_))
    zero = _numbers(builder, f"{name}.zero", _points(type_))
    decisions = Decisions.of(type_) if target.fused and _whole(type_) else None
    with _elements(builder, type_) as (index, column):
        real = _load(builder, source, index, F32)
        number = builder.fcmp_ordered("ord", real, real)
        real = builder.select(number, real, ir.Constant(F32, 0.0))
        real = builder.fpext(real, F64) if decisions is None else real
        real = _clamped(builder, real, *(end(column, real.type) for end in ends))
        if decisions is None:
            whole = builder.trunc(divided(builder, real, scale(column, F64)), ir.IntType(32))
        else:
            whole = decisions.emit(builder, real)
        q = builder.add(whole, zero(column, whole.type))
        q = q if missing is None else builder.select(number, q, ir.Constant(q.type, missing))
        _store(builder, q, result, index, type_)
    builder.ret_void()
    return function


def dequantize_function(module: Any, name: str, type_: TensorType, target: Target) -> Any:
    """`void name(const Q *source, float *target)`: equation (1) over all elements, in double."""
    function, builder = _define(module, name, target)
    source, result = function.args
    signed = type_.dtype.min < 0
    scale = _numbers(builder, f"{name}.scale", _scales(type_))
    zero = _numbers(builder, f"{name}.zero", _points(type_).astype(np.float64))
    with _elements(builder, type_) as (index, column):
        q = _load(builder, source, index, ir.IntType(type_.dtype.bits))
        wide = ir.IntType(32 if type_.dtype.bits < 32 else 64)
        if type_.dtype.bits < wide.width:
            q = builder.sext(q, wide) if signed else builder.zext(q, wide)
        difference = builder.fsub(builder.sitofp(q, F64), zero(column, F64))
        real = builder.fmul(difference, scale(column, F64))
        if (missing := fixedpoint.quant_of(type_).missing) is not None:
            lacks = builder.icmp_signed("==", q, ir.Constant(q.type, missing))
            real = builder.select(lacks, ir.Constant(F64, float("nan")), real)
        address = builder.gep(result, [index], inbounds=True, source_etype=F32)
        builder.store(builder.fptrunc(real, F32), address, align=4)
    builder.ret_void()
    return function


def _scales(type_: TensorType) -> Array:
    """One scale, or one of each column, f64."""
    return np.asarray(fixedpoint.quant_of(type_).scales, np.float64)


def _points(type_: TensorType) -> Array:
    """As many zero points, i64."""
    point = fixedpoint.quant_of(type_).zero_point
    return np.broadcast_to(np.asarray(point, np.int64), _scales(type_).shape)


def _whole(type_: TensorType) -> bool:
    """Whether a tensor has one scale, and no columns."""
    return fixedpoint.quant_of(type_).axis is None


def _numbers(builder: Any, name: str, numbers: Array) -> Callable[[Any, Any], Any]:
    """What gives the number of a column, of several from read-only memory."""
    if numbers.size == 1:
        only = numbers.reshape(-1)[0].item()
        return lambda column, type_: ir.Constant(type_, only)
    element = F64 if numbers.dtype.kind == "f" else ir.IntType(32)
    array: Any = ir.GlobalVariable(builder.module, ir.ArrayType(element, numbers.size), name)
    array.linkage, array.global_constant = "internal", True
    array.initializer = ir.Constant(array.value_type, numbers.tolist())

    def number(column: Any, type_: Any) -> Any:
        assert type_ == element
        return builder.load(builder.gep(array, [column], source_etype=element), typ=element)

    return number


def _define(module: Any, name: str, target: Target) -> tuple[Any, Any]:
    function = declare(module, name, [PTR, PTR], target)
    function.args[1].add_attribute("noalias")
    return function, ir.IRBuilder(function.append_basic_block("entry"))


@contextmanager
def _elements(builder: Any, type_: TensorType) -> Iterator[tuple[Any, Any]]:
    """A loop over elements: the index of each, and its column where these have scales."""
    if _whole(type_):
        with counted(builder, type_.size) as loop:
            yield loop.index, loop.index
        return
    columns = type_.shape[-1]
    with counted(builder, type_.size // columns) as row:
        before = builder.mul(row.index, ir.Constant(row.index.type, columns))
        with counted(builder, columns) as loop:
            yield builder.add(before, loop.index), loop.index


def _clamped(builder: Any, x: Any, least: Any, most: Any) -> Any:
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
    """Whether the float edge converts this type: one scale for all of it, or one for each column,
    at most 32 bits."""
    quant = type_.quant
    known = quant is not None and quant.axis in (None, type_.rank - 1)
    return known and type_.dtype not in (DType.I64, DType.U64)


def has_edge(
    inputs: Mapping[str, TensorType], outputs: Mapping[str, TensorType], left: Collection[str] = ()
) -> bool:
    """Whether the float edge does what callers expect of floats: it takes some, and gives some for
    every output that has a scale, those `left` as integers aside."""
    taken = [t for n, t in inputs.items() if n not in left]
    given = [t for n, t in outputs.items() if n not in left]
    whole = all(t.quant is None or needs_edge(t) for t in (*taken, *given))
    return whole and any(map(needs_edge, taken))

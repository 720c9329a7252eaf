"""Steps of recurrent layers in files that state scales of 16 bits for them, as irc's own do.

What a file leaves unquantized between two states is one step, of one rounding: products with the
state, gates, and what they let through.
"""

from __future__ import annotations

from irc.ops.activation import Sigmoid
from irc.ops.elementwise import Add, Mul
from irc.ops.linear import Linear
from irc.ops.moving import origin
from irc.ops.quantization import Dequantize, Quantize
from irc.ops.recurrent import Gated, GruState, Recurrent
from irc.passes.float.gru_patterns import update_of
from irc.passes.float.recurrent_patterns import part_of
from irc.types import DType
from irc.value import Value


def state_added(v: Value) -> Value | None:
    """What a state gives, and what it is added to.

        (%h: i16[1,1] q(0.5, 0), %a: i16[1,2] q(0.25, 0))
        %s = dequantize(%h) : f32[1,1]
        %w = const [3, -5] : i8[2,1] q(0.5, 0)
        %d = dequantize(%w) : f32[2,1]
        %p = linear(%s, %d, -) : f32[1,2]
        %o = dequantize(%a) : f32[1,2]
        %g = add(%p, %o) : f32[1,2]
        %y = quantize(%g) : i16[1,2] q(0.25, 0)
        ->
        %s = dequantize(%h) : f32[1,1]
        %w = const [3, -5] : i8[2,1] q(0.5, 0)
        %d = dequantize(%w) : f32[2,1]
        %o = dequantize(%a) : f32[1,2]
        %g = recurrent(%s, %d, -, %o) : f32[1,2]
        %y = quantize(%g) : i16[1,2] q(0.25, 0)
    """
    match v:
        case Quantize(dtype=DType.I16, x=Add(a=Linear() as p, b=a) | Add(a=a, b=Linear() as p)):
            if _precise(p.x) and _precise(a) and a.shape == p.shape:
                return v.replace(x=Recurrent(p.x, p.w, p.b, a, name=v.x.name))
    return None


def gate(v: Value) -> Value | None:
    """What a gate lets through.

        (%g: i16[1,2] q(0.25, 0), %x: i16[1,1] q(0.5, 0))
        %d = dequantize(%g) : f32[1,2]
        %p = slice(%d) {starts = [0, 1], stops = [1, 2], steps = [1, 1]} : f32[1,1]
        %s = sigmoid(%p) : f32[1,1]
        %e = dequantize(%x) : f32[1,1]
        %m = mul(%s, %e) : f32[1,1]
        %y = quantize(%m) : i16[1,1] q(0.5, 0)
        ->
        %d = dequantize(%g) : f32[1,2]
        %e = dequantize(%x) : f32[1,1]
        %m = gated(%d, %e) {index = 1} : f32[1,1]
        %y = quantize(%m) : i16[1,1] q(0.5, 0)
    """
    match v:
        case Quantize(dtype=DType.I16, x=Mul(a=Sigmoid(x=g), b=x) | Mul(a=x, b=Sigmoid(x=g))):
            part = part_of(g)
            if part is not None and _precise(part.source) and _precise(x) and x.shape == g.shape:
                return v.replace(x=Gated(part.gates, x, part.index, name=v.x.name))
    return None


def next_state(v: Value) -> Value | None:
    """The next state of a GRU.

        (%g: i16[1,2] q(0.25, 0), %m: i16[1,1] q(0.25, 0), %p: i16[1,1] q(0.5, 0))
        %d = dequantize(%g) : f32[1,2]
        %s = slice(%d) {starts = [0, 1], stops = [1, 2], steps = [1, 1]} : f32[1,1]
        %z = sigmoid(%s) : f32[1,1]
        %h = dequantize(%p) : f32[1,1]
        %k = mul(%z, %h) : f32[1,1]
        %one = const [1.0] : f32[]
        %r = sub(%one, %z) : f32[1,1]
        %n = dequantize(%m) : f32[1,1]
        %t = tanh(%n) : f32[1,1]
        %c = mul(%r, %t) : f32[1,1]
        %a = add(%k, %c) : f32[1,1]
        %y = quantize(%a) : i16[1,1] q(0.5, 0)
        ->
        %d = dequantize(%g) : f32[1,2]
        %n = dequantize(%m) : f32[1,1]
        %h = dequantize(%p) : f32[1,1]
        %a = gru_state(%d, %n, %h) {index = 1} : f32[1,1]
        %y = quantize(%a) : i16[1,1] q(0.5, 0)
    """
    match v:
        case Quantize(dtype=DType.I16, x=Add() as total):
            found = update_of(total)
            part = None if found is None else part_of(found.z)
            if found is None or part is None:
                return None
            if all(map(_precise, (part.source, found.n, found.h))):
                state = GruState(part.gates, found.n, found.h, part.index, name=total.name)
                return v.replace(x=state)
    return None


def _precise(v: Value) -> bool:
    """Whether integers of 16 bits stand for a value, perhaps moved."""
    source = origin(v)
    return isinstance(source, Dequantize) and source.x.type.dtype is DType.I16


RULES = (state_added, gate, next_state)

"""Matrix products with constant weights, as `linear` with weights [O, K]."""

from __future__ import annotations

import numpy as np

from irc.ops.core import Const
from irc.ops.elementwise import Add
from irc.ops.linear import Linear, MatMul
from irc.ops.quantization import Dequantize
from irc.passes.constants import channels, real, transposed, weights
from irc.rewrite import Uses
from irc.value import Value


def matmul_is_linear(v: Value) -> Value | None:
    """A product with a constant matrix; quantized weights too.

        (%x: f32[1,2])
        %w = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] : f32[2,3]
        %y = matmul(%x, %w) : f32[1,3]
        ->
        %w = const [1.0, 4.0, 2.0, 5.0, 3.0, 6.0] : f32[3,2]
        %y = linear(%x, %w, -) : f32[1,3]

        (%x: f32[1,2])
        %c = const [1, 2, 3, 4] : i8[2,2] q([0.5, 0.25], 0, axis = 1)
        %w = dequantize(%c) : f32[2,2]
        %y = matmul(%x, %w) : f32[1,2]
        ->
        %c = const [1, 3, 2, 4] : i8[2,2] q([0.5, 0.25], 0, axis = 0)
        %w = dequantize(%c) : f32[2,2]
        %y = linear(%x, %w, -) : f32[1,2]
    """
    match v:
        case MatMul(a=x, b=w) if w.type.rank == 2 and weights(x) is None:
            turned = transposed(w, (1, 0))
            return None if turned is None else Linear(x, turned)
    return None


def add_is_bias(v: Value, uses: Uses) -> Value | None:
    """A constant added to each output of a linear map is its bias.

        (%x: f32[1,2])
        %w = const [1.0, 2.0, 3.0, 4.0] : f32[2,2]
        %b = const [1.0, 2.0] : f32[2]
        %c = const [4.0] : f32[]
        %l = linear(%x, %w, %b) : f32[1,2]
        %y = add(%l, %c) : f32[1,2]
        ->
        %w = const [1.0, 2.0, 3.0, 4.0] : f32[2,2]
        %b = const [5.0, 6.0] : f32[2]
        %y = linear(%x, %w, %b) : f32[1,2]

        (%x: f32[1,2], %w: f32[2,2])
        %c = const [1, 2] : i32[2] q(0.5, 0)
        %b = dequantize(%c) : f32[2]
        %l = linear(%x, %w, -) : f32[1,2]
        %y = add(%l, %b) : f32[1,2]
        ->
        %c = const [1, 2] : i32[2] q(0.5, 0)
        %b = dequantize(%c) : f32[2]
        %y = linear(%x, %w, %b) : f32[1,2]
    """
    match v:
        case Add(a=Linear(b=None) as linear, b=Dequantize(x=Const()) as b) if uses.single(linear):
            return linear.replace(b=b, name=v.name) if b.shape == v.shape[-1:] else None
        case Add(a=Linear(b=None | Const()) as linear, b=c) if uses.single(linear):
            added = channels(c, linear)
        case _:
            return None
    if added is None:
        return None
    old = linear.b.evaluate().astype(np.float64) if isinstance(linear.b, Const) else 0.0
    name = (linear.b or c).name
    return linear.replace(b=real(old + added, v.type.dtype, name), name=v.name)


RULES = (matmul_is_linear,)
USE_RULES = (add_is_bias,)

"""Matrix products with constant weights, as `linear` with weights [O, K]."""

from __future__ import annotations

import numpy as np

from irc.ops.core import Const
from irc.ops.elementwise import Add
from irc.ops.linear import Linear, MatMul
from irc.ops.quantization import Dequantize
from irc.ops.selection import Gather
from irc.ops.shape import Reshape, Transpose
from irc.passes.float.constants import channels, real, transposed, weights
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


def matrix_of_vector(v: Value) -> Value | None:
    """A constant matrix by one column.

        (%x: f32[2,1])
        %w = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] : f32[3,2]
        %y = matmul(%w, %x) : f32[3,1]
        ->
        %x.row = reshape(%x) : f32[1,2]
        %w = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] : f32[3,2]
        %y.row = linear(%x.row, %w, -) : f32[1,3]
        %y = reshape(%y.row) : f32[3,1]
    """
    match v:
        case MatMul(a=w, b=x) if w.type.rank == 2 and x.shape[-1:] == (1,):
            if x.type.size != w.shape[1] or weights(w) is None or weights(x) is not None:
                return None
            row = Reshape(x, (1, w.shape[1]), name=f"{x.name}.row")
            return Reshape(Linear(row, w, None, name=f"{v.name}.row"), v.shape, name=v.name)
    return None


def matrix_of_turned(v: Value) -> Value | None:
    """A constant matrix by what was turned, as spectra are written; several by one.

        (%x: f32[1,2,3])
        %w = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] : f32[2,3]
        %t = transpose(%x) {perm = [0, 2, 1]} : f32[1,3,2]
        %y = matmul(%w, %t) : f32[1,2,2]
        ->
        %w = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] : f32[2,3]
        %y.rows = linear(%x, %w, -) : f32[1,2,2]
        %y = transpose(%y.rows) {perm = [0, 2, 1]} : f32[1,2,2]

        (%x: f32[2,1])
        %w = const [1.0, 2.0, 3.0, 4.0] : f32[2,2,1]
        %t = transpose(%x) {perm = [1, 0]} : f32[1,2]
        %y = matmul(%w, %t) : f32[2,2,2]
        ->
        %w = const [1.0, 2.0, 3.0, 4.0] : f32[4,1]
        %y.rows = linear(%x, %w, -) : f32[2,4]
        %y.columns = transpose(%y.rows) {perm = [1, 0]} : f32[4,2]
        %y = reshape(%y.columns) : f32[2,2,2]
    """
    match v:
        case MatMul(a=w, b=Transpose(x=x, perm=perm)) if weights(w) and not weights(x):
            pass
        case _:
            return None
    rank = len(perm)
    if perm != (*range(rank - 2), rank - 1, rank - 2):
        return None
    if w.type.rank == 2:
        return Transpose(Linear(x, w, None, name=f"{v.name}.rows"), perm, name=v.name)
    if rank != 2 or not isinstance(w, Const) or w.quant is not None:
        return None
    flat = Const(w.array.reshape(-1, w.shape[-1]), name=w.name)
    rows = Linear(x, flat, None, name=f"{v.name}.rows")
    return Reshape(Transpose(rows, perm, name=f"{v.name}.columns"), v.shape, name=v.name)


def chosen_columns(v: Value) -> Value | None:
    """Rows of weights that each take one element as it is.

        (%x: f32[1,3])
        %w = const [0.0, 0.0, 1.0, 1.0, 0.0, 0.0] : f32[2,3]
        %y = linear(%x, %w, -) : f32[1,2]
        ->
        %y.columns = const [2, 0] : i64[2]
        %y = gather(%x, %y.columns) {axis = 1} : f32[1,2]
    """
    match v:
        case Linear(x=x, w=Const(quant=None) as w, b=None) if w.type.size:
            ones = (w.array == 1).sum(1)
            if np.all(ones == 1) and np.count_nonzero(w.array) == len(w.array):
                columns = Const(w.array.argmax(1).astype(np.int64), name=f"{v.name}.columns")
                return Gather(x, columns, x.type.rank - 1, name=v.name)
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


def linear_of_linear(v: Value, uses: Uses) -> Value | None:
    """Two linear maps are one, where that has at most half of the weights: the kernels of support
    vectors and the sum over them.

        (%x: f32[1,2])
        %w = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] : f32[3,2]
        %b = const [1.0, 0.0, 0.0] : f32[3]
        %l = linear(%x, %w, %b) : f32[1,3]
        %u = const [1.0, 1.0, 2.0] : f32[1,3]
        %y = linear(%l, %u, -) : f32[1,1]
        ->
        %u = const [14.0, 18.0] : f32[1,2]
        %y.b = const [1.0] : f32[1]
        %y = linear(%x, %u, %y.b) : f32[1,1]
    """
    match v:
        case Linear(
            x=Linear(x=x, w=Const(quant=None) as inner, b=None | Const() as first) as before,
            w=Const(quant=None) as outer, b=None | Const() as second,
        ) if uses.single(before):  # fmt: skip
            pass
        case _:
            return None
    sizes = len(outer.array) * inner.shape[1], inner.type.size + outer.type.size
    if sizes[0] > sizes[1] // 2 or not before.type.dtype.is_float:
        return None
    w, u = inner.array.astype(np.float64), outer.array.astype(np.float64)
    bias = 0.0 if second is None else second.array.astype(np.float64)
    if first is not None:
        bias = bias + u @ first.array.astype(np.float64)
    made = None
    if first is not None or second is not None:
        name = f"{v.name}.b" if second is None else second.name
        made = real(bias, v.type.dtype, name)
    return Linear(x, real(u @ w, v.type.dtype, outer.name), made, name=v.name)


RULES = (matmul_is_linear, matrix_of_vector, matrix_of_turned, chosen_columns)
USE_RULES = (add_is_bias, linear_of_linear)

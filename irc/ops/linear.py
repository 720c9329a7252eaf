"""Matrix products: two activations (matmul), or an activation and constant weights (linear)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from irc import fixedpoint
from irc.channels import Tie, tie, tie_axes, tie_broadcast
from irc.errors import TypeCheckError
from irc.loops import Expr, Loops, Nest, Reduce, Var, axes, load, load_broadcast
from irc.ops.core import Const
from irc.ops.quantization import (
    Bounds,
    accumulator,
    averaged,
    check_accumulator,
    check_bounds,
    check_common,
    check_exception,
    check_product,
    check_weights,
    common_sums,
    constant,
    difference,
    excepted,
    excepted_sums,
    folded_constants,
    full_range,
    is_wide,
    magnitude,
    need_quantized,
    requantized,
    rescaled,
    with_common,
)
from irc.types import Array, DType, Quant, Shape, TensorType, broadcast_shapes
from irc.value import Value, op


def matmul_shape(a: Shape, b: Shape) -> Shape:
    """NumPy's matmul of shapes; raises `TypeCheckError` where they don't fit."""
    if not a or not b:
        raise TypeCheckError("a scalar has no matrix product")
    (depth, *_) = b[-2:]
    if a[-1] != depth:
        raise TypeCheckError(f"a {list(a)} ends in {a[-1]}, b {list(b)} takes {depth}")
    rows = a[-2:-1]
    columns = b[-1:] if len(b) > 1 else ()
    return (*broadcast_shapes(a[:-2], b[:-2]), *rows, *columns)


@op("matmul")
class MatMul(Value):
    """Float matrix product with NumPy's batching. a [..., M, K], b [..., K, N]; [..., M, N]."""

    a: Value
    b: Value

    def infer(self) -> TensorType:
        """One float dtype, shapes that fit."""
        if not self.a.type.dtype.is_float or self.a.type.dtype is not self.b.type.dtype:
            raise TypeCheckError(f"a {self.a.type} and b {self.b.type} must be one float type")
        return TensorType(self.a.type.dtype, matmul_shape(self.a.shape, self.b.shape))

    def evaluate(self, a: Array, b: Array) -> Array:
        """By BLAS."""
        return np.asarray(np.matmul(a, b))

    def ties(self) -> Iterator[Tie]:
        """Rows, columns, depth, and what is not broadcast of the leading axes."""
        if min(len(self.a.shape), len(self.b.shape)) < 2:
            return
        yield tie(self.a, len(self.a.shape) - 1, self.b, len(self.b.shape) - 2)
        last = len(self.shape) - 1
        for t in (*tie_broadcast(self.a, self), *tie_broadcast(self.b, self)):
            if (t.a, t.b_axis) not in ((self.a, last), (self.b, last - 1)):
                yield t

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qmatmul`; the product of the scales is one multiplier."""
        a, b = operands
        m, s = fixedpoint.multiplier(a.type.scale * b.type.scale / result.scale)
        quant = fixedpoint.quant_of(result)
        return QMatMul(a, b, m, s, full_range(result), result.dtype, quant, name=self.name)


@op("linear")
class Linear(Value):
    """Float affine map. x [..., K], w [O, K], b [O]; result [..., O]."""

    x: Value
    w: Value
    b: Value | None = None

    def infer(self) -> TensorType:
        """Float operands that fit each other."""
        shape = linear_shape(self.x.shape, self.w.shape)
        if not self.x.type.dtype.is_float or self.w.type.dtype is not self.x.type.dtype:
            raise TypeCheckError(f"x {self.x.type} and w {self.w.type} must be one float type")
        if self.b is not None and self.b.shape != (shape[-1],):
            raise TypeCheckError(f"b must have {shape[-1]} entries, it is {self.b.type}")
        return TensorType(self.x.type.dtype, shape)

    def evaluate(self, x: Array, w: Array, b: Array | None) -> Array:
        """By BLAS."""
        y = np.asarray(x @ w.T)
        return y if b is None else y + b

    def ties(self) -> Iterator[Tie]:
        """Inputs with columns of w; outputs with rows of w and with b."""
        last = len(self.shape) - 1
        yield from tie_axes(self.x, self, range(last))
        yield tie(self.x, last, self.w, 1)
        yield tie(self.w, 0, self, last)
        if self.b is not None:
            yield tie(self.b, 0, self, last)

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """`qlinear`, with the bias folded by equation (4)."""
        x, w = operands[0], constant(operands[1], "the weights of linear")
        bias = operands[2] if len(operands) > 2 else None
        made = folded_constants(x, w, bias, result, self.name)
        return QLinear(
            x, Const(w.array, name=w.name), made.b, made.m, made.s,
            clamp=full_range(result), dtype=result.dtype, quant=fixedpoint.quant_of(result),
            wide=is_wide(x, w.array, made, result), fraction=made.fraction, name=self.name,
        )  # fmt: skip


def linear_shape(x: Shape, w: Shape) -> Shape:
    """Result shape of a linear map; raises `TypeCheckError` where operands don't fit."""
    if len(w) != 2:
        raise TypeCheckError(f"w must be [O, K], it is {list(w)}")
    if not x or x[-1] != w[1]:
        raise TypeCheckError(f"x is {list(x)}, w takes a last axis of {w[1]}")
    return (*x[:-1], w[0])


@op("qlinear")
class QLinear(Value):
    """Integer linear map, equations (4) and (6).

    x [..., K] quantized per tensor; w i8 or i16 [O, K]; b i32, m i32, s i8 per output, b with
    `-zp_x * sum(w)` folded in. `wide`, `fraction`, `exception`, `power`, `common` (i32 [..., 1]),
    `lift` and `share` as in `qconv2d`.
    """

    x: Value
    w: Value
    b: Value
    m: Value
    s: Value
    clamp: Bounds
    dtype: DType
    quant: Quant
    wide: bool = False
    fraction: int = 0
    exception: Value | None = None
    power: int = 0
    common: Value | None = None
    share: Value | None = None
    lift: int = 0
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")
    flags: ClassVar[tuple[str, ...]] = ("power", "lift")

    def infer(self) -> TensorType:
        """Operands that fit each other; x and the result quantized per tensor."""
        shape = linear_shape(self.x.shape, self.w.shape)
        need_quantized("x", self.x.type)
        check_weights(self.w)
        check_accumulator(shape[-1], self.b, self.m, self.s)
        check_exception(shape[-1], self.exception)
        check_common(shape, self.common, self.share)
        check_bounds(self.clamp, self.dtype)
        return TensorType(self.dtype, shape, self.quant)

    def evaluate(
        self, x: Array, w: Array, b: Array, m: Array, s: Array, exception: Array | None,
        common: Array | None, share: Array | None,
    ) -> Array:  # fmt: skip
        """In float64 by BLAS, exact below 2^53."""
        products = x.astype(np.float64) @ w.T.astype(np.float64)
        acc = products.astype(np.int64) + common_sums(common, share)
        acc, half = (acc << self.fraction) + b, not self.fraction
        acc = excepted_sums(acc, exception)
        if self.power:
            return fixedpoint.averaged(acc, self.power, self.type, self.clamp)
        zero = self.type.zero
        return fixedpoint.requantize(acc, m, s, zero, self.clamp, self.dtype, half=half)

    def loops(self) -> Loops:
        """A reduction over k, then equation (6)."""
        *outer, o = axes(self.shape)
        k = Var("k", self.w.shape[1])
        x = load(self.x, *outer, k).cast(DType.I32)
        total: Expr = Reduce("add", (k,), x * load(self.w, o, k).cast(DType.I32))
        total = with_common(total, self.common, self.share, (*outer, o))
        acc = (total << self.fraction) + load(self.b, o)
        acc = excepted(acc, self.exception, o)
        if self.power:
            value = averaged(acc, self.power, self.clamp, self.type)
            return Loops((Nest((*outer, o), value),))
        value = requantized(
            acc, load(self.m, o), load(self.s, o), self.clamp, self.type,
            wide=self.wide, half=not self.fraction,
        )  # fmt: skip
        return Loops((Nest((*outer, o), value),))


@op("qmatmul")
class QMatMul(Value):
    """Integer matrix product of two activations, equations (4) and (6), NumPy's batching.

    a [..., M, K], b [..., K, N], each quantized per tensor: `sum (a - z_a)(b - z_b)` over K, which
    is (4) with its terms gathered. The sum is kept in 32 bits where K allows, else in 64.
    """

    a: Value
    b: Value
    m: int
    s: int
    clamp: Bounds
    dtype: DType
    quant: Quant
    declares: ClassVar[tuple[str, ...]] = ("dtype", "quant")

    @property
    def bound(self) -> int:
        """The largest magnitude that the sum over K can reach."""
        return self.a.shape[-1] * magnitude(self.a.type) * magnitude(self.b.type)

    def infer(self) -> TensorType:
        """Shapes that fit; all quantized per tensor; a K whose sums the multiplier can take."""
        shape = matmul_shape(self.a.shape, self.b.shape)
        need_quantized("a", self.a.type)
        need_quantized("b", self.b.type)
        check_bounds(self.clamp, self.dtype)
        check_product(self.bound, self.m, self.s)
        return TensorType(self.dtype, shape, self.quant)

    def evaluate(self, a: Array, b: Array) -> Array:
        """In float64 by BLAS, exact below 2^53."""
        left = a.astype(np.float64) - self.a.type.zero
        right = b.astype(np.float64) - self.b.type.zero
        acc = np.asarray(np.matmul(left, right)).astype(np.int64)
        return fixedpoint.requantize(acc, self.m, self.s, self.type.zero, self.clamp, self.dtype)

    def loops(self) -> Loops:
        """A reduction over k, then equation (6)."""
        variables = axes(self.shape)
        rows, columns = len(self.a.shape) > 1, len(self.b.shape) > 1
        inner = int(rows) + int(columns)
        batch, last = variables[: len(variables) - inner], variables[len(variables) - inner :]
        k = Var("k", self.a.shape[-1])
        left: tuple[Expr, ...] = (*batch, last[0], k) if rows else (k,)
        right: tuple[Expr, ...] = (*batch, k, last[-1]) if columns else (k,)
        wide = accumulator(self.bound)
        a = difference(load_broadcast(self.a, left), self.a.type, wide)
        b = difference(load_broadcast(self.b, right), self.b.type, wide)
        acc = Reduce("add", (k,), a * b)
        value = rescaled(acc, self.bound, (self.m, self.s), self.clamp, self.type)
        return Loops((Nest(variables, value),))

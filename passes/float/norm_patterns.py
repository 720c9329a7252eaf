"""Normalizations and softmax that exporters wrote out, recognised (arithmetic.md (11): done one by
one in 8 bits, their steps ruin a net)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from irc.ops.activation import Clip
from irc.ops.core import Const
from irc.ops.elementwise import Add, Div, Mul, Pow, Sub
from irc.ops.normalization import GroupNorm, InstanceNorm, LayerNorm, RMSNorm, RowNorm
from irc.ops.quantization import Quantize
from irc.ops.reduce import ReduceMax, ReduceMean, ReduceSum
from irc.ops.shape import Expand, Reshape, Transpose
from irc.ops.softmax import Softmax
from irc.ops.unary import Exp, Reciprocal, Sqrt
from irc.passes.float.constants import is_uniform, real, uniform
from irc.rewrite import Uses
from irc.types import Shape
from irc.value import Value

Axes = tuple[int, ...]
Reduction = type[ReduceMax] | type[ReduceMean] | type[ReduceSum]
TINY_LENGTH = 1e-5
"""An epsilon of a length that only guards against a division by zero."""


def layer_norm(v: Value) -> Value | None:
    """The difference to the mean over its own root mean square; over the last axes, or others.

        (%x: f32[2,3,4])
        %e = const [0.001] : f32[]
        %m = reduce_mean(%x) {axes = [2], keepdims = true} : f32[2,3,1]
        %d = sub(%x, %m) : f32[2,3,4]
        %q = mul(%d, %d) : f32[2,3,4]
        %w = reduce_mean(%q) {axes = [2], keepdims = true} : f32[2,3,1]
        %s = add(%w, %e) : f32[2,3,1]
        %r = sqrt(%s) : f32[2,3,1]
        %y = div(%d, %r) : f32[2,3,4]
        ->
        %y = layer_norm(%x, -, -) {axis = 2, epsilon = 0.0010000000474974513} : f32[2,3,4]

        (%x: f32[2,3,4])
        %e = const [0.5] : f32[]
        %m = reduce_mean(%x) {axes = [1], keepdims = true} : f32[2,1,4]
        %d = sub(%x, %m) : f32[2,3,4]
        %q = mul(%d, %d) : f32[2,3,4]
        %w = reduce_mean(%q) {axes = [1], keepdims = true} : f32[2,1,4]
        %s = add(%w, %e) : f32[2,1,4]
        %r = sqrt(%s) : f32[2,1,4]
        %i = reciprocal(%r) : f32[2,1,4]
        %y = mul(%d, %i) : f32[2,3,4]
        ->
        %0 = transpose(%x) {perm = [0, 2, 1]} : f32[2,4,3]
        %1 = layer_norm(%0, -, -) {axis = 2, epsilon = 0.5} : f32[2,4,3]
        %y = transpose(%1) {perm = [0, 2, 1]} : f32[2,3,4]
    """
    if (found := _over_root(v)) is None:
        return None
    d, variance, epsilon = found
    match d:
        case Sub(a=x, b=ReduceMean(x=of, axes=axes, keepdims=True) as mean) if of is x:
            pass
        case _:
            return None
    if _is_variance(variance, d, x, mean):
        return _normed(x, axes, lambda t, axis: LayerNorm(t, None, None, axis, epsilon))
    return None


def _is_variance(v: Value, d: Value, x: Value, mean: ReduceMean) -> bool:
    """The mean square of differences, or the mean of squares less the square of the mean."""
    match v:
        case ReduceMean(x=Mul(a=a, b=b), axes=mean.axes, keepdims=True):
            return a is d and b is d
        case Sub(a=ReduceMean(x=Mul(a=a, b=b), axes=mean.axes, keepdims=True), b=Mul(a=p, b=q)):
            return a is x and b is x and p is mean and q is mean
    return False


def rms_norm(v: Value) -> Value | None:
    """A value over its own root mean square.

        (%x: f32[2,4])
        %e = const [0.5] : f32[]
        %q = mul(%x, %x) : f32[2,4]
        %w = reduce_mean(%q) {axes = [1], keepdims = true} : f32[2,1]
        %s = add(%w, %e) : f32[2,1]
        %r = sqrt(%s) : f32[2,1]
        %y = div(%x, %r) : f32[2,4]
        ->
        %y = rms_norm(%x, -) {axis = 1, epsilon = 0.5} : f32[2,4]
    """
    if (found := _over_root(v)) is None:
        return None
    x, square, epsilon = found
    match square:
        case ReduceMean(x=Mul(a=a, b=b), axes=axes, keepdims=True) if a is x and b is x:
            return _normed(x, axes, lambda t, axis: RMSNorm(t, None, axis, epsilon))
    return None


def l2_norm(v: Value) -> Value | None:
    """A value over its own length, which an epsilon keeps from zero; what is no longer than that
    does not keep its length exactly.

        (%x: f32[2,4])
        %q = mul(%x, %x) : f32[2,4]
        %w = reduce_sum(%q) {axes = [1], keepdims = true} : f32[2,1]
        %r = sqrt(%w) : f32[2,1]
        %c = clip(%r) {lo = 1e-06, hi = inf} : f32[2,1]
        %y = div(%x, %c) : f32[2,4]
        ->
        %0 = const [0.5] : f32[]
        %1 = rms_norm(%x, -) {axis = 1, epsilon = 2.5e-13} : f32[2,4]
        %y = mul(%1, %0) : f32[2,4]
    """
    if (found := _over_length(v)) is None:
        return None
    x, square, smallest = found
    match square:
        case ReduceSum(x=Mul(a=a, b=b), axes=axes, keepdims=True) if a is x and b is x:
            count = prod(x.shape[i] for i in axes)
        case _:
            return None
    if not count or smallest > TINY_LENGTH:
        return None
    epsilon = smallest**2 / count
    made = _normed(x, axes, lambda t, axis: RMSNorm(t, None, axis, epsilon))
    return None if made is None else Mul(made, real(count**-0.5, x.type.dtype))


def _over_length(v: Value) -> tuple[Value, Value, float] | None:
    """(x, square, smallest) where v is `x / max(sqrt(square), smallest)`, or in Keras's words
    `x * min(1 / sqrt(square), 1 / smallest)`."""
    match v:
        case (
            Mul(a=x, b=Clip(x=Reciprocal(x=Sqrt(x=square)), lo=lo, hi=hi))
            | Mul(a=Clip(x=Reciprocal(x=Sqrt(x=square)), lo=lo, hi=hi), b=x)
        ) if lo <= 0 < hi:
            return (x, square, 1 / hi) if v.type.dtype.is_float and x.type == v.type else None
        case Div(a=x, b=below):
            pass
        case Mul(a=x, b=Reciprocal(x=below)) | Mul(a=Reciprocal(x=below), b=x):
            pass
        case _:
            return None
    while isinstance(below, Expand):
        below = below.x
    match below:
        case Sqrt(x=Clip(x=square, lo=lo, hi=hi)) if hi == np.inf and lo >= 0:
            smallest = float(np.sqrt(lo))
        case Clip(x=Sqrt(x=square), lo=lo, hi=hi) if hi == np.inf and lo >= 0:
            smallest = lo
        case Sqrt(x=square):
            smallest = 0.0
        case _:
            return None
    return (x, square, smallest) if v.type.dtype.is_float and x.type == v.type else None


def _over_root(v: Value) -> tuple[Value, Value, float] | None:
    """(x, square, epsilon) where v is `x / sqrt(square + epsilon)`."""
    match v:
        case Div(a=x, b=Sqrt(x=Add(a=square, b=e))):
            pass
        case Mul(a=x, b=Reciprocal(x=Sqrt(x=Add(a=square, b=e)))):
            pass
        case Mul(a=Reciprocal(x=Sqrt(x=Add(a=square, b=e))), b=x):
            pass
        case Mul(a=x, b=Pow(a=Add(a=square, b=e), b=half)) if is_uniform(half, -0.5):
            pass
        case Div(a=x, b=Pow(a=Add(a=square, b=e), b=half)) if is_uniform(half, 0.5):
            pass
        case _:
            return None
    epsilon = uniform(e)
    fits = epsilon is not None and 0 <= epsilon < np.inf and v.type.dtype.is_float
    return (x, square, epsilon) if fits and epsilon is not None and x.type == v.type else None


def _normed(x: Value, axes: Axes, norm: Any) -> Value | None:
    """`norm(x, axis)`, between transposes where the axes are not the last ones."""
    rank = x.type.rank
    if not axes or len(set(axes)) != len(axes) or x.type.size == 0:
        return None
    if axes == tuple(range(rank - len(axes), rank)):
        return norm(x, axes[0])  # type: ignore[no-any-return]
    perm = (*(a for a in range(rank) if a not in axes), *axes)
    back = tuple(int(i) for i in np.argsort(perm))
    return Transpose(norm(Transpose(x, perm), rank - len(axes)), back)


def image_norm(v: Value) -> Value | None:
    """A norm over height and width of channels-first images.

        (%x: f32[1,4,2,3])
        %y = layer_norm(%x, -, -) {axis = 2, epsilon = 0.5} : f32[1,4,2,3]
        ->
        %0 = transpose(%x) {perm = [0, 2, 3, 1]} : f32[1,2,3,4]
        %1 = instance_norm(%0, -, -) {epsilon = 0.5} : f32[1,2,3,4]
        %y = transpose(%1) {perm = [0, 3, 1, 2]} : f32[1,4,2,3]
    """
    match v:
        case LayerNorm(x=x, scale=None, bias=None, axis=2) if v.type.rank == 4:
            return _channels_last(x, lambda image: InstanceNorm(image, None, None, v.epsilon))
    return None


def group_norm(v: Value) -> Value | None:
    """A norm over each group of channels that a reshape put together, a layer norm or an instance
    norm whose channels are the groups.

        (%x: f32[1,4,2,3])
        %r = reshape(%x) : f32[1,2,12]
        %n = layer_norm(%r, -, -) {axis = 2, epsilon = 0.5} : f32[1,2,12]
        %y = reshape(%n) : f32[1,4,2,3]
        ->
        %0 = transpose(%x) {perm = [0, 2, 3, 1]} : f32[1,2,3,4]
        %1 = group_norm(%0, -, -) {groups = 2, epsilon = 0.5} : f32[1,2,3,4]
        %y = transpose(%1) {perm = [0, 3, 1, 2]} : f32[1,4,2,3]

        (%x: f32[1,4,5])
        %s = const [1.0, 1.0] : f32[2]
        %b = const [0.0, 0.0] : f32[2]
        %r = reshape(%x) : f32[1,2,10]
        %t = transpose(%r) {perm = [0, 2, 1]} : f32[1,10,2]
        %n = instance_norm(%t, %s, %b) {epsilon = 0.5} : f32[1,10,2]
        %u = transpose(%n) {perm = [0, 2, 1]} : f32[1,2,10]
        %y = reshape(%u) : f32[1,4,5]
        ->
        %0 = transpose(%x) {perm = [0, 2, 1]} : f32[1,5,4]
        %1 = group_norm(%0, -, -) {groups = 2, epsilon = 0.5} : f32[1,5,4]
        %y = transpose(%1) {perm = [0, 2, 1]} : f32[1,4,5]
    """
    match v:
        case Reshape(x=LayerNorm(x=Reshape(x=x) as rows, axis=2) as norm):
            scaled = norm.scale is not None or norm.bias is not None
        case Reshape(
            x=Transpose(x=InstanceNorm(x=Transpose(x=Reshape(x=x) as rows, perm=a)) as norm, perm=b)
        ) if a == b == (0, 2, 1):
            scaled = not _is_plain(norm)
        case _:
            return None
    if scaled or x.shape != v.shape or x.type.rank < 3 or x.shape[:1] != rows.shape[:1]:
        return None
    groups, epsilon = rows.shape[1], norm.epsilon
    if groups == 0 or x.shape[1] % groups or (groups == x.shape[1] and x.type.rank == 3):
        return None  # of three axes it is a layer norm already
    if groups == x.shape[1]:
        return _channels_last(x, lambda image: InstanceNorm(image, None, None, epsilon))
    return _channels_last(x, lambda image: GroupNorm(image, None, None, groups, epsilon))


def _is_plain(norm: InstanceNorm) -> bool:
    """Whether it neither scales nor moves."""
    one = norm.scale is None or is_uniform(norm.scale, 1.0)
    return one and (norm.bias is None or is_uniform(norm.bias, 0.0))


def _channels_last(x: Value, norm: Callable[[Value], Value]) -> Value:
    """A norm of what has its channels first, between transposes."""
    last = x.type.rank - 1
    made = norm(Transpose(x, (0, *range(2, last + 1), 1)))
    return Transpose(made, (0, last, *range(1, last)))


def softmax(v: Value) -> Value | None:
    """Exponentials over their sum, the maximum taken off first or not.

        (%x: f32[2,4])
        %m = reduce_max(%x) {axes = [1], keepdims = true} : f32[2,1]
        %d = sub(%x, %m) : f32[2,4]
        %e = exp(%d) : f32[2,4]
        %s = reduce_sum(%e) {axes = [1], keepdims = true} : f32[2,1]
        %y = div(%e, %s) : f32[2,4]
        ->
        %y = softmax(%x) {axis = 1} : f32[2,4]
    """
    match v:
        case Div(a=Exp(x=x) as e, b=below):
            axes = _reduced(below, ReduceSum, e)
        case _:
            return None
    if axes is None or len(axes) != 1:
        return None
    if isinstance(x, Sub) and _reduced(x.b, ReduceMax, x.a) == axes:
        x = x.a
    (axis,) = axes
    return Softmax(x, axis) if x.type == v.type and v.shape[axis] else None


def _reduced(v: Value, reduction: Reduction, x: Value) -> Axes | None:
    """The axes over which v reduces x, each of which is kept as one element; perhaps by a
    reshape that puts them back."""
    node = v.x if isinstance(v, Reshape) else v
    if not isinstance(node, reduction) or node.x is not x:
        return None
    return node.axes if v.shape == _kept(x, node.axes) else None


def _kept(x: Value, axes: Axes) -> Shape:
    return tuple(1 if i in axes else d for i, d in enumerate(x.shape))


def into_norm(v: Value, uses: Uses) -> Value | None:
    """A scale or offset after a norm is its own, where nobody else reads the norm.

        (%x: f32[2,4])
        %s = const [1.0, 2.0, 3.0, 4.0] : f32[4]
        %b = const [0.5] : f32[]
        %n = layer_norm(%x, -, -) {axis = 1, epsilon = 0.5} : f32[2,4]
        %p = mul(%n, %s) : f32[2,4]
        %y = add(%p, %b) : f32[2,4]
        ->
        %s = const [1.0, 2.0, 3.0, 4.0] : f32[4]
        %b = const [0.5, 0.5, 0.5, 0.5] : f32[4]
        %y = layer_norm(%x, %s, %b) {axis = 1, epsilon = 0.5} : f32[2,4]
    """
    match v:
        case Mul(a=RowNorm() as norm) | Add(a=RowNorm() as norm) if uses.single(norm):
            return _taken_in(v)
    return None


def into_each_norm(v: Value) -> Value | None:
    """A scale after a norm is its own where a file states integers for the result alone; for its
    other readers it is computed anew.

        (%x: f32[2,4])
        %n = rms_norm(%x, -) {axis = 1, epsilon = 0.5} : f32[2,4]
        %s = const [1.0, 2.0, 3.0, 4.0] : f32[4]
        %p = mul(%n, %s) : f32[2,4]
        %y = quantize(%p) : i8[2,4] q(0.5, 0)
        ->
        %s = const [1.0, 2.0, 3.0, 4.0] : f32[4]
        %p = rms_norm(%x, %s) {axis = 1, epsilon = 0.5} : f32[2,4]
        %y = quantize(%p) : i8[2,4] q(0.5, 0)
    """
    if not isinstance(v, Quantize) or not isinstance(v.x, Mul):
        return None
    made = _taken_in(v.x)
    return None if made is None else v.replace(x=made)


def _taken_in(v: Value) -> Value | None:
    """A scale or an offset of a norm as its own."""
    match v:
        case Mul(a=RowNorm() as norm, b=Const() as c):
            field = "scale"
        case Add(a=RowNorm() as norm, b=Const() as c):
            field = "bias"
        case _:
            return None
    if field not in {"scale", "bias"} & {*norm.__dataclass_fields__}:
        return None
    scale, bias = norm.parameters
    free = bias is None and (field == "bias" or scale is None)
    array = _spread(c, norm)
    if not free or array is None or v.type != norm.type:
        return None
    made = Const(array, name=c.name)
    return norm.replace(**{field: made}, name=v.name)


def _spread(c: Const, norm: RowNorm) -> Any:
    """A constant in the shape of a norm's parameters; None where it varies otherwise."""
    shape = norm.affine if norm.view == norm.shape else norm.shape[-1:]
    lead = c.shape[: max(0, c.type.rank - len(shape))]
    if c.quant is not None or c.type.rank > norm.type.rank or any(d != 1 for d in lead):
        return None
    array = np.broadcast_to(c.array.reshape(c.shape[len(lead) :]), shape)
    return np.ascontiguousarray(array)


RULES = (layer_norm, rms_norm, l2_norm, image_norm, group_norm, softmax, into_each_norm)
USE_RULES = (into_norm,)

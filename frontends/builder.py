"""Builds the nodes of a graph and folds on the way: what can be computed at import, is."""

from __future__ import annotations

from math import prod

import numpy as np

from irc.errors import ModelError
from irc.ops.core import Const
from irc.ops.quantization import Dequantize
from irc.ops.selection import Gather
from irc.ops.shape import Expand, Reshape, Transpose
from irc.types import Array, Quant, Shape
from irc.value import Value

MAX_BYTES = 2 << 30
"""No tensor of a model may be larger than this."""


class Builder:
    """Adds nodes. `name` is the model's name of the tensor being built: nodes without a name of
    their own get it.

    `kinds` are the element types of those tensors, by name, that a wider dtype stands for.
    A node over constants alone becomes a constant, except for `dequantize`: weights that come
    quantized stay so.
    """

    def __init__(self) -> None:
        self.name = ""
        self.kinds: dict[str, int] = {}

    def add(self, v: Value) -> Value:
        """The node, named and folded; raises `ModelError` where its result is absurdly large."""
        check_size(v.type.dtype.numpy.itemsize, v.shape)
        if isinstance(v, Gather):
            v = v.map_operands(_of_one_scale)
        if not v.name:
            v = v.replace(name=self.name)
        constant = bool(v.operands) and all(isinstance(o, Const) for o in v.operands)
        return fold(v) if constant and not isinstance(v, Dequantize) else v

    def const(self, array: Array, quant: Quant | None = None, name: str | None = None) -> Const:
        """A constant, under the name of the tensor being built unless `name` is given."""
        return Const(np.asarray(array), quant, name=self.name if name is None else name)

    def transpose(self, x: Value, perm: Shape) -> Value:
        """Axes in another order: result axis i is axis `perm[i]` of x. The name stays x's."""
        if perm == tuple(range(len(perm))):
            return x
        if isinstance(x, Dequantize) and isinstance(x.x, Const):
            return _transposed_weights(x, x.x, perm)
        return self.add(Transpose(x, perm, name=x.name))

    def reshape(self, x: Value, dims: Shape) -> Value:
        """The same elements in another shape. The name stays x's."""
        if dims == x.shape:
            return x
        if isinstance(x, Dequantize) and isinstance(x.x, Const):
            return _reshaped_weights(x, x.x, dims)
        return self.add(Reshape(x, dims, name=x.name))

    def expand(self, x: Value, dims: Shape) -> Value:
        """x broadcast to a shape."""
        return x if dims == x.shape else self.add(Expand(x, dims))


def fold(v: Value) -> Const:
    """A node over constants, evaluated."""
    with np.errstate(all="ignore"):
        array = v.call(lambda o: _array(o))
    array = np.ascontiguousarray(array).reshape(v.shape)
    return Const(array, v.type.quant, name=v.name)


def _of_one_scale(v: Value) -> Value:
    """A table of many scales as reals, since rows picked from it share one; all else as it is."""
    stored = v.x.type.quant if isinstance(v, Dequantize) and isinstance(v.x, Const) else None
    return fold(v) if stored is not None and stored.axis is not None else v


def _array(v: Value) -> Array:
    assert isinstance(v, Const)
    return v.array


def is_weight(v: Value) -> bool:
    """Whether a value is known at import, as it is or quantized."""
    return isinstance(v, Const) or (isinstance(v, Dequantize) and isinstance(v.x, Const))


def check_size(itemsize: int, shape: Shape) -> None:
    """Raise `ModelError` for a shape that takes more than `MAX_BYTES`."""
    nbytes = prod(shape) * itemsize
    if nbytes > MAX_BYTES:
        raise ModelError(
            f"a tensor of shape {list(shape)} would take {nbytes / 2**30:,.1f} GiB;"
            f" the limit is {MAX_BYTES >> 30} GiB a tensor"
        )


def _transposed_weights(x: Dequantize, c: Const, perm: Shape) -> Value:
    """transpose(dequantize(const)) -> dequantize(const transposed): weights stay constants."""
    quant = c.quant
    if quant is not None and quant.axis is not None:
        quant = Quant(quant.scale, quant.zero_point, perm.index(quant.axis))
    array = np.ascontiguousarray(c.array.transpose(perm))
    return Dequantize(Const(array, quant, name=c.name), name=x.name)


def _reshaped_weights(x: Dequantize, c: Const, dims: Shape) -> Value:
    """reshape(dequantize(const)) -> dequantize(const reshaped), the scales along the same axis;
    where that is taken apart, which may yet be undone, the node."""
    quant = c.quant
    if quant is not None and quant.axis is not None:
        axis = _axis_after(c.shape, quant.axis, dims)
        if axis is None:
            return Reshape(x, dims, name=x.name)
        quant = Quant(quant.scale, quant.zero_point, axis)
    return Dequantize(Const(c.array.reshape(dims), quant, name=c.name), name=x.name)


def _axis_after(shape: Shape, axis: int, dims: Shape) -> int | None:
    for new in range(len(dims)):
        if prod(dims[:new]) == prod(shape[:axis]) and dims[new] == shape[axis]:
            return new
    return None

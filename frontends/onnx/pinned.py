"""Inputs that the user pins to a value: they become constants, and what hangs on them folds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from irc.errors import ModelError
from irc.graph import ancestors
from irc.ops.core import Input
from irc.types import Array, Shape
from irc.value import Value

FEW = 16
"""Inputs of so many numbers may be meant to be settings, larger ones are data."""


def with_values(proto: onnx.ModelProto, values: Mapping[str, Any]) -> onnx.ModelProto:
    """The model with some of its inputs replaced by constants: a sampling rate that an `If` asks
    for, a mask, a sequence length.

    A value may be given flat, or as one number for all; it takes its input's element type and
    shape. Raises `ModelError` for an input that does not exist, a shape that does not fit, or a
    number that the type can't hold.
    """
    if not values:
        return proto
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    inputs = {v.name: v for v in made.graph.input}
    defaults = {t.name for t in made.graph.initializer}
    for name, value in values.items():
        if name not in inputs:
            raise ModelError(f"a value is given for {name!r}, the model's inputs are {[*inputs]}")
        if name in defaults:
            _drop(made.graph.initializer, name)
        made.graph.initializer.append(numpy_helper.from_array(_fitted(inputs[name], value), name))
        _drop(made.graph.input, name)
    return made


def cure(v: Value) -> str:
    """What pinning would do for a value that must be known at import; nothing where it hangs on
    more than a few numbers."""
    inputs = [i for i in ancestors(v) if isinstance(i, Input)]
    if not inputs or any(i.type.size > FEW for i in inputs):
        return ""
    flags = " ".join(f"--value {i.name}=..." for i in inputs)
    return f": {flags} makes it one (values={{{inputs[0].name!r}: ...}})"


def _drop(entries: Any, name: str) -> None:
    del entries[[e.name for e in entries].index(name)]


def _fitted(v: ValueInfoProto, value: Any) -> Array:
    """The value as a tensor of the input's type."""
    tensor = v.type.tensor_type
    if not v.type.HasField("tensor_type") or tensor.elem_type in (
        TensorProto.UNDEFINED, TensorProto.STRING,
    ):  # fmt: skip
        raise ModelError(f"input {v.name!r}: only tensors of numbers can be given a value")
    given, dtype = np.asarray(value), helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    numbers = given.dtype.kind in "biuf"
    array = given.astype(dtype) if numbers else given
    exact = dtype.kind not in "biu" or np.array_equal(array, given)
    if not (numbers and exact):
        name = TensorProto.DataType.Name(tensor.elem_type).lower()
        raise ModelError(f"input {v.name!r}: {value!r} is no value of type {name}")
    if not tensor.HasField("shape"):
        return array
    dims = [d.dim_value for d in tensor.shape.dim]
    return _shaped(v.name, array, dims)


def _shaped(name: str, array: Array, dims: list[int]) -> Array:
    """The array itself where its shape fits, else its elements in the shape that the input has, or
    one number everywhere."""
    if len(dims) == array.ndim and all(d in (0, n) for d, n in zip(dims, array.shape, strict=True)):
        return array
    shape: Shape = tuple(dims)
    if array.size == 1 and all(dims):
        return np.full(shape, array)
    if dims.count(0) == 1:
        shape = tuple(-1 if d == 0 else d for d in dims)
    try:
        return array.reshape(shape)
    except ValueError:
        shown = ", ".join(str(d) if d else "?" for d in dims)
        raise ModelError(
            f"input {name!r}: a value of shape {list(array.shape)} is given, the model says"
            f" [{shown}]"
        ) from None

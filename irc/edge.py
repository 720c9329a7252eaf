"""The float edge of a compiled model: reals in and out of its integer tensors, in Python.

The library's `run_f32` does the same in C, bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from irc import fixedpoint
from irc.errors import DataError
from irc.graph import check_mapping
from irc.types import Array, TensorType


def to_integers(
    types: Mapping[str, TensorType], inputs: Mapping[str, Any]
) -> tuple[dict[str, Array], bool]:
    """The inputs as the integers that a model takes, and whether any of them came as reals.

    Float arrays are quantized by equation (2), integer arrays must have the tensor's own dtype.
    Raises `DataError` for wrong names, shapes or dtypes.
    """
    check_named(types, inputs)
    arrays = {name: np.asarray(inputs[name]) for name in types}
    real = {name for name, a in arrays.items() if _is_real(a, types[name])}
    return {n: _integers(n, a, types[n]) for n, a in arrays.items()}, bool(real)


def check_named(types: Mapping[str, TensorType], inputs: Mapping[str, Any]) -> None:
    """Raise `DataError` unless there is one of each input, by name."""
    check_mapping(types, inputs)
    if set(inputs) != set(types):
        raise DataError(f"inputs {sorted(inputs)} given, the model takes {sorted(types)}")


def _is_real(array: Array, t: TensorType) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating)) and t.quant is not None


def _integers(name: str, array: Array, t: TensorType) -> Array:
    if array.shape != t.shape:
        raise DataError(f"input {name}: shape {list(array.shape)} given, {t} wanted")
    if _is_real(array, t):
        return fixedpoint.quantize(array, t)
    if array.dtype != t.dtype.numpy:
        raise DataError(
            f"input {name}: dtype {array.dtype} given, {t.dtype.value} or float wanted for {t}"
        )
    return array


def to_reals(
    types: Mapping[str, TensorType],
    outputs: Mapping[str, Array],
    left: Collection[str] = (),
) -> dict[str, Array]:
    """The outputs by equation (1) as float32; those that carry no scale, or are `left` as they are,
    stay integers."""
    return {
        name: fixedpoint.dequantize(array, types[name])
        if types[name].quant is not None and name not in left
        else array
        for name, array in outputs.items()
    }

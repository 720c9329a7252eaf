"""Reading ONNX files: the model itself and its tensors, with nothing in them trusted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from irc.errors import ModelError
from irc.frontends.builder import check_size
from irc.frontends.onnx.formats import other_format
from irc.types import Array

_DTYPES: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: np.dtype(np.uint16),
    TensorProto.INT8: np.dtype(np.int8),
    TensorProto.UINT8: np.dtype(np.uint8),
    TensorProto.INT16: np.dtype(np.int16),
    TensorProto.UINT16: np.dtype(np.uint16),
    TensorProto.INT32: np.dtype(np.int32),
    TensorProto.UINT32: np.dtype(np.uint32),
    TensorProto.INT64: np.dtype(np.int64),
    TensorProto.UINT64: np.dtype(np.uint64),
    TensorProto.BOOL: np.dtype(np.bool_),
}
"""How each element type is stored in a file; a bfloat16 as the upper half of a float32."""

PACKED: dict[int, tuple[int, np.dtype[Any]]] = {
    TensorProto.INT4: (4, np.dtype(np.int8)),
    TensorProto.UINT4: (4, np.dtype(np.uint8)),
    TensorProto.INT2: (2, np.dtype(np.int8)),
    TensorProto.UINT2: (2, np.dtype(np.uint8)),
}
"""Bits of the integers of which several share a byte in a file, and the dtype that holds each of
them here."""

SMALL_FLOATS = (
    TensorProto.FLOAT8E4M3FN,
    TensorProto.FLOAT8E4M3FNUZ,
    TensorProto.FLOAT8E5M2,
    TensorProto.FLOAT8E5M2FNUZ,
)
"""A byte each; they can be stored, not computed."""

FLOATS = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    *SMALL_FLOATS,
)


def limits(elem_type: int) -> tuple[int, int] | None:
    """The least and the largest of packed integers, None for other types."""
    if elem_type not in PACKED:
        return None
    bits, dtype = PACKED[elem_type]
    signed = dtype.kind == "i"
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def read_model(source: str | os.PathLike[str] | bytes | onnx.ModelProto) -> onnx.ModelProto:
    """The model of a path, of a file's bytes, or as it is; raises `ModelError` for what is none."""
    if isinstance(source, onnx.ModelProto):
        return _checked(source, "the given model")
    if isinstance(source, bytes | bytearray | memoryview):
        return _checked(_parse(bytes(source), "the given bytes"), "the given bytes")
    if not isinstance(source, str | Path):
        raise ModelError(f"a path, bytes or an onnx.ModelProto is wanted, not a"
                         f" {type(source).__name__}; irc.from_torch takes PyTorch's")  # fmt: skip
    path = Path(source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror}") from None
    return _checked(_parse(data, str(path)), str(path))


def _parse(data: bytes, what: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    if not data:
        raise ModelError(f"{what}: empty, not an ONNX model")
    try:
        model.ParseFromString(data)
    except DecodeError:
        other = other_format(data)
        known = f", but {other}" if other else ", or truncated"
        raise ModelError(f"{what}: not an ONNX model{known}") from None
    return model


def _checked(model: onnx.ModelProto, what: str) -> onnx.ModelProto:
    if not model.HasField("graph") or not model.ir_version:
        raise ModelError(f"{what}: not an ONNX model: it holds no graph")
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{what}: the graph is empty, it has no nodes or no outputs")
    if model.graph.sparse_initializer:
        raise ModelError(f"{what}: sparse initializers are not supported; store them dense")
    return model


def type_name(elem_type: int) -> str:
    """ONNX's name of an element type."""
    try:
        return TensorProto.DataType.Name(cast(Any, elem_type))
    except ValueError:
        return str(elem_type)


def element_type(elem_type: int, what: str) -> np.dtype[Any]:
    """The NumPy dtype that stands for an ONNX element type at import: all floats are float32,
    integers of 4 and 2 bits take a byte each.

    Raises `ModelError` for types that have no place here (strings, complex numbers, 4-bit floats).
    """
    if elem_type in FLOATS:
        return np.dtype(np.float32)
    if elem_type in PACKED:
        return PACKED[elem_type][1]
    if elem_type not in _DTYPES:
        raise ModelError(f"{what}: element type {type_name(elem_type)} is not supported")
    return _DTYPES[elem_type]


class Tensors:
    """Turns `TensorProto`s into arrays. `folder` is where external data may lie, None where the
    model did not come from a file."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def array(self, t: TensorProto, what: str, any_reals: bool = False) -> Array:
        """The tensor, floats as float32. Raises `ModelError`, naming `what`, where shape, dtype
        and data don't fit each other, or floats are NaN or infinite (scalars and masks aside, and
        where `any_reals` are taken)."""
        dtype = element_type(t.data_type, what)
        shape = tuple(t.dims)
        if any(d < 0 for d in shape):
            raise ModelError(f"{what}: shape {list(shape)} has a negative dimension")
        try:
            check_size(dtype.itemsize, shape)
        except ModelError as error:
            raise ModelError(f"{what}: {error}") from None
        stored = self._stored(t, prod(shape), what)
        with np.errstate(over="ignore"):
            array = _widened(stored, t.data_type).astype(dtype, copy=False).reshape(shape)
        if dtype.kind == "f" and not any_reals:
            _need_finite(array, what)
        return array

    def _stored(self, t: TensorProto, count: int, what: str) -> Array:
        """The elements as they are stored, flat; those that share a byte, apart."""
        if t.data_type in PACKED:
            bits, dtype = PACKED[t.data_type]
            return _apart(self._bytes(t, count * bits, what), bits, count, dtype)
        dtype = _stored_dtype(t.data_type).newbyteorder("<")
        if t.data_location == TensorProto.EXTERNAL:
            data = self._external(t, count * dtype.itemsize, what)
        elif t.HasField("raw_data"):
            data = t.raw_data
        else:
            return _typed(t, count, what)
        if len(data) != count * dtype.itemsize:
            raise ModelError(
                f"{what}: {len(data)} bytes of data, shape {list(t.dims)} of"
                f" {type_name(t.data_type)} takes {count * dtype.itemsize}"
            )
        return np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)

    def _bytes(self, t: TensorProto, bits: int, what: str) -> Array:
        """The bytes of packed elements."""
        nbytes = (bits + 7) // 8
        if t.data_location == TensorProto.EXTERNAL:
            data = self._external(t, nbytes, what)
        elif t.HasField("raw_data"):
            data = t.raw_data
        else:
            data = bytes(v & 0xFF for v in t.int32_data)
        if len(data) != nbytes:
            raise ModelError(
                f"{what}: {len(data)} bytes of data, shape {list(t.dims)} of"
                f" {type_name(t.data_type)} takes {nbytes}"
            )
        return np.frombuffer(data, np.uint8)

    def _external(self, t: TensorProto, nbytes: int, what: str) -> bytes:
        entries = {e.key: e.value for e in t.external_data}
        path = self._external_path(entries.get("location", ""), what)
        offset = _entry(entries, "offset", 0, what)
        length = _entry(entries, "length", nbytes, what)
        if length != nbytes or offset + length > path.stat().st_size:
            raise ModelError(
                f"{what}: needs {nbytes} bytes at offset {offset} of {path.name}, which holds"
                f" {path.stat().st_size} bytes, {length} of them declared"
            )
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def _external_path(self, location: str, what: str) -> Path:
        """The file of external data, which must lie inside of the model's folder."""
        if self.folder is None:
            raise ModelError(
                f"{what}: its data is in an external file {location!r}; give the model by its path"
            )
        root = Path(os.path.realpath(self.folder))
        if "\0" in location or not location:
            raise ModelError(f"{what}: no file name for its external data")
        path = Path(os.path.realpath(root / location))
        if Path(location).is_absolute() or not path.is_relative_to(root):
            raise ModelError(
                f"{what}: external data {location!r} lies outside of the model's folder"
            )
        if not path.is_file():
            raise ModelError(f"{what}: external data {location!r} is missing next to the model")
        return path


def _apart(packed: Array, bits: int, count: int, dtype: np.dtype[Any]) -> Array:
    """Elements of a few bits, the first in the lowest bits of each byte, sign and all."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    apart = (packed[:, np.newaxis] >> shifts).reshape(-1)[:count] << np.uint8(8 - bits)
    return apart.view(dtype) >> (8 - bits)


def _stored_dtype(elem_type: int) -> np.dtype[Any]:
    if elem_type in SMALL_FLOATS:
        return onnx.helper.tensor_dtype_to_np_dtype(elem_type)
    return _DTYPES[elem_type]


def _entry(entries: dict[str, str], key: str, default: int, what: str) -> int:
    text = entries.get(key, str(default))
    if not text.isdecimal() or len(text) > 18:
        raise ModelError(f"{what}: external data has {key} {text!r}, a number was expected")
    return int(text)


def _typed(t: TensorProto, count: int, what: str) -> Array:
    """Elements from the typed fields; 16-bit floats are stored there as integers."""
    kind = t.data_type
    field: Iterable[Any]
    if kind == TensorProto.FLOAT:
        field = t.float_data
    elif kind == TensorProto.DOUBLE:
        field = t.double_data
    elif kind == TensorProto.INT64:
        field = t.int64_data
    elif kind in (TensorProto.UINT32, TensorProto.UINT64):
        field = t.uint64_data
    else:
        field = t.int32_data
    values = list(field)
    if len(values) != count:
        raise ModelError(
            f"{what}: {len(values)} elements of data, shape {list(t.dims)} takes {count}"
        )
    stored = _stored_dtype(kind)
    as_bits = {1: np.uint8, 2: np.uint16}
    narrow = kind in (TensorProto.FLOAT16, *SMALL_FLOATS)
    dtype = np.dtype(as_bits[stored.itemsize]) if narrow else stored
    wide = np.asarray(values, np.float64 if dtype.kind == "f" else None)
    if dtype.kind in "iu" and count and not _fits(wide, dtype):
        raise ModelError(f"{what}: data that is no {type_name(kind)}")
    return wide.astype(dtype).view(stored)


def _fits(values: Array, dtype: np.dtype[Any]) -> bool:
    info = np.iinfo(dtype)
    return bool(int(values.min()) >= info.min and int(values.max()) <= info.max)


def _widened(stored: Array, elem_type: int) -> Array:
    if elem_type == TensorProto.BFLOAT16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored


def _need_finite(array: Array, what: str) -> None:
    """A scalar may be infinite (an open end of a Clip), a mask may hold -inf."""
    if array.size and np.isfinite(array.min()) and np.isfinite(array.max()):
        return  # the usual case, without temporaries
    bad = np.isnan(array) if array.size == 1 else ~np.isfinite(array) & (array != -np.inf)
    if bad.any():
        raise ModelError(
            f"{what}: {int(bad.sum())} of {array.size} values are NaN or infinite;"
            " the model's weights are broken"
        )

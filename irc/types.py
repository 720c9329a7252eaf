"""What a tensor is: element type, shape and, where it stands for real numbers, its scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import isfinite, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from irc.errors import TypeCheckError

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


class DType(Enum):
    """Element types. The value is the name in IR text."""

    F32 = "f32"
    F64 = "f64"
    I8 = "i8"
    U8 = "u8"
    I16 = "i16"
    U16 = "u16"
    I32 = "i32"
    U32 = "u32"
    I64 = "i64"
    U64 = "u64"
    BOOL = "b1"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype that holds one element."""
        return _NUMPY[self]

    @property
    def bits(self) -> int:
        """Bits of storage of one element (a boolean takes a byte)."""
        return self.numpy.itemsize * 8

    @property
    def is_float(self) -> bool:
        """Whether elements are floating-point numbers."""
        return self in (DType.F32, DType.F64)

    @property
    def is_integer(self) -> bool:
        """Whether elements are integers (booleans are not)."""
        return not self.is_float and self is not DType.BOOL

    @property
    def min(self) -> int:
        """Smallest integer of this type."""
        return 0 if self is DType.BOOL else int(np.iinfo(self.numpy).min)

    @property
    def max(self) -> int:
        """Largest integer of this type."""
        return 1 if self is DType.BOOL else int(np.iinfo(self.numpy).max)

    @classmethod
    def of(cls, dtype: npt.DTypeLike) -> DType:
        """The element type of a NumPy dtype; raises `TypeCheckError` if there is none."""
        for ours, theirs in _NUMPY.items():
            if theirs == np.dtype(dtype):
                return ours
        raise TypeCheckError(f"no element type stands for NumPy's {np.dtype(dtype)}")


_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.F32: np.dtype(np.float32),
    DType.F64: np.dtype(np.float64),
    DType.I8: np.dtype(np.int8),
    DType.U8: np.dtype(np.uint8),
    DType.I16: np.dtype(np.int16),
    DType.U16: np.dtype(np.uint16),
    DType.I32: np.dtype(np.int32),
    DType.U32: np.dtype(np.uint32),
    DType.I64: np.dtype(np.int64),
    DType.U64: np.dtype(np.uint64),
    DType.BOOL: np.dtype(np.bool_),
}


@dataclass(frozen=True)
class Quant:
    """How integers stand for reals (arithmetic.md (1)): `real = scale * (q - zero_point)`.

    Per tensor, `scale` and `zero_point` are numbers and `axis` is None. Along an axis,
    `scale` has one entry per index of that axis; `zero_point` is one number, or as many that are
    not all the same.
    `missing`, at an end of the integers' range, stands for what is no number (NaN); then no real
    has one of the ends.
    """

    scale: float | tuple[float, ...]
    zero_point: int | tuple[int, ...] = 0
    axis: int | None = None
    missing: int | None = None

    def __post_init__(self) -> None:
        if (self.axis is None) == isinstance(self.scale, tuple):
            raise TypeCheckError(f"scale {self.scale} does not go with axis {self.axis}")
        if not all(isfinite(s) and s > 0 for s in self.scales):
            raise TypeCheckError("a quantization scale must be positive and finite")
        if isinstance(self.zero_point, tuple) and len(set(self.zero_point)) == 1:
            object.__setattr__(self, "zero_point", self.zero_point[0])

    @property
    def scales(self) -> tuple[float, ...]:
        """All scales, one entry if per tensor."""
        return self.scale if isinstance(self.scale, tuple) else (self.scale,)

    @property
    def tensor_scale(self) -> float:
        """The scale of a per-tensor quantization; raises `TypeCheckError` along an axis."""
        if isinstance(self.scale, tuple):
            raise TypeCheckError("a per-tensor scale is needed here, this one goes along an axis")
        return self.scale

    @property
    def zero(self) -> int:
        """The zero point of a per-tensor quantization; raises `TypeCheckError` if several."""
        if isinstance(self.zero_point, tuple):
            raise TypeCheckError("one zero point is needed here, this tensor has several")
        return self.zero_point


@dataclass(frozen=True)
class TensorType:
    """Element type, static shape, and for quantized tensors what the integers mean."""

    dtype: DType
    shape: Shape
    quant: Quant | None = None

    def __post_init__(self) -> None:
        if any(d < 0 for d in self.shape):
            raise TypeCheckError(f"shape {list(self.shape)} has a negative dimension")
        if self.quant is not None and not self.dtype.is_integer:
            raise TypeCheckError(f"{self.dtype.value} can't carry a quantization")
        missing = None if self.quant is None else self.quant.missing
        if missing is not None and missing not in (self.dtype.min, self.dtype.max):
            raise TypeCheckError(f"{missing}, what is missing, is no end of {self.dtype.value}")

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of dense storage."""
        return self.size * self.dtype.numpy.itemsize

    @property
    def zero(self) -> int:
        """The integer that stands for the real 0 (0 where nothing is quantized)."""
        return 0 if self.quant is None else self.quant.zero

    @property
    def ends(self) -> tuple[int, int]:
        """The least and the largest integer that stand for reals."""
        kept = int(self.quant is not None and self.quant.missing is not None)
        return self.dtype.min + kept, self.dtype.max - kept

    @property
    def scale(self) -> float:
        """The per-tensor scale; raises `TypeCheckError` where there is none."""
        if self.quant is None:
            raise TypeCheckError(f"{self} carries no scale")
        return self.quant.tensor_scale

    def with_shape(self, shape: Shape) -> TensorType:
        """The same elements in another shape (a per-axis quantization is not kept)."""
        quant = self.quant if self.quant is None or self.quant.axis is None else None
        return TensorType(self.dtype, shape, quant)

    def __str__(self) -> str:
        dims = ",".join(map(str, self.shape))
        text = f"{self.dtype.value}[{dims}]"
        if self.quant is None:
            return text
        code = "" if self.quant.missing is None else f", missing {self.quant.missing}"
        if self.quant.axis is None:
            return f"{text} q({self.quant.scale!r}, {self.quant.zero_point}{code})"
        return f"{text} q(per axis {self.quant.axis}{code})"


def signature(inputs: Mapping[str, TensorType], outputs: Mapping[str, TensorType]) -> str:
    """What takes and gives these, in one line: `x: f32[1,3] -> p: f32[1,2]`."""
    sides = (", ".join(f"{name}: {t}" for name, t in types.items()) for types in (inputs, outputs))
    return " -> ".join(sides)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy's broadcasting of shapes; raises `TypeCheckError` where they don't fit."""
    try:
        return tuple(int(d) for d in np.broadcast_shapes(*shapes))
    except ValueError:
        listed = " and ".join(str(list(s)) for s in shapes)
        raise TypeCheckError(f"shapes {listed} do not broadcast") from None

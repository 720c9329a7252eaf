"""The nodes that no arithmetic belongs to: inputs, constants, and kernels over a body graph."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from irc.errors import TypeCheckError
from irc.types import Array, DType, Quant, Shape, TensorType
from irc.value import Value, op

if TYPE_CHECKING:
    from irc.graph import Graph


@op("input")
class Input(Value):
    """An input of the graph; `name` is part of its interface."""

    dtype: DType
    dims: Shape
    quant: Quant | None = None
    declares: ClassVar[tuple[str, ...]] = ("dtype", "dims", "quant")

    @classmethod
    def of(cls, type_: TensorType, name: str) -> Input:
        """An input of that type."""
        return cls(type_.dtype, type_.shape, type_.quant, name=name)

    def infer(self) -> TensorType:
        """Its declaration."""
        return TensorType(self.dtype, self.dims, self.quant)


@op("const")
class Const(Value):
    """A constant tensor; the array is made read-only and must not be changed."""

    array: Array
    quant: Quant | None = None
    declares: ClassVar[tuple[str, ...]] = ("quant",)

    def infer(self) -> TensorType:
        """The array's own type; a per-axis quantization must fit its axis."""
        self.array.setflags(write=False)
        result = TensorType(DType.of(self.array.dtype), self.array.shape, self.quant)
        quant = self.quant
        if quant is not None and quant.axis is not None:
            if not 0 <= quant.axis < result.rank:
                raise TypeCheckError(f"quantization axis {quant.axis} is not an axis of {result}")
            if len(quant.scales) != result.shape[quant.axis]:
                raise TypeCheckError(
                    f"{len(quant.scales)} scales for axis {quant.axis} of {result}"
                )
        return result

    def evaluate(self) -> Array:
        """The array."""
        return self.array

    @cached_property
    def digest(self) -> str:
        """Content hash, 12 hex digits."""
        return digest(self.array)


def is_number(v: Value) -> bool:
    """Whether a value is a constant of one element."""
    return isinstance(v, Const) and v.type.size == 1


def digest(array: Array) -> str:
    """Content hash of dtype, shape and bytes: 12 hex digits of SHA-256."""
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()[:12]


@op("kernel")
class Kernel(Value):
    """A fused kernel: a body graph over `args`, compiled as one function.

    The body's inputs stand one for one for `args`; it has one output.
    """

    args: tuple[Value, ...]
    body: Graph

    def infer(self) -> TensorType:
        """The type of the body's output; the body's inputs must have the types of `args`."""
        if len(self.body.outputs) != 1 or len(self.args) != len(self.body.inputs):
            raise TypeCheckError("a kernel's body takes its operands and has one output")
        for i, (arg, formal) in enumerate(zip(self.args, self.body.inputs, strict=True)):
            if arg.type != formal.type:
                raise TypeCheckError(f"operand {i} is {arg.type}, the body takes {formal.type}")
        return self.body.outputs[0].type

    def evaluate(self, args: tuple[Array, ...]) -> Array:
        """The body, evaluated."""
        from irc.graph import evaluate

        feeds = {v.name: a for v, a in zip(self.body.inputs, args, strict=True)}
        (result,) = evaluate(self.body, feeds).values()
        return result

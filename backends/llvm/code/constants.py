"""Numbers as LLVM's constants.

llvmlite makes an object of each lane of a vector, and writes each anew; a kernel for vectors of 64
bytes has thousands of them, mostly a few that repeat. Here each is made, and written, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from llvmlite import ir


def constant(kind: Any, value: int | Sequence[int]) -> Any:
    """A number of an LLVM type, on every lane of a vector; a sequence has a number for each lane.
    Raises `ValueError` if those are not as many as the lanes."""
    if not isinstance(kind, ir.VectorType):
        return ir.Constant(kind, value)
    lanes = tuple(value) if isinstance(value, Sequence) else (value,) * kind.count
    if len(lanes) != kind.count:
        raise ValueError(f"{len(lanes)} numbers for the {kind.count} lanes of {kind}")
    return _vector(kind.element.width, lanes)


def shuffle_mask(lanes: Sequence[int]) -> Any:
    """The lanes that `shufflevector` takes, of its two operands side by side."""
    return _vector(32, tuple(lanes))


@lru_cache(maxsize=1024)
def _vector(bits: int, lanes: tuple[int, ...]) -> Any:
    return ir.Constant(ir.VectorType(ir.IntType(bits), len(lanes)), lanes)

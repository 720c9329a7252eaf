"""The table of ATen operators, and the call as its handler sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, NoReturn

import numpy as np

from irc.errors import ModelError
from irc.frontends.builder import Builder
from irc.ops.cast import Cast
from irc.ops.core import Const
from irc.types import Array, DType, Shape
from irc.value import Value


@dataclass(frozen=True, eq=False)
class Complex:
    """A complex tensor: two real ones of one shape."""

    real: Value
    imag: Value

    @property
    def shape(self) -> Shape:
        """The shape of both parts."""
        return self.real.shape


Results = Value | Complex | tuple[Value | Complex | None, ...]
"""One result, or several; None for one that is not supported."""
Handler = Callable[["Node"], Results]

DATA_SHAPED = (
    "its result has no fixed shape: it depends on data; torch.where, or a product with a mask,"
    " keeps the shape"
)
"""Why operators that choose elements by value are refused."""

HANDLERS: dict[str, Handler] = {}
"""Every supported operator by its name without overload. What stands here is not decomposed."""


def handles(*ops: str) -> Callable[[Handler], Handler]:
    """Register a handler for operators; raises `TypeError` for one that has a handler already."""
    if twice := HANDLERS.keys() & set(ops):
        raise TypeError(f"registered twice: {sorted(twice)}")

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(ops, handler))
        return handler

    return register


@dataclass
class Node:
    """One call: its arguments by the names of the operator's schema, defaults filled in.

    Arguments that a handler never asks for must have their default (None where they have none).
    """

    op: str
    where: str
    arguments: dict[str, Any]
    defaults: dict[str, Any]
    builder: Builder
    dtype: DType | None
    """The result's element type where the operator has one result, a tensor."""
    count: int = 1
    """How many results the operator has."""
    paired: bool = False
    """Whether the result is complex, `dtype` being that of its parts."""
    dense: bool = True
    """Whether its first operand lies in memory in the order of its axes, without gaps."""
    asked: set[str] = field(default_factory=set)

    def fail(self, message: str) -> NoReturn:
        """Raise `ModelError` that names this call."""
        raise ModelError(f"{self.where}: {message}")

    def has(self, name: str) -> bool:
        """Whether the operator's overload has this argument, and it is not None."""
        return self.arguments.get(name) is not None

    def any(self, name: str) -> Any:
        """An argument as it stands."""
        self.asked.add(name)
        if name not in self.arguments:
            self.fail(f"argument {name!r} is missing")
        return self.arguments[name]

    def ignore(self, *names: str) -> None:
        """Arguments that mean nothing here."""
        self.asked.update(names)

    # ---------------------------------------------------------------- tensors

    def x(self, name: str = "self") -> Value:
        """A tensor, which must be there."""
        v = self.any(name)
        if not isinstance(v, Value):
            self.fail(f"argument {name!r} must be a tensor, it is {v!r}")
        return v

    def optional(self, name: str) -> Value | None:
        """A tensor, None where it was left out."""
        return self.x(name) if self.has(name) else None

    def xs(self, name: str) -> tuple[Value, ...]:
        """A list of tensors."""
        found = tuple(self.any(name))
        if not all(isinstance(v, Value) for v in found):
            self.fail(f"argument {name!r} must be a list of tensors")
        return found

    def constant(self, name: str) -> Array:
        """A tensor that must be known at import."""
        v = self.x(name)
        if not isinstance(v, Const):
            self.fail(f"{name!r} ({v.name!r}) is computed at run time; it must be a constant")
        return v.array

    def operand(self, name: str, dtype: DType) -> Value:
        """A tensor or a number, as a value of the element type."""
        v = self.any(name)
        if not isinstance(v, Value):
            at = f"{self.builder.name}.{name}"
            return self.builder.const(np.asarray(v, dtype.numpy), name=at)
        return self.cast(v, dtype)

    def cast(self, v: Value, dtype: DType) -> Value:
        """The value in an element type."""
        return v if v.type.dtype is dtype else self.builder.add(Cast(v, dtype))

    # ---------------------------------------------------------------- numbers

    def number(self, name: str, absent: float | None = None) -> float:
        """A number; tensors count where they are constants of one element."""
        v = self.any(name)
        if v is None and absent is not None:
            return absent
        if isinstance(v, Const) and v.type.size == 1:
            v = v.array.reshape(()).item()
        if not isinstance(v, int | float):
            self.fail(f"argument {name!r} must be a number, it is {v!r}")
        return float(v)

    def bound(self, name: str, sign: int) -> float:
        """A bound that may be left out: then it is infinite."""
        return self.number(name, sign * inf) if name in self.arguments else sign * inf

    def integer(self, name: str) -> int:
        """A whole number."""
        v = self.any(name)
        if not isinstance(v, int):
            self.fail(f"argument {name!r} must be a whole number, it is {v!r}")
        return int(v)

    def flag(self, name: str) -> bool:
        """A boolean."""
        return bool(self.any(name))

    def integers(self, name: str) -> Shape:
        """A list of whole numbers; a single one counts as a list."""
        v = self.any(name)
        listed = [v] if isinstance(v, int) else v
        if listed is None or not all(isinstance(i, int) for i in listed):
            self.fail(f"argument {name!r} must be a list of whole numbers, it is {v!r}")
        return tuple(int(i) for i in listed)

    def per_axis(self, name: str, spatial: int) -> Shape:
        """One number for each spatial axis; a single one stands for all."""
        found = self.integers(name)
        if len(found) not in (1, spatial):
            self.fail(f"{name} {list(found)}: one entry for each of {spatial} axes is needed")
        return found * spatial if len(found) == 1 else found

    def axis(self, name: str, rank: int) -> int:
        """An axis, counted from the front."""
        return self.counted(self.integer(name), rank)

    def axes(self, name: str, rank: int) -> Shape:
        """Different axes, counted from the front."""
        found = tuple(self.counted(a, rank) for a in self.integers(name))
        if len(set(found)) != len(found):
            self.fail(f"axes {list(found)} name one axis twice")
        return found

    def counted(self, axis: int, rank: int) -> int:
        """An axis that may count from the end, counted from the front."""
        if not -max(rank, 1) <= axis < max(rank, 1):
            self.fail(f"axis {axis} does not exist, the tensor has {rank} axes")
        return axis % max(rank, 1)

    # ---------------------------------------------------------------- afterwards

    def refuse_unread(self) -> None:
        """Refuse arguments that the handler did not ask for and that say something."""
        for name in self.arguments:
            value, default = self.arguments[name], self.defaults.get(name)
            if name not in self.asked and value is not default and not _alike(value, default):
                shown = value.name if isinstance(value, Value) else value
                self.fail(f"{name} = {str(shown)[:60]} is not supported")


def _alike(a: object, b: object) -> bool:
    if isinstance(a, Value) or isinstance(b, Value):
        return False
    if isinstance(a, Sequence) and isinstance(b, Sequence):
        return list(a) == list(b)
    return a == b

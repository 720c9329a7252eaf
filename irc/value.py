"""A value *is* the node that makes it: op, operands, attributes, one result.

An op is a frozen dataclass that derives from `Value`, registered by `@op("name")`. Its fields
annotated `Value`, `Value | None` or `tuple[Value, ...]` are operands; its other fields are
attributes. Everything generic (printing, parsing, rebuilding, walking, hashing) goes over the
fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Self,
    TypeVar,
    dataclass_transform,
)

from irc.errors import IRCError, TypeCheckError
from irc.types import Array, Shape, TensorType

if TYPE_CHECKING:
    from irc.channels import Kept, Tie
    from irc.loops import Loops

OPS: dict[str, type[Value]] = {}
"""Every registered op by its name in IR text."""


@dataclass(frozen=True, eq=False, repr=False)
class Value:
    """Base of all ops. Compared by identity: two equal nodes are still two nodes."""

    op: ClassVar[str] = "value"
    declares: ClassVar[tuple[str, ...]] = ()
    """Attributes that stand in the printed result type: of `dtype`, `shape`, `quant`."""
    flags: ClassVar[tuple[str, ...]] = ()
    """Attributes that are printed only where they are not none, false or 0."""
    moves: ClassVar[bool] = False
    """Whether the op only selects or moves elements: then its result keeps its operands' scale,
    it means the same on floats and integers, and it is its own integer twin."""

    name: str = field(default="", kw_only=True)
    """Provenance: the model's name of this tensor. Never part of the meaning."""
    type: TensorType = field(init=False)

    def __post_init__(self) -> None:
        try:
            inferred = self.infer()
        except TypeCheckError as error:
            at = f" %{self.name}" if self.name else ""
            raise TypeCheckError(f"{self.op}{at}: {error}") from None
        object.__setattr__(self, "type", inferred)

    def __init_subclass__(cls) -> None:
        # A dataclass would spell out operands and theirs: exponentially long in the graph's depth.
        cls.__repr__ = Value.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return f"<{self.op} %{self.name}: {self.type}>"

    def infer(self) -> TensorType:
        """The type rule: checks operands and attributes and returns the result's type."""
        raise NotImplementedError

    def evaluate(self, *args: Any, **kwargs: Any) -> Array:
        """Exact meaning in NumPy. Takes one argument per operand field, in field order: an
        array, None for an absent operand, a tuple of arrays for a variadic one."""
        raise IRCError(f"{self.op} %{self.name} can't be evaluated")

    def loops(self) -> Loops:
        """Meaning as loop nests over integers; raises `IRCError` where the op has none."""
        raise IRCError(f"{self.op} %{self.name} has no integer code: quantize the graph first")

    def quantized(self, operands: tuple[Value, ...], result: TensorType) -> Value:
        """The integer twin: the node over quantized `operands` whose result is `result`.

        `operands` stand one for one for `self.operands`. Raises `IRCError` where there is none.
        """
        del operands, result
        raise IRCError(f"{self.op} %{self.name} has no integer form")

    def ties(self) -> Iterable[Tie]:
        """Which entries of the operands' and the result's axes live and die together; an axis
        that is not named keeps its extent."""
        return ()

    def narrowed(self, new: Callable[[Value], Value], kept: Kept) -> Value:
        """The same node over `new(operand)`, operands that lost entries. Attributes that count
        or place entries follow: `kept` tells which remain of the operands and the result."""
        del kept
        return self.map_operands(new)

    @property
    def shape(self) -> Shape:
        """Shape of the result."""
        return self.type.shape

    @property
    def operands(self) -> tuple[Value, ...]:
        """All operands, flat, absent ones left out."""
        found: list[Value] = []
        for name in operand_fields(type(self)):
            entry = getattr(self, name)
            if isinstance(entry, Value):
                found.append(entry)
            elif entry is not None:
                found.extend(entry)
        return tuple(found)

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes by name, in field order."""
        return {name: getattr(self, name) for name in attribute_fields(type(self))}

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; the type is inferred anew."""
        return dataclasses.replace(self, **changes)

    def map_operands(self, f: Callable[[Value], Value]) -> Self:
        """The same node over `f(operand)`; returns self where nothing changed."""
        changes: dict[str, Any] = {}
        for name in operand_fields(type(self)):
            old = getattr(self, name)
            if old is None:
                continue
            if isinstance(old, Value):
                new = f(old)
                if new is not old:
                    changes[name] = new
                continue
            several = tuple(f(v) for v in old)
            if differs(several, old):
                changes[name] = several
        return self.replace(**changes) if changes else self

    def call(self, arrays: Callable[[Value], Array]) -> Array:
        """Evaluate over the arrays of the operands."""
        args: list[Any] = []
        for name in operand_fields(type(self)):
            entry = getattr(self, name)
            if entry is None:
                args.append(None)
            elif isinstance(entry, Value):
                args.append(arrays(entry))
            else:
                args.append(tuple(arrays(v) for v in entry))
        return self.evaluate(*args)


V = TypeVar("V", bound=Value)


def differs(a: tuple[Value, ...], b: tuple[Value, ...]) -> bool:
    """Whether two operand lists are not the same nodes."""
    return len(a) != len(b) or any(x is not y for x, y in zip(a, b, strict=True))


@dataclass_transform(eq_default=False, frozen_default=True, field_specifiers=(field,))
def op(name: str) -> Callable[[type[V]], type[V]]:
    """Register a class as the op `name` and make it a frozen dataclass."""

    def register(cls: type[V]) -> type[V]:
        made = dataclass(frozen=True, eq=False)(cls)
        if name in OPS:
            raise TypeError(f"op {name!r} is registered twice")
        made.op = name
        OPS[name] = made
        return made

    return register


_operand_fields: dict[type[Value], tuple[str, ...]] = {}
_attribute_fields: dict[type[Value], tuple[str, ...]] = {}


def operand_fields(cls: type[Value]) -> tuple[str, ...]:
    """Names of the fields that hold operands (read off the annotations' text)."""
    if cls not in _operand_fields:
        kinds = ("Value", "Value | None", "tuple[Value, ...]")
        names = tuple(f.name for f in dataclasses.fields(cls) if f.type in kinds)
        _operand_fields[cls] = names
    return _operand_fields[cls]


def may_lack(cls: type[Value], names: Sequence[str]) -> bool:
    """Whether a node may be made without these operands."""
    defaults = {f.name: f.default for f in dataclasses.fields(cls)}
    return all(defaults[name] is None for name in names)


def attribute_fields(cls: type[Value]) -> tuple[str, ...]:
    """Names of the fields that hold attributes."""
    if cls not in _attribute_fields:
        skip = {*operand_fields(cls), "name", "type"}
        names = tuple(f.name for f in dataclasses.fields(cls) if f.name not in skip)
        _attribute_fields[cls] = names
    return _attribute_fields[cls]

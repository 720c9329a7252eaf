"""The table of operators, and the node as its handler sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto

from irc.errors import ModelError
from irc.frontends.builder import Builder
from irc.frontends.onnx.file import element_type
from irc.frontends.onnx.lists import Entry, Listed, tensor
from irc.frontends.onnx.pinned import cure
from irc.frontends.onnx.structure import key, where
from irc.ops.core import Const
from irc.types import Array, Shape
from irc.value import Value

Results = Entry | tuple[Entry, ...]
Handler = Callable[["Node"], Results]

HANDLERS: dict[str, Handler] = {}
"""Every supported operator by its key. A handler serves all versions since opset 6: defaults come
from the schema of the model's own version, inputs that used to be attributes are asked for."""

SCHEMAS: dict[str, onnx.defs.OpSchema] = {}
"""The definitions of operators that are not the standard's, by key."""


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
    """One node: its inputs as values, its attributes with the defaults of its version.

    Attributes that a handler never asks for are refused when it is done.
    """

    proto: NodeProto
    inputs: tuple[Entry | None, ...]
    builder: Builder
    opset: int
    tensor: Callable[[TensorProto], Array]
    given: dict[str, AttributeProto] = field(init=False)
    asked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.given = {a.name: a for a in self.proto.attribute}

    @property
    def op(self) -> str:
        """The operator's name."""
        return self.proto.op_type

    @property
    def schema(self) -> onnx.defs.OpSchema:
        """The operator's definition in the model's version."""
        found = SCHEMAS.get(key(self.proto))
        return found or onnx.defs.get_schema(self.op, self.opset, "")

    def fail(self, message: str) -> NoReturn:
        """Raise `ModelError` that names this node."""
        raise ModelError(f"{where(self.proto)}: {message}")

    # ---------------------------------------------------------------- inputs

    def has(self, i: int) -> bool:
        """Whether input `i` is there."""
        return i < len(self.inputs) and self.inputs[i] is not None

    def x(self, i: int = 0) -> Value:
        """Input `i`, which must be there."""
        v = self.inputs[i] if i < len(self.inputs) else None
        if v is None:
            self.fail(f"input {i} is missing")
        return tensor(v, f"{where(self.proto)}: input {i}")

    def listed(self, i: int) -> tuple[Value, ...]:
        """Input `i`, a sequence: the tensors in it."""
        v = self.inputs[i] if i < len(self.inputs) else None
        if not isinstance(v, Listed):
            self.fail(f"input {i} must be a sequence of tensors")
        return v.parts

    def entry(self, i: int) -> Entry:
        """Input `i`, a tensor or a sequence."""
        v = self.inputs[i]
        return v if isinstance(v, Listed) else self.x(i)

    def optional(self, i: int) -> Value | None:
        """Input `i`, None where it was left out."""
        return self.x(i) if self.has(i) else None

    def constant(self, i: int, what: str) -> Array:
        """Input `i`, which must be known at import."""
        v = self.x(i)
        if not isinstance(v, Const):
            self.fail(
                f"its {what} ({v.name!r}) is computed at run time; it must be a constant,"
                f" or depend on shapes alone{cure(v)}"
            )
        return v.array

    def whole(self, i: int, what: str) -> Shape:
        """Input `i` as a constant list of integers."""
        array = self.constant(i, what)
        if array.dtype.kind not in "iu" or array.ndim > 1:
            self.fail(f"its {what} must be a list of integers, it is {self.x(i).type}")
        return tuple(int(n) for n in array.reshape(-1))

    def scalar(self, i: int, what: str) -> Any:
        """Input `i` as a constant number."""
        array = self.constant(i, what)
        if array.size != 1:
            self.fail(f"its {what} must be one number, it has shape {list(array.shape)}")
        return array.reshape(-1)[0].item()

    def axis(self, value: int, rank: int) -> int:
        """An axis that may count from the end, counted from the front."""
        if not -rank <= value < rank:
            self.fail(f"axis {value} does not exist, the tensor has {rank} axes")
        return value % rank

    def axes(self, values: Sequence[int], rank: int) -> Shape:
        """Different axes, counted from the front."""
        found = tuple(self.axis(v, rank) for v in values)
        if len(set(found)) != len(found):
            self.fail(f"axes {list(values)} name one axis twice")
        return found

    # ---------------------------------------------------------------- attributes

    def attribute(self, name: str) -> AttributeProto | None:
        """An attribute as given or by the schema's default, None where there is neither."""
        self.asked.add(name)
        if name in self.given:
            return self.given[name]
        declared = self.schema.attributes.get(name)
        default = None if declared is None else declared.default_value
        return default if default is not None and default.type else None

    def integer(self, name: str) -> int:
        """An integer attribute that is there or has a default."""
        return int(self._present(name).i)

    def real(self, name: str) -> float:
        """A float attribute that is there or has a default."""
        return float(self._present(name).f)

    def text(self, name: str) -> str:
        """A string attribute that is there or has a default."""
        return self._present(name).s.decode("utf-8", "replace")

    def integers(self, name: str) -> Shape | None:
        """A list attribute, None where it was left out."""
        found = self.attribute(name)
        return None if found is None else tuple(int(n) for n in found.ints)

    def reals(self, name: str) -> tuple[float, ...] | None:
        """A list attribute of singles, None where it was left out."""
        found = self.attribute(name)
        return None if found is None else tuple(found.floats)

    def element_type(self, kind: int) -> np.dtype[Any]:
        """The NumPy dtype that an ONNX element type becomes."""
        return element_type(kind, where(self.proto))

    def ignore(self, *names: str) -> None:
        """Attributes that mean nothing here."""
        self.asked.update(names)

    def need(self, name: str, value: int | str, why: str) -> None:
        """Refuse an attribute that is not `value`."""
        found = self.text(name) if isinstance(value, str) else self.integer(name)
        if found != value:
            self.fail(f"{name} = {found!r} is not supported, only {value!r}: {why}")

    def _present(self, name: str) -> AttributeProto:
        found = self.attribute(name)
        if found is None:
            self.fail(f"attribute {name!r} is missing")
        return found

    def check_schema(self) -> None:
        """Refuse what the definition of the model's version does not know: the operator itself,
        numbers of inputs and outputs, attributes and their types."""
        try:
            schema = self.schema
        except onnx.defs.SchemaError:
            schema = None
        if schema is None or schema.deprecated:
            self.fail(f"the operator does not exist in opset {self.opset}")
        count = len(self.proto.input)
        if not schema.min_input <= count <= schema.max_input:
            self.fail(f"{count} inputs, it takes {schema.min_input} to {schema.max_input}")
        if not schema.min_output <= len(self.proto.output) <= schema.max_output:
            least, most = schema.min_output, schema.max_output
            self.fail(f"{len(self.proto.output)} outputs, it has {least} to {most}")
        for name, given in self.given.items():
            declared = schema.attributes.get(name)
            if declared is None:
                self.fail(f"attribute {name!r} does not exist in opset {self.opset}")
            wanted = cast(Any, declared.type)  # an enum; its stub does not say so
            if given.ref_attr_name or int(given.type) != wanted.value:
                self.fail(f"attribute {name!r} must be of type {wanted.name}")

    def refuse_unread(self) -> None:
        """Refuse attributes that the handler did not ask for."""
        for name in sorted(set(self.given) - self.asked):
            value = onnx.helper.get_attribute_value(self.given[name])
            shown = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            self.fail(f"attribute {name} = {str(shown)[:60]} is not supported")

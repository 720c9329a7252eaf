"""What the nodes of a torch program stand for, and how trees of them are walked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irc.errors import ModelError, TypeCheckError
from irc.frontends.torch.ops.table import Complex
from irc.frontends.torch.program import array_of, is_tensor
from irc.ops.core import Const
from irc.types import DType
from irc.value import Value

FLOATS = ("float16", "bfloat16", "float32", "float64")
COMPLEX = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}
"""The element type of the parts."""


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor that does not depend on the inputs: torch computes with it. `name` is that of the
    parameter, or of the node that made it."""

    tensor: Any
    name: str


@dataclass
class Constants:
    """The values of tensors that are known: one constant each, however often it is used."""

    made: dict[int, tuple[Known, Value | Complex]] = field(default_factory=dict)

    def value(self, entry: Known | Value | Complex) -> Value | Complex:
        """A value as it is, a tensor as its constant, or as those of its parts."""
        if not isinstance(entry, Known):
            return entry
        if id(entry) not in self.made:
            self.made[id(entry)] = entry, constant(entry)
        return self.made[id(entry)][1]

    def valued(self, entry: Any) -> Any:
        """An argument whose constants are values of the graph."""
        if isinstance(entry, Known):
            return self.value(entry)
        if isinstance(entry, complex):
            return Complex(*(Const(np.asarray(p, np.float32)) for p in (entry.real, entry.imag)))
        if isinstance(entry, list | tuple):
            return [self.valued(v) for v in entry]
        return entry


def constant(entry: Known) -> Value | Complex:
    """A tensor as a constant, a complex one as two; raises `ModelError` where none are held."""
    if entry.tensor.is_meta:
        raise ModelError(f"{entry.name!r} is on a meta device and holds nothing: load the weights")
    if not entry.tensor.is_complex():
        return Const(array_of(entry.tensor), name=entry.name)
    tensor = entry.tensor.resolve_conj()
    names = ((p, f"{entry.name}.{p}") for p in ("real", "imag"))
    return Complex(*(Const(array_of(getattr(tensor, p)), name=n) for p, n in names))


def element_type(dtype: Any, what: str) -> DType:
    """The element type of a torch dtype; floats are all f32."""
    name = str(dtype).removeprefix("torch.")
    if name in FLOATS:
        return DType.F32
    try:
        return DType.of(name)
    except (TypeCheckError, TypeError):
        raise ModelError(f"{what}: element type {name} is not supported") from None


def part_type(dtype: Any) -> str:
    """The torch dtype of a complex number's parts; that of reals is their own."""
    name = str(dtype).removeprefix("torch.")
    return COMPLEX.get(name, name)


def leaves(tree: Any) -> list[Any]:
    """The entries of nested sequences and mappings, in order."""
    if isinstance(tree, Mapping):
        return [leaf for entry in tree.values() for leaf in leaves(entry)]
    if isinstance(tree, list | tuple):
        return [leaf for entry in tree for leaf in leaves(entry)]
    return [tree]


def resolved(entry: Any, env: Mapping[Any, Any]) -> Any:
    """Arguments with nodes replaced by what they stand for."""
    if isinstance(entry, list | tuple):
        return [resolved(v, env) for v in entry]
    if isinstance(entry, dict):
        return {key: resolved(v, env) for key, v in entry.items()}
    if hasattr(entry, "all_input_nodes"):
        return env[entry]
    return entry


def unwrapped(entry: Any) -> Any:
    """Arguments with torch's own tensors in place of what is known."""
    if isinstance(entry, list | tuple):
        return [unwrapped(v) for v in entry]
    if isinstance(entry, dict):
        return {key: unwrapped(v) for key, v in entry.items()}
    return entry.tensor if isinstance(entry, Known) else entry


def wrapped(made: Any, name: str) -> Any:
    """A result of torch: a tensor is known, numbers stay."""
    return Known(made, name) if is_tensor(made) else made

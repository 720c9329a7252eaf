"""What differs between versions of torch: how a module is exported, and how a program keeps the
operators that we take whole. 2.5 is the first that can."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from irc.errors import ToolError

STRIDED = ("aten.scaled_dot_product_attention",)
"""Operators that torch 2.5 must take apart: its kernel's result lies otherwise in memory than a
fake one's, and views behind it know that."""


def check_version(torch: Any) -> None:
    """Raise `ToolError` for a torch that is too old."""
    found = tuple(int(n) for n in str(torch.__version__).split("+")[0].split(".")[:2])
    if found < (2, 5):
        raise ToolError(f"PyTorch {torch.__version__} is too old: pip install 'torch>=2.5'")


def export(torch: Any, module: Any, args: Any, kwargs: Any, dynamic: Any) -> Any:
    """`torch.export` as all versions since 2.6 do it: operators as the module calls them."""
    call = torch.export.export
    if not hasattr(torch.export, "default_decompositions"):
        call = torch.export.export_for_training
    return call(module, args, kwargs, dynamic_shapes=dynamic, strict=False)


@contextlib.contextmanager
def masks_not_examined() -> Iterator[None]:
    """`nn.Transformer` looks whether its mask is causal, which data decide, to take a kernel that
    gives the same; torch can't export that. Here the caller's own word is taken."""
    layers: Any = importlib.import_module("torch.nn.modules.transformer")
    before = getattr(layers, "_detect_is_causal_mask", None)
    if before is None:
        yield
        return
    layers._detect_is_causal_mask = lambda mask, is_causal=None, size=None: bool(is_causal)
    try:
        yield
    finally:
        layers._detect_is_causal_mask = before


def lowered(torch: Any, program: Any, kept: Collection[str]) -> Any:
    """The program by torch's own decompositions, less those of operators that are `kept`."""
    if hasattr(torch.export, "default_decompositions"):
        table = torch.export.default_decompositions()
        return program.run_decompositions({o: f for o, f in table.items() if _name(o) not in kept})
    table = importlib.import_module("torch._decomp").core_aten_decompositions()
    table = {o: f for o, f in table.items() if _name(o) not in kept}
    whole = tuple(_composites(torch, tuple(sorted(kept))))
    return program.run_decompositions(table, _preserve_ops=whole)


def _name(op: Any) -> str:
    schema = getattr(op, "_schema", None)
    return "" if schema is None else str(schema.name).replace("::", ".")


@cache
def _composites(torch: Any, names: tuple[str, ...]) -> list[Any]:
    """Operators that torch 2.5 takes apart unless it is told not to: those that are composed of
    others and whose results share no memory with their operands."""
    tensor = importlib.import_module("torch._subclasses.functional_tensor").FunctionalTensor
    never = {*tensor.maybe_aliasing_or_mutating_ops, *tensor.metadata_fns}
    return [
        op
        for op in _overloads(torch, names)
        if op not in never
        and _name(op) not in STRIDED
        and not op._schema.is_mutable
        and not any(a.alias_info for a in (*op._schema.arguments, *op._schema.returns))
        and torch._C._dispatch_has_kernel(op.name())
        and torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CompositeImplicitAutograd")
    ]


def _overloads(torch: Any, names: tuple[str, ...]) -> Iterator[Any]:
    for name in names:
        space, _, operator = name.partition(".")
        packet = getattr(getattr(torch.ops, space), operator, None) if space == "aten" else None
        for overload in packet.overloads() if packet is not None else ():
            yield getattr(packet, overload)

"""Whole numbers that a module holds as buffers: strides, lengths, limits. torch.export takes them
for data, on which neither a size nor Python's `if` may depend."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def known(module: Any) -> Iterator[bool]:
    """Within, buffers of one whole number are constants that torch can compute with; whether there
    are any. A module that changes one fails."""
    held = [(child, type(child), dict(child._buffers)) for child in module.modules()]
    found = False
    try:
        for child, kind, buffers in held:
            numbers = {n: b for n, b in buffers.items() if _setting(kind, b)}
            if numbers:
                found = True
                _replace(child, kind, numbers)
        yield found
    finally:
        for child, kind, buffers in held:
            if type(child) is not kind:
                child.__class__ = kind
                child._buffers.clear()
                child._buffers.update(buffers)


def _setting(kind: type, buffer: Any) -> bool:
    """Whether a buffer is a number of the module's own; torch's layers count batches by theirs."""
    if buffer is None or kind.__module__.startswith("torch.nn."):
        return False
    return not (buffer.ndim or buffer.is_meta or buffer.is_floating_point() or buffer.is_complex())


def _replace(child: Any, kind: type, numbers: dict[str, Any]) -> None:
    """A module's buffers by properties of a class of its own, each a new tensor when it is read."""
    properties: dict[str, Any] = {n: property(_Fresh(b)) for n, b in numbers.items()}
    for name in numbers:
        del child._buffers[name]
    child.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__, **properties})


class _Fresh:
    """Makes a tensor of a number each time: torch remembers of such what they hold."""

    def __init__(self, buffer: Any) -> None:
        self._number, self._dtype = buffer.item(), buffer.dtype

    def __call__(self, _: Any) -> Any:
        torch = importlib.import_module("torch")
        return torch.tensor(self._number, dtype=self._dtype)

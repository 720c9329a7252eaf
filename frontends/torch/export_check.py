"""Whether an exported program does what its module does: some modules compute something else while
they are exported, without a word of it."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from irc.frontends.torch.state import Buffers, frozen_arguments

SAME = 1e-2
"""Results further apart than this, relative to the largest element, are others: no order of sums
does that."""


def warn_where(module: Any, apart: float) -> None:
    """Warn of a program that gives other results than its module, so far `apart`."""
    if apart > SAME:
        warnings.warn(
            f"{type(module).__name__}: torch.export's program gives other results than the module,"
            f" by {apart:.0%} of the largest: the module computes something else while it is"
            " exported. irc takes the program; torch.export.export(module, args).module() is it",
            stacklevel=2,
        )


def distance(module: Any, program: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    """How far the results of a program are from those of its module, of the same arguments,
    relative to the largest element. Buffers and the state of random numbers are as they were
    afterwards; what can't be called, or draws random numbers, says nothing."""
    torch = importlib.import_module("torch")
    if any(_draws(torch, node) for node in program.graph.nodes):
        return 0.0
    buffers, state = Buffers(module), torch.get_rng_state()
    results = []
    try:
        for called in (module, program.module()):
            given, named = frozen_arguments(torch, (args, kwargs))
            with torch.no_grad():
                results.append(frozen_arguments(torch, called(*given, **named)))
            buffers.put_back()
        return _apart(torch, *results)
    except Exception:  # whatever the module's own code raises
        return 0.0
    finally:
        torch.set_rng_state(state)
        buffers.put_back()


def _draws(torch: Any, node: Any) -> bool:
    """Whether a node draws random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _apart(torch: Any, one: Any, other: Any) -> float:
    """The largest difference of what is real in both, relative to the largest element of the two;
    results of different shapes are all that apart."""
    pytree = importlib.import_module("torch.utils._pytree")
    pairs = zip(*(pytree.tree_leaves(tree) for tree in (one, other)), strict=True)
    found = [0.0]
    for a, b in pairs:
        if not isinstance(a, torch.Tensor) or not a.is_floating_point():
            continue
        if a.shape != b.shape:
            return 1.0
        wide = a.double().nan_to_num(), b.double().nan_to_num()
        if a.numel() and (largest := max(float(w.abs().max()) for w in wide)):
            found.append(float((wide[0] - wide[1]).abs().max()) / largest)
    return max(found)

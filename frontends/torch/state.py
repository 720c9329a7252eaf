"""What a module keeps from one call to the next in attributes of Python's, which torch.export
freezes at what the first call found, without a word."""

from __future__ import annotations

import contextlib
import copy
import importlib
from collections import deque
from collections.abc import Iterator
from typing import Any

DEPTH = 3
"""Of containers and objects within attributes that are looked through."""
PLAIN = (bool, int, float, complex, str, bytes, type(None))


@contextlib.contextmanager
def watched(module: Any) -> Iterator[list[str]]:
    """Within, every call of a module adds to the list the names of the attributes that it leaves
    changed: `encoder.calls`. They are put back in the end, for torch.export leaves some that are
    new, and so are hooks that a first call installs. Parameters and buffers, which programs tell
    of, are not looked at."""
    changed: list[str] = []
    held = [(child, dict(vars(child)), _hooks(child)) for child in module.modules()]
    contents = _Contents(module)
    before: list[_Snapshot] = []
    buffers = Buffers(module)

    def enter(*_: Any) -> None:
        before.append(_Snapshot(module))

    def leave(*_: Any) -> None:
        changed.extend(n for n in _Snapshot(module).changed_from(before.pop()) if n not in changed)

    handles = [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield changed
    finally:
        for handle in handles:
            handle.remove()
        for child, attributes, hooks in held:
            vars(child).clear()
            vars(child).update(attributes)
            for name, entries in hooks.items():
                attributes[name].clear()
                attributes[name].update(entries)
        contents.put_back()
        buffers.put_back()


def _hooks(module: Any) -> dict[str, dict[Any, Any]]:
    """What is called before and after a module, by the attribute that holds it."""
    found = vars(module).items()
    return {n: dict(held) for n, held in found if "_hooks" in n and isinstance(held, dict)}


class _Contents:
    """What containers and objects hold that the attributes of a module lead to, modules and tensors
    aside: caches, above all."""

    def __init__(self, module: Any) -> None:
        torch = importlib.import_module("torch")
        self._others = torch.Tensor, torch.nn.Module, type, *PLAIN
        self._held: list[tuple[Any, Any]] = []
        own = set(vars(torch.nn.Module()))
        for child in module.modules():
            for name, value in vars(child).items():
                if name not in own:
                    self._enter(value, DEPTH)

    def _enter(self, value: Any, depth: int) -> None:
        """Remember a container, and what is within, so deep."""
        if depth == 0 or isinstance(value, self._others) or callable(value):
            return
        if isinstance(value, dict | list | set | deque):
            plain = dict if isinstance(value, dict) else set if isinstance(value, set) else list
            self._held.append((value, plain(value)))
        elif isinstance(held := getattr(value, "__dict__", None), dict):
            self._held.append((held, dict(held)))
            value = held
        if isinstance(value, dict | list | set | deque | tuple):
            for entry in list(value.values() if isinstance(value, dict) else value):
                self._enter(entry, depth - 1)

    def put_back(self) -> None:
        """The same entries in the same containers, where one changed."""
        for container, before in self._held:
            if _entries(container) != _entries(before):
                container.clear()
                (container.extend if isinstance(container, list | deque) else container.update)(
                    before
                )


def _entries(container: Any) -> list[tuple[Any, int]]:
    """What a container holds, by identity."""
    pairs = container.items() if isinstance(container, dict) else enumerate(container)
    return [(key, id(entry)) for key, entry in pairs]


class Buffers:
    """The buffers of a module and what they hold."""

    def __init__(self, module: Any) -> None:
        torch = importlib.import_module("torch")
        self._torch = torch
        lazy = torch.nn.parameter.is_lazy
        self._held = [
            (child._buffers, name, tensor, tensor.detach().clone())
            for child in module.modules()
            for name, tensor in child._buffers.items()
            if tensor is not None and not lazy(tensor) and not tensor.is_meta
        ]

    def put_back(self) -> None:
        """The same tensors under their names, with the same numbers."""
        with self._torch.no_grad():
            for place, name, tensor, numbers in self._held:
                place[name] = tensor
                dense = tensor.layout is self._torch.strided
                if dense and not self._torch.equal(tensor, numbers):
                    tensor.copy_(numbers)


def remembers(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a second call with the same arguments gives something else, buffers put back in
    between. The module itself is left as it is; one that can't be called is said to remember."""
    torch = importlib.import_module("torch")
    # Weights need no copy; what came out of a computation can't be copied as it is, nor can rows of
    # sparse matrices.
    memo = {id(p): p for p in module.parameters()}
    memo |= {id(t): t.detach().clone() for t in _Snapshot(module).tensors if not t.is_leaf}
    sparse = (t for t in module.buffers() if t.layout is not torch.strided)
    memo |= {id(t): t.detach().clone() for t in sparse}
    state = torch.get_rng_state()
    results = []
    try:
        twin = copy.deepcopy(module, memo)
        buffers = Buffers(twin)
        for _ in range(2):
            torch.set_rng_state(state)
            buffers.put_back()
            with torch.no_grad():
                given, named = frozen_arguments(torch, (args, kwargs))
                results.append(frozen_arguments(torch, twin(*given, **named)))
        return not _same(torch, *results)
    except Exception:  # whatever the module's own code raises
        return True
    finally:
        torch.set_rng_state(state)


def frozen_arguments(torch: Any, tree: Any) -> Any:
    """Arguments or results whose tensors no later call can change."""
    pytree = importlib.import_module("torch.utils._pytree")
    return pytree.tree_map_only(torch.Tensor, lambda t: t.detach().clone(), tree)


def _same(torch: Any, first: Any, second: Any) -> bool:
    pytree = importlib.import_module("torch.utils._pytree")
    (a, spec), (b, other) = pytree.tree_flatten(first), pytree.tree_flatten(second)
    if spec != other:
        return False
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if isinstance(x, torch.Tensor)]
    return all(
        x.shape == y.shape and torch.allclose(x, y, rtol=1e-6, atol=0, equal_nan=True)
        for x, y in pairs
    )


class _Snapshot:
    """The attributes of a module and those below it, by name; what they hold stays alive, so that
    equal identities mean the same object."""

    def __init__(self, module: Any) -> None:
        torch = importlib.import_module("torch")
        self._tensor, self._module = torch.Tensor, torch.nn.Module
        self.tensors: list[Any] = []
        self._alive: list[Any] = []
        own = set(vars(torch.nn.Module()))
        self._facts = {
            f"{path}.{name}" if path else name: self._fact(value, DEPTH)
            for path, child in module.named_modules()
            for name, value in vars(child).items()
            if name not in own
        }

    def changed_from(self, before: _Snapshot) -> list[str]:
        """The names whose attributes are new or not what they were."""
        missing = object()
        return [n for n, f in self._facts.items() if before._facts.get(n, missing) != f]

    def _fact(self, value: Any, depth: int) -> Any:
        """What is equal as long as a value is the same, its tensors are not written to, and what it
        contains is the same."""
        if isinstance(value, PLAIN):
            return type(value), value
        self._alive.append(value)
        if isinstance(value, self._tensor):
            self.tensors.append(value)
            return id(value), value._version
        parts = [] if depth == 0 or isinstance(value, type) else list(self._parts(value))
        return id(value), tuple((key, self._fact(part, depth - 1)) for key, part in parts)

    def _parts(self, value: Any) -> Iterator[tuple[Any, Any]]:
        """The entries of a container or of an object, modules aside, which come by themselves."""
        if isinstance(value, dict):
            yield from ((repr(key), entry) for key, entry in value.items())
        elif isinstance(value, list | tuple | deque):
            yield from enumerate(value)
        elif isinstance(value, set):
            yield from ((repr(entry), entry) for entry in value)
        elif not callable(value) and not isinstance(value, self._module):
            yield from getattr(value, "__dict__", {}).items()

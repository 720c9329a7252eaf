"""What values are called: by the module that made them, as `layer3.0.conv2`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from irc.frontends.torch.program import operator_name


def module_of(node: Any) -> str:
    """The path of the innermost module that made a node, "" at the top."""
    stack = node.meta.get("nn_module_stack") or {}
    entries = list(stack.values())
    path = entries[-1][0] if entries else ""
    return str(path).removeprefix("L['self'].").removeprefix("L__self__").strip(".")


def node_names(nodes: Iterable[Any]) -> dict[Any, str]:
    """A unique name for each node.

    A module that no other stands in and that makes one kind of operator gives its path; elsewhere
    the operator's name is added to it. Numbers tell calls apart.
    """
    listed = list(nodes)
    paths = {node: module_of(node) for node in listed}
    kinds: dict[str, set[str]] = defaultdict(set)
    inner: set[str] = set()
    for node, path in paths.items():
        kinds[path].add(operator_name(node.target))
        parts = path.split(".")
        inner.update(".".join(parts[:i]) for i in range(len(parts)))
    taken: set[str] = set()
    found: dict[Any, str] = {}
    for node, path in paths.items():
        op = operator_name(node.target).rpartition(".")[2].strip("_")
        leaf = path and path not in inner and len(kinds[path]) == 1
        found[node] = unique(path if leaf else f"{path}.{op}".strip("."), taken)
    return found


def unique(name: str, taken: set[str]) -> str:
    """The name, numbered where it is taken; enters it."""
    made, count = name, 0
    while made in taken:
        count += 1
        made = f"{name}_{count}"
    taken.add(made)
    return made


def where(node: Any) -> str:
    """A node as messages name it: operator, and the module with its class."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    op = operator_name(node.target)
    if not stack:
        return f"{op} {node.name!r}"
    kind = stack[-1][1]
    short = (kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]
    path = module_of(node)
    return f"{op} in {path} ({short})" if path else f"{op} in {short}"

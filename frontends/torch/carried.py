"""State in a torch program: buffers and arguments that a call changes, and a later call reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from irc.errors import ModelError

TRAINED = ("running_mean", "running_var", "num_batches_tracked", "_u", "_v", "min_val", "max_val")
"""The buffers that modules of torch's own change: norms, observers."""


@dataclass(frozen=True)
class Carried:
    """A buffer, or an argument, by its name: the node that holds it, and that which it becomes."""

    name: str
    before: Any
    after: Any
    is_buffer: bool


def carried(program: Any) -> list[Carried]:
    """What calls hand on, in the order of the program's inputs: all that a call changes and on
    which a result depends, in it or in a later one. The graph loses what makes the rest.

    Raises `ModelError` where weights change, or what torch's own modules change in training.
    """
    signature, graph = program.graph_signature, program.graph
    (end,) = (n for n in graph.nodes if n.op == "output")
    made = list(zip(signature.output_specs, end.args[0], strict=True))
    held = {spec.target: node for node, spec in _held(program)}
    held |= {n.name: n for n in graph.nodes if n.op == "placeholder"}
    changed = [
        Carried(spec.target, held[spec.target], node, spec.kind.name.startswith("BUFFER"))
        for spec, node in made
        if spec.kind.name in ("BUFFER_MUTATION", "USER_INPUT_MUTATION")
    ]
    changed = [c for c in changed if _source(c.after) is not c.before]
    _check_trained(program, changed)
    results = [node for spec, node in made if spec.kind.name == "USER_OUTPUT"]
    needed = _needed(results, {c.before: c.after for c in changed})
    kept = sorted((c for c in changed if c.before in needed), key=_order(graph))
    end.args = ((*results, *(c.after for c in kept)),)
    return kept


COPIES = {"aten.copy.default": 1, "aten.clone.default": 0, "aten.alias.default": 0}
"""Operators whose result is one of their arguments, and which."""


def _source(node: Any) -> Any:
    """What a node is a copy of: a buffer that is only written over with itself does not change."""
    while node.op == "call_function":
        at = COPIES.get(str(node.target))
        if str(node.target) == "aten._to_copy.default":
            at = 0 if node.args[0].meta["val"].dtype == node.meta["val"].dtype else None
        if at is None:
            break
        node = node.args[at]
    return node


def join_aliases(program: Any) -> None:
    """A tensor that the module reaches by a way of its own, through an object that holds it besides
    a buffer, becomes that buffer in an exported program: torch.export took it for a constant."""
    nodes = [n for n in program.graph.nodes if n.op == "placeholder"]
    buffers: dict[Any, Any] = {}
    for node, spec in zip(nodes, program.graph_signature.input_specs, strict=True):
        places = (program.state_dict, program.constants)
        tensor: Any = next((p[spec.target] for p in places if spec.target in p), None)
        if not hasattr(tensor, "untyped_storage") or str(tensor.layout) != "torch.strided":
            continue
        place = tensor.data_ptr(), tuple(tensor.shape), tensor.stride()
        if spec.kind.name == "BUFFER":
            buffers.setdefault(place, node)
        elif spec.kind.name == "CONSTANT_TENSOR" and place in buffers and tensor.numel():
            node.replace_all_uses_with(buffers[place])
            program.constants[spec.target] = tensor.clone()


def _held(program: Any) -> list[tuple[Any, Any]]:
    """The nodes of buffers, with what is said of them."""
    nodes = [n for n in program.graph.nodes if n.op == "placeholder"]
    pairs = zip(nodes, program.graph_signature.input_specs, strict=True)
    return [(node, spec) for node, spec in pairs if spec.kind.name == "BUFFER"]


def _order(graph: Any) -> Any:
    places = {node: i for i, node in enumerate(graph.nodes)}
    return lambda c: places[c.before]


def _needed(results: list[Any], after: Mapping[Any, Any]) -> set[Any]:
    """The nodes that results are computed from, in this call or in those before."""
    found: set[Any] = set()
    stack = [n for n in results if hasattr(n, "all_input_nodes")]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += node.all_input_nodes
            stack += [after[node]] if node in after else []
    return found


def _check_trained(program: Any, changed: list[Carried]) -> None:
    weights = list(getattr(program.graph_signature, "parameters_to_mutate", {}).values())
    if weights:  # newer torch tells
        raise ModelError(
            f"the module changes its weights {', '.join(map(repr, weights[:3]))} when it is"
            " called, which is not supported: if it does so at its first call only, call it"
            " once before"
        )
    classes = _classes(program.graph)
    trained = [
        c.name for c in changed
        if c.name.endswith(TRAINED)
        and classes.get(c.name.rpartition(".")[0], "torch.").startswith("torch")
    ]  # fmt: skip
    if trained:
        raise ModelError(
            f"the module changes {', '.join(map(repr, trained[:5]))} when it is called, which"
            " is not supported: that is its training mode, call .eval() on it first"
        )


def _classes(graph: Any) -> dict[str, str]:
    """The class of each module, by path, as far as it makes anything."""
    found: dict[str, str] = {}
    for node in graph.nodes:
        for path, kind in (node.meta.get("nn_module_stack") or {}).values():
            plain = str(path).removeprefix("L['self'].").removeprefix("L__self__").strip(".")
            found[plain] = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__name__}"
    return found

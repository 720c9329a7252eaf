"""The manifest: what a library says of itself, as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import irc
from irc.backends.llvm.module.emit import Emitted
from irc.backends.llvm.module.interface import Interface, Port
from irc.backends.llvm.target import Target
from irc.graph import Graph
from irc.printer import print_graph

FORMAT = 1


def graph_hash(graph: Graph) -> str:
    """SHA-256 of the graph's text, which names long constants by their content."""
    return hashlib.sha256(print_graph(graph).encode()).hexdigest()


def manifest(
    graph: Graph,
    interface: Interface,
    target: Target,
    kernels: Sequence[Emitted],
    facts: Mapping[str, Any],
    notes: Mapping[str, Any],
) -> dict[str, Any]:
    """Tensors, memory, kernels with their proofs, versions; `facts` are the code generator's
    (sizes, options), `notes` what the caller knows besides (passes, hash of the model)."""
    return {
        "format": FORMAT,
        "name": interface.name,
        "irc": irc.__version__,
        "graph": graph.name,
        "graph_sha256": graph_hash(graph),
        "optimize": "size" if target.small else "speed",
        "target": {
            "name": target.name,
            "triple": target.triple,
            "cpu": target.cpu,
            "features": target.features,
        },
        "inputs": [port_entry(p) for p in interface.inputs],
        "outputs": [port_entry(p) for p in interface.outputs],
        **_states(interface),
        "workspace_bytes": interface.workspace_bytes,
        "task_bytes": interface.task_bytes,
        "threads": interface.threads,
        **facts,
        "kernels": [asdict(k) for k in kernels],
        **notes,
    }


def _states(interface: Interface) -> dict[str, Any]:
    """Which output goes into which input in the next run; nothing where there are none."""
    listed = [{"input": p.name, "output": after.name} for p, after in interface.states]
    return {"states": listed} if listed else {}


def port_entry(port: Port) -> dict[str, Any]:
    """A tensor of the interface."""
    entry: dict[str, Any] = {
        "name": port.name,
        "c_name": port.c_name,
        "dtype": port.type.dtype.value,
        "shape": list(port.type.shape),
    }
    if (quant := port.type.quant) is not None:
        entry |= {"scale": quant.scale, "zero_point": quant.zero_point}
        entry |= {} if quant.axis is None else {"axis": quant.axis}
        entry |= {} if quant.missing is None else {"missing": quant.missing}
    return entry


def to_json(content: Mapping[str, Any]) -> str:
    """The manifest as text, the same for the same content."""
    return json.dumps(content, indent=1, ensure_ascii=True) + "\n"

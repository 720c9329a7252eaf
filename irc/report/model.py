"""What a report tells, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from irc.accuracy import Accuracy
from irc.compare import LayerError
from irc.graph import Graph
from irc.history import History
from irc.ops.core import Kernel
from irc.pipeline import Step
from irc.summary import Layer, layer_of


@dataclass(frozen=True)
class Findings:
    """What was measured on data, where there was any."""

    errors: Sequence[LayerError] = ()
    accuracy: Accuracy | None = None


@dataclass(frozen=True)
class Row:
    """One kernel: the layer, the code for it, what speaks for that, what chose it, what is proved,
    its SQNR in dB."""

    layer: Layer
    kernel: str
    reason: str
    choice: str
    proof: str
    sqnr: float | None


@dataclass(frozen=True)
class Size:
    """Bytes of one thing."""

    what: str
    nbytes: int


@dataclass(frozen=True)
class Report:
    """The whole report. `sizes` are in the order in which they are shown."""

    name: str
    target: str
    version: str
    model: str
    digest: str
    steps: Sequence[Step]
    rows: Sequence[Row]
    functions: int
    sizes: Sequence[Size]
    errors: Sequence[LayerError]
    accuracy: Accuracy | None
    warnings: Sequence[str]
    notes: Sequence[str] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return sum(row.layer.macs for row in self.rows)

    def size(self, what: str) -> int:
        """Bytes of one thing, 0 where it is not known."""
        return next((s.nbytes for s in self.sizes if s.what == what), 0)


def collect(folder: Path, graph: Graph, history: History, findings: Findings) -> Report:
    """What is known of the library whose files lie in `folder`; `graph` is the scheduled graph."""
    (path,) = folder.glob("*.json")
    manifest: dict[str, Any] = json.loads(path.read_text())
    source = history.source
    return Report(
        name=manifest["name"],
        target=manifest["target"]["name"],
        version=manifest["irc"],
        model="" if source is None else source.name,
        digest="" if source is None else source.sha256,
        steps=history.steps,
        rows=_rows(graph, manifest["kernels"], findings.errors),
        functions=int(manifest["functions"]),
        sizes=[*_sizes(folder, manifest, history), *_states(graph)],
        errors=findings.errors,
        accuracy=findings.accuracy,
        warnings=history.warnings,
        notes=history.notes,
    )


def _rows(
    graph: Graph, kernels: Sequence[Mapping[str, str]], errors: Sequence[LayerError]
) -> list[Row]:
    """Kernels in the order of the graph, which is that of the manifest."""
    sqnr = {(e.name, e.type.shape): e.sqnr for e in errors}
    computing = [v for v in graph.order if isinstance(v, Kernel)]
    return [
        Row(layer_of(v), k["kernel"], k["reason"], k["choice"], k["proof"],
            sqnr.get((v.name, v.shape)))
        for v, k in zip(computing, kernels, strict=True)
    ]  # fmt: skip


def _sizes(folder: Path, manifest: Mapping[str, Any], history: History) -> list[Size]:
    name = manifest["name"]
    found = [] if history.source is None else [Size("model file", history.source.nbytes)]
    for what, file in (("library (.so)", f"lib{name}.so"), ("object (.o)", f"{name}.o")):
        if (folder / file).is_file():
            found.append(Size(what, (folder / file).stat().st_size))
    found.append(Size("weights", int(manifest["constant_bytes"])))
    code = _code_size(folder, name)
    if code is not None:
        found.append(Size("machine code", code))
    return [*found, Size("workspace (RAM)", int(manifest["workspace_bytes"]))]


def _states(graph: Graph) -> list[Size]:
    """What the caller keeps from run to run; each state twice, as none may be read and written."""
    total = sum(2 * s.initial.nbytes for s in graph.states)
    return [Size("states (RAM, the caller's, two buffers each)", total)] if graph.states else []


def _code_size(folder: Path, name: str) -> int | None:
    """Bytes of executable sections; None where no ELF file was written."""
    for path in (folder / f"lib{name}.so", folder / f"{name}.o"):
        try:
            with path.open("rb") as file:
                sections = list(ELFFile(file).iter_sections())
        except (OSError, ELFError):
            continue
        return sum(s["sh_size"] for s in sections if s["sh_flags"] & EXECUTABLE)
    return None


EXECUTABLE = 4
"""SHF_EXECINSTR."""

"""What a run leaves behind: JSON, and a document's section with its plots.

All is written anew after each model, so that a run that is cut off keeps what it has measured.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.compare import OURS, Comparison
from bench.document import Section, section_name, write_section
from bench.isa import Level
from bench.machine import Machine
from bench.models import Model
from bench.plots import peers_plot, roofline_plot
from bench.report import write_json
from bench.roofline import Layer, measure_layers

BYTE_PRODUCTS = ("tdpbusd", "dpbusd_512", "dpbusd_avx_256", "maddubs_256")


@dataclass
class Record:
    """The results of one run so far, and where they are written: `json_file`, and `document`,
    whose JSON and plots lie in a folder beside it that has its name."""

    machine: Machine
    level: Level
    threads: int
    command: str
    json_file: Path | None = None
    document: Path | None = None
    subject: str = ""
    results: list[Comparison] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    plots: dict[str, str] = field(default_factory=dict)

    def add(self, result: Comparison) -> None:
        """Take one model's comparison."""
        self.results.append(result)
        self.write()

    def fail(self, model: str, reason: str) -> None:
        """Take the reason why there is none."""
        self.failures[model] = reason
        self.write()

    def roofline(self, model: Model, *, rounds: int, calibration: int) -> None:
        """Measure a model's layers and plot them; raises ObtainError where that fails."""
        self.layers = measure_layers(model, self.level, rounds=rounds, calibration=calibration)
        self.write()

    def write(self) -> None:
        """Write all that was asked for."""
        if self.json_file is not None:
            self._write_json(self.json_file)
        if self.document is not None:
            self._write_document(self.document)

    def _write_json(self, path: Path) -> None:
        content = {
            "isa": self.level.name,
            "threads": self.threads,
            "comparisons": [result.as_json() for result in self.results],
            "failures": self.failures,
            "layers": [asdict(layer) for layer in self.layers],
        }
        write_json(path, self.machine, content)

    def _write_document(self, document: Path) -> None:
        folder = document.with_suffix("")
        name = section_name(self.level, self.threads, self.subject)
        self._write_json(folder / f"{name}.json")
        if self.results:
            path = folder / f"{name}.svg"
            peers_plot(path, self.results)
            self.plots["peers"] = f"{folder.name}/{path.name}"
        if self.layers:
            path = folder / f"{name}-layers.svg"
            roofline_plot(path, self.layers, self._ceilings(), self.machine.streams)
            self.plots["roofline"] = f"{folder.name}/{path.name}"
        write_section(document, self.section(folder))

    def section(self, folder: Path) -> Section:
        """Return the document's section; `folder` may hold an earlier run's results."""
        before = {}
        if self.threads > 1:
            path = folder / f"{section_name(self.level, 1)}.json"
            before = one_thread(path, self.machine)
        return Section(
            self.level, self.threads, self.command, self.machine, self.results, self.failures,
            before, self.plots, self.subject,
        )  # fmt: skip

    def _ceilings(self) -> dict[str, float]:
        """The rates of the instructions that code of this level multiplies bytes with."""
        names = [self.level.peak] if self.level.peak else BYTE_PRODUCTS
        return {name: self.machine.peaks[name] for name in names if name in self.machine.peaks}


def one_thread(path: Path, machine: Machine) -> dict[str, float]:
    """Return irc's median ms on one thread by model, of a file that a run on this CPU wrote;
    empty where there is none."""
    if not path.exists():
        return {}
    content = json.loads(path.read_text())
    if content["machine"]["cpu"] != machine.cpu:
        return {}
    return {
        comparison["model"]: row["latency"]["median"]
        for comparison in content["comparisons"]
        for row in comparison["rows"]
        if row["runner"] == OURS
    }

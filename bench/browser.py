"""WebAssembly in Node.js: libraries for wasm32 against onnxruntime-web, fp32 and QDQ u8s8.

    npm install onnxruntime-web
    python -m bench.browser --modules node_modules mobilenet_v2 ppocr_cls

One thread each, in turns; both have WebAssembly's 128-bit vectors.
"""

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import irc
from bench.cache import ObtainError
from bench.compare import make_task
from bench.document import significant, write_measured
from bench.machine import describe
from bench.models import Model, model_named
from bench.peers import absent, write_qdq
from bench.report import machine_markdown, markdown_table, write_json
from bench.runners import Task

HERE = Path(__file__).parent
LOADER = HERE.parent / "examples" / "browser" / "net.mjs"
DEFAULT_MODELS = ("mobilenet_v2", "efficientnet_lite0", "ppocr_cls", "resnet18", "fashion_dscnn")
CALIBRATION, WARM = 4, 20
"""Samples that both quantizers see, and runs that are not timed, while V8 optimizes."""
EXPORTS = ("net_run", "net_self_test", "__heap_base")
SECTION = "browser"


@dataclass(frozen=True)
class Row:
    """A model: median ms of irc and of onnxruntime-web by kind, bytes of the .wasm file."""

    model: str
    irc: float
    peers: Mapping[str, float]
    module_bytes: int

    @property
    def faster(self) -> float:
        """How often irc goes into the time of the fastest peer."""
        return min(self.peers.values()) / self.irc


def build(task: Task, folder: Path, target: str) -> Path:
    """Compile a model to a module that imports nothing; return its path."""
    graph = irc.load(task.path)
    quantized = irc.quantize(graph, calibration=task.feeds(task.calibration))
    irc.compile(quantized, target=target).save(folder, "net", emit=("o",))
    exports = [f"--export={name}" for name in EXPORTS]
    command = [sys.executable, "-m", "ziglang", "wasm-ld", "--no-entry", *exports, "net.o"]
    subprocess.run([*command, "-o", "net.wasm"], cwd=folder, check=True)
    return folder / "net.wasm"


def job_of(
    task: Task, folder: Path, modules: Path, rounds: int, target: str
) -> dict[str, Any]:
    """All that is timed of a model, built into `folder`, as browser.mjs reads it."""
    library, quantized = build(task, folder, target), folder / "u8s8.onnx"
    write_qdq(task.path, quantized, task.feeds(task.calibration), "u8")
    manifest = json.loads((folder / "net.json").read_text())
    ports = [*manifest["inputs"], *manifest["outputs"]]
    if len(ports) != 2:
        raise ValueError(f"{task.name}: one input and one output are timed, it has {len(ports)}")
    sizes = [math.prod(port["shape"]) for port in ports]
    return {
        "loader": str(LOADER), "modules": str(modules.resolve()), "library": str(library),
        "workspace": manifest["workspace_bytes"], "shape": task.shape, "inputBytes": sizes[0],
        "outputBytes": sizes[1], "files": {"fp32": str(task.path), "u8s8": str(quantized)},
        "warm": WARM, "rounds": rounds,
    }  # fmt: skip


def measure(model: Model, modules: Path, rounds: int, target: str) -> Row:
    """Build a model and time it; raises `subprocess.CalledProcessError` where that fails,
    `ValueError` where the model has several inputs or outputs."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        task, _ = make_task(model, folder, threads=1, samples=CALIBRATION)
        job = job_of(task, folder, modules, rounds, target)
        (folder / "job.json").write_text(json.dumps(job))
        command = ["node", str(HERE / "browser.mjs"), str(folder / "job.json")]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        medians = {n: statistics.median(ms) for n, ms in json.loads(done.stdout).items()}
        return Row(model.name, medians.pop("irc"), medians, Path(job["library"]).stat().st_size)


def markdown(rows: Sequence[Row]) -> str:
    """Return a table: a line for each model, ms of each runner."""
    peers = list(dict.fromkeys(name for row in rows for name in row.peers))
    lines = [
        [
            row.model,
            significant(row.irc),
            *(significant(row.peers[name]) for name in peers),
            f"{row.faster:.2f}",
            f"{row.module_bytes // 1000:,}",
        ]
        for row in rows
    ]
    headings = ["ms", "irc", *(f"onnxruntime-web {name}" for name in peers), "faster", ".wasm, KB"]
    return markdown_table(headings, lines)


def lacking(modules: Path) -> str:
    """What is not installed; empty if all is."""
    if shutil.which("node") is None:
        return "Node.js is not installed"
    if not (modules / "onnxruntime-web").is_dir():
        return f"{modules} has no onnxruntime-web: npm install onnxruntime-web"
    return absent("onnxruntime", "ziglang")


def main() -> int:
    """Measure the named models; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.browser", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=DEFAULT_MODELS)
    parser.add_argument("--modules", type=Path, default=Path("node_modules"), metavar="FOLDER")
    parser.add_argument("--target", default="wasm32", help="what irc compiles for (wasm32)")
    parser.add_argument("--rounds", type=int, default=30, help="turns that are timed (30)")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="write the table into it")
    parser.add_argument("--section", default=SECTION, metavar="NAME", help="the table's place")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    given = parser.parse_args()
    if reason := lacking(given.modules):
        print(reason, file=sys.stderr)
        return 1
    rows: list[Row] = []
    try:
        for name in given.models:
            rows.append(measure(model_named(name), given.modules, given.rounds, given.target))
            print(rows[-1], file=sys.stderr, flush=True)
    except (ObtainError, ValueError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    machine, table = describe(peaks=False), markdown(rows)
    print(table)
    if given.write:
        write_measured(given.write, given.section, f"{machine_markdown(machine)}\n\n{table}")
    if given.json:
        write_json(given.json, machine, {"browser": [asdict(row) for row in rows]})
    return 0


if __name__ == "__main__":
    sys.exit(main())

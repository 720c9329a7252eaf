"""What is there to work with: CPU, instruction sets, linker, disassembler, extras."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from irc import driver
from irc.audit.disassembly import DISASSEMBLERS
from irc.errors import ToolError

FEATURES = (
    "ssse3", "sse4.1", "avx2", "avxvnni", "avx512bw", "avx512vnni", "amx-int8",
    "neon", "dotprod", "i8mm", "sve", "v",
)  # fmt: skip
REQUIRED = (
    "numpy", "llvmlite", "numba", "onnx", "typer", "rich", "jinja2", "matplotlib", "pillow",
    "pyelftools",
)  # fmt: skip
EXTRAS = {
    "torch": "torch", "onnxruntime": "bench", "openvino": "bench", "nncf": "bench",
    "ziglang": "cross",
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for: `fine` is False where something required is missing, None
    where it is optional and absent."""

    what: str
    fine: bool | None
    seen: str


def examine() -> list[Finding]:
    """Look at everything; the linker is tried on a small library."""
    return [*_machine(), *_tools(), *_packages()]


def _machine() -> Iterator[Finding]:
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("Python", True, python)
    host = driver.host_target()
    words = {w[1:] for w in host.features.split(",") if w.startswith("+")}
    known = [f for f in FEATURES if f in words]
    yield Finding("CPU", True, f"{host.cpu}, {os.cpu_count()} logical")
    yield Finding("instruction sets", True, ", ".join(known) or "none that kernels know")
    width = 8 * host.vector_bytes
    yield Finding("kernels", True, f"vectors of {width} bits, dot product {host.dot.value}")


def _tools() -> Iterator[Finding]:
    yield _linker()
    found = [name for name in DISASSEMBLERS if shutil.which(name)]
    cure = "absent: irc audit needs it (binutils)"
    more = "" if "llvm-objdump" in found else "; for other CPUs and systems llvm-objdump"
    seen = f"{', '.join(found)}{more}" if found else cure
    yield Finding("disassembler", True if found else None, seen)


def _linker() -> Finding:
    """Whether a shared library can be linked for this machine, by doing it."""
    try:
        command = driver.linker()
    except ToolError as error:
        return Finding("linker", False, str(error))
    with tempfile.TemporaryDirectory(prefix="irc-") as folder:
        source = Path(folder) / "try.c"
        source.write_text("int try_run(void) { return 0; }\n")
        options = ["-shared", "-nostdlib", "-fPIC", "-o", "libtry.so", source.name]
        done = subprocess.run(
            [*command, *options], cwd=folder, capture_output=True, text=True, check=False
        )
    said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    shown = " ".join(command)
    return Finding("linker", done.returncode == 0, shown if done.returncode == 0 else said)


def _packages() -> Iterator[Finding]:
    for package in REQUIRED:
        version = _version(package)
        yield Finding(package, version is not None, version or "absent: pip install irc-nn again")
    for package, extra in EXTRAS.items():
        version = _version(package)
        fine = True if version else None
        yield Finding(package, fine, version or f"absent: pip install 'irc-nn[{extra}]'")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

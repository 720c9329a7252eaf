"""What a measurement ran on: CPU, flags, versions, pinning, and the measured peak rates."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = (
    "irc-nn", "numpy", "llvmlite", "onnx", "onnxruntime", "openvino", "nncf", "iree-base-compiler",
    "emx-onnx-cgen",
)  # fmt: skip
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Machine:
    """The machine and the software of one run; rates of one thread: peaks in GMAC/s by instruction,
    streams in GB/s by the bytes that are read over and over."""

    cpu: str
    flags: tuple[str, ...]
    cores: int
    system: str
    python: str
    versions: dict[str, str]
    peaks: dict[str, float] = field(default_factory=dict)
    peaks_missing: str = ""
    streams: dict[str, float] = field(default_factory=dict)


def pin(threads: int) -> tuple[int, ...]:
    """Bind this process to its last `threads` cores; return them, or nothing if it can't be done.

    Core 0 serves most interrupts, so the last cores are the quieter ones. Call it before any
    runtime starts threads.
    """
    if not hasattr(os, "sched_setaffinity"):
        return ()
    chosen = sorted(os.sched_getaffinity(0))[-threads:]
    os.sched_setaffinity(0, chosen)
    return tuple(chosen)


def cpu_fields(text: str) -> dict[str, str]:
    """Return the fields of the first processor in the text of /proc/cpuinfo."""
    first = text.split("\n\n", maxsplit=1)[0]
    pairs = (line.partition(":") for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def parse_rates(text: str) -> dict[str, float]:
    """Return rates by name from a microbenchmark's lines `name value`."""
    pairs = (line.split() for line in text.splitlines())
    return {name: float(value) for name, value in pairs}


def measure_peaks() -> dict[str, float]:
    """Return the GMAC/s of one thread by instruction, as peak.c finds them on this process's cores.

    Raises OSError if the CPU is not x86-64 or there is no C compiler that can build it.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        raise OSError(f"no peak loops for {platform.machine()}")
    return _microbenchmark("peak.c")


def measure_streams() -> dict[str, float]:
    """Return the GB/s at which one thread reads, by working set, as bandwidth.c finds them.

    Raises OSError if there is no C compiler that can build it.
    """
    return _microbenchmark("bandwidth.c", "-march=native")


def _microbenchmark(source: str, *options: str) -> dict[str, float]:
    """Compile a C file that stands beside this one and return what it prints."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        raise OSError("no C compiler: install gcc, or name one in CC")
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "program")
        command = [compiler, "-O3", *options, str(Path(__file__).with_name(source)), "-o", program]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            raise OSError(f"{compiler} could not build {source}: {built.stderr.strip()[-500:]}")
        return parse_rates(subprocess.check_output([program], text=True))


def describe(*, peaks: bool = True) -> Machine:
    """Return this machine; with `peaks`, measure its rates (about two seconds)."""
    fields = cpu_fields(CPUINFO.read_text()) if CPUINFO.exists() else {}
    rates: dict[str, float] = {}
    streams: dict[str, float] = {}
    missing = "" if peaks else "not asked for"
    if peaks:
        try:
            streams = measure_streams()
            rates = measure_peaks()
        except OSError as error:
            missing = str(error)
    return Machine(
        cpu=_cpu_name(fields),
        flags=tuple((fields.get("flags") or fields.get("Features") or "").split()),
        cores=os.cpu_count() or 1,
        system=platform.platform(),
        python=platform.python_version(),
        versions=versions(),
        peaks=rates,
        peaks_missing=missing,
        streams=streams,
    )


def _cpu_name(fields: dict[str, str]) -> str:
    name = fields.get("model name") or platform.processor() or platform.machine()
    numbers = tuple(fields.get(key) for key in ("cpu family", "model", "stepping"))
    if not all(numbers):
        return name
    return f"{name} (family {numbers[0]}, model {numbers[1]}, stepping {numbers[2]})"

"""Two trained networks become C libraries; a C program classifies real images with them.

Everything is written to build/. Exits with 1 where an expectation is not met.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Small matrices: threads would mostly wait for each other. Must come before NumPy is imported.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray

import irc

HERE = Path(__file__).resolve().parent
MODELS = ("fashion_resnet8", "fashion_dscnn")
MEAN, STD = 0.2860, 0.3530  # the models were trained on (pixel / 255 - mean) / std
TEST = HERE / "data" / "fashion_test.npz"
CALIBRATION = HERE / "data" / "fashion_calibration.npz"
MOST_LOST = 0.5  # points of accuracy
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """What one model showed: accuracies in percent, the C program's median time in µs."""

    real: float
    integer: float
    median: float
    library: Path
    report: Path
    wrong: int

    @property
    def failures(self) -> list[str]:
        """The expectations that are not met."""
        found = []
        if self.wrong:
            found.append(f"the C program's scores differ from Python's on {self.wrong} images")
        if self.integer < self.real - MOST_LOST:
            found.append(f"integers lose more than {MOST_LOST} points of accuracy")
        return found


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command and show it; the demo ends where it fails."""
    words = ["python" if word == sys.executable else word for word in command]
    print(f"  $ {shlex.join(words)}", flush=True)
    done = subprocess.run(command, text=True, check=False, **options)
    if done.returncode:
        sys.exit(f"demo: exit status {done.returncode}: {(done.stderr or '').strip()}")
    return done


def compile_library(model: Path, folder: Path) -> None:
    """What a newcomer types: the library takes camera pixels, and the report shows accuracy."""
    run([
        sys.executable, "-m", "irc", "compile", shown(model), "-o", shown(folder), "--name", "net",
        "--calibration", shown(CALIBRATION), "--input-u8", f"mean={MEAN},std={STD}",
        "--data", shown(TEST), "--labels", shown(TEST), "--emit", "so,a,o,irc",
    ], stdout=subprocess.DEVNULL)  # fmt: skip


def build_program(folder: Path) -> Path:
    """The C program, against the static library."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    program = folder / "main"
    run([*compiler, "-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{shown(folder)}",
         shown(HERE / "main.c"), shown(folder / "libnet.a"), "-o", shown(program)])  # fmt: skip
    return program


def c_scores(program: Path, pixels: NDArray[np.uint8]) -> tuple[Ints, Ints, float]:
    """Classes i64[n], scores i64[n, 10] and the median time in µs by the C program."""
    images = program.parent / "images.u8"
    images.write_bytes(pixels.tobytes())
    done = run([shown(program), shown(images)], capture_output=True)
    table = np.array([line.split() for line in done.stdout.splitlines()], np.int64)
    return table[:, 0], table[:, 1:], float(done.stderr)


def python_scores(graph: irc.Graph, pixels: NDArray[np.uint8]) -> Ints:
    """Scores by the reference semantics of the integer graph that was compiled, i64[n, 10]."""
    scores = [irc.evaluate(graph, {"x": image[np.newaxis]})["logits"] for image in pixels]
    return np.concatenate(scores).astype(np.int64)


def float_classes(model: Path, pixels: NDArray[np.uint8]) -> Ints:
    """Classes by the float model, i64[n]."""
    reals = (pixels.astype(np.float32) / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    graph = irc.load(model)
    images = reals.transpose(0, 3, 1, 2)
    scores = [irc.evaluate(graph, {"x": image[np.newaxis]})["logits"] for image in images]
    classes: Ints = np.argmax(np.concatenate(scores), axis=1)
    return classes


def show_model(name: str, folder: Path, pixels: NDArray[np.uint8], labels: Ints) -> Outcome:
    """All of it for one model."""
    model = HERE / "models" / f"{name}.onnx"
    compile_library(model, folder)
    program = build_program(folder)
    run([sys.executable, "-m", "irc", "audit", shown(folder / "libnet.so")],
        stdout=subprocess.DEVNULL)  # fmt: skip
    classes, scores, median = c_scores(program, pixels)
    expected = python_scores(irc.load(folder / "net.irc"), pixels)
    same = (scores == expected).all(axis=1) & (classes == expected.argmax(axis=1))
    return Outcome(
        real=100 * float(np.mean(float_classes(model, pixels) == labels)),
        integer=100 * float(np.mean(classes == labels)),
        median=median,
        library=folder / "libnet.so",
        report=folder / "report.html",
        wrong=int(np.count_nonzero(~same)),
    )


def print_outcome(outcome: Outcome, count: int) -> None:
    """The figures of one model."""
    alike = count - outcome.wrong
    print(f"  accuracy  float {outcome.real:.2f} %, integer {outcome.integer:.2f} %")
    print(f"  C program scores equal Python's on {alike} of {count} images")
    print(f"  latency   {outcome.median:.1f} µs an image (median, one thread)")
    print(f"  library   {shown(outcome.library)}, {outcome.library.stat().st_size / 1024:.0f} KiB")
    print(f"  report    {shown(outcome.report)}")


def shown(path: Path) -> str:
    """A path as one would type it here."""
    return os.path.relpath(path)


def main() -> int:
    """Run the demo; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=HERE.parent / "build", help="folder")
    parser.add_argument("--images", type=int, default=1000, help="test images, at most 2000")
    parser.add_argument("--model", choices=MODELS, action="append", help="only these")
    options = parser.parse_args()
    start = time.monotonic()
    with np.load(TEST) as data:
        pixels, labels = data["x"][: options.images], data["labels"][: options.images]
    failures = []
    for name in options.model or MODELS:
        print(f"{name}, {len(pixels)} test images of Fashion-MNIST")
        outcome = show_model(name, options.output / name, pixels, labels.astype(np.int64))
        print_outcome(outcome, len(pixels))
        failures += [f"{name}: {failure}" for failure in outcome.failures]
    for failure in failures:
        print(f"demo: {failure}", file=sys.stderr)
    print(f"done in {time.monotonic() - start:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m bench.dialects [MODEL...]`: networks that onnxruntime quantized, in its every dialect.

Each is quantized by `onnxruntime.quantization.quantize_static`, QDQ and QOperator, activations and
weights u8 or s8, a weight scale per tensor and per channel; compiled; and its classes held against
onnxruntime's kernels that don't saturate. Where several classes score the same, any of them is
right. Beside it stands how often all scores are the same numbers, and onnxruntime against itself,
with its graph optimizations off: what changes when the same integers are multiplied in another
order, since a step on one pixel grows from layer to layer.
"""

import argparse
import itertools
import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from rich.console import Console
from rich.progress import track

import irc
from bench.cache import ObtainError
from bench.document import ABSENT, brief, write_measured
from bench.images import Floats
from bench.machine import describe
from bench.models import Model, model_named
from bench.peers import PER_CHANNEL_OPSET, CalibrationReader, write_at_least
from bench.report import machine_markdown, markdown_table, write_json

DEFAULT_MODELS = (
    "fashion_resnet8", "fashion_dscnn", "efficientnet_lite0", "mobilenet_v2", "resnet18",
)  # fmt: skip
FORMATS = ("QDQ", "QOperator")
KINDS = ("u8s8", "s8s8", "u8u8")
TYPES = {"u8": quantization.QuantType.QUInt8, "s8": quantization.QuantType.QInt8}
SECTION = "dialects"
OPTIMIZED = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
AS_WRITTEN = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL


@dataclass(frozen=True)
class Dialect:
    """How a file says that it is quantized: its format, activations' and weights' kinds."""

    form: str
    kinds: str
    per_channel: bool

    def __str__(self) -> str:
        """As tables name it."""
        return f"{self.form} {self.kinds} {'per channel' if self.per_channel else 'per tensor'}"


@dataclass(frozen=True)
class Row:
    """One file: shares of samples whose class is onnxruntime's, of our library's classes, of those
    whose every score is, and of onnxruntime's classes with its optimizations off; nan where there
    is none, and why ours are missing."""

    model: str
    dialect: str
    ours: float
    scores: float
    itself: float
    failed: str = ""


def dialects(kinds: str, per_channel: bool) -> Iterator[Dialect]:
    """The formats that onnxruntime both writes and runs: it has no kernel for the QGemm of s8s8."""
    for form in FORMATS:
        if (form, kinds) != ("QOperator", "s8s8"):
            yield Dialect(form, kinds, per_channel)


def quantized(prepared: Path, model: Model, calibration: Floats, dialect: Dialect) -> Path:
    """Write a prepared float model in a dialect; return the new file's path."""
    target = prepared.with_name(f"{dialect}.onnx")
    reader: Any = CalibrationReader({model.input: x[None]} for x in calibration)
    logging.disable(logging.WARNING)  # it asks to be told of optional steps
    try:
        quantization.quantize_static(
            prepared,
            target,
            reader,
            quant_format=quantization.QuantFormat[dialect.form],
            activation_type=TYPES[dialect.kinds[:2]],
            weight_type=TYPES[dialect.kinds[2:]],
            per_channel=dialect.per_channel,
        )
    finally:
        logging.disable(logging.NOTSET)
    return target


def theirs(path: Path, level: Any) -> Callable[[dict[str, Floats]], Any]:
    """Return a function that runs a file in onnxruntime, exactly: its first output."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, feed)[0]


def ours(path: Path) -> Callable[[dict[str, Floats]], Any]:
    """Return a function that runs a file compiled: its first output."""
    model = irc.compile(irc.load(path))
    return lambda feed: next(iter(model(feed).values()))


def scores(run: Callable[[dict[str, Floats]], Any], name: str, xs: Floats) -> Floats:
    """The scores of all samples: f32[n, classes]."""
    rows = [np.array(run({name: x[None]}), np.float32).reshape(-1) for x in xs]
    return np.stack(rows)


def same_class(found: Floats, wanted: Floats) -> float:
    """The share of rows whose best of `found` is a best of `wanted`: f32[n, classes] each."""
    chosen = np.take_along_axis(wanted, found.argmax(1)[:, None], 1)[:, 0]
    return float(np.mean(chosen == wanted.max(1)))


def same_scores(found: Floats, wanted: Floats) -> float:
    """The share of rows that are the same numbers."""
    return float(np.mean((found == wanted).all(axis=1)))


def measure(model: Model, count: int) -> Iterator[Row]:
    """One row for each dialect, over `count` samples."""
    xs, calibration = model.evaluation(count), model.calibration()
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "float.onnx"
        write_at_least(PER_CHANNEL_OPSET, model.obtain(), prepared)
        quant_pre_process(str(prepared), str(prepared), skip_symbolic_shape=True)
        for kinds, per_channel in itertools.product(KINDS, (False, True)):
            itself = math.nan
            for dialect in dialects(kinds, per_channel):
                path = quantized(prepared, model, calibration, dialect)
                wanted = scores(theirs(path, OPTIMIZED), model.input, xs)
                if dialect.form == "QDQ":
                    other = scores(theirs(path, AS_WRITTEN), model.input, xs)
                    itself = same_class(other, wanted)
                yield compared(model, dialect, path, xs, wanted, itself)
                itself = math.nan  # a QOperator file is computed one way only


def compared(
    model: Model, dialect: Dialect, path: Path, xs: Floats, wanted: Floats, itself: float
) -> Row:
    """A file, compiled, against onnxruntime's scores of it."""
    try:
        found = scores(ours(path), model.input, xs)
    except irc.IRCError as error:
        return Row(model.name, str(dialect), math.nan, math.nan, itself, str(error))
    same = same_class(found, wanted), same_scores(found, wanted)
    return Row(model.name, str(dialect), *same, itself)


def markdown(rows: Sequence[Row]) -> str:
    """Return a table: a line for each dialect, in each network's column the shares."""
    models = list(dict.fromkeys(row.model for row in rows))
    known = {(row.model, row.dialect): cell(row) for row in rows}
    names = list(dict.fromkeys(row.dialect for row in rows))
    lines = [[name, *(known.get((model, name), ABSENT) for model in models)] for name in names]
    return markdown_table(["dialect", *models], lines)


def cell(row: Row) -> str:
    """The shares in percent: our classes, our scores, its own classes; or why ours are missing."""
    if row.failed:
        return brief(row.failed)
    shares = (row.ours, row.scores, row.itself)
    return " / ".join(ABSENT if math.isnan(x) else f"{100 * x:.1f}" for x in shares)


def main() -> int:
    """Measure the named models; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.dialects", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=DEFAULT_MODELS)
    parser.add_argument("--count", type=int, default=200, help="samples (200)")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="write the table into it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    given = parser.parse_args()
    rows: list[Row] = []
    try:
        models = [model_named(name) for name in given.models]
        for model in track(models, console=Console(stderr=True), transient=True):
            for row in measure(model, given.count):
                rows.append(row)
                print(row.model, row.dialect, cell(row), file=sys.stderr, flush=True)
    except ObtainError as error:
        print(error, file=sys.stderr)
        return 1
    machine, table = describe(peaks=False), markdown(rows)
    print(table)
    if given.write:
        write_measured(given.write, SECTION, f"{machine_markdown(machine)}\n\n{table}")
    if given.json:
        write_json(given.json, machine, {"dialects": [asdict(row) for row in rows]})
    return 0


if __name__ == "__main__":
    sys.exit(main())

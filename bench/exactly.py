"""`python -m bench.exactly [MODEL...]`: who comes nearer to what a QDQ file says, in exact reals.

Its quantize and dequantize nodes and the layers between them are computed in float64, where the
sums of a layer are exact and only its scales are rounded: what onnxruntime computes in single
precision, and irc in integers that step where onnxruntime's do. For either it is counted how often
class and scores are those.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from onnxruntime.quantization.shape_inference import quant_pre_process

import irc
from bench.cache import ObtainError
from bench.dialects import (
    KINDS,
    OPTIMIZED,
    Dialect,
    ours,
    quantized,
    same_class,
    same_scores,
    scores,
    theirs,
)
from bench.images import Floats
from bench.models import Model, model_named
from bench.peers import PER_CHANNEL_OPSET, write_at_least
from bench.report import markdown_table

DEFAULT_MODELS = ("resnet18",)


def exact(graph: irc.Graph) -> Callable[[dict[str, Floats]], Any]:
    """Return a function that computes the first output of a QDQ graph, its reals in float64."""

    def run(feed: dict[str, Floats]) -> Any:
        known: dict[Any, Any] = {v: np.asarray(feed[v.name], np.float64) for v in graph.inputs}
        left = {v: graph.uses(v) for v in graph.order}
        for v in graph.order:
            if v not in known:
                known[v] = _computed(v, known)
            for operand in v.operands:
                left[operand] -= 1
                if not left[operand]:
                    del known[operand]
        return known[graph.outputs[0]]

    return run


def _computed(v: Any, known: dict[Any, Any]) -> Any:
    """A node of known operands."""
    if v.op == "dequantize":
        scale, zero = _along(v.x.type)
        return (known[v.x].astype(np.float64) - zero) * scale
    if v.op == "quantize":
        scale, zero = _along(v.type)
        steps = np.rint(known[v.x] / scale) + zero
        return np.clip(steps, v.type.dtype.min, v.type.dtype.max).astype(v.type.dtype.numpy)
    made = np.asarray(v.call(known.__getitem__))
    return made.astype(np.float64) if made.dtype.kind == "f" else made


def _along(type_: Any) -> tuple[Any, Any]:
    """Scales and zero points of a type, as they broadcast."""
    scale, zero = np.array(type_.quant.scale), np.array(type_.quant.zero_point)
    if type_.quant.axis is None:
        return scale, zero
    shape = [1] * len(type_.shape)
    shape[type_.quant.axis] = -1
    return scale.reshape(shape), zero.reshape(shape) if zero.ndim else zero


def measure(model: Model, count: int, dialect: Dialect) -> list[str]:
    """A line of the table: classes and scores of irc, and of onnxruntime, that are the exact
    ones, and irc's that are onnxruntime's."""
    xs, calibration = model.evaluation(count), model.calibration()
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "float.onnx"
        write_at_least(PER_CHANNEL_OPSET, model.obtain(), prepared)
        quant_pre_process(str(prepared), str(prepared), skip_symbolic_shape=True)
        path = quantized(prepared, model, calibration, dialect)
        runs = (ours(path), theirs(path, OPTIMIZED), exact(irc.load(path)))
        found, other, wanted = (scores(run, model.input, xs) for run in runs)
    pairs = ((found, wanted), (other, wanted), (found, other))
    shares = (f"{100 * same_class(*p):.1f} / {100 * same_scores(*p):.1f}" for p in pairs)
    return [model.name, str(dialect), *shares]


def main() -> int:
    """Measure the named models; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.exactly", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=DEFAULT_MODELS)
    parser.add_argument("--count", type=int, default=200, help="samples (200)")
    given = parser.parse_args()
    try:
        lines = [
            measure(model_named(name), given.count, Dialect("QDQ", kinds, True))
            for name in given.models
            for kinds in KINDS
        ]
    except ObtainError as error:
        print(error, file=sys.stderr)
        return 1
    heads = ["model", "dialect", "irc, exact", "onnxruntime, exact", "irc, onnxruntime"]
    print(markdown_table(heads, lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

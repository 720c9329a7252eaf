"""`python -m bench.reordered [MODEL...]`: onnxruntime against itself, adding in another order.

Of QDQ files with i8 activations onnxruntime computes some convolutions in floating point. Here the
input channels of those that its optimized graph holds are permuted, with their weights: the same
network to all who add exactly. How often it then chooses the class of before, and gives the same
scores, is what anybody else can be expected to.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnxruntime.quantization.shape_inference import quant_pre_process

from bench.cache import ObtainError
from bench.dialects import (
    AS_WRITTEN,
    Dialect,
    quantized,
    same_class,
    same_scores,
    scores,
    theirs,
)
from bench.models import Model, model_named
from bench.peers import PER_CHANNEL_OPSET, write_at_least
from bench.report import markdown_table

DEFAULT_MODELS = ("efficientnet_lite0", "mobilenet_v2", "resnet18")


def reordered(model: ModelProto, rng: np.random.Generator) -> int:
    """Permute the input channels of float convolutions of constant weights, but depthwise and
    grouped ones; return how many there are."""
    constants = {i.name: i for i in model.graph.initializer}
    makers = {name: n for n in model.graph.node for name in n.output}
    nodes, count = list[NodeProto](), 0
    for node in model.graph.node:
        stored = _weights(node, makers)
        if node.op_type == "Conv" and _groups(node) == 1 and stored in constants:
            w = numpy_helper.to_array(constants[stored])
            order = rng.permutation(w.shape[1])
            permuted = np.ascontiguousarray(w[:, order])
            constants[stored].CopyFrom(numpy_helper.from_array(permuted, stored))
            name, moved = f"order{count}", f"moved{count}"
            model.graph.initializer.append(numpy_helper.from_array(order.astype(np.int64), name))
            nodes.append(helper.make_node("Gather", [node.input[0], name], [moved], axis=1))
            node.input[0] = moved
            count += 1
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return count


def _weights(node: NodeProto, makers: dict[str, NodeProto]) -> str:
    """The constant that a convolution's weights are, or are dequantized from."""
    if node.op_type != "Conv":
        return ""
    maker = makers.get(node.input[1])
    dequantized = maker is not None and maker.op_type == "DequantizeLinear"
    return str(maker.input[0] if maker is not None and dequantized else node.input[1])


def _groups(node: NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "group"), 1)


def optimized(path: Path) -> Path:
    """Write the graph that onnxruntime makes of a file, before kernels of this CPU's layouts are
    chosen; return its path."""
    to = path.with_name(f"{path.stem}.optimized.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(to)
    options.add_session_config_entry("session.x64quantprecision", "1")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return to


def measure(model: Model, count: int, dialect: Dialect) -> list[str]:
    """A line of the table: convolutions permuted, the same class, the same scores."""
    xs, calibration = model.evaluation(count), model.calibration()
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "float.onnx"
        write_at_least(PER_CHANNEL_OPSET, model.obtain(), prepared)
        quant_pre_process(str(prepared), str(prepared), skip_symbolic_shape=True)
        path = optimized(quantized(prepared, model, calibration, dialect))
        wanted = scores(theirs(path, AS_WRITTEN), model.input, xs)
        proto = onnx.load(path)
        convolutions = reordered(proto, np.random.default_rng(0))
        onnx.save(proto, path)
        found = scores(theirs(path, AS_WRITTEN), model.input, xs)
    return [
        model.name, str(dialect), str(convolutions), f"{100 * same_class(found, wanted):.1f} %",
        f"{100 * same_scores(found, wanted):.1f} %",
    ]  # fmt: skip


def main() -> int:
    """Measure the named models; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.reordered", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=DEFAULT_MODELS)
    parser.add_argument("--count", type=int, default=200, help="samples (200)")
    given = parser.parse_args()
    try:
        lines = [
            measure(model_named(name), given.count, Dialect("QDQ", "s8s8", per_channel))
            for name in given.models
            for per_channel in (False, True)
        ]
    except ObtainError as error:
        print(error, file=sys.stderr)
        return 1
    print(markdown_table(["model", "dialect", "permuted", "same class", "same scores"], lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Large nets as onnxruntime's static quantizer writes them, against onnxruntime.

Deep nets amplify a single rounding: onnxruntime's own exact kernels differ by several steps at the
output from one level of optimization to another, and so do its results where one pixel in a hundred
is one step brighter. These differences are the yardstick: ours are no larger, and where they decide
nothing, the class is the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime import quantization

import irc
from bench.cache import cache_folder
from irc.driver import integerize
from irc.ops.core import Const
from irc.types import Array
from irc.value import Value
from tests.frontends.test_onnx_quantized_models import COMBINATIONS, FORMATS, TYPES

IMAGES = 100
CALIBRATION = 8
PROBED = 30
"""Images that the yardstick is taken of."""
NETS = ("mobilenet_v2", "resnet18")
LEVELS = onnxruntime.GraphOptimizationLevel
CASES = [
    case
    for case in itertools.product(NETS, FORMATS, COMBINATIONS, (False, True))
    if case[1:3] != ("QOperator", "s8s8")  # onnxruntime has no kernel for its QGemm of i8
]


def images(name: str, count: int) -> Array:
    """Crops of photos, shifted and mirrored: f32[count, 3, 224, 224]."""
    with np.load(cache_folder() / f"{name}.calib.npz") as data:
        crops = data["input"]
    found = []
    for i in range(count):
        again, crop = divmod(i, len(crops))
        x = np.roll(crops[crop], (7 * again, 13 * again), (1, 2))
        found.append(x[..., ::-1] if again % 2 else x)
    return np.ascontiguousarray(np.stack(found))


class Reader(quantization.CalibrationDataReader):
    """Feeds onnxruntime's calibration."""

    def __init__(self, name: str) -> None:
        self.feeds: Iterator[dict[str, Array]] = iter(
            [{"input": x[np.newaxis]} for x in images(name, CALIBRATION)]
        )

    def get_next(self) -> dict[str, Array]:
        return next(self.feeds, {})  # an empty one is the end


def quantized(
    folder: Path, name: str, form: str, kinds: str, per_channel: bool, reduce_range: bool = False
) -> Path:
    """The model that onnxruntime's quantizer makes."""
    path = folder / "quantized.onnx"
    quantization.quantize_static(
        cache_folder() / f"{name}.onnx", path, Reader(name),
        quant_format=quantization.QuantFormat[form], per_channel=per_channel,
        activation_type=TYPES[kinds[:2]], weight_type=TYPES[kinds[2:]],
        reduce_range=reduce_range,
    )  # fmt: skip
    return path


def scores(path: Path, xs: Array, level: onnxruntime.GraphOptimizationLevel) -> Array:
    """By onnxruntime's exact kernels, f32[n, classes]."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rows = [np.asarray(session.run(None, {"input": x[np.newaxis]})[0]) for x in xs]
    return np.concatenate(rows)


def nudged(path: Path, xs: Array) -> Array:
    """The scores of images of which one pixel in a hundred is a step brighter."""
    size = np.float32((xs.max() - xs.min()) / 255)
    chosen = np.random.default_rng(0).random(xs.shape) < 0.01
    return scores(path, np.where(chosen, xs + size, xs), LEVELS.ORT_ENABLE_ALL)


@pytest.mark.long
@pytest.mark.parametrize(("name", "form", "kinds", "per_channel"), CASES)
def test_as_close_as_onnxruntime_is_to_itself(
    tmp_path: Path, name: str, form: str, kinds: str, per_channel: bool
) -> None:
    if not (cache_folder() / f"{name}.calib.npz").is_file():
        pytest.skip(f"needs `python -m bench.models --calibration {name}`")
    path = quantized(tmp_path, name, form, kinds, per_channel)
    xs = images(name, IMAGES)
    theirs = scores(path, xs, LEVELS.ORT_ENABLE_ALL)
    others = scores(path, xs[:PROBED], LEVELS.ORT_DISABLE_ALL), nudged(path, xs[:PROBED])
    model = irc.compile(irc.load(path), backend="llvm")
    ours = np.concatenate([model({"input": x[np.newaxis]})["output"] for x in xs])
    step = model.graph.output_types["output"].scale
    differences = [np.abs(other - theirs[:PROBED]) for other in others]
    assert np.abs(ours - theirs).mean() <= 1.5 * max(float(d.mean()) for d in differences) + step
    # The class is onnxruntime's wherever no tie, nor such noise, decides it.
    noise = max(float(d.max()) for d in differences) + step
    best = np.sort(theirs, axis=1)
    clear = best[:, -1] - best[:, -2] > noise
    assert np.array_equal(ours.argmax(1)[clear], theirs.argmax(1)[clear])
    classes = theirs.argmax(1)
    stable = min(float((o.argmax(1) == classes[:PROBED]).mean()) for o in others)
    assert float((ours.argmax(1) == classes).mean()) >= stable - 0.1


def traced(path: Path, x: Array) -> dict[str, Array]:
    """Every 8-bit value that onnxruntime's exact kernels compute, by name."""
    model = onnx.load(path)
    del model.graph.output[:]
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" or node.op_type.startswith(("QLinear", "QGemm")):
            model.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))
    (path.parent / "traced.onnx").write_bytes(model.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = LEVELS.ORT_DISABLE_ALL
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(
        path.parent / "traced.onnx", options, providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, map(np.asarray, session.run(names, {"input": x})), strict=True))


def stored_like(array: Array, v: Value) -> Array | None:
    """Onnxruntime's integers in the layout and type in which a value of ours holds them."""
    if array.dtype != v.type.dtype.numpy:
        array = (array.astype(np.int16) + (128 if array.dtype == np.int8 else -128)).astype(
            v.type.dtype.numpy
        )
    if array.shape != v.shape and array.ndim == 4:
        array = array.transpose(0, 2, 3, 1)
    return array if array.shape == v.shape else None


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_every_layer_given_onnxruntimes_own_integers(
    tmp_path: Path, name: str, per_channel: bool
) -> None:
    """At most a unit, on few elements: where a product lies half way between two integers. Weights
    have 7 bits: unoptimized, onnxruntime's pairs of products saturate on CPUs without VNNI."""
    if not (cache_folder() / f"{name}.calib.npz").is_file():
        pytest.skip(f"needs `python -m bench.models --calibration {name}`")
    path = quantized(tmp_path, name, "QOperator", "u8s8", per_channel, reduce_range=True)
    theirs = traced(path, images(name, 1))
    graph = integerize(irc.load(path))
    known: dict[Value, Array] = {v: v.array for v in graph.order if isinstance(v, Const)}
    checked = 0
    for v in graph.order:
        given = theirs.get(v.name, theirs.get(f"{v.name}_quantized"))
        array = None if given is None or v in known else stored_like(given, v)
        computable = bool(v.operands) and all(o in known for o in v.operands)
        if computable:
            ours = v.call(known.__getitem__)
            known[v] = ours if array is None else array
            if array is not None:
                difference = np.abs(ours.astype(np.int64) - array)
                assert difference.max(initial=0) <= 1, v.name
                assert np.mean(difference != 0) <= 1e-3, v.name
                checked += 1
        elif array is not None:
            known[v] = array
    assert checked >= 0.8 * sum(v.op in ("qconv2d", "qlinear", "qadd") for v in graph.order)

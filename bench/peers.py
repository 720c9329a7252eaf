"""Runners for other runtimes: onnxruntime and OpenVINO, as float and as int8.

Both are optional and untyped, so they are imported by name when a runner is built.
"""

import contextlib
import importlib
import importlib.util
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import onnx.version_converter
from numpy.typing import NDArray

from bench.isa import NATIVE, Level
from bench.runners import Arrays, Runner, Task

PER_CHANNEL_OPSET = 13  # the first whose DequantizeLinear has an axis


def absent(*packages: str) -> str:
    """Return a reason naming the packages that are not installed; empty if all are."""
    return absent_from({name: name for name in packages})


def absent_from(modules: Mapping[str, str]) -> str:
    """Return `absent`'s reason for packages by name, each with the module that it brings."""
    lacking = [package for package, module in modules.items() if not importable(module)]
    return f"not installed: pip install {' '.join(lacking)}" if lacking else ""


def importable(module: str) -> bool:
    """Return whether a module, which may lie inside of a package, can be found."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its package is not there
        return False


def write_at_least(opset: int, source: Path, target: Path) -> None:
    """Copy an ONNX file, converted to `opset` if it is older."""
    model = onnx.load(source)
    versions = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    if versions[0] < opset:
        model = onnx.version_converter.convert_version(model, opset)
    onnx.save(model, target)


class CalibrationReader:
    """Hands samples to onnxruntime's calibrator, which pulls them one by one."""

    def __init__(self, feeds: Iterable[Arrays]) -> None:
        """Start at the first sample."""
        self._feeds = iter(feeds)

    def get_next(self) -> Arrays | None:
        """Return the next sample, or None at the end."""
        return next(self._feeds, None)

    def __iter__(self) -> Iterator[Arrays]:
        """Iterate over the samples that are left."""
        return self._feeds


def write_qdq(
    source: Path, target: Path, feeds: Iterable[Arrays], activations: Literal["u8", "s8"]
) -> None:
    """Quantize an ONNX file by onnxruntime's static quantizer, with a weight scale per channel."""
    # quant_pre_process folds and fuses first, as onnxruntime's own guide asks for.
    prepared = target.with_suffix(".prepared.onnx")
    write_at_least(PER_CHANNEL_OPSET, source, prepared)
    shapes = importlib.import_module("onnxruntime.quantization.shape_inference")
    shapes.quant_pre_process(str(prepared), str(prepared), skip_symbolic_shape=True)
    quantization = importlib.import_module("onnxruntime.quantization")
    kinds, kept = quantization.QuantType, list(feeds)

    def quantize(**options: bool) -> None:
        quantization.quantize_static(
            str(prepared),
            str(target),
            CalibrationReader(kept),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=kinds.QUInt8 if activations == "u8" else kinds.QInt8,
            weight_type=kinds.QInt8,
            per_channel=True,
            extra_options=options,
        )

    try:
        quantize()
    except ValueError as error:
        # Its adjustment of weights' scales to large biases takes each bias's scale for a number.
        if "truth value of an array" not in str(error):
            raise
        quantize(QDQDisableWeightAdjustForInt32Bias=True)
    prepared.unlink()


@dataclass
class OnnxRuntime:
    """onnxruntime: fp32, or QDQ int8 with per-channel weights, by its own static quantizer.

    `exact` asks for kernels that do not saturate 16-bit pair sums on x86 without VNNI.
    """

    name: str
    activations: Literal["float", "u8", "s8"] = "float"
    exact: bool = False
    level: Level = NATIVE
    _session: Any = None

    def missing(self) -> str:
        """Return a reason if onnxruntime is not installed, or would use more than the level."""
        if self.level != NATIVE:
            return f"onnxruntime can't be held to {self.level.name}: it always uses the whole CPU"
        return absent("onnxruntime")

    def build(self, task: Task, folder: Path) -> tuple[Path, ...]:
        """Write the float model, or its quantized form."""
        path = folder / f"{self.name}.onnx"
        if self.activations == "float":
            shutil.copy(task.path, path)
            return (path,)
        write_qdq(task.path, path, task.feeds(task.calibration), self.activations)
        return (path,)

    def facts(self) -> Mapping[str, float]:
        """Return nothing: only what `build` returns is known."""
        return {}

    def load(self, task: Task, files: tuple[Path, ...]) -> None:
        """Open a session with the task's threads."""
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = task.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if self.exact:
            options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = runtime.InferenceSession(
            str(files[0]), options, providers=["CPUExecutionProvider"]
        )

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run the session."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))


@dataclass
class OpenVino:
    """OpenVINO for latency: as it comes, held to fp32, or int8 by NNCF's post-training quantizer.

    Unless held to fp32, or to a level, it may compute in bf16 where the CPU has that: its default.
    """

    name: str
    precision: Literal["default", "f32", "int8"] = "default"
    level: Level = NATIVE
    _request: Any = None
    _outputs: tuple[str, ...] = ()

    def missing(self) -> str:
        """Return a reason if OpenVINO (or NNCF, for int8) is not installed."""
        return absent("openvino", "nncf") if self.precision == "int8" else absent("openvino")

    def build(self, task: Task, folder: Path) -> tuple[Path, ...]:
        """Write OpenVINO's own format: an .xml and a .bin."""
        openvino = importlib.import_module("openvino")
        model = openvino.Core().read_model(task.path)
        if self.precision == "int8":
            model = self._quantized(model, task)
        path = folder / f"{self.name}.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return path, path.with_suffix(".bin")

    def _quantized(self, model: Any, task: Task) -> Any:
        with contextlib.redirect_stdout(sys.stderr):  # where NNCF's progress bars belong
            nncf = importlib.import_module("nncf")
            samples = nncf.Dataset(task.feeds(task.calibration))
            return nncf.quantize(model, samples, subset_size=len(task.calibration))

    def facts(self) -> Mapping[str, float]:
        """Return nothing: only what `build` returns is known."""
        return {}

    def load(self, task: Task, files: tuple[Path, ...]) -> None:
        """Compile the model for this CPU with the task's threads."""
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": task.threads,
            "NUM_STREAMS": 1,
        }
        # Under a limit it would still choose bf16, which the limit then emulates or refuses.
        if self.precision == "f32" or self.level != NATIVE:
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        core = importlib.import_module("openvino").Core()
        compiled = core.compile_model(files[0], "CPU", settings)
        self._outputs = tuple(output.any_name for output in compiled.outputs)
        self._request = compiled.create_infer_request()

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run one inference; the arrays returned are its own buffers until the next run."""
        results = self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        return {name: results[i] for i, name in enumerate(self._outputs)}


def peers(level: Level = NATIVE) -> tuple[Runner, ...]:
    """Return a fresh runner of every peer configuration, held to a level."""
    return (
        OnnxRuntime("onnxruntime-fp32", level=level),
        OnnxRuntime("onnxruntime-u8s8", "u8", level=level),
        OnnxRuntime("onnxruntime-s8s8", "s8", level=level),
        OnnxRuntime("onnxruntime-exact", "u8", exact=True, level=level),
        OpenVino("openvino-fp32", "f32", level),
        OpenVino("openvino-auto", "default", level),
        OpenVino("openvino-int8", "int8", level),
    )

"""Runners for tools that compile a network ahead of time, too: IREE, and emmtrix's ONNX-to-C.

Both are optional and untyped. Their int8 is the QDQ model of onnxruntime's static quantizer.
"""

import ctypes
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from bench.isa import NATIVE, Level
from bench.peers import absent_from, write_at_least, write_qdq
from bench.runners import Arrays, Runner, Task

IREE_OPSET = 17  # what its importer asks for
IREE_FLAGS = (
    "--iree-opt-level=O3",
    "--iree-dispatch-creation-data-tiling",
    "--iree-llvmcpu-enable-ukernels=all",
    "--iree-global-opt-use-im2col-for-convs",
)
"""The quickest of six sets of flags on MobileNetV2, float and int8: 1.6 and 1.8 times as fast as O3
by itself. They make matrix products of convolutions, and there IREE has micro-kernels."""
C_FLAGS = ("-O3", "-ffast-math", "-fPIC", "-shared")
"""Without -ffast-math gcc keeps the order of float sums, and takes a quarter more time."""


def cpu_of(level: Level) -> tuple[str, tuple[str, ...]]:
    """Return a level's CPU as LLVM and gcc call it, and the features that it has besides."""
    cpu, *features = level.target.split("+")
    return cpu, tuple(features)


def write_model(task: Task, folder: Path, *, quantized: bool) -> Path:
    """Write the task's model, or its QDQ form (u8 activations, s8 weights), and return its path."""
    path = folder / "model.onnx"
    if quantized:
        write_qdq(task.path, path, task.feeds(task.calibration), "u8")
    else:
        shutil.copy(task.path, path)
    return path


def called(command: list[str]) -> None:
    """Run a command; raises RuntimeError with the first line that names an error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        told = [line for line in lines if "error" in line.lower()] or lines[-1:]
        raise RuntimeError(f"{command[0]}: {told[0] if told else done.returncode}")


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Return a pinned shape; raises ValueError where a dimension has no number."""
    shape = tuple(each.dim_value for each in value.type.tensor_type.shape.dim)
    if 0 in shape:
        raise ValueError(f"output {value.name} has no fixed shape: {shape}")
    return shape


@dataclass
class Iree:
    """IREE's compiler for CPUs: a module of machine code and weights, which its runtime runs.

    On one thread the runtime calls the code inline (`local-sync`): no tasks, no queue.
    """

    name: str
    quantized: bool = False
    level: Level = NATIVE
    _call: Any = None
    _outputs: tuple[str, ...] = ()

    def missing(self) -> str:
        """Return a reason if the compiler or the runtime is not installed."""
        return absent_from(
            {"iree-base-compiler": "iree.compiler", "iree-base-runtime": "iree.runtime"}
        )

    def flags(self) -> list[str]:
        """Return the compiler's flags for the level."""
        cpu, features = cpu_of(self.level)
        added = ",".join(f"+{feature}" for feature in features)
        held = [f"--iree-llvmcpu-target-cpu-features={added}"] if added else []
        return [f"--iree-llvmcpu-target-cpu={cpu}", *held, *IREE_FLAGS]

    def build(self, task: Task, folder: Path) -> tuple[Path, ...]:
        """Import the ONNX file into MLIR and compile that to a module."""
        model = write_model(task, folder, quantized=self.quantized)
        write_at_least(IREE_OPSET, model, model)
        imported, module = folder / "model.mlir", folder / "model.vmfb"
        importer = "iree.compiler.tools.import_onnx"
        called([sys.executable, "-m", importer, str(model), "-o", str(imported)])
        compiler = importlib.import_module("iree.compiler")
        compiler.compile_file(
            str(imported),
            output_file=str(module),
            target_backends=["llvm-cpu"],
            extra_args=self.flags(),
        )
        self._outputs = tuple(each.name for each in onnx.load(model).graph.output)
        return (module,)

    def facts(self) -> Mapping[str, float]:
        """Return nothing: only what `build` returns is known."""
        return {}

    def load(self, task: Task, files: tuple[Path, ...]) -> None:
        """Map the module into memory, with the task's threads."""
        runtime = importlib.import_module("iree.runtime")
        if task.threads > 1:
            runtime.flags.parse_flags(f"--task_topology_max_group_count={task.threads}")
        config = runtime.Config("local-task" if task.threads > 1 else "local-sync")
        context = runtime.SystemContext(config=config)
        module = runtime.VmModule.mmap(config.vm_instance, str(files[0]))
        context.add_vm_module(module)
        entries = [name for name in module.function_names if "$" not in name and name[0] != "_"]
        self._call = context.modules[module.name][entries[0]]

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run one inference and copy its results to NumPy."""
        found = self._call(*inputs.values())
        results = found if isinstance(found, list | tuple) else (found,)
        arrays = [np.asarray(each) for each in results]
        return dict(zip(self._outputs, arrays, strict=True))


@dataclass
class EmmtrixC:
    """emmtrix's generator: one C file with the weights in it, for any compiler and no runtime.

    It holds intermediate results on the stack, which is quicker than its default, the heap.
    """

    name: str
    quantized: bool = False
    level: Level = NATIVE
    _function: Any = None
    _outputs: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def missing(self) -> str:
        """Return a reason if the generator or a C compiler is not there."""
        if reason := absent_from({"emx-onnx-cgen": "emx_onnx_cgen"}):
            return reason
        return "" if shutil.which("gcc") else "no C compiler: install gcc"

    def flags(self) -> list[str]:
        """Return gcc's flags for the level."""
        cpu, features = cpu_of(self.level)
        march = "native" if cpu == "host" else cpu
        return [*C_FLAGS, f"-march={march}", *(f"-m{feature}" for feature in features)]

    def build(self, task: Task, folder: Path) -> tuple[Path, ...]:
        """Write the C file and compile it to a shared library."""
        if task.threads > 1:
            raise ValueError("its code has no threads")
        model = write_model(task, folder, quantized=self.quantized)
        source, library = folder / "net.c", folder / "libnet.so"
        options = ["--large-temp-threshold", "0", "--large-weight-threshold", "0"]
        generator = [sys.executable, "-m", "emx_onnx_cgen", "compile", str(model), str(source)]
        called([*generator, *options, "--restrict-arrays", "--model-name", "net"])
        called(["gcc", *self.flags(), str(source), "-o", str(library), "-lm"])
        source.unlink()
        outputs = onnx.load(model).graph.output
        self._outputs = tuple((each.name, shape_of(each)) for each in outputs)
        return (library,)

    def facts(self) -> Mapping[str, float]:
        """Return nothing: only what `build` returns is known."""
        return {}

    def load(self, task: Task, files: tuple[Path, ...]) -> None:
        """Open the library, and let the stack grow: there its arrays lie."""
        resource = importlib.import_module("resource")  # which Windows has not
        _, most = resource.getrlimit(resource.RLIMIT_STACK)
        resource.setrlimit(resource.RLIMIT_STACK, (most, most))
        self._function = ctypes.CDLL(os.fspath(files[0])).net

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run one inference."""
        results = {name: np.empty(shape, np.float32) for name, shape in self._outputs}
        arrays = (*inputs.values(), *results.values())
        self._function(*(ctypes.c_void_p(each.ctypes.data) for each in arrays))
        return dict(results)


def generators(level: Level = NATIVE) -> tuple[Runner, ...]:
    """Return a fresh runner of every compiler ahead of time, held to a level."""
    return (
        Iree("iree-fp32", level=level),
        Iree("iree-int8", quantized=True, level=level),
        EmmtrixC("emx-fp32", level=level),
        EmmtrixC("emx-int8", quantized=True, level=level),
    )

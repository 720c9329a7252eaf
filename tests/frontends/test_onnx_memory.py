"""Importing a large model takes little more memory than its weights do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

CHANNELS, LAYERS = 512, 24
NBYTES = LAYERS * CHANNELS * CHANNELS * 9 * 4

IMPORT = """
import resource, sys, time
import irc, irc.frontends.onnx
unit = 1 if sys.platform == "darwin" else 1024
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
before, start = peak(), time.perf_counter()
graph = irc.load(sys.argv[1])
print(peak() - before, time.perf_counter() - start)
"""


def large_model(path: Path) -> None:
    """Convolutions whose weights lie in a file of their own."""
    nodes, tensors, offset = [], [], 0
    w = np.random.default_rng(0).normal(size=(CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    with (path.parent / "weights.bin").open("wb") as data:
        for i in range(LAYERS):
            data.write((w + i).tobytes())
            tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=w.shape)
            tensor.data_location = TensorProto.EXTERNAL
            where = {"location": "weights.bin", "offset": offset, "length": w.nbytes}
            for key, value in where.items():
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
            offset += w.nbytes
            nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], pads=[1] * 4))
    graph = helper.make_graph(
        nodes, "large",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, (1, CHANNELS, 8, 8))],
        [helper.make_empty_tensor_value_info(f"x{LAYERS}")], tensors,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no resource module")
def test_import_of_a_large_model(tmp_path: Path) -> None:
    large_model(tmp_path / "large.onnx")
    run = subprocess.run(
        [sys.executable, "-c", IMPORT, str(tmp_path / "large.onnx")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    taken, seconds = map(float, run.stdout.split())
    assert taken < 1.3 * NBYTES
    assert seconds < 20

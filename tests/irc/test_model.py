from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irc
from irc.backends import reference
from irc.errors import CompileError, DataError, GraphError, ModelError
from irc.graph import Graph
from irc.model import CompiledModel
from irc.ops.core import Const, Input
from irc.ops.quantization import Lookup
from irc.types import DType, Quant

BACKENDS = ["llvm", "numba", "reference"]


def negated() -> Graph:
    x = Input(DType.U8, (1, 4), Quant(0.5, 128), name="x")
    table = Const(np.arange(255, -1, -1, dtype=np.uint8))
    return Graph("negated", (x,), (Lookup(x, table, Quant(0.5, 127)),), ("y",))


@pytest.mark.parametrize("backend", BACKENDS)
def test_integers_give_integers_and_floats_give_floats(backend: str) -> None:
    model = irc.compile(negated(), backend=backend)
    assert (model.backend, model.target) == (backend, "host")
    types = "x: u8[1,4] q(0.5, 128) -> y: u8[1,4] q(0.5, 127)"
    assert repr(model) == f"<CompiledModel negated ({backend}, host): {types}>"
    integers = model({"x": np.array([[0, 1, 128, 255]], np.uint8)})["y"]
    assert (str(integers.dtype), integers.tolist()) == ("uint8", [[255, 254, 127, 0]])
    reals = model({"x": np.array([[0.0, 1.0, -2.5, 1e9]])})["y"]
    assert (str(reals.dtype), reals.tolist()) == ("float32", [[0.0, -1.0, 2.5, -63.5]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_that_do_not_fit(backend: str) -> None:
    model = irc.compile(negated(), backend=backend)
    for wrong in ({}, {"x": np.zeros((4,))}, {"x": np.zeros((1, 4), np.int8)}):
        with pytest.raises(DataError):
            model(wrong)
    unnamed: Any = np.zeros((1, 4))
    for call in (model, partial(irc.evaluate, negated())):
        with pytest.raises(DataError, match="by name"):
            call(unnamed)


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_may_lie_anyhow(backend: str) -> None:
    model = irc.compile(negated(), backend=backend)
    wide = np.arange(16, dtype=np.uint8).reshape(2, 8)
    view = wide[1:, ::2]
    assert model({"x": view})["y"].tolist() == [[247, 245, 243, 241]]
    assert wide.tolist() == np.arange(16).reshape(2, 8).tolist()
    frozen = view.copy()
    frozen.setflags(write=False)
    assert model({"x": frozen})["y"].tolist() == [[247, 245, 243, 241]]


def test_results_are_new_arrays_each_time() -> None:
    model = irc.compile(negated())
    first = model({"x": np.zeros((1, 4), np.uint8)})["y"]
    second = model({"x": np.full((1, 4), 255, np.uint8)})["y"]
    assert first.tolist() == [[255] * 4]
    assert second.tolist() == [[0] * 4]


def test_save_is_the_savers() -> None:
    calls: list[Any] = []

    def saver(*args: Any, **options: Any) -> list[Path]:
        calls.append((args, options))
        return []

    graph = negated()
    model = CompiledModel(graph, "llvm", "host", reference.compile(graph), saver)
    model.save("build")
    model.save("build", "other", emit=("so",))
    assert calls == [
        ((graph, Path("build"), "negated"), {}),
        ((graph, Path("build"), "other"), {"emit": ("so",)}),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "gpu"}, "backend 'gpu' does not exist; there are llvm, numba, reference"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"threads": "2"}, "a whole number"),
        ({"target": "z80"}, "target 'z80' does not exist"),
        ({"target": None}, "target must be a text"),
        ({"target": "aarch64", "backend": "numba"}, "backend numba runs on this machine only"),
    ],
)
def test_what_cant_be_compiled(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        irc.compile(negated(), **options)


def test_a_float_graph_must_be_quantized_first() -> None:
    x = Input(DType.F32, (2,), name="x")
    with pytest.raises(GraphError, match="quantize it first"):
        irc.compile(Graph("g", (x,), (x,), ("y",)))


@pytest.mark.parametrize("call", [
    irc.compile,
    lambda given: irc.quantize(given, "random:1"),
    lambda given: irc.prune(given, 0.5),
    lambda given: irc.to_onnx(given, "out.onnx"),
    lambda given: irc.evaluate(given, {}),
], ids=["compile", "quantize", "prune", "to_onnx", "evaluate"])  # fmt: skip
def test_what_is_no_graph(call: Any) -> None:
    with pytest.raises(GraphError, match=r"not a str: irc\.load"):
        call("net.onnx")


def test_saving_has_no_other_options(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="no option 'emits'; did you mean emit"):
        irc.compile(negated()).save(tmp_path, "net", emits=("o",))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shapes", [[1, 4], {"x": "1,4"}, {"x": 4}, {"x": (None, 4)}])
def test_what_is_no_shape(shapes: Any) -> None:
    with pytest.raises(ModelError, match="1, 3, 224, 224"):
        irc.load("absent.onnx", shapes=shapes)


def test_what_is_no_model() -> None:
    wrong: Any = 3
    with pytest.raises(ModelError, match="not a int"):
        irc.load(wrong)

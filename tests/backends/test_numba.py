"""The printed Python: readable, shared between kernels of equal work, cached, parallel."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from irc.backends.numba import compile as compile_numba
from irc.backends.numba import module_source
from irc.backends.numba.source import python_source
from irc.compose import compose
from irc.errors import CompileError, DataError, GraphError
from irc.graph import Graph, evaluate
from irc.loops import Load, Loops, Nest, Reduce, Var, axes, load
from irc.ops.core import Const, Input, Kernel
from irc.ops.linear import QLinear
from irc.ops.quantization import Lookup
from irc.ops.shape import Transpose
from irc.types import DType, Quant
from irc.value import Value
from tests.backends.graphs import integer_graphs
from tests.backends.harness import examples, run_numba, same_bits, schedule
from tests.ops.sampling import Sample

Q = Quant(0.5, 128)
X = Input(DType.U8, (6, 8), Q, name="x")
FEED = {"x": np.arange(48, dtype=np.uint8).reshape(6, 8)}


def table(x: Value, seed: int = 0) -> Lookup:
    values = np.random.default_rng(seed).integers(0, 256, 256).astype(np.uint8)
    return Lookup(x, Const(values), Q)


def graph_of(y: Value) -> Graph:
    return schedule(Graph("net", (X,), (y,), ("y",)))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRC_CACHE", str(tmp_path))


@pytest.mark.slow
@examples(5)
@given(integer_graphs())
def test_spread_over_threads(drawn: Sample) -> None:
    scheduled = schedule(drawn.graph)
    made = run_numba(scheduled, drawn.feeds, threads=2)
    same_bits("numba, 2 threads", made, evaluate(scheduled, drawn.feeds), scheduled)


def test_two_threads() -> None:
    scheduled = graph_of(table(Transpose(table(X), (1, 0))))
    executable = compile_numba(scheduled, threads=2)
    assert "prange(8)" in executable.source
    same_bits("numba", executable(FEED), evaluate(scheduled, FEED), scheduled)


@examples(20)
@given(integer_graphs())
def test_the_source_is_python_and_hides_no_name_that_it_calls(drawn: Sample) -> None:
    source, symbols = module_source(schedule(drawn.graph), parallel=False)
    tree = ast.parse(source)
    functions = {f.name for f in tree.body if isinstance(f, ast.FunctionDef)}
    assert functions == set(symbols.values())
    stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)
              and isinstance(n.ctx, ast.Store)}  # fmt: skip
    called = {c.func.id for c in ast.walk(tree) if isinstance(c, ast.Call)
              and isinstance(c.func, ast.Name)}  # fmt: skip
    assert not stored & called


def test_how_a_linear_layer_reads() -> None:
    b, m, s = np.zeros(5, np.int32), np.full(5, 2**30, np.int32), np.full(5, 37, np.int8)
    y = QLinear(X, Const(np.ones((5, 8), np.int8)), Const(b), Const(m), Const(s), (0, 255),
                DType.U8, Q)  # fmt: skip
    (kernel,) = (v for v in graph_of(y).order if isinstance(v, Kernel))
    names: dict[Value, str] = {a: f"a{i}" for i, a in enumerate(kernel.body.inputs)}
    text = python_source("linear", compose(kernel.body), names, parallel=False)
    lines = [line.strip() for line in text.splitlines()]
    assert lines[0] == "def linear(out, a0, a1, a2, a3, a4):"
    assert [line.split()[0] for line in lines if line.startswith("for")] == ["for"] * 3
    assert any(line.startswith("acc += ") for line in lines)
    assert sum("out[" in line for line in lines) == 1


def test_variables_may_be_called_anything() -> None:
    """Labels that are keywords, builtins, alike, or no identifiers."""
    x = Input(DType.I32, (2, 2, 2, 2, 2), name="x")
    variables = axes(x.shape, "out lambda max 1.x out")
    k = Var("range", 2)
    value = Reduce("max", (k,), load(x, *variables[:4], k)) + load(x, *variables)
    loops = Loops((Nest(variables, value),))
    text = python_source("f", loops, {x: "int64_"}, parallel=False)
    space: dict[str, object] = {"int64": int}
    exec(text, space)
    data = np.arange(32, dtype=np.int32).reshape(x.shape)
    out = np.zeros_like(data)
    space["f"](out, data)  # type: ignore[operator]
    assert out.tolist() == (data.max(4, keepdims=True) + data).tolist()


def test_what_does_not_change_in_a_loop_is_computed_outside() -> None:
    x = Input(DType.I32, (4,), name="x")
    i, j = axes((4, 3), "i j")
    row = load(x, i) * 7
    loops = Loops((Nest((i, j), row + j.cast(DType.I32)),))
    text = python_source("f", loops, {x: "a0"}, parallel=False)
    before, _, inner = text.partition("for j")
    assert "* 7" in before
    assert "* 7" not in inner
    assert isinstance(load(x, i), Load)


def test_kernels_of_equal_work_share_a_function() -> None:
    turned = Transpose(X, (1, 0), name="turned")
    outputs = (table(X, 1), table(X, 2), turned)
    scheduled = schedule(Graph("net", (X,), outputs, ("a", "b", "c")))
    source, symbols = module_source(scheduled, parallel=False)
    assert len(symbols) == 3
    assert len(set(symbols.values())) == source.count("\ndef ") == 2
    made = compile_numba(scheduled)(FEED)
    same_bits("numba", made, evaluate(scheduled, FEED), scheduled)


def test_the_module_lies_in_the_cache_and_is_found_again(tmp_path: Path) -> None:
    scheduled = graph_of(table(X))
    executable = compile_numba(scheduled)
    executable(FEED)
    (path,) = tmp_path.glob("irc/numba/irc_*.py")
    assert path.read_text() == executable.source
    before = path.stat().st_mtime_ns
    compile_numba(scheduled)(FEED)
    assert path.stat().st_mtime_ns == before
    assert list(tmp_path.glob("irc/numba/__pycache__/*.nbc")), "Numba's own cache"


def test_a_cache_that_cant_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("IRC_CACHE", str(tmp_path / "file"))
    scheduled = graph_of(table(X, 5))
    same_bits("numba", compile_numba(scheduled)(FEED), evaluate(scheduled, FEED), scheduled)


def test_what_it_refuses() -> None:
    scheduled = graph_of(table(X))
    with pytest.raises(CompileError, match="this machine only, not for 'aarch64'"):
        compile_numba(scheduled, "aarch64")
    with pytest.raises(GraphError, match="numba backend: graph net is not scheduled"):
        compile_numba(Graph("net", (X,), (table(X),), ("y",)))
    with pytest.raises(DataError, match="shape"):
        compile_numba(scheduled)({"x": np.zeros((1,), np.uint8)})


def test_numba_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, irc.driver; sys.exit('numba' in sys.modules or 'llvmlite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

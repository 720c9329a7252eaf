"""The float edge: equation (2) in compiled code, bit for bit, and calls from Python."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irc
from irc import fixedpoint
from irc.backends.llvm import open_library, save
from irc.backends.llvm.code.rounding import Decisions
from irc.backends.llvm.host.jit import compile_graph
from irc.edge import to_integers, to_reals
from irc.errors import DataError
from irc.graph import Graph, evaluate
from irc.ops.columns import QColumns
from irc.ops.core import Input
from irc.ops.shape import Reshape
from irc.types import Array, DType, Quant, TensorType
from tests.backends.harness import TARGETS, each
from tests.backends.llvm.nets import random_inputs, scheduled, small_net, tiny_net

RNG = np.random.default_rng(5)
SCALES = [0.1, 2 / 255, float(np.float32(2 / 255)), 0.25, 1 + 2.0**-52, 3e-5, 1e-42, 1e37]
SPECIAL = [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, -1e-45, 0.0, -0.0]


def hard_reals(type_: TensorType) -> Array:
    """Floats at and beside what rounding decides, beyond the range, and those that are special."""
    q = RNG.integers(type_.dtype.min - 3, type_.dtype.max + 4, 500) - type_.zero
    with np.errstate(all="ignore"):
        middles = np.float32((q + RNG.choice([0.0, 0.5], 500)) * type_.scale)
    beside = [np.nextafter(middles, np.float32(way)) for way in (np.inf, -np.inf)]
    return np.concatenate([middles, *beside, np.array(SPECIAL, np.float32)])


@pytest.mark.parametrize("target", each(TARGETS))
@pytest.mark.parametrize("dtype", [DType.U8, DType.I8, DType.I16])
def test_floats_are_quantized_bit_for_bit(dtype: DType, target: str) -> None:
    """A network that gives back what it is given, one tensor of each scale."""
    zeros = RNG.integers(dtype.min, dtype.max + 1, len(SCALES))
    quants = [Quant(s, int(z)) for s, z in zip(SCALES, zeros, strict=True)]
    quants += [Quant(0.1, int(zeros[0]), missing=end) for end in (dtype.min, dtype.max)]
    given = [hard_reals(TensorType(dtype, (1,), q)) for q in quants]
    types = [TensorType(dtype, x.shape, q) for x, q in zip(given, quants, strict=True)]
    inputs = tuple(Input.of(t, f"x{i}") for i, t in enumerate(types))
    outputs = tuple(Reshape(x, dims=(1, x.type.size)) for x in inputs)
    graph = scheduled(Graph("same", inputs, outputs, tuple(f"y{i}" for i in range(len(inputs)))))
    made = compile_graph(graph, target).attempt({f"x{i}": x for i, x in enumerate(given)})
    assert made is not None
    for i, type_ in enumerate(types):
        with np.errstate(over="ignore"):
            wanted = fixedpoint.dequantize(fixedpoint.quantize(given[i], type_), type_)
        np.testing.assert_array_equal(made[f"y{i}"].reshape(-1), wanted)


@pytest.mark.parametrize("target", each(TARGETS))
@pytest.mark.parametrize("rows", [1, 3])
def test_columns_have_scales_of_their_own(rows: int, target: str) -> None:
    """Zero points beyond what the integers reach among them."""
    scales, zeros = (0.25, 1e-4, 37.0, 0.1), (0, 90_000, -7, -33_000)
    type_ = TensorType(DType.I16, (rows, 4), Quant(scales, zeros, 1))
    q = RNG.integers(DType.I16.min - 3, DType.I16.max + 4, (rows, 4))
    x = ((q - np.asarray(zeros)) * np.asarray(scales)).astype(np.float32)
    x[0, 1], x[-1, 2] = np.nan, np.inf
    given = Input.of(type_, "x")
    graph = scheduled(Graph("same", (given,), (QColumns(given, Quant(0.5, 3)),), ("y",)))
    model = compile_graph(graph, target)
    found = model.attempt({"x": x})
    assert found is not None
    wanted = evaluate(graph, {"x": fixedpoint.quantize(x, type_)})
    np.testing.assert_array_equal(found["y"], to_reals(graph.output_types, wanted)["y"])


def test_divisions_are_needed_for_few_scales() -> None:
    types = [TensorType(DType.U8, (1,), Quant(float(s), 3)) for s in RNG.lognormal(-3, 3, 300)]
    found = [Decisions.of(t) for t in types]
    assert sum(d is None for d in found) < 15
    assert sum(d is not None and d.ties for d in found) < 15
    assert Decisions.of(TensorType(DType.U8, (1,), Quant(0.25, 3))) is not None
    assert Decisions.of(TensorType(DType.I16, (1,), Quant(0.25, 3))) is None


@pytest.fixture(scope="module", params=["in process", "library"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    graph = small_net()
    if request.param == "in process":
        return irc.compile(graph)
    folder = tmp_path_factory.mktemp("edge")
    save(graph, folder, "net", emit=["so"])
    return open_library(folder / "libnet.so")


def reals(seed: int) -> Array:
    return np.random.default_rng(seed).normal(9, 9, (1, 14, 13, 16)).astype(np.float32)


def expected(x: Array) -> dict[str, Array]:
    graph = small_net()
    integers, _ = to_integers(graph.input_types, {"x": x})
    return to_reals(graph.output_types, evaluate(graph, integers))


def read_only(x: Array) -> Array:
    x.flags.writeable = False
    return x


def unaligned(x: Array) -> Array:
    return np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)


@pytest.mark.parametrize(
    "laid",
    [
        lambda x: x,
        read_only,
        lambda x: x.astype(np.float64),
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=3)[..., ::2],
        unaligned,
        lambda x: x.astype(">f4"),
        lambda x: x.tolist(),
    ],
    ids=["plain", "read-only", "double", "fortran", "strided", "unaligned", "big-endian", "list"],
)
def test_arrays_may_lie_in_memory_as_they_like(model: Any, laid: Any) -> None:
    wanted, got = expected(reals(1)), model({"x": laid(reals(1))})
    for name, array in wanted.items():
        assert got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name], array)


def test_outputs_are_fresh(model: Any) -> None:
    first = model({"x": reals(1)})
    kept = {n: a.copy() for n, a in first.items()}
    second = model({"x": reals(2)})
    for name, array in kept.items():
        np.testing.assert_array_equal(first[name], array)
        assert not np.shares_memory(first[name], second[name])
        assert first[name].flags.writeable


def test_integers_give_integers(model: Any) -> None:
    graph = small_net()
    inputs = random_inputs(graph)
    got, wanted = model(inputs), evaluate(graph, inputs)
    for name in wanted:
        assert got[name].dtype == wanted[name].dtype
        np.testing.assert_array_equal(got[name], wanted[name])


def test_threads_call_at_once(model: Any) -> None:
    wanted = [expected(reals(n)) for n in range(4)]
    found = [False] * 4

    def work(n: int) -> None:
        x = reals(n)
        got = [model({"x": x}) for _ in range(50)]
        found[n] = all(np.array_equal(g[k], wanted[n][k]) for g in got for k in g)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(found)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "inputs .* given"),
        ({"x": np.zeros((1, 14, 13, 16), np.float32), "z": np.zeros(1)}, "inputs .* given"),
        ({"y": np.zeros((1, 14, 13, 16), np.float32)}, "inputs .* given"),
        ({"x": np.zeros((1, 13, 14, 16), np.float32)}, "input x: shape"),
        ({"x": np.zeros((14, 13, 16), np.uint8)}, "input x: shape"),
        ({"x": np.zeros((1, 14, 13, 16), np.int8)}, "input x: dtype int8"),
        (np.zeros((1, 14, 13, 16), np.float32), "given by name, as {x: …}, not as one ndarray"),
    ],
)
def test_what_does_not_fit(model: Any, inputs: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        model(inputs)


def test_the_librarys_own_edge_checks_too(tmp_path: Path) -> None:
    save(tiny_net(), tmp_path, "net", emit=["so"])
    library = open_library(tmp_path / "libnet.so")
    x = np.linspace(-1, 5, 37)
    np.testing.assert_array_equal(library.run_f32({"x": x})["y"], library({"x": x})["y"])
    with pytest.raises(DataError, match=r"inputs \[\] given, the model takes \['x'\]"):
        library.run_f32({})
    with pytest.raises(DataError, match=r"shape \[36\] given, \[37\] wanted"):
        library.run_f32({"x": x[1:]})

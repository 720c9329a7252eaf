"""Arithmetic, activations, products, reductions as onnxruntime computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.driver import simplify
from irc.frontends.onnx import load
from irc.graph import evaluate
from irc.ops.activation import Gelu
from irc.ops.core import Const
from irc.types import Array
from tests.frontends.single_op import check, f32, i64, model, node, reals, reference

seeds = st.integers(0, 2**16)


@st.composite
def broadcastable(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes that broadcast."""
    full = draw(st.lists(st.integers(1, 4), max_size=4))
    a = [draw(st.sampled_from([1, d])) for d in full]
    b = [draw(st.sampled_from([1, d])) for d in full]
    return tuple(a), tuple(b[draw(st.integers(0, len(b))) :])


@given(st.sampled_from(["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean"]),
       broadcastable(), seeds, st.booleans())  # fmt: skip
@settings(max_examples=80)
def test_binary(op: str, shapes: tuple[tuple[int, ...], ...], seed: int, constant: bool) -> None:
    a, b = reals(seed, *shapes[0]), reals(seed + 1, *shapes[1], low=0.5)
    inputs, constants = ({"a": a}, {"b": b}) if constant else ({"a": a, "b": b}, {})
    check(op, inputs, constants)


@pytest.mark.parametrize("exponent", [f32(2), f32(0.5), i64(3), np.asarray(2.0, np.float32)])
def test_pow(exponent: Array) -> None:
    check("Pow", {"x": reals(0, 3, 4, low=0.1)}, {"e": exponent})


@pytest.mark.parametrize("op", ["Sum", "Max", "Min", "Mean"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_variadic(op: str, count: int) -> None:
    check(op, {f"x{i}": reals(i, 2, 3) for i in range(count)})


ACTIVATIONS: list[tuple[str, dict[str, Any]]] = [
    ("Relu", {}), ("Sigmoid", {}), ("Tanh", {}), ("HardSwish", {}), ("Softplus", {}),
    ("Softsign", {}), ("Exp", {}), ("Neg", {}), ("Abs", {}), ("Erf", {}), ("Floor", {}),
    ("Ceil", {}), ("Round", {}), ("Sign", {}), ("Sin", {}), ("Cos", {}), ("LeakyRelu", {}),
    ("LeakyRelu", {"alpha": 0.3}), ("Elu", {}), ("Elu", {"alpha": 0.5}), ("Celu", {}),
    ("Celu", {"alpha": 2.0}), ("Selu", {}), ("Selu", {"alpha": 1.5, "gamma": 2.0}),
    ("HardSigmoid", {}), ("HardSigmoid", {"alpha": 0.25, "beta": 0.4}), ("Identity", {}),
]  # fmt: skip


def test_gelu_as_keras_leaves_it_to_tf2onnx() -> None:
    """With TensorFlow's Erfc, which onnxruntime refuses."""
    x = reals(3, 2, 5)
    nodes = [node("Neg", ["x"], ["n"]), node("Mul", ["n", "r"], ["m"]), node("Erfc", ["m"], ["e"]),
             node("Mul", ["x", "h"], ["k"]), node("Mul", ["k", "e"])]  # fmt: skip
    graph = load(model(nodes, {"x": x}, {"r": f32(0.5**0.5), "h": f32(0.5)}))
    wanted = Gelu(Const(x)).evaluate(x)
    np.testing.assert_allclose(evaluate(graph, {"x": x})["y"], wanted, rtol=1e-5, atol=1e-6)
    assert any(v.op == "gelu" for v in simplify(graph).order)


@pytest.mark.parametrize(("op", "attrs"), ACTIVATIONS)
def test_activation(op: str, attrs: dict[str, Any]) -> None:
    check(op, {"x": reals(5, 3, 40, low=-8, high=8)}, **attrs)


@pytest.mark.parametrize("op", ["Log", "Sqrt", "Reciprocal"])
def test_positive_function(op: str) -> None:
    check(op, {"x": reals(5, 3, 40, low=0.01, high=8)})


@pytest.mark.parametrize("how", ["none", "tanh", None])
def test_gelu(how: str | None) -> None:
    check("Gelu", {"x": reals(5, 100, low=-6, high=6)}, opset=20, approximate=how)


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_swish(alpha: float | None) -> None:
    x = reals(5, 100, low=-6, high=6)
    graph = load(model([node("Swish", ["x"], alpha=alpha)], {"x": x}, opset=24))
    expected = x / (1 + np.exp(-x * (1.0 if alpha is None else alpha)))
    np.testing.assert_allclose(evaluate(graph, {"x": x})["y"], expected, rtol=1e-5, atol=1e-6)


def test_mish() -> None:
    check("Mish", {"x": reals(5, 100, low=-6, high=6)}, opset=18)


@pytest.mark.parametrize("slope", [(1,), (3, 1, 1), (1, 3, 1, 1), (2, 3, 4, 5)])
def test_prelu(slope: tuple[int, ...]) -> None:
    check("PRelu", {"x": reals(0, 2, 3, 4, 5)}, {"slope": reals(1, *slope)})


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (None, 0.5), (0.0, None), (None, None),
                                            (0.0, np.inf)])  # fmt: skip
def test_clip(low: float | None, high: float | None) -> None:
    x = {"x": reals(0, 50)}
    bounds = {"lo": low, "hi": high}
    constants = {n: np.asarray(v, np.float32) for n, v in bounds.items() if v is not None}
    order = ["x", *(n if n in constants else "" for n in bounds)]
    for opset in (11, 12, 13):
        check("Clip", x, constants, opset=opset, order=order)
    if high != np.inf:
        check("Clip", x, opset=7, min=low, max=high)


def test_clip_to_computed_bounds() -> None:
    bounds = {"low": np.float32(-0.3), "high": np.float32(0.7)}
    check("Clip", {"x": reals(0, 3, 4), **{k: np.asarray(v) for k, v in bounds.items()}})
    check("Clip", {"x": reals(0, 3, 4), "low": np.asarray(np.float32(0.2))})


@pytest.mark.parametrize(("op", "end"), [("Max", -np.inf), ("Min", np.inf)])
def test_an_infinite_end_chooses_nothing(op: str, end: float) -> None:
    check(op, {"x": reals(0, 3, 4)}, {"end": np.asarray(end, np.float32)})


def test_comparisons_and_choice() -> None:
    a, b = reals(0, 4, 5).round(), reals(1, 4, 5).round()
    for op in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"):
        check(op, {"a": a, "b": b})
    for op in ("And", "Or", "Xor"):
        check(op, {"a": a > 0, "b": b > 0})
    check("Not", {"a": a > 0})
    check("Where", {"c": a > 0, "a": a, "b": b})


def test_cast() -> None:
    x = reals(0, 20, low=-9, high=9)
    for to in (6, 7, 9, 1, 3):  # int32, int64, bool, float, int8
        check("Cast", {"x": x}, to=to)


# ---------------------------------------------------------------- products


@given(seeds, st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.booleans(),
       st.booleans(), st.sampled_from([None, (), (1,), "n", (1, "n"), ("m", "n"), ("m", 1)]),
       st.sampled_from([1.0, 0.5]), st.sampled_from([1.0, 2.0, 0.0]), st.booleans())  # fmt: skip
@settings(max_examples=80)
def test_gemm(
    seed: int, m: int, k: int, n: int, ta: bool, tb: bool, c: Any, alpha: float, beta: float,
    constant: bool,
) -> None:  # fmt: skip
    a = reals(seed, *((k, m) if ta else (m, k)))
    b = reals(seed + 1, *((n, k) if tb else (k, n)))
    named: dict[Any, Any] = {"m": m, "n": n}
    others = {"b": b}
    if c is not None:
        shape = [named.get(d, d) for d in ((c,) if c == "n" else c)]
        others["c"] = reals(seed + 2, *shape)
    inputs, constants = ({"a": a}, others) if constant else ({"a": a, **others}, {})
    check("Gemm", inputs, constants, transA=int(ta), transB=int(tb), alpha=alpha, beta=beta)


MATMULS = [((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)), ((3,), (3,)),
           ((3,), (3, 4)), ((2, 3), (3,)), ((5, 2, 3), (3,)), ((3,), (5, 3, 4)),
           ((1, 6, 2, 3), (5, 1, 3, 4))]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), MATMULS)
@pytest.mark.parametrize("constant", [False, True])
def test_matmul(a: tuple[int, ...], b: tuple[int, ...], constant: bool) -> None:
    x, y = {"a": reals(0, *a)}, {"b": reals(1, *b)}
    graph = check("MatMul", x, y) if constant else check("MatMul", {**x, **y})
    ops = {v.op for v in graph.order}
    assert ("linear" in ops) == (constant and len(b) == 2 and len(a) > 1)


# ---------------------------------------------------------------- reductions, softmax, norms

REDUCTIONS = ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2",
              "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"]  # fmt: skip


@given(st.sampled_from(REDUCTIONS), st.sampled_from([11, 13, 18]), seeds, st.booleans(), st.data())
@settings(max_examples=100)
def test_reduce(op: str, opset: int, seed: int, keep: bool, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axes = data.draw(st.none() | st.lists(st.integers(-len(shape), len(shape) - 1), min_size=1,
                                          unique_by=lambda a: a % len(shape)))  # fmt: skip
    x = {"x": reals(seed, *shape, low=0.1)}
    as_input = opset >= (13 if op == "ReduceSum" else 18)
    if as_input and axes is not None:
        check(op, x, {"axes": i64(*axes)}, opset=opset, keepdims=int(keep))
    else:
        check(op, x, opset=opset, keepdims=int(keep), axes=None if as_input else axes)


@pytest.mark.parametrize("all_of_it", [-np.inf, np.inf])
def test_the_log_of_a_sum_of_what_is_infinite(all_of_it: float) -> None:
    """Rows that are masked, whole or in part."""
    x = reals(0, 3, 4)
    x[0], x[1, 2] = all_of_it, all_of_it
    proto = model([node("ReduceLogSumExp", ["x"], axes=[1])], {"x": x}, opset=13)
    with np.errstate(divide="ignore"):
        found = evaluate(load(proto), {"x": x})["y"]
    np.testing.assert_allclose(found, reference(proto, {"x": x})["y"], rtol=1e-6)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [11, 12, 13, 17])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1])
def test_softmax_flattens_before_13(op: str, opset: int, axis: int | None) -> None:
    check(op, {"x": reals(0, 2, 3, 4)}, opset=opset, axis=axis)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("opset", [7, 9, 15])
def test_batch_norm(shape: tuple[int, ...], opset: int) -> None:
    constants = {n: reals(i, 3, low=0.2) for i, n in enumerate(("scale", "bias", "mean", "var"))}
    check("BatchNormalization", {"x": reals(9, *shape)}, constants, opset=opset, epsilon=1e-3)


@pytest.mark.parametrize("opset", [7, 10, 12, 13])
def test_dropout_vanishes(opset: int) -> None:
    graph = check("Dropout", {"x": reals(0, 3)}, opset=opset)
    assert [v.op for v in graph.order] == ["input"]

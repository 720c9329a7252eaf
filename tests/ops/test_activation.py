"""Functions of one element: against onnxruntime, and their tables against the reals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc import fixedpoint
from irc.errors import IRCError, TypeCheckError
from irc.ops import activation as ops
from irc.ops import functions, logic, prelu, unary
from irc.ops.core import Const, Input
from irc.ops.interpolate import (
    Interpolate,
    WideLookup,
    followed,
    interpolated,
    straightness,
)
from irc.ops.normalization import BatchNorm
from irc.ops.quantization import Lookup, Requantize
from irc.types import Array, DType, Quant, Shape, TensorType
from irc.value import OPS, Value
from tests.ops.peer import run
from tests.ops.real_steps import fitted, quantized_input, steps_off

# Op, attributes (ONNX has them by the same names), ONNX operator.
CASES: list[tuple[type[unary.Unary], dict[str, Any], str]] = [
    (ops.Relu, {}, "Relu"),
    (ops.LeakyRelu, {"alpha": 0.3}, "LeakyRelu"),
    (ops.Sigmoid, {}, "Sigmoid"),
    (ops.Tanh, {}, "Tanh"),
    (ops.HardSigmoid, {"alpha": 0.3, "beta": 0.4}, "HardSigmoid"),
    (ops.HardSigmoid, {}, "HardSigmoid"),
    (ops.HardSwish, {}, "HardSwish"),
    (ops.Gelu, {}, "Gelu"),
    (ops.Gelu, {"approximate": "tanh"}, "Gelu"),
    (ops.Elu, {"alpha": 0.7}, "Elu"),
    (ops.Selu, {}, "Selu"),
    (ops.Selu, {"alpha": 1.5, "gamma": 1.2}, "Selu"),
    (ops.Softplus, {}, "Softplus"),
    (ops.Softsign, {}, "Softsign"),
    (ops.Mish, {}, "Mish"),
    (unary.Exp, {}, "Exp"),
    (unary.Log, {}, "Log"),
    (unary.Sqrt, {}, "Sqrt"),
    (unary.Neg, {}, "Neg"),
    (unary.Abs, {}, "Abs"),
    (unary.Sign, {}, "Sign"),
    (unary.Erf, {}, "Erf"),
    (unary.Reciprocal, {}, "Reciprocal"),
    (unary.Floor, {}, "Floor"),
    (unary.Ceil, {}, "Ceil"),
    (unary.Round, {}, "Round"),
    (unary.Sin, {}, "Sin"),
    (unary.Cos, {}, "Cos"),
    (functions.Tan, {}, "Tan"),
    (functions.Asin, {}, "Asin"),
    (functions.Acos, {}, "Acos"),
    (functions.Atan, {}, "Atan"),
    (functions.Sinh, {}, "Sinh"),
    (functions.Cosh, {}, "Cosh"),
    (functions.Asinh, {}, "Asinh"),
    (functions.Acosh, {}, "Acosh"),
    (functions.Atanh, {}, "Atanh"),
    (functions.ThresholdedRelu, {"alpha": 0.8}, "ThresholdedRelu"),
]


def real_input(name: str, shape: Shape) -> Input:
    return Input(DType.F32, shape, name=name)


@pytest.mark.parametrize(("cls", "attributes", "op_type"), CASES)
def test_function_is_the_onnx_operator(
    cls: type[unary.Unary], attributes: dict[str, Any], op_type: str
) -> None:
    special = [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 60.0, -60.0, 1e-6, -3.0, 3.0]
    x = np.concatenate([special, np.random.default_rng(0).normal(0, 4, 500)]).astype(np.float32)
    x = x.reshape(16, 32)
    node = cls(real_input("x", x.shape), **attributes)
    found = node.evaluate(x)
    assert found.shape == x.shape
    assert found.dtype == np.float32
    expected = run(op_type, [x], **attributes)
    # onnxruntime's polynomials of tanh, erf and exp are good to a few 1e-6 in absolute terms.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=5e-6)


def test_no_function_is_left_out() -> None:
    tested = {cls for cls, *_ in CASES} | {ops.Clip, ops.Silu, functions.Shrink}
    assert {cls for cls in OPS.values() if issubclass(cls, unary.Unary)} == tested


def test_shrink_is_the_onnx_operator() -> None:
    x = np.random.default_rng(0).normal(0, 1, 300).astype(np.float32)
    ours = functions.Shrink(real_input("x", x.shape), threshold=0.4, bias=0.1).evaluate(x)
    np.testing.assert_allclose(ours, run("Shrink", [x], lambd=0.4, bias=0.1), atol=1e-6)


def test_silu_is_x_times_sigmoid() -> None:
    x = np.random.default_rng(0).normal(0, 9, 300).astype(np.float32)
    expected = x * run("Sigmoid", [x])
    np.testing.assert_allclose(ops.Silu(real_input("x", x.shape)).evaluate(x), expected, atol=2e-5)


@pytest.mark.parametrize(("lo", "hi"), [(0.0, 6.0), (-1.5, math.inf), (-math.inf, 0.1), (2.0, 1.0)])
def test_clip_is_the_onnx_operator(lo: float, hi: float) -> None:
    x = np.random.default_rng(0).normal(0, 9, 300).astype(np.float32)
    expected = run("Clip", [x, np.array(lo, np.float32), np.array(hi, np.float32)])
    found = ops.Clip(real_input("x", x.shape), lo, hi).evaluate(x)
    np.testing.assert_array_equal(found, expected)


def test_clamps_keep_nan() -> None:
    x = np.array([np.nan, 1.0], np.float32)
    np.testing.assert_array_equal(ops.Relu(real_input("x", (2,))).evaluate(x), x)


def test_plain_integers_stay_exact() -> None:
    x = Input(DType.I64, (3,), name="x")
    large = np.array([2**62 + 1, -(2**62) - 1, 0])
    np.testing.assert_array_equal(unary.Neg(x).evaluate(large), -large)
    np.testing.assert_array_equal(unary.Abs(x).evaluate(large), abs(large))
    np.testing.assert_array_equal(unary.Sign(x).evaluate(large), [1, -1, 0])
    assert unary.Neg(x).type.dtype is DType.I64
    with pytest.raises(TypeCheckError, match="must be float"):
        unary.Exp(x)
    with pytest.raises(TypeCheckError, match="must be float"):
        unary.Neg(Input(DType.U8, (3,), Quant(1.0, 0), name="q"))


def test_not_negates_booleans() -> None:
    node = logic.Not(Input(DType.BOOL, (2,), name="x"))
    np.testing.assert_array_equal(node.evaluate(np.array([True, False])), [False, True])
    with pytest.raises(TypeCheckError, match="must be b1"):
        logic.Not(real_input("x", (2,)))


def test_gelu_names_its_formulas() -> None:
    with pytest.raises(TypeCheckError, match='"none" or "tanh"'):
        ops.Gelu(real_input("x", (1,)), "erf")


@pytest.mark.parametrize(("cls", "attributes"), [(c[0], c[1]) for c in CASES])
@pytest.mark.parametrize("source", [DType.U8, DType.I8])
@pytest.mark.parametrize("target", [DType.U8, DType.I8])
def test_twin_is_the_rounded_function(
    cls: type[unary.Unary], attributes: dict[str, Any], source: DType, target: DType
) -> None:
    x, q, real = quantized_input("x", np.linspace(-7.3, 5.1, 256), source)
    node = cls(real_input("x", x.shape), **attributes, name="f")
    with np.errstate(all="ignore"):
        expected = node.fn(real)
    usable = expected[np.isfinite(expected)]
    made = node.quantized((x,), fitted(usable, target).with_shape(x.shape))
    assert made.name == "f"
    assert made.type.dtype is target
    # Tables round once by (2); a clamp goes through (6), whose halves round up.
    allowed = 1 if isinstance(made, Requantize) else 0
    assert steps_off(made, {x: q}, expected).max() <= allowed


@pytest.mark.parametrize("target", [DType.U8, DType.I8])
def test_clip_becomes_the_clamp_of_requantize(target: DType) -> None:
    x, q, real = quantized_input("x", np.linspace(-7.3, 9.1, 256), DType.U8)
    result = TensorType(target, x.shape, Quant(0.05, target.min + 20))
    made = ops.Clip(real_input("x", x.shape), 0.0, 6.0).quantized((x,), result)
    assert isinstance(made, Requantize)
    assert made.clamp == (target.min + 20, target.min + 140)
    assert steps_off(made, {x: q}, np.clip(real, 0, 6)).max() <= 1


def test_a_table_reads_eight_bits_or_the_upper_ones_of_sixteen() -> None:
    result, tanh = TensorType(DType.I16, (2,), Quant(0.1, 0)), ops.Tanh(real_input("x", (2,)))
    x = Input(DType.I16, (2,), Quant(0.1, 0), name="x")
    made = tanh.quantized((x,), result)
    assert (made.op, made.operands[0].op) == ("lookup", "requantize")
    x = Input(DType.I32, (2,), Quant(0.1, 0), name="x")
    with pytest.raises(IRCError, match="8-bit"):
        tanh.quantized((x,), result)


@pytest.mark.parametrize("slope", [(), (1,), (5,), (3, 1), (2, 3, 5)])
def test_prelu_is_the_onnx_operator(slope: Shape) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 5)).astype(np.float32)
    a = rng.normal(size=slope).astype(np.float32)
    found = prelu.PRelu(real_input("x", x.shape), real_input("slope", slope)).evaluate(x, a)
    np.testing.assert_allclose(found, run("PRelu", [x, a]), rtol=1e-6)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    slope=st.sampled_from([(), (1,), (5,), (3, 1), (2, 3, 5)]),
    source=st.sampled_from([DType.U8, DType.I8]),
    target=st.sampled_from([DType.U8, DType.I8]),
    quantize=st.booleans(),
)
def test_prelu_twin_is_within_a_step(
    seed: int, slope: Shape, source: DType, target: DType, quantize: bool
) -> None:
    rng = np.random.default_rng(seed)
    x, q, real = quantized_input("x", rng.normal(size=(2, 3, 5)), source)
    a = Const(rng.normal(size=slope).astype(np.float32))
    given: Const = a
    slopes: Array = a.array.astype(np.float64)
    if quantize:
        quant = Quant(float(np.abs(slopes).max()) / 127)
        given = Const(np.rint(slopes / quant.tensor_scale).astype(np.int8), quant)
        slopes = fixedpoint.dequantize(given.array, given.type, DType.F64)
    expected = np.where(real < 0, slopes * real, real)
    node: Value = prelu.PRelu(real_input("x", x.shape), a)
    made = node.quantized((x, given), fitted(expected, target))
    assert isinstance(made, Lookup if a.type.size == 1 else prelu.QPRelu)
    assert steps_off(made, {x: q}, expected).max() <= 1


@pytest.mark.parametrize("steep", [1.0, 2.0**20])
def test_slopes_that_leave_32_bits_are_computed_in_64(steep: float) -> None:
    x, q, real = quantized_input("x", np.linspace(-1, 1, 30).reshape(2, 3, 5), DType.I16)
    slopes = np.array([0.5, steep, -0.25, 1.0, 0.0])
    node: Value = prelu.PRelu(real_input("x", x.shape), Const(slopes.astype(np.float32)))
    expected = np.where(real < 0, slopes * real, real)
    made = node.quantized((x, node.operands[1]), fitted(real, DType.U8))
    assert isinstance(made, prelu.QPRelu)
    assert made.wide == (steep > 1)
    assert steps_off(made, {x: q}, expected.clip(real.min(), real.max())).max() <= 1
    if made.wide:
        with pytest.raises(IRCError, match="set wide"):
            made.replace(wide=False)


def every_word(scale: float) -> tuple[Input, Array]:
    """An input of 16 bits around zero, and every value of it."""
    return Input(DType.I16, (1 << 16,), Quant(scale), name="x"), np.arange(-(1 << 15), 1 << 15)


@pytest.mark.parametrize("target", [DType.U8, DType.I8, DType.I16])
@pytest.mark.parametrize("op", [ops.HardSwish, ops.Silu, ops.Sigmoid, ops.Tanh])
def test_functions_of_16_bits_are_within_a_step_of_8(op: Any, target: DType) -> None:
    x, q = every_word(12 / 32767)
    fn = op(real_input("x", x.shape)).fn
    expected = fn(q * x.type.scale)
    scale = float(np.ptp(expected)) / (2**target.bits - 1)
    zero = round(target.min - float(expected.min()) / scale)
    result = TensorType(target, x.shape, Quant(scale, zero))
    made = interpolated(x, fn, result, "f")
    steps = steps_off(made, {x: q.astype(np.int16)}, expected).max()
    assert steps <= (1 if target.bits == 8 else 64)
    assert straightness(fn, x.type) < 1 / 1024


@pytest.mark.parametrize(
    ("op", "reach", "entries"),
    [
        (ops.Sigmoid, 128, 1025),
        (ops.Sigmoid, 256, 4097),
        (ops.Tanh, 256, 4097),
        (ops.Tanh, 1000, 65536),
        (unary.Sqrt, 1, 65536),
    ],
)
@pytest.mark.parametrize("target", [DType.U8, DType.I16])
def test_tables_have_as_few_entries_as_do(
    op: Any, reach: float, entries: int, target: DType
) -> None:
    """The steeper a function is for its operand's steps, the more."""
    x, q = every_word(reach / 32767)
    fn = op(real_input("x", x.shape)).fn
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(fn(q * x.type.scale))
    scale = 2 / 255 if target is DType.U8 else 2.0**-15
    result = TensorType(target, x.shape, Quant(scale, 128 if target is DType.U8 else 0))
    made = followed(x, fn, result, "f")
    assert isinstance(made, Interpolate | WideLookup)
    assert made.table.type.size == entries
    near = steps_off(made, {x: q.astype(np.int16)}, expected.clip(-1, 1 - 2.0**-15)).max()
    assert near <= (1 if target is DType.U8 else 0.25 * 256 + 1)


def test_functions_that_lines_miss_are_refused() -> None:
    x, _ = every_word(1 / 32767)
    poles = unary.Reciprocal(real_input("x", x.shape)).fn
    assert straightness(poles, x.type) == np.inf
    with pytest.raises(IRCError, match=r"f: straight lines .* miss it"):
        interpolated(x, poles, TensorType(DType.U8, x.shape, Quant(100.0)), "f")


def test_batch_norm_is_the_onnx_operator() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 3, 5)).astype(np.float32)
    scale, bias, mean = (rng.normal(size=4).astype(np.float32) for _ in range(3))
    var = rng.uniform(0.1, 2, 4).astype(np.float32)
    image, vector = real_input("x", x.shape), real_input("v", (4,))
    node = BatchNorm(image, vector, vector, vector, vector, epsilon=1e-3, axis=1)
    found = node.evaluate(x, scale, bias, mean, var)
    expected = run("BatchNormalization", [x, scale, bias, mean, var], epsilon=1e-3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(TypeCheckError, match="scale must be"):
        node.replace(axis=3)

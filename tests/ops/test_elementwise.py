"""Functions of two elements: against onnxruntime, and their twins against the reals."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc import fixedpoint
from irc.errors import IRCError, TypeCheckError
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Binary, Div, Maximum, Minimum, Mul, Pow, Sub
from irc.ops.qelementwise import QAdd, QDiv, QMul
from irc.ops.quantization import Lookup
from irc.types import Array, DType, Quant, Shape, TensorType
from tests.ops.peer import run
from tests.ops.real_steps import fitted, quantized_input, steps_off

CASES: list[tuple[type[Binary], str]] = [
    (Add, "Add"), (Sub, "Sub"), (Mul, "Mul"), (Div, "Div"), (Pow, "Pow"),
    (Minimum, "Min"), (Maximum, "Max"),
]  # fmt: skip
SHAPES: list[tuple[Shape, Shape]] = [
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((), (2, 3)),
    ((4, 1, 3), (2, 1)),
    ((1, 1, 2), (2, 2, 3, 1, 1)),
]
EIGHT = st.sampled_from([DType.U8, DType.I8])


def node_of(cls: type[Binary], a: Array, b: Array) -> Binary:
    """The op over inputs like these arrays."""
    x, y = (Input(DType.of(v.dtype), v.shape, name=n) for n, v in (("a", a), ("b", b)))
    return cls(x, y, name="f")


@pytest.mark.parametrize(("cls", "op_type"), CASES)
@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_floats_are_the_onnx_operator(
    cls: type[Binary], op_type: str, left: Shape, right: Shape
) -> None:
    rng = np.random.default_rng(0)
    a = np.asarray(rng.normal(size=left), np.float32)
    b = np.asarray(rng.normal(size=right), np.float32)
    node = node_of(cls, a, b)
    found = node.evaluate(a, b)
    assert found.shape == node.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, run(op_type, [a, b]), rtol=1e-5)


@pytest.mark.parametrize(("cls", "op_type"), CASES)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_plain_integers_are_the_onnx_operator(
    cls: type[Binary], op_type: str, dtype: type[np.integer]
) -> None:
    a = np.asarray([7, -7, 7, -7, 6, -6, 0, 5], dtype)
    b = np.asarray([2, 2, -2, -2, 3, 3, 9, 1], dtype)
    b = np.abs(b) if cls is Pow else b
    node = node_of(cls, a, b)
    found = node.evaluate(a, b)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, run(op_type, [a, b]))


def test_large_integers_divide_exactly() -> None:
    a, b = np.array([2**62 + 1, -(2**62) - 1]), np.array([2, 2])
    np.testing.assert_array_equal(node_of(Div, a, b).evaluate(a, b), [2**61, -(2**61)])
    np.testing.assert_array_equal(node_of(Div, a, b).evaluate(a, b * 0), a)


def test_operands_must_be_of_one_kind() -> None:
    f, i = Input(DType.F32, (2,), name="f"), Input(DType.I64, (2,), name="i")
    q = Input(DType.U8, (2,), Quant(0.5, 3), name="q")
    with pytest.raises(TypeCheckError, match="one dtype"):
        Add(f, i)
    with pytest.raises(TypeCheckError, match="use qadd"):
        Add(q, q)
    with pytest.raises(TypeCheckError, match="quantized alike"):
        Minimum(q, Input(DType.U8, (2,), Quant(0.5, 4), name="r"))
    with pytest.raises(TypeCheckError, match="do not broadcast"):
        Mul(f, Input(DType.F32, (3,), name="g"))


TWINS = [(Add, QAdd), (Sub, QAdd), (Mul, QMul), (Div, QDiv), (Minimum, Minimum), (Maximum, Maximum)]


@pytest.mark.parametrize(("cls", "twin"), TWINS)
@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtypes=st.tuples(EIGHT, EIGHT, EIGHT),
    shapes=st.sampled_from(SHAPES),
    spread=st.floats(0.01, 100),
    constant=st.booleans(),
)
def test_twin_is_within_a_step(
    cls: type[Binary],
    twin: type,
    seed: int,
    dtypes: tuple[DType, DType, DType],
    shapes: tuple[Shape, Shape],
    spread: float,
    constant: bool,
) -> None:
    rng = np.random.default_rng(seed)
    a, aq, a_real = quantized_input("a", np.asarray(rng.normal(size=shapes[0])), dtypes[0])
    second = np.asarray(rng.normal(size=shapes[1]) * spread)
    b, bq, b_real = quantized_input("b", second, dtypes[1])
    node = node_of(cls, a_real, b_real)
    with np.errstate(all="ignore"):
        real = node.fn(a_real, b_real)
    finite = real[np.isfinite(real)]
    result = fitted(finite if finite.size else np.zeros(1), dtypes[2]).with_shape(node.shape)
    if constant:
        made = node.quantized((a, Const(bq, b.quant)), result)
        assert isinstance(made, Lookup if bq.size == 1 and node.shape == a.shape else twin)
        feeds = {a: aq}
    else:
        made, feeds = node.quantized((a, b), result), {a: aq, b: bq}
        assert isinstance(made, twin)
    assert (made.name, made.type.dtype, made.type.quant) == ("f", result.dtype, result.quant)
    assert steps_off(made, feeds, real).max() <= 1


@given(exponent=st.sampled_from([2.0, 0.5, 3.0, -1.0]), source=EIGHT, target=EIGHT)
def test_powers_by_a_constant_are_tables(exponent: float, source: DType, target: DType) -> None:
    x, q, real = quantized_input("x", np.linspace(0.0, 7.0, 256), source)
    power = Const(np.array(exponent, np.float32))
    node = Pow(Input(DType.F32, x.shape, name="x"), power)
    with np.errstate(all="ignore"):
        expected = real**exponent
    result = fitted(np.minimum(expected, 50), target).with_shape(x.shape)
    made = node.quantized((x, power), result)
    assert isinstance(made, Lookup)
    assert steps_off(made, {x: q}, expected).max() == 0
    with pytest.raises(IRCError, match="no integer form"):
        node.quantized((x, x), result)


@pytest.mark.parametrize("kind", ["i16", "f32", "per axis"])
@pytest.mark.parametrize("cls", [Add, Sub, Mul, Div])
def test_a_constant_keeps_its_precision(cls: type[Binary], kind: str) -> None:
    """A constant of 16 bits next to an activation of 8 costs nothing."""
    rng = np.random.default_rng(0)
    x, q, real = quantized_input("x", rng.normal(size=(64, 16)), DType.U8)
    array = np.asarray(rng.uniform(0.3, 2, size=16) * rng.choice([-1, 1], 16), np.float32)
    c = Const(array)
    if kind == "i16":
        quant = Quant(float(np.abs(array).max()) / 32767)
        c = Const(np.rint(array / quant.tensor_scale).astype(np.int16), quant)
    elif kind == "per axis":
        along = Quant(tuple(float(v) for v in np.abs(array)), 0, 0)
        c = Const(np.sign(array).astype(np.int8), along)
    node = cls(Input(DType.F32, x.shape, name="x"), Input(DType.F32, (16,), name="c"))
    expected = node.fn(real, array.astype(np.float64))
    off = steps_off(node.quantized((x, c), fitted(expected, DType.I8)), {x: q}, expected)
    assert off.max() <= 1
    assert (off > 0).mean() < 0.01


@given(
    a=st.integers(-255, 255),
    b=st.integers(-255, 255),
    factor=st.floats(-30, 20).map(lambda e: 2.0**e),
)
def test_quotients_are_rounded_once(a: int, b: int, factor: float) -> None:
    m, s = fixedpoint.quotient_multiplier(factor)
    bounds = (-(2**31), 2**31 - 1)
    found = int(fixedpoint.quotient(np.array(a), np.array(b), m, s, 0, bounds, DType.I64))
    if b == 0:
        assert found == (bounds[1] if a > 0 else bounds[0] if a < 0 else 0)
        return
    exact = floor(Fraction(a * m, b * 2**s) + Fraction(1, 2))
    assert found == min(max(exact, bounds[0]), bounds[1])


@given(
    factors=st.tuples(st.floats(1e-6, 1e3), st.floats(-1e3, 1e3)),
    bounds=st.tuples(*[st.sampled_from([128, 255, 32768, 65535])] * 2),
)
def test_common_multipliers_fit_32_bits(
    factors: tuple[float, float], bounds: tuple[int, int]
) -> None:
    terms, s = fixedpoint.common_multipliers(factors, bounds)
    largest = sum(abs(t) * b for t, b in zip(terms, bounds, strict=True)) + 2 ** (s - 1)
    assert largest < 2**31
    for term, factor in zip(terms, factors, strict=True):
        assert abs(term - factor * 2**s) <= 0.5
    # One shift more would not fit, unless it is the largest.
    assert s == 30 or 2 * largest + 2 >= 2**31 - sum(bounds)


def test_sums_that_leave_32_bits_are_refused() -> None:
    x = Input(DType.U8, (2,), Quant(1.0, 0), name="x")
    with pytest.raises(TypeCheckError, match="leave 32 bits"):
        QAdd(x, x, 2**23, 2**23, 2, (0, 255), DType.U8, Quant(1.0, 0))
    wide = TensorType(DType.I16, (2,), Quant(1.0, -32768))
    y = Input.of(wide, "y")
    with pytest.raises(TypeCheckError, match="leave 32 bits"):
        QMul(y, y, 2**29, 60, (0, 255), DType.U8, Quant(1.0, 0))

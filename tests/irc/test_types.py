import numpy as np
import pytest

from irc.errors import TypeCheckError
from irc.types import DType, Quant, TensorType, broadcast_shapes


@pytest.mark.parametrize("dtype", list(DType))
def test_every_dtype_is_its_numpy_dtype(dtype: DType) -> None:
    assert DType.of(dtype.numpy) is dtype
    assert DType(dtype.value) is dtype
    assert dtype.bits == 8 * np.zeros(1, dtype.numpy).nbytes
    assert dtype.is_float + dtype.is_integer + (dtype is DType.BOOL) == 1


@pytest.mark.parametrize("dtype", [d for d in DType if d.is_integer])
def test_bounds_are_what_fits(dtype: DType) -> None:
    assert np.asarray([dtype.min, dtype.max], dtype.numpy).tolist() == [dtype.min, dtype.max]
    with pytest.raises(OverflowError):
        np.asarray([dtype.max + 1], dtype.numpy)


def test_a_dtype_that_we_lack() -> None:
    with pytest.raises(TypeCheckError, match="complex64"):
        DType.of(np.complex64)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_are_positive_and_finite(scale: float) -> None:
    with pytest.raises(TypeCheckError, match="positive"):
        Quant(scale)
    with pytest.raises(TypeCheckError, match="positive"):
        Quant((1.0, scale), axis=0)


def test_one_scale_has_no_axis_and_several_have_one() -> None:
    with pytest.raises(TypeCheckError, match="axis"):
        Quant(1.0, axis=0)
    with pytest.raises(TypeCheckError, match="axis"):
        Quant((1.0, 2.0))


def test_what_is_per_tensor_and_what_along_an_axis() -> None:
    one, several = Quant(0.5, 3), Quant((0.5, 1.0), (3, 4), axis=0)
    assert (one.tensor_scale, one.zero, one.scales) == (0.5, 3, (0.5,))
    assert several.scales == (0.5, 1.0)
    with pytest.raises(TypeCheckError, match="per-tensor"):
        _ = several.tensor_scale
    with pytest.raises(TypeCheckError, match="zero point"):
        _ = several.zero


def test_tensor_types() -> None:
    t = TensorType(DType.I32, (2, 3), Quant(0.5, 7))
    assert (t.rank, t.size, t.nbytes, t.zero, t.scale) == (2, 6, 24, 7, 0.5)
    assert t.with_shape((6,)) == TensorType(DType.I32, (6,), Quant(0.5, 7))
    assert TensorType(DType.F32, (0, 3)).size == 0
    assert TensorType(DType.F32, ()).size == 1
    assert TensorType(DType.U8, (2,)).zero == 0
    along = TensorType(DType.I8, (2, 3), Quant((0.5, 1.0), axis=0))
    assert along.with_shape((6,)).quant is None
    with pytest.raises(TypeCheckError, match="no scale"):
        _ = TensorType(DType.U8, (2,)).scale


def test_types_that_make_no_sense() -> None:
    with pytest.raises(TypeCheckError, match="negative"):
        TensorType(DType.U8, (2, -1))
    with pytest.raises(TypeCheckError, match="f32"):
        TensorType(DType.F32, (2,), Quant(1.0))


def test_how_types_read() -> None:
    assert str(TensorType(DType.U8, (1, 2), Quant(0.1, 3))) == "u8[1,2] q(0.1, 3)"
    assert str(TensorType(DType.BOOL, ())) == "b1[]"
    assert str(TensorType(DType.I8, (2,), Quant((1.0, 2.0), axis=0))) == "i8[2] q(per axis 0)"


def test_broadcasting() -> None:
    assert broadcast_shapes((2, 1), (3,), ()) == (2, 3)
    assert broadcast_shapes((0, 1), (1, 5)) == (0, 5)
    with pytest.raises(TypeCheckError, match=r"\[2\] and \[3\]"):
        broadcast_shapes((2,), (3,))

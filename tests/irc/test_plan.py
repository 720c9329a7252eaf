from hypothesis import given
from hypothesis import strategies as st

from irc.plan import ARENA, Buffer, aligned, dense_strides
from irc.types import DType, TensorType

SHAPES = st.lists(st.integers(1, 5), max_size=4).map(tuple)


@given(SHAPES)
def test_dense_buffers_are_dense(shape: tuple[int, ...]) -> None:
    t = TensorType(DType.I32, shape)
    buffer = Buffer.dense(64, shape)
    assert buffer == Buffer(64, dense_strides(shape), ARENA)
    assert buffer.is_dense(t)
    assert buffer.extent(t) == t.nbytes


@given(SHAPES, st.integers(1, 3))
def test_strides_of_an_axis_of_one_do_not_matter(shape: tuple[int, ...], factor: int) -> None:
    t = TensorType(DType.U8, shape)
    strides = tuple(s * factor for s in dense_strides(shape))
    buffer = Buffer(0, strides)
    assert buffer.is_dense(t) == (factor == 1 or t.size == 1)
    assert buffer.extent(t) == (t.size - 1) * factor + 1


def test_an_empty_tensor_takes_nothing() -> None:
    t = TensorType(DType.U8, (2, 0, 3))
    assert Buffer.dense(0, t.shape).extent(t) == 0


def test_rows_with_gaps() -> None:
    t = TensorType(DType.I16, (2, 3))
    buffer = Buffer(10, (8, 1), "input x")
    assert not buffer.is_dense(t)
    assert buffer.extent(t) == (8 + 2 + 1) * 2


@given(st.integers(0, 10**6), st.integers(0, 8))
def test_aligned(offset: int, power: int) -> None:
    made = aligned(offset, 2**power)
    assert made % 2**power == 0
    assert 0 <= made - offset < 2**power

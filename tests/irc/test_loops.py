"""The expression language: typing, folding, and what nests mean."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc.errors import TypeCheckError
from irc.fixedpoint import mul_shift
from irc.interpret import interpret
from irc.loops import (
    Cast,
    Compare,
    Expr,
    Int,
    Load,
    Loops,
    MulShift,
    Nest,
    Numbering,
    Reduce,
    Select,
    Temp,
    Var,
    axes,
    binary,
    clamp,
    elementwise,
    load,
    load_broadcast,
    maximum,
    minimum,
    substitute,
    transform,
    walk,
)
from irc.ops.core import Input
from irc.ops.scatter import Scatter
from irc.types import Array, DType
from irc.value import Value

X = Input(DType.I32, (2, 3), name="x")
DATA = np.arange(6, dtype=np.int32).reshape(2, 3) - 2


def run(value: Any, shape: tuple[int, ...] = (2, 3)) -> list[Any]:
    made: list[Any] = interpret(elementwise(shape, value), {X: DATA}).tolist()
    return made


KINDS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul,
    "floordiv": operator.floordiv, "mod": operator.mod, "min": min, "max": max,
    "and": operator.and_, "or": operator.or_, "xor": operator.xor,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@given(a=st.integers(-100, 100), b=st.integers(-100, 100))
def test_arithmetic_is_pythons(kind: Any, a: int, b: int) -> None:
    if kind in ("floordiv", "mod") and b == 0:
        return
    expected = KINDS[kind](a, b)
    folded = binary(kind, Int(a, DType.I32), Int(b, DType.I32))
    assert isinstance(folded, Int)
    assert folded.value == expected
    data: dict[Value, Array] = {X: np.full((2, 3), a, np.int32)}
    nest = elementwise((2, 3), lambda i, j: binary(kind, load(X, i, j), b))
    assert interpret(nest, data).tolist() == [[expected] * 3] * 2


@given(a=st.integers(-(2**20), 2**20), s=st.integers(0, 10))
def test_shifts_are_arithmetic(a: int, s: int) -> None:
    data: dict[Value, Array] = {X: np.full((2, 3), a, np.int32)}
    right = interpret(elementwise((1,), lambda i: load(X, i, i) >> s), data)
    left = interpret(elementwise((1,), lambda i: load(X, i, i) << s), data)
    assert (right[0], left[0]) == (a // 2**s, a * 2**s)


def test_operators_on_both_sides() -> None:
    assert run(lambda i, j: 1 + load(X, i, j) * 2 - 3) == (DATA * 2 - 2).tolist()
    assert run(lambda i, j: 10 - load(X, i, j)) == (10 - DATA).tolist()
    assert run(lambda i, j: (load(X, i, j) // 2) % 3) == ((DATA // 2) % 3).tolist()
    assert run(lambda i, j: (load(X, i, j) & 3 | 4) ^ 1) == ((DATA & 3 | 4) ^ 1).tolist()


def test_comparisons_and_choices() -> None:
    def x(i: Expr, j: Expr) -> Expr:
        return load(X, i, j)

    assert run(lambda i, j: x(i, j) < 0) == (DATA < 0).tolist()
    assert run(lambda i, j: x(i, j) >= 0) == (DATA >= 0).tolist()
    assert run(lambda i, j: x(i, j).equals(1)) == (DATA == 1).tolist()
    assert run(lambda i, j: Select(x(i, j) > 1, x(i, j), Int(7, DType.I32))) == (
        np.where(DATA > 1, DATA, 7).tolist()
    )
    assert run(lambda i, j: clamp(x(i, j), -1, 2)) == np.clip(DATA, -1, 2).tolist()
    assert run(lambda i, j: maximum(minimum(x(i, j), 2), -1)) == np.clip(DATA, -1, 2).tolist()


def test_loads_outside_give_the_fill_or_fail() -> None:
    shifted = run(lambda i, j: load(X, i, j - 1, fill=99))
    assert shifted == [[99, -2, -1], [99, 1, 2]]
    with pytest.raises(IndexError):
        run(lambda i, j: load(X, i, j + 1))


def test_broadcasting_loads() -> None:
    row = Input(DType.I32, (1, 3), name="row")
    nest = elementwise((2, 2, 3), lambda *i: load_broadcast(row, i))
    made = interpret(nest, {row: np.array([[1, 2, 3]], np.int32)})
    assert made.tolist() == [[[1, 2, 3]] * 2] * 2


@pytest.mark.parametrize(("kind", "f"), [("add", np.sum), ("max", np.max), ("min", np.min)])
def test_reductions(kind: Any, f: Any) -> None:
    j = Var("j", 3)
    rows = elementwise((2,), lambda i: Reduce(kind, (j,), load(X, i, j)))
    assert interpret(rows, {X: DATA}).tolist() == f(DATA, axis=1).tolist()
    i = Var("i", 2)
    both = elementwise((), lambda: Reduce(kind, (i, j), load(X, i, j)))
    assert interpret(both, {X: DATA}) == f(DATA)
    nested = elementwise((), lambda: Reduce("max", (i,), Reduce(kind, (j,), load(X, i, j))))
    assert interpret(nested, {X: DATA}) == f(DATA, axis=1).max()


@given(
    st.integers(-(2**31), 2**31 - 1), st.integers(2**30, 2**31 - 1), st.integers(32, 62)
)
def test_mul_shift_is_equation_6(a: int, m: int, s: int) -> None:
    data: dict[Value, Array] = {X: np.full((2, 3), a, np.int32)}
    value = elementwise(
        (1,), lambda i: MulShift(load(X, i, i), Int(m, DType.I32), Int(s, DType.I8))
    )
    assert interpret(value, data)[0] == mul_shift(a, m, s)


def test_temporaries_are_filled_before_they_are_read() -> None:
    temp = Temp("t", DType.I64, (2,))
    (i,), j = axes((2,)), Var("j", 3)
    first = Nest((i,), Reduce("add", (j,), load(X, i, j)).cast(DType.I64), temp)
    k, m = axes((2, 3))
    second = Nest((k, m), load(temp, k) * 2)
    loops = Loops((first, second))
    assert loops.temps == (temp,)
    assert interpret(loops, {X: DATA}).tolist() == [[-6] * 3, [12] * 3]
    with pytest.raises(TypeCheckError, match="last nest"):
        Loops((second, first))
    with pytest.raises(TypeCheckError, match="last nest"):
        Loops(())


def test_dtypes_must_agree() -> None:
    a, b = Int(1, DType.I32), Int(1, DType.I64)
    with pytest.raises(TypeCheckError, match="add of i32 and i64"):
        _ = a + b
    with pytest.raises(TypeCheckError, match="lt of i32 and i64"):
        _ = a < b
    with pytest.raises(TypeCheckError, match="select of i32 and i64"):
        Select(a < a, a, b)
    assert (a.cast(DType.I64) + b).dtype is DType.I64
    assert isinstance(a < 2, Compare)
    assert (a < 2).dtype is DType.BOOL


def test_numbers_must_fit_and_indices_be_complete() -> None:
    with pytest.raises(TypeCheckError, match="300"):
        Int(300, DType.U8)
    with pytest.raises(TypeCheckError, match="1 indices"):
        load(X, 0)
    with pytest.raises(TypeCheckError, match="fill"):
        Load(X, (Int(0, DType.I64), Int(0, DType.I64)), Int(0, DType.U8))


def test_neutral_elements_vanish() -> None:
    x = load(X, 0, 0)
    for same in (x + 0, 0 + x, x - 0, x * 1, 1 * x, x // 1, x << 0, x >> 0, x | 0, x ^ 0):
        assert same is x
    assert x.cast(DType.I32) is x
    assert isinstance(x.cast(DType.I64), Cast)
    assert (x * 0) is not x


def test_transform_rebuilds_shared_nodes_once() -> None:
    x = load(X, 0, 0)
    shared = x + 1
    e = shared * shared
    calls: list[Expr] = []

    def replace(node: Expr) -> Expr | None:
        calls.append(node)
        return Int(5, DType.I32) if node is x else None

    made = transform(e, replace)
    assert isinstance(made, Int)
    assert made.value == 36
    assert len(calls) == len(set(map(id, calls)))
    assert transform(e, lambda _: None) is e


def test_walk_lists_children_first_and_once() -> None:
    i = Var("i", 3)
    e = Reduce("add", (i,), load(X, 0, i) * load(X, 0, i))
    found = walk(e)
    assert found[-1] is e
    assert len(found) == len(set(map(id, found)))
    assert substitute(e, {i: Int(0, DType.I64)}) is not e


def test_places_of_rows_are_a_numbering() -> None:
    x, updates = (Input(DType.U8, (n, 2), name=f"x{n}") for n in (5, 3))
    scatter = Scatter(x, updates, Input(DType.I64, (3,), name="at"))
    places, rows = scatter.loops().nests
    found = Numbering.of(places)
    assert found is not None
    assert (found.number.extent, found.none.value) == (3, -1)
    assert Numbering.of(rows) is None

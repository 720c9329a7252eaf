import dataclasses

import numpy as np
import pytest

from irc.errors import IRCError, TypeCheckError
from irc.ops.conv import Conv2d
from irc.ops.core import Const, Input, digest
from irc.ops.elementwise import Add
from irc.ops.shape import Concat, Reshape
from irc.types import Array, DType
from irc.value import OPS, Value, attribute_fields, op, operand_fields


def x(name: str = "x") -> Input:
    return Input(DType.F32, (2, 3), name=name)


def conv(bias: Value | None) -> Conv2d:
    image = Input(DType.F32, (1, 4, 4, 2), name="image")
    return Conv2d(image, Const(np.ones((3, 1, 1, 2), np.float32)), bias)


def test_fields_are_operands_or_attributes() -> None:
    assert operand_fields(Conv2d) == ("x", "w", "b")
    assert attribute_fields(Conv2d) == ("strides", "pads", "dilations", "groups")
    assert operand_fields(Concat) == ("xs",)
    for cls in OPS.values():
        names = {f.name for f in dataclasses.fields(cls)}
        assert {*operand_fields(cls), *attribute_fields(cls), "name", "type"} == names


def test_operands_are_flat_and_absent_ones_left_out() -> None:
    a, b = x("a"), x("b")
    assert Concat((a, b, a), 0).operands == (a, b, a)
    assert len(conv(None).operands) == 2
    assert len(conv(Const(np.ones(3, np.float32))).operands) == 3
    assert Concat((a, b), 1).attributes == {"axis": 1}


def test_values_are_compared_by_identity() -> None:
    a = x()
    assert Add(a, a) != Add(a, a)
    assert len({Add(a, a), Add(a, a)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.name = "other"  # type: ignore[misc]


def test_ill_typed_nodes_cant_be_built_and_say_where() -> None:
    with pytest.raises(TypeCheckError, match=r"reshape %y: .*does not fit"):
        Reshape(x(), (7,), name="y")
    with pytest.raises(TypeCheckError, match="concat: "):
        Concat((x(), Input(DType.F32, (3,), name="z")), 0)


def test_replace_infers_anew() -> None:
    y = Reshape(x(), (6,), name="y")
    assert y.replace(dims=(3, 2)).shape == (3, 2)
    assert y.replace(dims=(3, 2)).name == "y"
    with pytest.raises(TypeCheckError):
        y.replace(dims=(5,))


def test_map_operands_keeps_what_does_not_change() -> None:
    a, b = x("a"), x("b")
    y = Concat((a, b, a), 0, name="y")
    assert y.map_operands(lambda v: v) is y
    new = y.map_operands(lambda v: b if v is a else v)
    assert new.xs == (b, b, b)
    assert (new.name, new.axis) == ("y", 0)
    absent = conv(None)
    assert absent.map_operands(lambda v: v) is absent


def test_call_gives_one_argument_per_field() -> None:
    a, b = x("a"), x("b")
    arrays: dict[Value, Array] = {a: np.zeros((2, 3), np.float32), b: np.ones((2, 3), np.float32)}
    assert Concat((a, b), 0).call(arrays.__getitem__).shape == (4, 3)
    assert Add(a, b).call(arrays.__getitem__).tolist() == [[1.0] * 3] * 2


def test_ops_have_one_name_each() -> None:
    with pytest.raises(TypeError, match="registered twice"):
        op("add")(type("Again", (Value,), {"__annotations__": {}}))
    assert all(cls.op == name for name, cls in OPS.items())


def test_what_an_op_lacks_it_says() -> None:
    for lacks in (x().evaluate, Add(x(), x(), name="sum").loops):
        with pytest.raises(IRCError):
            lacks()


def test_constants_are_read_only_and_known_by_content() -> None:
    array = np.arange(3, dtype=np.int32)
    const = Const(array)
    with pytest.raises(ValueError, match="read-only"):
        const.array[0] = 1
    assert const.digest == digest(np.arange(3, dtype=np.int32))
    assert const.digest != digest(np.arange(3, dtype=np.int64))
    assert const.digest != digest(np.arange(3, dtype=np.int32).reshape(3, 1))
    assert len(const.digest) == 12

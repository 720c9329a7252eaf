import math
from typing import Any

import numpy as np
import pytest

from irc.edge import to_integers, to_reals
from irc.errors import DataError
from irc.types import DType, Quant, TensorType

TYPES = {
    "image": TensorType(DType.U8, (2, 2), Quant(0.5, 10)),
    "index": TensorType(DType.I64, (1,)),
}
INDEX = np.array([3])


def test_floats_are_quantized_by_equation_2() -> None:
    image = np.array([[0.25, 0.75], [math.nan, math.inf]], np.float32)
    made, real = to_integers(TYPES, {"image": image, "index": INDEX})
    assert real
    assert made["image"].tolist() == [[10, 12], [10, 255]]
    assert made["image"].dtype == np.uint8
    assert made["index"] is INDEX


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_float_will_do(dtype: Any) -> None:
    made, real = to_integers(TYPES, {"image": np.ones((2, 2), dtype), "index": INDEX})
    assert real
    assert made["image"].tolist() == [[12, 12], [12, 12]]


def test_integers_pass_as_they_are() -> None:
    image = np.full((2, 2), 7, np.uint8)
    made, real = to_integers(TYPES, {"image": image, "index": INDEX})
    assert not real
    assert made["image"] is image


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": np.zeros((2, 2))}, "inputs .*image.* given, the model takes"),
        ({"image": np.zeros((2, 3)), "index": INDEX}, r"input image: shape \[2, 3\] given"),
        ({"image": np.zeros((2, 2), np.int8), "index": INDEX}, "dtype int8 given, u8 or float"),
        ({"image": np.zeros((2, 2)), "index": np.zeros(1)}, "input index: dtype float64 given"),
        ({"image": np.zeros((2, 2), bool), "index": INDEX}, "dtype bool given"),
        ({"image": np.full((2, 2), "a"), "index": INDEX}, "input image: dtype"),
    ],
)
def test_what_does_not_fit(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_integers(TYPES, inputs)


def test_outputs_are_reals_where_they_carry_a_scale() -> None:
    made = to_reals(TYPES, {"image": np.array([[10, 12], [0, 255]], np.uint8), "index": INDEX})
    assert made["image"].tolist() == [[0.0, 1.0], [-5.0, 122.5]]
    assert made["image"].dtype == np.float32
    assert made["index"] is INDEX

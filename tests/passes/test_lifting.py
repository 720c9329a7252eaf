"""Weights of nine bits as eight; what code makes of them is in `tests/backends/test_lifted.py`."""

import numpy as np
import pytest

from irc.passes.lifting import lifted, lifts_of
from tests.passes.rules import check_rule


def test_the_rule() -> None:
    check_rule(lifted)


@pytest.mark.parametrize(
    ("low", "high", "lifts"),
    [
        ([-127, -3], [127, 5], [0, 0]),
        ([-128, -3], [127, 5], [0, 0]),
        ([-100], [155], [28]),  # all 256 numbers: -128 is one of them
        ([-100], [154], [27]),
        ([0], [255], [128]),
        ([-255], [0], [-127]),
        ([-100, 20], [20, 150], [23, 23]),  # one number serves both
        ([-200, 0], [20, 200], [-73, 73]),
        ([-200, 0, -9], [20, 200, 9], [-73, 73, 0]),
    ],
)
def test_the_least_that_leaves_eight_bits(
    low: list[int], high: list[int], lifts: list[int]
) -> None:
    found = lifts_of(np.array(low), np.array(high))
    np.testing.assert_array_equal(found, lifts)

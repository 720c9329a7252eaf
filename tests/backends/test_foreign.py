"""The matrix-product kernel at all its edges on CPUs that are emulated."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc.graph import evaluate
from tests.backends.foreign import EMULATED, run_emulated
from tests.backends.harness import examples
from tests.backends.products import convolutions, joined, linears
from tests.backends.test_gemm import extreme
from tests.ops.sampling import Sample

pytestmark = pytest.mark.slow


def check(drawn: Sample, target: str) -> list[str]:
    """The names of the kernels that were selected, held to the reference."""
    with tempfile.TemporaryDirectory() as folder:
        found, kernels = run_emulated(drawn.graph, drawn.feeds, target, Path(folder))
    for name, wanted in evaluate(drawn.graph, drawn.feeds).items():
        np.testing.assert_array_equal(found[name], wanted, err_msg=f"{target}\n{drawn.graph}")
    return kernels


@pytest.mark.parametrize("target", EMULATED)
@examples(2)
@given(st.lists(convolutions() | linears(), min_size=12, max_size=12))
def test_products(target: str, drawn: list[Sample]) -> None:
    kernels = check(joined(drawn), target)
    assert any(name.startswith("qgemm_u8i8_") for name in kernels)


@pytest.mark.parametrize("target", EMULATED)
@pytest.mark.parametrize("zero", [0, 255])
def test_extremes(target: str, zero: int) -> None:
    weights = [[127], [-127], [127, 127, -127, -127], [127, -127], [0, 0, -127]]
    drawn = [extreme(x, w, zero) for w in weights for x in (0, 127, 128, 255)]
    kernels = check(joined(drawn), target)
    assert all(name.startswith("qgemm_u8i8_") for name in kernels), kernels


@pytest.mark.parametrize("target", EMULATED)
def test_the_least_weight(target: str) -> None:
    kernels = check(joined([extreme(x, [-128], 3) for x in (0, 255)]), target)
    # Two products of 128 by 128 leave the 16 bits in which `smlal` adds them.
    assert all(name.startswith("qgemm_") == (target != "aarch64") for name in kernels), kernels

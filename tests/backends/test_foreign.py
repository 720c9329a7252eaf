"""Kernels at all their edges on CPUs that are emulated."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from irc.backends.llvm.kernels import gemm_loops
from irc.graph import evaluate
from tests.backends.foreign import EMULATED, run_emulated
from tests.backends.harness import examples
from tests.backends.products import convolutions, depthwise, joined, linears
from tests.backends.test_gemm import extreme
from tests.backends.test_matmul import attention, products
from tests.ops.sampling import Sample

pytestmark = pytest.mark.slow


def check(drawn: Sample, target: str) -> list[str]:
    """The names of the kernels that were selected, held to the reference."""
    with tempfile.TemporaryDirectory() as folder:
        found, kernels = run_emulated(drawn.graph, drawn.feeds, target, Path(folder))
    for name, wanted in evaluate(drawn.graph, drawn.feeds).items():
        np.testing.assert_array_equal(found[name], wanted, err_msg=f"{target}\n{drawn.graph}")
    return kernels


KINDS = {
    "qgemm_u8i8_": convolutions() | linears(),
    "qdepthwise_u8i8_": depthwise(),
    "qmatmul_i16_": products() | attention(),
}


@pytest.mark.parametrize("target", EMULATED)
@pytest.mark.parametrize("kind", KINDS)
@examples(1)
@given(st.data())
def test_kernels(target: str, kind: str, data: st.DataObject) -> None:
    kernels = check(joined(data.draw(st.lists(KINDS[kind], min_size=12, max_size=12))), target)
    assert sum(name.startswith(kind) for name in kernels) >= 6, kernels


@examples(1)
@given(st.data())
def test_pieces(data: st.DataObject) -> None:
    """Pixels that are widened tile by tile."""
    drawn = data.draw(st.lists(convolutions() | linears(), min_size=12, max_size=12))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gemm_loops, "PIECE_BYTES", 1)
        check(joined(drawn), "wasm32")


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
    exact = target not in ("aarch64", "armv7")
    assert all(name.startswith("qgemm_") == exact for name in kernels), kernels

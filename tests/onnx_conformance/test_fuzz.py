"""Damaged models are refused with an `IRCError`, at once; nothing else ever comes out."""

from __future__ import annotations

import random
import sys
import time
import warnings

import pytest

import irc
from irc.errors import IRCError
from tests.onnx_conformance.cases import node_cases
from tests.onnx_conformance.mutations import mutated

SLOWEST = 10.0
LARGEST = 1 << 30


def peak_memory() -> int:
    """The most bytes that this process has ever held; 0 where nobody counts."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@pytest.mark.parametrize(
    ("seed", "count"), [(1, 1500), pytest.param(2, 20_000, marks=pytest.mark.slow)]
)
def test_mutations_of_small_models(seed: int, count: int) -> None:
    rng = random.Random(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = list(node_cases())
        ops = sorted({node.op_type for case in cases for node in case.model.graph.node})
        refused, before = 0, peak_memory()
        for _ in range(count):
            case = rng.choice(cases)
            start = time.monotonic()
            try:
                irc.load(mutated(rng, case, ops))
            except IRCError:
                refused += 1
            assert time.monotonic() - start < SLOWEST, case.name
    assert count / 4 < refused < count
    assert peak_memory() - before < LARGEST

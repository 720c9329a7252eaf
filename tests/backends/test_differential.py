"""Reference = scheduled = numba = llvm in process = llvm library, bit for bit, over every op."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.backends.harness import TARGETS, agree
from tests.ops.sampling import load_samples

SAMPLES = load_samples()
OPS = sorted(SAMPLES)
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
# Explaining a failure reruns it hundreds of times; the graph's text says enough.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


def examples(count: int) -> settings:
    return settings(max_examples=count, suppress_health_check=SLOW, phases=PHASES)


@pytest.mark.parametrize("op", OPS)
def test_llvm_gives_the_reference_bits(op: str) -> None:
    @examples(24)
    @given(SAMPLES[op], st.sampled_from(TARGETS))
    def check(drawn, target):  # type: ignore[no-untyped-def]
        agree(drawn.graph, drawn.feeds, [target])

    check()

"""Over every sample: loops mean what `evaluate` says, text means the graph; and none is missing."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import irc.ops
from irc.graph import evaluate, same
from irc.interpret import interpret
from irc.ops.core import Const
from irc.parser import parse
from irc.types import Array
from irc.value import OPS, Value
from tests.ops.sampling import Sample, load_samples

SAMPLES = load_samples()


def operand_arrays(sample: Sample) -> dict[Value, Array]:
    """The arrays of the node's operands."""
    node = sample.graph.outputs[0]
    return {v: v.array if isinstance(v, Const) else sample.feeds[v.name] for v in node.operands}


@pytest.mark.parametrize("name", sorted(SAMPLES))
@settings(max_examples=30)
@given(data=st.data())
def test_loops_mean_what_evaluate_says(name: str, data: st.DataObject) -> None:
    sample = data.draw(SAMPLES[name])
    node = sample.graph.outputs[0]
    assert node.op == name
    expected = evaluate(sample.graph, sample.feeds)["result"]
    found = interpret(node.loops(), operand_arrays(sample))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", sorted(SAMPLES))
@settings(max_examples=10)
@given(data=st.data())
def test_text_gives_back_the_graph(name: str, data: st.DataObject) -> None:
    graph = data.draw(SAMPLES[name]).graph
    assert same(parse(str(graph)), graph)


def test_every_op_with_loops_has_samples() -> None:
    assert irc.ops.__all__
    with_loops = {name for name, cls in OPS.items() if cls.loops is not Value.loops}
    assert with_loops - set(SAMPLES) == set()

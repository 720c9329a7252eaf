"""`parse(print(graph))` is the graph, whatever the graph."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import irc.ops  # noqa: F401
from irc.errors import ParseError, TypeCheckError
from irc.graph import Graph, same
from irc.ops.activation import Clip
from irc.ops.core import Const, Input
from irc.ops.shape import Concat
from irc.parser import parse
from irc.printer import constants, print_graph
from irc.text import read, write
from irc.types import DType, Quant, TensorType
from irc.value import Value
from tests.backends.graphs import integer_graphs
from tests.backends.harness import examples, schedule
from tests.ops.sampling import Sample
from tests.passes.networks import Network


def round_trip(graph: Graph) -> None:
    text = print_graph(graph)
    again = parse(text, constants(graph))
    assert same(graph, again), text
    assert print_graph(again) == text


@examples(40)
@given(integer_graphs())
def test_graphs_scheduled_and_not(drawn: Sample) -> None:
    round_trip(drawn.graph)
    round_trip(schedule(drawn.graph))


@examples(15)
@given(st.integers(0, 2**32), st.integers(0, 4), st.booleans())
def test_float_and_quantized_networks(seed: int, blocks: int, quantized: bool) -> None:
    round_trip(Network(seed, quantized=quantized).graph(blocks))


@examples(15)
@given(integer_graphs())
def test_files_with_their_constants(drawn: Sample) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, graph in enumerate((drawn.graph, schedule(drawn.graph))):
            path = Path(folder) / f"{number}.irc"
            write(graph, path)
            assert same(read(path), graph)


ODD = [
    "", "3", "a b", 'say "hi"', "back\\slash", "x#2", "%", "-", "graph", "return", "²", "inf",
    "nan", "inf.x", "new\nline", "tab\t", "é", "日本", "a/b.c-d", "q", "u8", "/conv/Conv_output_0",
    "\ud800",
]  # fmt: skip
NAMES = st.one_of(st.sampled_from(ODD), st.text(max_size=6))


@given(
    st.lists(NAMES, min_size=4, max_size=4), st.lists(NAMES, min_size=4, max_size=4, unique=True)
)
def test_any_name_will_do(names: list[str], public: list[str]) -> None:
    """Values may share a name or have none; inputs and outputs are told apart by theirs."""
    t = TensorType(DType.U8, (2,), Quant(0.5, 1))
    a, b = Input.of(t, public[0]), Input.of(t, public[1])
    c = Concat((a, b), 0, name=names[0])
    d = Concat((c, Const(np.ones(1, np.uint8), t.quant, name=names[1])), 0, name=names[2])
    round_trip(Graph(names[3], (a, b), (c, d), (public[2], public[3])))


@pytest.mark.parametrize("lo", [-math.inf, 0.0, -0.0, 1e-300, 0.1, -1e22])
@pytest.mark.parametrize("hi", [math.inf, 1.0, 6.0, 1e300])
def test_floats_are_exact(lo: float, hi: float) -> None:
    x = Input(DType.F32, (2,), name="x")
    graph = Graph("clip", (x,), (Clip(x, lo, hi),), ("y",))
    round_trip(graph)
    (clip,) = parse(print_graph(graph)).outputs
    assert isinstance(clip, Clip)
    assert math.copysign(1, clip.lo) == math.copysign(1, lo)


def test_an_attribute_may_be_no_number() -> None:
    x = Input(DType.F32, (2,), name="x")
    text = print_graph(Graph("clip", (x,), (Clip(x, math.nan, math.inf),), ("y",)))
    assert "lo = nan, hi = inf" in text
    assert print_graph(parse(text)) == text


@given(st.sampled_from(list(DType)), st.integers(0, 20), st.integers(0, 2**32))
def test_constants_of_every_dtype(dtype: DType, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    if dtype.is_float:
        array = rng.normal(0, 1e3, size).astype(dtype.numpy)
        array[:2] = [np.inf, -np.inf][: len(array[:2])]
    else:
        array = np.asarray(rng.choice(np.asarray([dtype.min, 0, 1, dtype.max], object), size),
                           dtype.numpy)  # fmt: skip
    round_trip(Graph("const", (), (Const(array),), ("c",)))
    round_trip(Graph("scalar", (), (Const(np.asarray(array[0])),), ("c",)) if size else
               Graph("empty", (), (Const(array.reshape(0, 3)),), ("c",)))  # fmt: skip


@pytest.mark.parametrize("channels", [1, 2, 8, 9, 40])
@pytest.mark.parametrize("several", [False, True])
def test_scales_along_an_axis(channels: int, several: bool) -> None:
    scales = tuple((np.arange(channels) + 1) / 3)
    zeros = tuple(range(channels)) if several else 5
    w = Const(np.ones((2, channels), np.int8), Quant(scales, zeros, axis=1))
    round_trip(Graph("weights", (), (w,), ("w",)))


def small() -> str:
    return (
        "graph @g(%x: u8[2] q(0.5, 1)) {\n  %y = concat([%x, %x]) {axis = 0} : u8[4] q(0.5, 1)\n"
        "  return %y\n}"
    )


@pytest.mark.parametrize("end", [-(2**15), 2**15 - 1])
@pytest.mark.parametrize("quant", [Quant(0.5, 3), Quant((0.5, 0.25), (3, 70000), 1)])
def test_an_integer_for_what_is_missing(quant: Quant, end: int) -> None:
    quant = dataclasses.replace(quant, missing=end)
    x = Input.of(TensorType(DType.I16, (1, 2), quant), "x")
    round_trip(Graph("g", (x,), (x,), ("y",)))
    with pytest.raises(TypeCheckError, match=f"{end}, what is missing, is no end of i8"):
        TensorType(DType.I8, (1, 2), quant)


def test_the_text_itself() -> None:
    assert print_graph(parse(small())) == small()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("concat", "concatenate", "line 2: op 'concatenate' does not exist"),
        ("[%x, %x]", "[%x, %z]", "line 2: a value that is defined above"),
        ("axis = 0", "axle = 0", "line 2: .*no attribute.*axle"),
        ("axis = 0", "axis = 7", "line 2: .*axis 7"),
        ("u8[4]", "u8[5]", "line 2: .*the text says u8\\[5\\]"),
        ("u8[4]", "u9[4]", "line 2: a type wanted"),
        ("return %y", "return %w", "line 3: a value that is defined above"),
        ("return %y\n}", "return %y\n", "'}' wanted, found the end|found 'the end'"),
        ("return %y\n}", "return %y\n} graph", "line 4: a end wanted|line 4"),
        ("graph @g", "grph @g", "line 1: 'graph' wanted"),
        ("q(0.5, 1)) {", "q(-0.5, 1)) {", "line 1: .*positive"),
        ("{axis = 0}", "{axis = ?}", "line 2: text that is no IR"),
        ("[%x, %x]", "%x, %x", "line 2: concat takes 1 operands, 2 given"),
        ("%y = concat", "%x = concat", "line 2: %x is defined twice"),
    ],
)
def test_errors_name_the_line(old: str, new: str, message: str) -> None:
    assert old in small()
    with pytest.raises(ParseError, match=message):
        parse(small().replace(old, new, 1))


def test_a_constant_that_is_nowhere() -> None:
    text = "graph @g() {\n  %c = const #0123456789ab : u8[9]\n  return %c\n}"
    with pytest.raises(ParseError, match="line 2: a constant that is not in the sidecar"):
        parse(text)


@given(st.text(max_size=40))
def test_junk_is_an_error_and_nothing_worse(text: str) -> None:
    with pytest.raises(ParseError):
        parse(text)


@given(st.integers(0, 400), st.text("%#[]{}()=:,\"0x@-", max_size=3))
def test_damaged_text_is_an_error_or_a_graph(at: int, junk: str) -> None:
    text = small()
    at %= len(text)
    try:
        graph = parse(text[:at] + junk + text[at + 1 :])
    except ParseError:
        return
    round_trip(graph)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ParseError, match="can't read"):
        read(tmp_path / "none.irc")


def test_same_sees_every_difference() -> None:
    graph = parse(small())
    assert same(graph, parse(small()))
    for old, new in [("@g", "@h"), ("0.5", "0.25"), ("%y", "%z"), ("[%x, %x]", "[%x]")]:
        other = small().replace(old, new)
        if new == "[%x]":
            other = other.replace("u8[4]", "u8[2]")
        assert not same(graph, parse(other)), new
    planned = schedule(graph)
    assert planned.plan is not None
    assert not same(planned, dataclasses.replace(planned, plan=None))
    assert same(planned, parse(print_graph(planned)))


def test_values_print_as_graphs_do() -> None:
    value: Value = parse(small()).outputs[0]
    assert value.name == "y"

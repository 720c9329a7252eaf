"""What the audit finds in the objects of single ops, for CPUs that this machine is not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from hypothesis import given

from irc.audit import audit
from irc.backends.llvm.module.build import generate_library
from irc.backends.llvm.target import parse_target
from irc.graph import Graph
from irc.ops.core import Input
from irc.ops.resize import QResizeLinear
from irc.types import DType, Quant
from tests.backends.graphs import integer_graphs
from tests.backends.harness import examples, schedule
from tests.ops.sampling import Sample, load_samples

TARGETS = ("aarch64", "armv7", "cortex-m4", "riscv64", "wasm32")
SAMPLES = load_samples()
DIVIDES = {"div", "mod"}
"""Ops that divide numbers known at run time alone: armv7 calls a library for that, and says so."""


def broken(graph: Graph, target: str, folder: Path) -> list[str]:
    """The promises that an object breaks, each with what was seen."""
    path = folder / "net.o"
    code = generate_library(schedule(graph), parse_target(target), "net", float_io=False)
    path.write_bytes(code.object_code())
    return [f"{c.promise}: {c.seen}" for c in audit(path) if c.holds is False]


@pytest.mark.parametrize("target", ["armv7", "cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("mode", ["half_pixel", "align_corners"])
def test_places_before_the_first_are_divided_in_32_bits(
    target: str, mode: str, tmp_path: Path
) -> None:
    """Half a pixel before the first: a dividend below zero."""
    x = Input(DType.U8, (1, 3, 5, 4), Quant(0.1, 3), name="x")
    made = QResizeLinear(x, (5, 11), mode, None, 1, 22, (0, 255), DType.U8, Quant(0.1, 3))
    found = broken(Graph("g", (x,), (made,), ("y",)), target, tmp_path)
    assert not any("div" in text for text in found)


def each_op() -> Iterator[ParameterSet]:
    """All ops for all targets: in turns one target each, the others where there is more time."""
    for i, (op, target) in enumerate(itertools.product(sorted(SAMPLES), TARGETS)):
        turn = i % len(TARGETS) == i // len(TARGETS) % len(TARGETS)
        yield pytest.param(op, target, marks=() if turn else pytest.mark.long)


@pytest.mark.slow
@pytest.mark.parametrize(("op", "target"), list(each_op()))
def test_every_op_keeps_them(op: str, target: str, tmp_path: Path) -> None:
    if target == "armv7" and op in DIVIDES:
        pytest.skip("divides")

    @examples(1)
    @given(SAMPLES[op])
    def check(drawn: Sample) -> None:
        assert broken(drawn.graph, target, tmp_path) == []

    check()


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_random_graphs_keep_them(target: str, tmp_path: Path) -> None:
    @examples(10)
    @given(integer_graphs())
    def check(drawn: Sample) -> None:
        assert broken(drawn.graph, target, tmp_path) == []

    check()

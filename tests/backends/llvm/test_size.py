"""Code that is to be short: the same bits, fewer bytes."""

from __future__ import annotations

import io
from pathlib import Path

import hypothesis.strategies as st
import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given

import irc
from irc.backends.llvm.host.jit import compile_graph
from irc.backends.llvm.module.build import generate_library
from irc.backends.llvm.target import aim
from irc.errors import CompileError
from irc.graph import Graph, evaluate
from tests.backends.graphs import integer_graphs
from tests.backends.harness import TARGETS, examples, run_llvm, same_bits, schedule
from tests.backends.llvm.nets import conv, scheduled, small_net
from tests.backends.products import convolutions
from tests.ops.sampling import Sample


@examples(15)
@given(st.one_of(integer_graphs(), convolutions()), st.sampled_from(TARGETS))
def test_the_same_bits(drawn: Sample, target: str) -> None:
    graph = schedule(drawn.graph)
    made = run_llvm(compile_graph(graph, target, optimize="size"), drawn.feeds, f"size {target}")
    same_bits(f"size {target}", made, evaluate(drawn.graph, drawn.feeds), graph)


def code_bytes(graph: Graph, target: str, optimize: str) -> int:
    content = generate_library(graph, aim(target, optimize), "net").object_code()
    sections = ELFFile(io.BytesIO(content)).iter_sections()
    return sum(int(s["sh_size"]) for s in sections if s.name.startswith(".text"))


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4+avx512vnni", "cortex-m4", "aarch64"])
def test_code_is_shorter(target: str) -> None:
    graph = small_net(40)
    assert code_bytes(graph, target, "size") < 0.8 * code_bytes(graph, target, "speed")


def test_no_kernel_is_long() -> None:
    x = small_net(64).inputs[0]
    graph = scheduled(Graph("two", (x,), (conv(conv(x, 64, 1), 64, 2),), ("y",)))
    target = aim("x86-64-v3", "size")
    names = [k["kernel"] for k in generate_library(graph, target, "net").manifest["kernels"]]
    assert names
    assert not any("winograd" in name for name in names)


def test_it_is_said(tmp_path: Path) -> None:
    model = irc.compile(small_net(), optimize="size")
    model.save(tmp_path, "net", emit=("so",))
    assert irc.open_library(tmp_path / "libnet.so").manifest["optimize"] == "size"
    with pytest.raises(CompileError, match="there are speed and size"):
        irc.compile(small_net(), optimize="taste")

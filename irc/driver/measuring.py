"""What is here to measure on, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from irc.driver.data import samples
from irc.driver.forms import integerize, simplify
from irc.graph import Graph
from irc.progress import bar

if TYPE_CHECKING:
    from irc.compare import LayerError


def compare(graph: Graph, quantized: Graph, data: Any, count: int | None) -> list[LayerError]:
    """The error of each layer of a quantized graph against the float graph it was made of, over
    `count` samples of `data` (None: all)."""
    from irc.compare import compare as compare_layers

    real, integer = simplify(graph), integerize(quantized)
    with bar("compare", count) as shown:
        return compare_layers(real, integer, islice(samples(real, data), count), shown)


def host_target() -> Any:
    """This machine as the LLVM backend sees it: name, triple, cpu, vector width, dot product."""
    from irc.backends.llvm import parse_target

    return parse_target("host")


def cannot_run(target: Mapping[str, str]) -> str:
    """Why this machine can't run code for a manifest's target; empty where it can."""
    from irc.backends.llvm.target import refusal

    return refusal(target["triple"], target["cpu"], target["features"])


def linker() -> list[str]:
    """The command that links libraries for this machine; raises `ToolError` where there is none."""
    from irc.backends.llvm.files.link import compiler

    return compiler(host_target())


def profile(
    graph: Graph, inputs: Mapping[str, Any], rounds: int, target: str = "host", threads: int = 1
) -> Sequence[Any]:
    """The time of every kernel of a scheduled graph, compiled for a target that this CPU runs and
    so many threads: layer, kernel, macs, milliseconds, nbytes, gmacs."""
    from irc.backends.llvm.host.profile import profile as time_kernels

    return time_kernels(graph, inputs, rounds, target, threads)

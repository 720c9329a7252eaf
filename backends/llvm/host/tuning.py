"""Candidate kernels timed on this machine, where they will run: inside of the network.

As many variants of the network are compiled as the work with the most candidates has; each takes
other candidates, all works at once. Their runs take turns, and the CPU's clock is read between
kernels: so what a kernel finds in the caches is what it will find, and one run times one candidate
of every work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from irc.backends.llvm.host.choices import (
    Choices,
    Measured,
    cache_file,
    fastest,
    options,
    read_measured,
    work_key,
    write_measured,
)
from irc.backends.llvm.host.jit import foreign
from irc.backends.llvm.host.profile import TimedNetwork, check_clock
from irc.backends.llvm.module.emit import works
from irc.backends.llvm.module.selftest import golden_inputs
from irc.backends.llvm.target import Target, aim
from irc.backends.llvm.work import MicroKernel, Work, shift_classes
from irc.errors import CompileError
from irc.graph import Graph
from irc.types import Array

RUNS = 3
"""Of a variant, before it is the next one's turn; the first of them is not counted."""
TURNS = (4, 24)
"""Of each variant, at least and at most."""
MILLISECONDS = 6000
"""That all turns are to take, roughly."""

Advance = Callable[[int], None]


def tune(
    graph: Graph, target: str = "host", optimize: str = "speed", advance: Advance | None = None
) -> Choices:
    """The fastest candidate for every kernel of a scheduled graph, on one thread; works that the
    cache knows are not timed again. `advance` is told the number of variants compiled.

    Raises `CompileError` for a target whose code can't be timed here.
    """
    aimed = aim(target, optimize)
    check_timeable(aimed)
    path = cache_file()
    known = read_measured(path)
    unknown = _unknown(graph, aimed, known)
    if unknown:
        measured = measure(graph, aimed, unknown, advance)
        write_measured(path, measured)
        known |= measured
    return Choices(known)


def check_timeable(target: Target) -> None:
    """Raise `CompileError` for a target whose code can't be timed in this process."""
    if target.levels:
        raise CompileError(
            f"target {target.name} is for several CPUs, kernels are tuned for one: host, or"
            f" {', '.join(level.name for level in target.levels)}"
        )
    why = foreign(target)
    if why:
        raise CompileError(
            f"target {target.name} can't be tuned for: {why}; tune on a machine that runs it"
        )
    check_clock()


def _unknown(graph: Graph, target: Target, known: Mapping[str, Measured]) -> dict[str, int]:
    """The works that no time is known of and that can be done in several ways: how many."""
    found: dict[str, int] = {}
    for work in works(graph, shift_classes(target)):
        ways = options(work, target)
        if len(ways) > 1:
            found[work_key(work, target, ways)] = len(ways)
    return {key: count for key, count in found.items() if key not in known}


Pick = Callable[[str, Sequence[MicroKernel]], MicroKernel]
"""One of the candidates for a work by its key."""


class Variant:
    """The network with the kernels that `pick` takes."""

    def __init__(self, graph: Graph, target: Target, pick: Pick) -> None:
        self.pick = pick
        self.chosen: list[tuple[str, MicroKernel]] = []
        self.network = TimedNetwork(graph, target, self.choose)

    def choose(self, work: Work, target: Target) -> MicroKernel:
        """What is picked, and noted."""
        ways = options(work, target)
        key = work_key(work, target, ways)
        self.chosen.append((key, self.pick(key, ways)))
        return self.chosen[-1][1]

    def run(self, inputs: Mapping[str, Array]) -> dict[tuple[str, str], Array]:
        """Milliseconds of some runs by work and kernel, the mean of all places where it stands."""
        times = self.network.run(inputs, RUNS)[1:]
        found = defaultdict[tuple[str, str], list[Array]](list)
        column = 0
        for key, micro in self.chosen:
            end = column + (1 if micro.then is None else 2)
            found[key, micro.name].append(times[:, column:end].sum(axis=1))
            column = end
        return {which: np.mean(arrays, axis=0) for which, arrays in found.items()}


def measure(
    graph: Graph, target: Target, wanted: Mapping[str, int], advance: Advance | None = None
) -> dict[str, Measured]:
    """Time all candidates of the works that are asked for, by how many there are.

    The best ones are held to the cost model's choices a second time, all of them together: what
    was fast only because of its neighbours is not taken.
    """
    inputs, variants = golden_inputs(graph), list[Variant]()

    def add(pick: Pick) -> Variant:
        variants.append(Variant(graph, target, pick))
        if advance is not None:
            advance(len(variants))
        return variants[-1]

    for number in range(max(wanted.values())):
        add(partial(_candidate, wanted, number))
    times = _times(variants, inputs)
    best = {key: fastest(times[key]) for key in wanted}
    winners = add(lambda key, ways: next((m for m in ways if m.name == best.get(key)), ways[0]))
    again = _times([variants[0], winners], inputs)
    return {key: Measured(fastest(again[key]), {**times[key], **again[key]}) for key in wanted}


def _candidate(
    wanted: Mapping[str, int], number: int, key: str, ways: Sequence[MicroKernel]
) -> MicroKernel:
    """The candidate of that number, counted on from the first again where there are fewer; the
    cost model's for works that are not asked for."""
    return ways[number % len(ways) if key in wanted else 0]


def _times(variants: Sequence[Variant], inputs: Mapping[str, Array]) -> dict[str, dict[str, float]]:
    """Median microseconds by work and kernel, those of the first variant's kernels first."""
    once = sum(float(v.network.run(inputs, 1).sum()) for v in variants)
    samples = defaultdict[tuple[str, str], list[Array]](list)
    for _ in range(int(np.clip(MILLISECONDS / (once * RUNS), *TURNS))):
        for variant in variants:
            for which, times in variant.run(inputs).items():
                samples[which].append(times)
    found = defaultdict[str, dict[str, float]](dict)
    for (key, name), arrays in samples.items():
        found[key][name] = float(np.median(np.concatenate(arrays))) * 1e3
    return found

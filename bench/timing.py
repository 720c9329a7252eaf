"""Interleaved timing and the statistics that summarize it.

Machines drift: frequency, neighbours, caches. So contestants take turns within one run, and a ratio
is formed turn by turn before it is summarized.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Clock = Callable[[], int]  # nanoseconds, as time.perf_counter_ns
Call = Callable[[], object]


@dataclass(frozen=True)
class Summary:
    """Median and spread of some measurements, in their own unit."""

    median: float
    lower: float  # first quartile
    upper: float  # third quartile
    best: float
    count: int

    @property
    def spread(self) -> float:
        """The interquartile range relative to the median."""
        return (self.upper - self.lower) / self.median


def summarize(samples: Sequence[float]) -> Summary:
    """Return the summary of one or more samples; quartiles interpolate linearly."""
    if not samples:
        raise ValueError("summarize: no samples")
    lower, median, upper = (float(q) for q in np.percentile(samples, (25, 50, 75)))
    return Summary(median, lower, upper, float(min(samples)), len(samples))


@dataclass(frozen=True)
class Timings:
    """Milliseconds of each call: one list per turn, in the order of the rounds."""

    turns: tuple[tuple[float, ...], ...]

    def summary(self) -> Summary:
        """Return the summary of all calls, in milliseconds."""
        return summarize([sample for turn in self.turns for sample in turn])

    def turn_medians(self) -> list[float]:
        """Return the median of each turn, in milliseconds."""
        return [float(np.median(turn)) for turn in self.turns]


def ratio(timings: Timings, baseline: Timings) -> Summary:
    """Return how many times the baseline's time was taken, round by round (below 1: faster)."""
    pairs = zip(timings.turn_medians(), baseline.turn_medians(), strict=True)
    return summarize([ours / theirs for ours, theirs in pairs])


def milliseconds(call: Call, clock: Clock = time.perf_counter_ns) -> float:
    """Return how long one call took, in milliseconds."""
    start = clock()
    call()
    return (clock() - start) / 1e6


def calls_per_turn(call: Call, turn_ms: float, clock: Clock = time.perf_counter_ns) -> int:
    """Return how many calls fill a turn of about `turn_ms`: at least 1, at most 200."""
    once = min(milliseconds(call, clock) for _ in range(3))
    return max(1, min(200, round(turn_ms / max(once, 1e-6))))


def interleaved(
    contestants: Mapping[str, Call],
    *,
    rounds: int,
    turn_ms: float = 40.0,
    warmup: int = 3,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, Timings]:
    """Time the contestants in turns, A, B, C, A, B, C, …, and return the timings of each.

    A turn is one call that is not timed, which brings back the caches that the others used, and
    then as many timed calls as take about `turn_ms`.
    """
    for call in contestants.values():
        for _ in range(warmup):
            call()
    calls = {name: calls_per_turn(call, turn_ms, clock) for name, call in contestants.items()}
    turns: dict[str, list[tuple[float, ...]]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            call()
            turns[name].append(tuple(milliseconds(call, clock) for _ in range(calls[name])))
    return {name: Timings(tuple(each)) for name, each in turns.items()}

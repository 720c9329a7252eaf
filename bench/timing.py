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
Turn = Callable[[int], Sequence[float]]  # calls to their milliseconds, as timed_turn


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


def timed_turn(call: Call, calls: int, clock: Clock = time.perf_counter_ns) -> list[float]:
    """Return the milliseconds of `calls` calls, after one that is not timed.

    That one brings back the caches that others have used.
    """
    call()
    return [milliseconds(call, clock) for _ in range(calls)]


def calls_per_turn(turn: Turn, turn_ms: float) -> int:
    """Return how many calls fill a turn of about `turn_ms`: at least 1, at most 200."""
    return max(1, min(200, round(turn_ms / max(min(turn(3)), 1e-6))))


def interleaved(
    contestants: Mapping[str, Turn], *, rounds: int, turn_ms: float = 40.0
) -> dict[str, Timings]:
    """Time the contestants in turns, A, B, C, A, B, C, …, and return the timings of each.

    Finding out how many calls fill a turn of about `turn_ms` warms each of them up.
    """
    calls = {name: calls_per_turn(turn, turn_ms) for name, turn in contestants.items()}
    turns: dict[str, list[tuple[float, ...]]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, turn in contestants.items():
            turns[name].append(tuple(turn(calls[name])))
    return {name: Timings(tuple(each)) for name, each in turns.items()}

import pytest

from bench.timing import (
    Timings,
    Turn,
    calls_per_turn,
    interleaved,
    milliseconds,
    ratio,
    summarize,
    timed_turn,
)


class FakeClock:
    """Nanoseconds that pass only when a call lets them."""

    def __init__(self) -> None:
        self.now = 0
        self.log: list[str] = []

    def __call__(self) -> int:
        return self.now

    def work(self, name: str, ms: float) -> None:
        self.log.append(name)
        self.now += round(ms * 1e6)


def test_summary_of_odd_count() -> None:
    summary = summarize([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (summary.median, summary.lower, summary.upper, summary.best) == (3.0, 2.0, 4.0, 1.0)
    assert summary.count == 5
    assert summary.spread == pytest.approx(2 / 3)


def test_summary_of_one_sample() -> None:
    summary = summarize([7.0])
    assert (summary.median, summary.lower, summary.upper, summary.spread) == (7.0, 7.0, 7.0, 0.0)


def test_no_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarize([])


def test_median_ignores_one_disturbance() -> None:
    assert summarize([1.0, 1.0, 1.0, 1.0, 900.0]).median == 1.0


def test_ratio_is_formed_round_by_round() -> None:
    # The machine slows down threefold in round 2; the ratio does not see it.
    ours = Timings(((1.0, 1.0), (3.0, 3.0)))
    theirs = Timings(((2.0, 2.0), (6.0, 6.0)))
    result = ratio(ours, theirs)
    assert (result.lower, result.median, result.upper) == (0.5, 0.5, 0.5)


def test_ratio_needs_equal_rounds() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio(Timings(((1.0,),)), Timings(((1.0,), (2.0,))))


def test_milliseconds_reads_the_clock_around_the_call() -> None:
    clock = FakeClock()
    assert milliseconds(lambda: clock.work("a", 2.5), clock) == 2.5


def turn_of(clock: FakeClock, name: str, ms: float) -> Turn:
    return lambda calls: timed_turn(lambda: clock.work(name, ms), calls, clock)


@pytest.mark.parametrize(("ms", "calls"), [(100.0, 1), (10.0, 4), (0.001, 200)])
def test_calls_fill_a_turn(ms: float, calls: int) -> None:
    assert calls_per_turn(turn_of(FakeClock(), "a", ms), 40.0) == calls


def test_rounds_interleave_and_the_first_call_of_a_turn_is_not_timed() -> None:
    clock = FakeClock()
    costs = {"a": 10.0, "b": 20.0, "c": 40.0}
    contestants = {name: turn_of(clock, name, ms) for name, ms in costs.items()}
    result = interleaved(contestants, rounds=2, turn_ms=20.0)
    # Turns of 20 ms hold two, one and one timed calls, after one that is not timed.
    assert "".join(clock.log) == "aaaabbbbcccc" + "aaabbcc" * 2
    assert {name: each.turns for name, each in result.items()} == {
        "a": ((10.0, 10.0), (10.0, 10.0)),
        "b": ((20.0,), (20.0,)),
        "c": ((40.0,), (40.0,)),
    }


def test_cold_calls_stay_out_of_the_samples() -> None:
    clock = FakeClock()

    def cold_then_warm() -> None:
        last = clock.log[-1] if clock.log else ""
        clock.work("x", 1.0 if last == "x" else 50.0)

    contestants: dict[str, Turn] = {
        "x": lambda calls: timed_turn(cold_then_warm, calls, clock),
        "y": turn_of(clock, "y", 1.0),
    }
    result = interleaved(contestants, rounds=3, turn_ms=4.0)
    assert max(sample for turn in result["x"].turns for sample in turn) == 1.0

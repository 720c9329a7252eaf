"""Candidates: all give the same bits; their times choose among them and are kept."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from irc.backends.llvm.host import choices, tuning
from irc.backends.llvm.host.choices import Choices, Measured, fastest, options, work_key
from irc.backends.llvm.host.jit import compile_graph
from irc.backends.llvm.host.tuning import check_timeable, tune
from irc.backends.llvm.module.build import generate_library
from irc.backends.llvm.module.emit import works
from irc.backends.llvm.target import Target, aim, host
from irc.backends.llvm.work import MicroKernel, Work
from irc.errors import CompileError
from irc.graph import Graph, evaluate
from tests.backends.harness import TARGETS, examples, same_bits, schedule
from tests.backends.llvm.nets import random_inputs, small_net
from tests.backends.products import convolutions, depthwise, linears
from tests.backends.test_matmul import products
from tests.ops.sampling import Sample

needs_clock = pytest.mark.skipif(not host().is_x86, reason="reads the clock of x86")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and little patience."""
    path = tmp_path / "folder" / "times.json"
    monkeypatch.setenv("IRC_TUNE_CACHE", str(path))
    monkeypatch.setattr(choices, "MOST", 3)
    monkeypatch.setattr(tuning, "TURNS", (2, 2))
    return path


# ------------------------------------------------------------ candidates


def by_number(number: int, work: Work, target: Target) -> MicroKernel:
    ways = options(work, target)
    return ways[number % len(ways)]


def all_agree(drawn: Sample, target: str) -> None:
    """Every candidate on its own gives the bits of the reference."""
    expected, scheduled = evaluate(drawn.graph, drawn.feeds), schedule(drawn.graph)
    aimed = aim(target)
    for number in range(max(len(options(work, aimed)) for work in works(scheduled))):
        executable = compile_graph(scheduled, target, choose=partial(by_number, number))
        same_bits(f"candidate {number} on {target}", executable(drawn.feeds), expected, scheduled)


@pytest.fixture
def every_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "MOST", 99)


@pytest.mark.usefixtures("every_one")
@pytest.mark.parametrize("kind", [convolutions(), linears(), depthwise(), products()])
@examples(2)
@given(st.data(), st.sampled_from(TARGETS))
def test_all_candidates_agree(
    kind: st.SearchStrategy[Sample], data: st.DataObject, target: str
) -> None:
    all_agree(data.draw(kind), target)


def test_names_tell_candidates_apart() -> None:
    for work in works(small_net()):
        for target in map(aim, ("host", "x86-64-v2", "x86-64-v4+amx", "cortex-m4")):
            names = [m.name for m in options(work, target)]
            assert len(set(names)) == len(names) > 0


# ------------------------------------------------------------ choices


def forced(graph: Graph) -> tuple[Choices, dict[str, str]]:
    """The slowest-looking candidate of every work, and by its name the cost model's."""
    found, names = dict[str, Measured](), dict[str, str]()
    for work in works(graph):
        ways = options(work, host())
        if len(ways) > 1:
            times = {m.name: float(9 - i) for i, m in enumerate(ways)}
            found[work_key(work, host(), ways)] = Measured(ways[-1].name, times)
            names[work.kernel.name] = ways[-1].name
    return Choices(found), names


def test_a_forced_choice_changes_the_kernel_and_no_bit() -> None:
    graph = small_net()
    chosen, names = forced(graph)
    kernels = generate_library(graph, host(), "net", choose=chosen).manifest["kernels"]
    usual = generate_library(graph, host(), "net").manifest["kernels"]
    assert len(names) > 1 or not host().is_x86
    for kernel, other in zip(kernels, usual, strict=True):
        assert other["choice"] == "cost model"
        if kernel["name"] in names:
            assert kernel["kernel"] == names[kernel["name"]] != other["kernel"]
            assert kernel["choice"].startswith("measured 7 µs; ")
            assert f"{other['kernel']} (the cost model) 9 µs" in kernel["choice"]
        else:
            assert kernel["choice"] == "the only candidate"
            assert kernel["kernel"] == other["kernel"]
    x = random_inputs(graph)
    same_bits("forced", compile_graph(graph, choose=chosen)(x), evaluate(graph, x), graph)


def test_a_choice_holds_for_its_cpu_target_and_candidates_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = works(small_net())[0]
    ways = options(work, host())
    keys = {
        work_key(work, host(), ways),
        work_key(work, aim("host", "size"), ways),
        work_key(work, host(), ways[:1]),
        work_key(works(small_net(25))[0], host(), ways),
    }
    monkeypatch.setattr(choices, "cpu_model", lambda: "another")
    assert len(keys | {work_key(work, host(), ways)}) == 5
    assert work_key(work, replace(host(), name="same"), ways) == work_key(work, host(), ways)


def test_what_was_measured_with_amx_says_nothing_of_a_cpu_without() -> None:
    amx, vectors = aim("x86-64-v4+amx"), aim("x86-64-v4+avx512vnni")
    work = works(small_net())[0]
    ways = options(work, amx)
    times = {m.name: float(len(ways) - i) for i, m in enumerate(ways)}
    best = next(name for name in times if "_amx" in name)
    chosen = Choices({work_key(work, amx, ways): Measured(best, times)})
    assert chosen(work, amx).name == best
    without = chosen(work, vectors)
    assert "_amx" not in without.name
    assert without.name == options(work, vectors)[0].name


def test_the_cost_model_must_be_clearly_beaten() -> None:
    assert fastest({"model": 100.0, "other": 98.0}) == "model"
    assert fastest({"model": 100.0, "third": 95.0, "other": 90.0}) == "other"


# ------------------------------------------------------------ tuning and its file


@needs_clock
def test_times_are_taken_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small_net()
    told: list[int] = []
    first = tune(graph, advance=told.append)
    assert told == [1, 2, 3, 4]
    content = json.loads(cache.read_text())["works"]
    assert set(content) == set(first.measured) == set(forced(graph)[0].measured)
    assert all(0 < t < 1e6 for e in content.values() for t in e["microseconds"].values())
    assert [p.name for p in cache.parent.iterdir()] == [cache.name]
    monkeypatch.setattr(tuning, "measure", lambda *_: pytest.fail("measured again"))
    assert tune(graph) == first
    x = random_inputs(graph)
    same_bits("tuned", compile_graph(graph, choose=first)(x), evaluate(graph, x), graph)


@needs_clock
@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1, "works": {"a": {"kernel": "b"}}}',
                                  '{"format": 1, "works": [1]}', '{"format": 7}'])  # fmt: skip
def test_a_corrupt_file_is_ignored_and_replaced(
    cache: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = small_net()
    times = forced(graph)[0].measured
    monkeypatch.setattr(tuning, "measure", lambda *_: times)
    cache.parent.mkdir()
    cache.write_text(text)
    with pytest.warns(UserWarning, match="ignored"):
        assert tune(graph).measured == times
    assert choices.read_measured(cache) == times


@needs_clock
def test_a_file_that_cannot_be_written_is_warned_of(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.write_text("a file where the folder should be")
    monkeypatch.setattr(tuning, "measure", lambda *_: forced(small_net())[0].measured)
    with pytest.warns(UserWarning, match="times"):
        assert tune(small_net()).measured


def test_where_the_file_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IRC_TUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/cache")
    assert choices.cache_file() == Path("/some/cache/irc/tune.json")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert choices.cache_file() == Path("~/.cache/irc/tune.json").expanduser()


@pytest.mark.parametrize(("target", "message"), [("aarch64", "it is code for aarch64"),
                                                 ("cortex-m4", "tune on a machine that runs it"),
                                                 ("x86-64", "is for several CPUs")])  # fmt: skip
def test_what_cannot_run_here_cannot_be_tuned(target: str, message: str) -> None:
    if aim(target).arch == host().arch and not aim(target).levels:
        pytest.skip("this machine is one")
    with pytest.raises(CompileError, match=message):
        check_timeable(aim(target))

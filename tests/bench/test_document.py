from dataclasses import replace
from pathlib import Path

import pytest

from bench.compare import OURS, Comparison, Row
from bench.document import (
    Section,
    brief,
    cost_table,
    cpu_name,
    faster,
    geometric_mean,
    latency_table,
    left_out,
    markers,
    replaced,
    section_markdown,
    section_name,
    significant,
    size_table,
    write_section,
)
from bench.isa import LEVELS
from bench.machine import Machine
from bench.timing import Summary

MACHINE = Machine(
    "Some(R) Fast(TM) CPU Processor @ 2.0GHz (family 6, model 1, stepping 2)",
    ("sse", "avx2", "avx512_vnni"),
    2,
    "Linux",
    "3.11",
    {"onnxruntime": "1.22"},
    {"maddubs_256": 100.0, "dpbusd_512": 400.0},
    streams={"64MiB": 20.0},
)
FACTS = {"compile_seconds": 2.0, "text_bytes": 9000, "arena_bytes": 3000, "arena_least_bytes": 2000}


def row(runner: str, ms: float, ratio: float) -> Row:
    latency, of = Summary(ms, 0.9 * ms, 1.1 * ms, ms, 5), Summary(ratio, ratio, ratio, ratio, 5)
    return Row(runner, latency, of, 80 / ms, 1.0, 50_000, 7.0, FACTS if runner == OURS else {})


def result(model: str, ours: float, peer: float) -> Comparison:
    rows = (row(OURS, ours, ours / peer), row("peer", peer, 1.0), row("slow", 9.0, 9.0 / peer))
    return Comparison(model, True, (1, 1), 80_000_000, 1, (1,), 5, "peer", rows)


def section(**changes: object) -> Section:
    results = [result("small", 1.0, 4.0), result("large", 2.0, 2.0)]
    made = Section(LEVELS["native"], 1, "python -m bench table", MACHINE, results)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_section_is_replaced_and_nothing_else() -> None:
    begin, end = markers("native-1")
    other = "\n".join(markers("avx2-1"))
    text = f"# T\n\nprose\n\n{begin}\nold\n{end}\n\nmore\n\n{other}\n"
    once = replaced(text, "native-1", "new")
    assert once == f"# T\n\nprose\n\n{begin}\n\nnew\n\n{end}\n\nmore\n\n{other}\n"
    assert replaced(once, "native-1", "new") == once


def test_an_absent_section_comes_last() -> None:
    begin, end = markers("avx2-2")
    assert replaced("# T\n", "avx2-2", "new") == f"# T\n\n{begin}\n\nnew\n\n{end}\n"
    assert replaced("", "avx2-2", "new") == f"{begin}\n\nnew\n\n{end}\n"


@pytest.mark.parametrize("broken", ["{0}\nx", "x\n{1}", "{1}\nx\n{0}"])
def test_a_lone_marker_is_an_error(broken: str) -> None:
    with pytest.raises(ValueError, match="not in pairs"):
        replaced(broken.format(*markers("native-1")), "native-1", "new")


def test_writing_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "p.md"
    write_section(path, section())
    once = path.read_text()
    write_section(path, section(level=LEVELS["avx2"]))
    write_section(path, section())
    assert path.read_text().startswith(once)
    assert path.read_text().count("## ") == 2


def test_times_faster_and_their_mean() -> None:
    first, second = section().results
    assert faster(first) == 4.0
    assert faster(second) == 1.0
    assert geometric_mean([4.0, 1.0]) == pytest.approx(2.0)
    table = [line.replace(" ", "") for line in latency_table(section()).splitlines()]
    assert table[2] == "|small|1.00|20%|4.00|9.00|4.00|"
    assert table[-1] == "|geometricmean|||||**2.00**|"


def test_a_model_that_irc_failed_on_has_no_ratio() -> None:
    first, second = section().results
    without = replace(first, rows=first.rows[1:], skipped={OURS: "failed: /tmp/x/y.so: boom"})
    made = section(results=[without], failures={"gone": "no wheel\nmore"})
    assert faster(without) is None
    assert "geometric" not in latency_table(made)
    text = section_markdown(made)
    assert "Left out: irc: failed: y.so: boom" in text
    several = replace(first, skipped={"a": "no wheel", "b": "no wheel", "c": "boom"})
    text = "\n".join(left_out(section(results=[several, second])))
    assert text == "Left out: a, b on small: no wheel\nLeft out: c on small: boom"
    text = section_markdown(made)
    assert text.endswith("Not measured: gone: no wheel")


def test_costs_and_shares_of_the_peak() -> None:
    text = section_markdown(section())
    small = cost_table(section()).splitlines()[2]
    cells = small.replace("|", " ").split()
    assert cells == ["small", "80.0", "80.0", "20", "2.0", "9", "50", "3", "1.50", "7.00", "7.00"]
    assert section(level=LEVELS["avx2"]).peak == 100.0
    assert section(threads=2).peak == 800.0
    assert section(machine=replace(MACHINE, peaks={})).peak is None
    assert "`maddubs_256` 100" in text
    assert "20 GB/s from 64MiB" in text


def test_two_threads_stand_beside_one() -> None:
    table = latency_table(section(threads=2, before={"small": 1.9}))
    small, large = table.splitlines()[2:4]
    assert small.split()[-2] == "1.90"
    assert large.split()[-2] == "–"


def test_a_subject_has_a_section_of_its_own() -> None:
    made = section(subject="Against standalone generators", level=LEVELS["avx2"])
    assert made.name == "avx2-1-against-standalone-generators"
    assert made.title == "Against standalone generators: Held to avx2, 1 thread"
    assert section_name(LEVELS["avx2"], 1) == section(level=LEVELS["avx2"]).name == "avx2-1"


def test_what_each_runner_ships() -> None:
    first, second = section().results
    lines = size_table(section(results=[first, replace(second, rows=second.rows[:1])]))
    cells = [line.replace(" ", "") for line in lines.splitlines()]
    assert cells[0] == "|model|irc|peer|slow|"
    assert cells[2:] == ["|small|50|50|50|", "|large|50|–|–|"]


def test_machines_are_told_by_their_kind() -> None:
    assert cpu_name(MACHINE.cpu) == "Some Fast"
    assert cpu_name("Intel(R) Xeon(R) Platinum 8488C (family 6)") == "Intel Xeon Platinum 8488C"


def test_reasons_are_short_and_name_no_folders() -> None:
    assert brief("failed: E: /home/a/b.onnx is 1/2\nat /c") == "failed: E: b.onnx is 1/2"
    assert len(brief("x" * 1000)) == 160


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0294, "0.0294"), (1.2345, "1.23"), (12.34, "12.3"), (123.4, "123"), (0.0, "0")],
)
def test_three_digits_count(value: float, text: str) -> None:
    assert significant(value) == text

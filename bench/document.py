"""The measured sections of a Markdown document: written by the command, between markers.

A section belongs to one level of instruction sets, one number of threads and one subject, so that
runs of others leave it as it is. What stands outside of the markers is written by hand and never
touched.
"""

import math
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.cache import written_whole
from bench.compare import OURS, Comparison, Row
from bench.isa import Level
from bench.machine import Machine
from bench.report import markdown_table

FEATURES = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
"""Those of the CPU's that multiply bytes, as /proc/cpuinfo calls them."""
MOST_REASON = 160  # characters of why something was left out
ABSENT = "–"


@dataclass(frozen=True)
class Section:
    """What one run measured: `failures` tell by model why there is no comparison of it; `before`
    holds irc's median ms on one thread by model, of an earlier run on the same CPU; `plots` are
    paths relative to the document, by what they show."""

    level: Level
    threads: int
    command: str
    machine: Machine
    results: Sequence[Comparison]
    failures: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)
    plots: Mapping[str, str] = field(default_factory=dict)
    subject: str = ""

    @property
    def name(self) -> str:
        """What its markers and its files are called."""
        return section_name(self.level, self.threads, self.subject)

    @property
    def title(self) -> str:
        """Its heading."""
        held = "The CPU as it is" if self.level.name == "native" else f"Held to {self.level.name}"
        place = f"{held}, {self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.subject}: {place}" if self.subject else place

    @property
    def peak(self) -> float | None:
        """GMAC/s that no code of this level on so many threads outdoes; None if not measured."""
        peaks = self.machine.peaks
        one = peaks.get(self.level.peak) if self.level.peak else max(peaks.values(), default=None)
        return None if one is None else one * self.threads


def section_name(level: Level, threads: int, subject: str = "") -> str:
    """Return the name of a section, as in `native-1`, or `native-1-against-generators`."""
    return "-".join((level.name, str(threads), *subject.lower().split()))


def markers(name: str) -> tuple[str, str]:
    """Return the lines that begin and end a section."""
    return f"<!-- measured: {name} -->", f"<!-- end of {name} -->"


def replaced(text: str, name: str, content: str) -> str:
    """Return a document with the section's content replaced, or added at its end if it had none.

    Raises ValueError where only one of the markers stands, or they stand in the wrong order.
    """
    begin, end = markers(name)
    body = f"{begin}\n\n{content.strip()}\n\n{end}"
    if begin not in text and end not in text:
        return f"{text.rstrip()}\n\n{body}\n".lstrip()
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the markers of {name} are not in pairs: {begin} … {end}")
    return f"{before}{body}{after}"


def write_section(path: Path, section: Section) -> None:
    """Write a section into a document, which need not exist; whole or not at all."""
    text = path.read_text() if path.exists() else ""
    with written_whole(path) as part:
        part.write_text(replaced(text, section.name, section_markdown(section)))


def write_measured(path: Path, name: str, content: str) -> None:
    """Write a section that this program measured, under the command that it was started by."""
    program = Path(sys.argv[0]).stem
    command = f"`python -m bench.{program} {shlex.join(sys.argv[1:])}`"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    with written_whole(path) as part:
        part.write_text(replaced(text, name, f"{command}\n\n{content}"), encoding="utf-8")


def section_markdown(section: Section) -> str:
    """Return a section's text: heading, machine, command, tables, plots, what was left out."""
    blocks = [
        f"## {section.title}",
        f"`{section.command}`",
        machine_line(section.machine),
        "Latency, batch 1: medians in ms, all in turns in one run on pinned cores; the quartiles' "
        "distance beside irc's. *Faster*: the fastest peer's time over irc's, round by round.",
        latency_table(section),
        *_plot(section, "peers"),
        cost_intro(section),
        cost_table(section),
        "What a program ships besides the runtime that a peer needs: KB.",
        size_table(section),
        *_plot(section, "roofline"),
        *left_out(section),
    ]
    return "\n\n".join(block for block in blocks if block)


def _plot(section: Section, what: str) -> Iterator[str]:
    if what in section.plots:
        yield f"![{section.title}: {what}]({section.plots[what]})"


def machine_line(machine: Machine) -> str:
    """Return CPU, features, versions and measured rates in a sentence each."""
    features = [flag for flag in FEATURES if flag in machine.flags]
    software = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    rates = ", ".join(f"`{name}` {rate:.0f}" for name, rate in machine.peaks.items())
    streams = ", ".join(f"{rate:.0f} GB/s from {size}" for size, rate in machine.streams.items())
    return (
        f"{cpu_name(machine.cpu)}, {machine.cores} cores, {', '.join(features)}; {software}. "
        f"Measured in the same run on one thread, GMAC/s: {rates or machine.peaks_missing}; "
        f"reads: {streams or 'not measured'}."
    )


def cpu_name(full: str) -> str:
    """Return a CPU's name without trademarks, clock, and the numbers of its model."""
    plain = re.sub(r"\((?:R|TM|family[^)]*)\)|\bCPU\b|\bProcessor\b|@.*", "", full)
    return " ".join(plain.split())


def rows_of(result: Comparison) -> dict[str, Row]:
    """Return a comparison's rows by runner."""
    return {row.runner: row for row in result.rows}


def peer_names(results: Iterable[Comparison]) -> list[str]:
    """Return the peers that ran at least once, in running order."""
    every = (row.runner for result in results for row in result.rows)
    return [name for name in dict.fromkeys(every) if name != OURS]


def faster(result: Comparison) -> float | None:
    """Return how many times as fast as the fastest peer irc was, or None if either is missing."""
    ours = rows_of(result).get(OURS)
    return None if ours is None or result.fastest_peer == OURS else 1 / ours.ratio.median


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of one or more positive numbers."""
    return math.exp(sum(map(math.log, values)) / len(values))


def latency_table(section: Section) -> str:
    """Return irc's and each peer's time, and the geometric mean of the ratios in the last row."""
    peers = peer_names(section.results)
    headings = ["model", "irc", "±", *peers, "faster"]
    if section.before:
        headings.append("over 1 thread")
    rows = [_latency_cells(result, peers, section.before) for result in section.results]
    ratios = [ratio for result in section.results if (ratio := faster(result))]
    if ratios:
        mean = ["geometric mean", *[""] * (len(peers) + 2), f"**{geometric_mean(ratios):.2f}**"]
        rows.append(mean + [""] * (len(headings) - len(mean)))
    return markdown_table(headings, rows)


def _latency_cells(
    result: Comparison, peers: Sequence[str], before: Mapping[str, float]
) -> list[str]:
    rows = rows_of(result)
    ours, ratio = rows.get(OURS), faster(result)
    cells = [
        result.model,
        _ms(ours),
        ABSENT if ours is None else f"{ours.latency.spread:.0%}",
        *(_ms(rows.get(peer)) for peer in peers),
        ABSENT if ratio is None else f"{ratio:.2f}",
    ]
    if before:
        one = before.get(result.model)
        cells.append(ABSENT if ours is None or one is None else f"{one / ours.latency.median:.2f}")
    return cells


def _ms(row: Row | None) -> str:
    return ABSENT if row is None else significant(row.latency.median)


def significant(value: float) -> str:
    """Return a positive number with three digits that count."""
    decimals = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{decimals}f}"


def cost_intro(section: Section) -> str:
    """Return what the columns of the second table mean."""
    peak = "" if section.peak is None else f" (of {section.peak:.0f} GMAC/s)"
    return (
        f"What it costs. *GMAC/s* by the float model's products, and the percentage of the peak"
        f"{peak}; *compile*: code generation and link, s; *code*: the section .text, KB; "
        "*library*, KB; *arena*, KB, and how many times the bytes that are alive at one time; "
        "*first*: load and first inference, ms, beside the quickest peer's."
    )


def cost_table(section: Section) -> str:
    """Return rate, compile time, sizes, memory and start of irc on each model."""
    headings = ["model", "MMAC", "GMAC/s", "% of peak", "compile", "code", "library", "arena",
                "× least", "first", "peers"]  # fmt: skip
    return markdown_table(headings, [_cost_cells(r, section.peak) for r in section.results])


def _cost_cells(result: Comparison, peak: float | None) -> list[str]:
    rows = rows_of(result)
    starts = [row.start_ms for name, row in rows.items() if name != OURS]
    theirs = significant(min(starts)) if starts else ABSENT
    ours = rows.get(OURS)
    head = [result.model, f"{result.macs / 1e6:.1f}"]
    if ours is None:
        return [*head, *[ABSENT] * 8, theirs]
    facts = ours.facts
    return [
        *head,
        f"{ours.gmacs:.1f}",
        ABSENT if peak is None else f"{100 * ours.gmacs / peak:.0f}",
        f"{facts['compile_seconds']:.1f}" if "compile_seconds" in facts else ABSENT,
        _kilobytes(facts.get("text_bytes")),
        _kilobytes(ours.artefact_bytes),
        _kilobytes(facts.get("arena_bytes")),
        _times(facts.get("arena_bytes"), facts.get("arena_least_bytes")),
        significant(ours.start_ms),
        theirs,
    ]


def size_table(section: Section) -> str:
    """Return the bytes that each runner's build leaves to be shipped, without its runtime."""
    runners = [OURS, *peer_names(section.results)]
    shipped = [
        {name: row.artefact_bytes for name, row in rows_of(result).items()}
        for result in section.results
    ]
    cells = [
        [result.model, *(_kilobytes(sizes.get(name)) for name in runners)]
        for result, sizes in zip(section.results, shipped, strict=True)
    ]
    return markdown_table(["model", *runners], cells)


def _kilobytes(nbytes: float | None) -> str:
    return ABSENT if nbytes is None else f"{nbytes / 1e3:.0f}"


def _times(value: float | None, least: float | None) -> str:
    return f"{value / least:.2f}" if value and least else ABSENT


def left_out(section: Section) -> list[str]:
    """Return a paragraph per reason: which runners are missing, on which models; which models."""
    found: dict[tuple[str, str], list[str]] = {}
    for result in section.results:
        for runner, reason in result.skipped.items():
            found.setdefault((runner, brief(reason)), []).append(result.model)
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (runner, reason), on in found.items():
        alike.setdefault((reason, tuple(on)), []).append(runner)
    every = len(section.results)
    lines = []
    for (reason, models), runners in alike.items():
        where = "" if len(models) == every else f" on {', '.join(models)}"
        lines.append(f"Left out: {', '.join(runners)}{where}: {reason}")
    failed = [f"Not measured: {model}: {brief(why)}" for model, why in section.failures.items()]
    return [*lines, *failed]


def brief(reason: str) -> str:
    """Return a reason's first line, cut to length, with the last part only of each path."""
    line = next(iter(reason.strip().splitlines()), "no reason given")
    return re.sub(r"(?:/[\w.+-]+)+/", "", line)[:MOST_REASON].replace("|", "/")

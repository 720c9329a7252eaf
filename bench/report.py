"""Results as Markdown tables and as a JSON file."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.cache import written_whole
from bench.compare import Comparison, Row
from bench.machine import Machine

HEADINGS = (
    "runner",
    "median ms",
    "IQR",
    "best",
    "ratio [IQR]",
    "GMAC/s",
    "build s",
    "MB",
    "start ms",
)


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table: first column left, the others right, padded to line up."""
    cells = [list(headings), *(list(row) for row in rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(headings))]
    lines = [_line(row, widths) for row in cells]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([lines[0], _line(rule, widths), *lines[1:]])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first = row[0].ljust(widths[0])
    rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
    return f"| {' | '.join((first, *rest))} |"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.runner,
        f"{row.latency.median:.3f}",
        f"{row.latency.spread:.0%}",
        f"{row.latency.best:.3f}",
        f"{row.ratio.median:.2f} [{row.ratio.lower:.2f}, {row.ratio.upper:.2f}]",
        f"{row.gmacs:.1f}",
        f"{row.build_seconds:.1f}",
        f"{row.artefact_bytes / 1e6:.2f}",
        f"{row.start_ms:.0f}",
    )


def comparison_markdown(result: Comparison) -> str:
    """Return one model's table under a heading, with the runners that were left out."""
    weights = "trained" if result.trained else "random weights"
    lines = [
        f"### {result.model}",
        "",
        f"{'x'.join(map(str, result.shape))}, {result.macs / 1e6:.1f} MMAC, {weights}, "
        f"{result.threads} thread(s), {result.rounds} rounds; ratios to {result.fastest_peer}",
        "",
        markdown_table(HEADINGS, map(_cells, result.rows)),
    ]
    return "\n".join([*lines, *skipped_lines(result.skipped)])


def skipped_lines(skipped: Mapping[str, str]) -> list[str]:
    """Return one paragraph per reason, naming the runners that were left out for it."""
    names: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        names.setdefault(reason, []).append(name)
    return [f"\nleft out: {', '.join(each)}: {reason}" for reason, each in names.items()]


def machine_markdown(machine: Machine) -> str:
    """Return the CPU, the features that matter here, the versions and the measured peaks."""
    features = [
        flag
        for flag in machine.flags
        if flag.startswith(("avx", "amx", "fma", "asimd", "i8mm", "sve"))
    ]
    software = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    peaks = ", ".join(f"{name} {rate:.0f}" for name, rate in machine.peaks.items())
    return "\n".join(
        [
            f"CPU: {machine.cpu}, {machine.cores} cores; {' '.join(features)}",
            f"Software: Python {machine.python}, {software}",
            f"Peak of one thread, GMAC/s: {peaks or machine.peaks_missing}",
        ]
    )


def write_json(path: Path, machine: Machine, results: Mapping[str, Any]) -> None:
    """Write the machine and the results, numbers with five digits, whole or not at all."""
    content = rounded({"machine": asdict(machine), **results})
    with written_whole(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n")


def rounded(content: Any) -> Any:
    """Return JSON's data with five digits of every fraction: no timing has more."""
    match content:
        case float():
            return float(f"{content:.5g}")
        case Mapping():
            return {key: rounded(value) for key, value in content.items()}
        case list() | tuple():
            return [rounded(value) for value in content]
    return content

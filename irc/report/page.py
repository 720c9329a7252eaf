"""The report as a page."""

from __future__ import annotations

import math
from pathlib import Path

import jinja2
from markupsafe import Markup

from irc.compare import explanation
from irc.graph import Graph
from irc.history import History
from irc.report import plots
from irc.report.model import Findings, Report, collect

FILE = "report.html"
TITLE = "<title>{} · irc</title>"


def report_file(directory: Path, name: str) -> str:
    """What the report of a library in `directory` is called: `report.html`, or
    `NAME.report.html` where that is another's."""
    taken = directory / FILE
    if not taken.is_file() or TITLE.format(name) in taken.read_text("utf-8", "replace"):
        return FILE
    return f"{name}.{FILE}"


def write_report(path: Path, graph: Graph, history: History, findings: Findings) -> None:
    """Write the report of the library whose files lie beside `path`."""
    path.write_text(page(collect(path.parent, graph, history, findings)), encoding="utf-8")


def page(report: Report) -> str:
    """The report as HTML without any reference to other files."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("irc.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": plots.bytes_text,
        "count": _count,
        "time": _time,
        "db": _decibels,
        "percent": lambda share: f"{100 * share:.2f} %",
        "breakable": _breakable,
    }
    return environment.get_template("report.html.j2").render(
        r=report,
        title=Markup(TITLE).format(report.name),
        sizes=plots.size_plot(report.sizes),
        sqnr=plots.sqnr_plot(report.errors) if report.errors else "",
        worst=min((e.sqnr for e in report.errors), default=None),
        explanation=explanation(report.errors),
        poor=plots.POOR,
        fair=plots.FAIR,
    )


def _count(number: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def _decibels(sqnr: float | None) -> str:
    if sqnr is None:
        return "–"
    return f"{sqnr:.1f} dB" if math.isfinite(sqnr) else "exact" if sqnr > 0 else "no signal"


def _breakable(name: str) -> str:
    """A name that may be broken behind slashes, dots and underscores."""
    for mark in "/._":
        name = name.replace(mark, f"{mark}\u200b")
    return name

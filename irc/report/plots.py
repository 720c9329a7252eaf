"""The report's plots, as SVG text to stand inside of HTML."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from irc.compare import LayerError
from irc.report.model import Size

INK, FAINT, BLUE, AMBER, RED = "#1d2733", "#d7dde4", "#2f6fb0", "#d9932b", "#c0392b"
POOR, FAIR = 10.0, 20.0
"""SQNR in dB under which a layer is marked."""
CEILING = 80.0
"""An error-free layer is drawn to here."""
MOST_NAMED = 60
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, and it can be searched
    "svg.hashsalt": "irc",  # the same report for the same model
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def sqnr_plot(errors: Sequence[LayerError]) -> str:
    """A bar per layer, in the order of computation, from top to bottom."""
    named = len(errors) <= MOST_NAMED
    height = 0.7 + (0.22 if named else 0.09) * len(errors)
    with mpl.rc_context(SETTINGS):
        figure, axes = _figure(height)
        values = [min(e.sqnr, CEILING) if math.isfinite(e.sqnr) else _edge(e) for e in errors]
        axes.barh(range(len(values)), values, color=[_colour(v) for v in values], height=0.7)
        axes.set_xlabel("SQNR, dB (more is better)")
        axes.set_ylim(len(values) - 0.4, -0.6)
        if named:
            axes.set_yticks(range(len(values)), [shortened(e.name) for e in errors])
        else:
            axes.set_ylabel("layer")
        _bare(axes)
        return _svg(figure)


def _edge(e: LayerError) -> float:
    return CEILING if e.sqnr > 0 else 0.0


def _colour(sqnr: float) -> str:
    return RED if sqnr < POOR else AMBER if sqnr < FAIR else BLUE


def size_plot(sizes: Sequence[Size]) -> str:
    """A bar per size, each labelled with its bytes."""
    with mpl.rc_context(SETTINGS):
        figure, axes = _figure(0.3 + 0.3 * len(sizes))
        values = [s.nbytes / 1024 for s in sizes]
        axes.barh(range(len(values)), values, color=BLUE, height=0.6)
        axes.set_yticks(range(len(values)), [s.what for s in sizes])
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set_xlim(0, max(values, default=1) * 1.4 or 1)
        for i, size in enumerate(sizes):
            axes.text(values[i], i, f" {bytes_text(size.nbytes)}", va="center")
        _bare(axes)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        return _svg(figure)


def bytes_text(count: int) -> str:
    """Bytes in the unit that suits them."""
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def shortened(name: str, length: int = 24) -> str:
    """A long name's end: that is where layers differ."""
    return name if len(name) <= length else f"…{name[1 - length :]}"


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, height), layout="constrained")
    return figure, figure.add_subplot()


def _bare(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(length=0)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawing = text.getvalue()
    return drawing[drawing.index("<svg") :]

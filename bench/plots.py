"""The plots of a measured section, as SVG files that are the same for the same numbers."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.cache import written_whole
from bench.compare import OURS, Comparison
from bench.document import peer_names, rows_of
from bench.roofline import Layer

INK, FAINT = "#1d2733", "#d7dde4"
COLOURS = ("#2f6fb0", "#7fb2e5", "#d9932b", "#2e8b57", "#c0392b", "#7d5ba6", "#6b7785")
BAR = 0.13  # inches
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, and it can be searched
    "svg.hashsalt": "irc",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def peers_plot(path: Path, results: Sequence[Comparison]) -> None:
    """Draw per model and peer how many times irc's time it took; to the right of 1 irc is ahead."""
    peers = peer_names(results)
    with mpl.rc_context(SETTINGS):
        height = 0.9 + len(results) * (len(peers) + 1) * BAR
        figure, axes = _figure(6.4, height)
        for number, peer in enumerate(peers):
            places, ratios = _bars(results, peer, number, len(peers))
            colour = COLOURS[number % len(COLOURS)]
            widths = [ratio - 1 for ratio in ratios]
            axes.barh(places, widths, left=1, height=0.8, color=colour, label=peer)
        step = len(peers) + 1
        middles = [i * step + (len(peers) - 1) / 2 for i in range(len(results))]
        axes.set_yticks(middles, [result.model for result in results])
        axes.set_ylim(len(results) * step - 0.5, -1)
        axes.set_xscale("log")
        _plain_ticks(axes, (0.25, 0.5, 1, 2, 4, 8, 16, 32))
        axes.axvline(1, color=INK, linewidth=0.8)
        axes.set_xlabel("a peer's time over irc's (log; right of 1: irc is faster)")
        _bare(axes)
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
        _save(figure, path)


def _bars(
    results: Sequence[Comparison], peer: str, number: int, peers: int
) -> tuple[list[float], list[float]]:
    places, ratios = [], []
    for i, rows in enumerate(map(rows_of, results)):
        if OURS in rows and peer in rows:
            places.append(float(i * (peers + 1) + number))
            ratios.append(rows[peer].latency.median / rows[OURS].latency.median)
    return places, ratios


def roofline_plot(
    path: Path, layers: Sequence[Layer], ceilings: Mapping[str, float], slopes: Mapping[str, float]
) -> None:
    """Draw each layer's GMAC/s over its MAC/byte, under the ceilings (GMAC/s by instruction) and
    the slopes (GB/s by working set) that were measured."""
    with mpl.rc_context(SETTINGS):
        figure, axes = _figure(6.4, 4.2)
        for number, kind in enumerate(dict.fromkeys(layer.kind for layer in layers)):
            of = [layer for layer in layers if layer.kind == kind]
            sizes = [8 + 400 * layer.share for layer in of]
            axes.scatter(
                [layer.intensity for layer in of], [layer.gmacs for layer in of], sizes,
                color=COLOURS[number % len(COLOURS)], alpha=0.75, linewidths=0, label=kind,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        _limits(axes, layers, ceilings)
        _roofs(axes, ceilings, slopes)
        axes.set_xlabel("multiply-accumulates per byte that a layer reads and writes")
        axes.set_ylabel("GMAC/s")
        _bare(axes)
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
        figure.legend(loc="outside upper center", ncols=3, frameon=False, markerscale=0.6)
        _save(figure, path)


def _limits(axes: Axes, layers: Sequence[Layer], ceilings: Mapping[str, float]) -> None:
    across = [layer.intensity for layer in layers] or [1.0]
    up = [layer.gmacs for layer in layers] + list(ceilings.values()) or [1.0]
    axes.set_xlim(min(across) / 1.6, max(across) * 2.5)
    axes.set_ylim(min(up) / 1.6, max(up) * 1.6)


def _roofs(axes: Axes, ceilings: Mapping[str, float], slopes: Mapping[str, float]) -> None:
    left, right = axes.get_xlim()
    top = max(ceilings.values(), default=axes.get_ylim()[1])
    for name, ceiling in ceilings.items():
        axes.plot([left, right], [ceiling, ceiling], color=INK, linewidth=0.9)
        axes.text(right, ceiling, f"{name} {ceiling:.0f} ", ha="right", va="bottom", fontsize=8)
    for number, (size, rate) in enumerate(slopes.items()):
        style = ("-", "--", ":")[number % 3]
        knee = top / rate
        axes.plot([left, knee], [left * rate, top], style, color=INK, linewidth=0.9,
                  label=f"reads {size}: {rate:.0f} GB/s", scalex=False, scaley=False)  # fmt: skip


def _plain_ticks(axes: Axes, ticks: Sequence[float]) -> None:
    low, high = axes.get_xlim()
    shown = [tick for tick in ticks if low <= tick <= high] or [1]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.set_xticks([], minor=True)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _bare(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(length=0, which="both")
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> None:
    """Write an SVG without date and versions, and without blanks at the ends of lines."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    lines = (line.rstrip() for line in text.getvalue().splitlines())
    with written_whole(path) as part:
        part.write_text("\n".join(lines) + "\n")

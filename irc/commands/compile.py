"""`irc compile`: import, quantize, measure, compile, save."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irc import driver
from irc.accuracy import Accuracy, accuracy
from irc.commands.console import note, out, python_warnings, warn
from irc.commands.inputs import (
    Pins,
    load_model,
    need_calibration,
    parse_pixels,
    read_data,
    read_labels,
)
from irc.compare import LayerError, explanation
from irc.errors import DataError
from irc.graph import Graph
from irc.history import history_of
from irc.names import identifier
from irc.outputs import whole
from irc.pixels import Pixels
from irc.progress import bar
from irc.properties import is_float
from irc.report import Findings, report_file
from irc.summary import layers

COMPARED_MACS = 10**10
"""Layers are compared on so many samples that this is not exceeded, at least one, at most 16."""


@dataclass(frozen=True)
class Request:
    """The arguments of `irc compile`."""

    model: Path
    directory: Path
    calibration: str | None
    pins: Pins
    targets: tuple[str, ...]
    name: str | None
    threads: int
    optimize: str
    emit: str | None
    float_io: bool
    pixels: str | None
    tune: bool
    data: str | None
    labels: Path | None
    min_sqnr: float | None

    def check(self, graph: Graph) -> None:
        """Raise `IRCError` for what can't be done, before the long work begins."""
        if self.labels is not None and self.data is None:
            raise DataError("--labels needs --data, the inputs that they are the classes of")
        if self.data is not None and self.labels is None:
            raise DataError("--data needs --labels, which say what is right; irc compare does not")
        if self.kinds == ():
            raise DataError("--emit names no kind of file: write some of so,a,o,ll,s,irc")
        for target in self.targets:
            driver.check_request(
                self.directory, self.library(graph), target, threads=self.threads,
                optimize=self.optimize, tune=self.tune, emit=self.kinds,
            )  # fmt: skip

    def library(self, graph: Graph) -> str:
        """The library's name: the one that is asked for, else the model's."""
        return self.name or identifier(graph.name)

    @property
    def kinds(self) -> tuple[str, ...] | None:
        """What `--emit` lists."""
        if self.emit is None:
            return None
        return tuple(k.strip() for k in self.emit.split(",") if k.strip())


def compile_model(request: Request) -> None:
    """Compile as asked and say what was written; raises `IRCError`, and then nothing is."""
    pixels = parse_pixels(request.pixels)
    graph = driver.as_float(load_model(request.model, request.pins, request.calibration))
    request.check(graph)
    quantized, findings = _quantized(request, graph, pixels)
    for message in history_of(quantized).notes:
        note(message)
    for message in history_of(quantized).warnings:
        warn(message)
    if findings.accuracy is not None:
        note(str(findings.accuracy))
    public = quantized if pixels is None else driver.camera(quantized, pixels)
    options = {"float_io": request.float_io, "findings": findings, "emit": request.kinds}
    name = request.library(graph)
    folders = [Path(_folder(target, request.targets)) for target in request.targets]
    stale = [f / p for f in folders for p in driver.leftovers(request.directory / f, name)]
    with whole(request.directory, stale) as staging:
        for target in request.targets:
            folder = staging / _folder(target, request.targets)
            with python_warnings():
                model = driver.compile(
                    public, target=target, threads=request.threads, optimize=request.optimize,
                    tune=request.tune,
                )  # fmt: skip
                report = report_file(request.directory / folder.relative_to(staging), name)
                model.save(folder, name, report=report, **options)
        written = sorted(p.relative_to(staging) for p in staging.rglob("*") if p.is_file())
    for path in written:
        out().print(str(request.directory / path))


def _folder(target: str, targets: tuple[str, ...]) -> str:
    """One target's files stand in the directory itself, several targets' in one folder each."""
    return "." if len(targets) == 1 else re.sub(r"[^\w.+-]", "_", target)


def _quantized(
    request: Request, graph: Graph, pixels: Pixels | None
) -> tuple[Graph, Findings]:
    """The QDQ graph, and what was measured on the way."""
    if not is_float(graph):
        return _completed(request, graph, pixels), Findings()
    source = need_calibration(request.calibration)
    calibration = read_data(source, graph, pixels)
    quantized = driver.quantize(graph, calibration, min_sqnr=request.min_sqnr)
    errors = _errors(graph, quantized, calibration)
    if why := explanation(errors):
        warn(f"{why} (Signal to noise against float, on calibration data; irc compare lists all.)")
    return quantized, Findings(errors, _accuracy(request, graph, quantized, pixels))


def _completed(request: Request, graph: Graph, pixels: Pixels | None) -> Graph:
    """A graph that came quantized: as it is, or what it leaves float quantized too."""
    if request.min_sqnr:
        raise DataError("--min-sqnr is for float models, this one states its scales")
    if request.calibration is None:
        return graph
    if not driver.unquantized(graph):
        warn("the model is quantized already: --calibration is not used")
        return graph
    return driver.quantize(graph, read_data(request.calibration, graph, pixels))


def _errors(graph: Graph, quantized: Graph, calibration: Any) -> list[LayerError]:
    macs = sum(layer.macs for layer in layers(graph))
    count = max(1, min(16, COMPARED_MACS // max(macs, 1)))
    return driver.compare(graph, quantized, calibration, count)


def _accuracy(
    request: Request, graph: Graph, quantized: Graph, pixels: Pixels | None
) -> Accuracy | None:
    if request.labels is None or request.data is None:
        return None
    labels = read_labels(request.labels)
    data = read_data(request.data, graph, pixels)
    model = driver.compile(quantized)
    simple = driver.simplify(graph)
    with bar("accuracy", len(labels)) as shown:
        return accuracy(simple, model, driver.samples(simple, data), labels, shown)

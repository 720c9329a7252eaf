"""`python -m bench.fidelity [NAME...]`: what is left of trained networks in integers.

Each is imported and held against onnxruntime, quantized on some samples, compiled, and run over
others, networks with states on their own states; beside it onnxruntime's static int8 (QDQ, u8
activations, a weight scale per channel) from the same samples. Where it is known what the network
should say, all three are also held against that.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException
from rich.console import Console
from rich.progress import track

import irc
from bench.accuracy import sqnr_db
from bench.cache import ObtainError
from bench.document import write_measured
from bench.machine import describe
from bench.models import CALIBRATION_SEED, EVALUATION_SEED
from bench.peers import write_qdq
from bench.report import machine_markdown, markdown_table, write_json
from bench.streams import Feed, Run, calibration_of, run_over
from bench.subjects import SUBJECTS, Subject

CHECKED = 6
"""Samples on which the import is held against onnxruntime."""
SECTION = "fidelity"


@dataclass(frozen=True)
class Row:
    """What became of one network: the largest difference of `irc.evaluate` from onnxruntime,
    relative to the output's largest element; SQNR in dB of each output, ours and onnxruntime's
    int8; what share is right of float, ours and theirs, where that is known."""

    name: str
    samples: int
    imported: float
    sqnr: Mapping[str, float]
    peer: Mapping[str, float] = field(default_factory=dict)
    metric: str = ""
    right: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    failed: str = ""


def session(path: Path) -> onnxruntime.InferenceSession:
    """A file in onnxruntime, on one thread, by kernels that don't saturate pairs of products, as
    its usual ones do on CPUs without VNNI; by those where it can't load a file so."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except (Fail, RuntimeException):
        options.add_session_config_entry("session.x64quantprecision", "0")
        return onnxruntime.InferenceSession(path, options, providers=providers)


def runner(path: Path, subject: Subject) -> Run:
    """A function that runs a file in onnxruntime."""
    made = session(path)
    names = [o.name for o in made.get_outputs()]
    fixed = {n: np.asarray(v) for n, v in subject.values.items()}

    def run(feed: Mapping[str, Any]) -> Mapping[str, Any]:
        return dict(zip(names, made.run(names, {**feed, **fixed}), strict=True))

    return run


Found = list[Mapping[str, Any]]


def measure(subject: Subject) -> Row:
    """Import, compare, quantize, compile, run."""
    path = subject.obtain()
    real = runner(path, subject)
    feeds = subject.feeds(subject.calibration, CALIBRATION_SEED)
    calibration = calibration_of(subject, run_over(real, subject, feeds), feeds)
    unseen = subject.feeds(subject.steps, EVALUATION_SEED)
    wanted = run_over(real, subject, unseen)
    graph = irc.load(path, shapes=subject.shapes, values=subject.values)
    checked = calibration[:: max(len(calibration) // CHECKED, 1)]
    imported = difference([irc.evaluate(graph, f) for f in checked], [real(f) for f in checked])
    found = run_over(integers(graph, calibration), subject, unseen)
    peer, failed = _peer(subject, path, calibration, unseen)
    truth = subject.truth(subject.steps, EVALUATION_SEED) if subject.truth else wanted
    rights = [math.nan] * 3
    if subject.score is not None:
        rights = [subject.score(o, truth) if o else math.nan for o in (wanted, found, peer)]
    return Row(
        subject.name,
        len(unseen),
        imported,
        decibels(found, wanted),
        decibels(peer, wanted),
        subject.metric,
        (rights[0], rights[1], rights[2]),
        failed,
    )


def integers(graph: Any, calibration: Sequence[Feed]) -> Run:
    """The compiled library of a graph; one that came quantized needs no calibration."""
    try:
        quantized = irc.quantize(graph, calibration=calibration, progress=lambda _: None)
    except irc.IRCError as error:
        if "quantized already" not in str(error):
            raise
        quantized = graph
    model = irc.compile(quantized)
    types = dict(zip(model.graph.output_names, model.graph.outputs, strict=True))

    def run(feed: Mapping[str, Any]) -> Mapping[str, Any]:
        return {n: _real(a, types[n].type.quant) for n, a in model(feed).items()}

    return run


def _real(array: Any, quant: Any) -> Any:
    """An output in reals: it is integers where all inputs were."""
    if quant is None or array.dtype.kind == "f":
        return array
    return (array.astype(np.float32) - quant.zero) * np.float32(quant.tensor_scale)


def _peer(
    subject: Subject, path: Path, calibration: Sequence[Feed], unseen: Sequence[Feed]
) -> tuple[Found, str]:
    """The outputs of onnxruntime's int8, or why there are none."""
    fixed = {n: np.asarray(v) for n, v in subject.values.items()}
    with TemporaryDirectory() as folder:
        target = Path(folder) / "qdq.onnx"
        try:
            write_qdq(path, target, ({**f, **fixed} for f in calibration), "u8")
            return run_over(runner(target, subject), subject, unseen), ""
        except Exception as error:  # the peer's failure is a result
            reason = " ".join(str(error).split())
            return [], f"onnxruntime int8: {type(error).__name__}: {reason}"[:200]


def difference(found: Iterable[Mapping[str, Any]], wanted: Found) -> float:
    """The largest difference of any output, relative to its largest element over all samples."""
    worst = {n: 0.0 for n in wanted[0]}
    for f, w in zip(found, wanted, strict=True):
        for n, a in w.items():
            gap = np.abs(np.asarray(f[n], np.float64) - a)
            worst[n] = max(worst[n], float(gap.max(initial=0)))
    largest = {n: max(float(np.abs(w[n]).max(initial=0)) for w in wanted) for n in worst}
    return max(gap / max(largest[n], 1e-30) for n, gap in worst.items())


def decibels(found: Found, wanted: Found) -> dict[str, float]:
    """SQNR of each output over all samples."""
    if not found:
        return {}
    return {
        n: sqnr_db(np.stack([o[n] for o in found]), np.stack([o[n] for o in wanted]))
        for n in wanted[0]
    }


def markdown(rows: Sequence[Row]) -> str:
    """Return the table, and the reasons of what could not be measured."""
    head = (
        "network", "samples", "import error", "SQNR dB", "onnxruntime int8", "what is right",
        "float", "irc", "onnxruntime int8",
    )  # fmt: skip
    cells = [
        (
            row.name,
            str(row.samples),
            f"{row.imported:.0e}",
            listed(row.sqnr),
            listed(row.peer),
            row.metric or "–",
            *("–" if math.isnan(r) else f"{r:.1%}" for r in row.right),
        )
        for row in rows
    ]
    failed = [f"- {row.name}: {row.failed}" for row in rows if row.failed]
    return "\n".join([markdown_table(head, cells), "", *failed]).strip()


def listed(values: Mapping[str, float]) -> str:
    """Numbers of outputs, in their order."""
    return ", ".join(f"{v:.1f}" for v in values.values()) or "–"


def main() -> int:
    """Measure the named networks, or all; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.fidelity", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SUBJECTS))
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="write the table into it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    given = parser.parse_args()
    names = given.names or list(SUBJECTS)
    rows: list[Row] = []
    for name in track(names, console=Console(stderr=True), transient=True):
        if name not in SUBJECTS:
            print(f"no network is called {name}; there are {', '.join(SUBJECTS)}", file=sys.stderr)
            return 1
        try:
            rows.append(measure(SUBJECTS[name]))
        except (ObtainError, irc.IRCError) as error:
            rows.append(Row(name, 0, math.nan, {}, failed=" ".join(str(error).split())[:300]))
        print(markdown(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    machine = describe(peaks=False)
    print(markdown(rows))
    if given.write:
        write_measured(given.write, SECTION, f"{machine_markdown(machine)}\n\n{markdown(rows)}")
    if given.json:
        write_json(given.json, machine, {"fidelity": [asdict(row) for row in rows]})
    return 0


if __name__ == "__main__":
    sys.exit(main())

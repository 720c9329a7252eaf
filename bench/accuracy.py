"""`python -m bench.accuracy [MODEL...]`: how often each runner's integers say what float says.

Networks for Fashion-MNIST are also held against the labels of its 10,000 test images; others are
held against onnxruntime's fp32 on seeded crops of photos.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from bench.cache import ObtainError
from bench.compare import make_task, select
from bench.fashion import fashion, fashion_normalized
from bench.images import Floats
from bench.machine import describe
from bench.models import Model, model_named
from bench.peers import OnnxRuntime
from bench.report import machine_markdown, markdown_table, skipped_lines, write_json
from bench.runners import Runner, Task
from bench.worker import prepare

REFERENCE = "onnxruntime-fp32"
DEFAULT_MODELS = ("fashion_resnet8", "fashion_dscnn", "efficientnet_lite0")
DEFAULT_PEERS = "onnxruntime-u8s8,onnxruntime-s8s8,onnxruntime-exact,openvino-int8"
CROPS = 600


@dataclass(frozen=True)
class Score:
    """One runner on one model; `accuracy` is absent where there are no labels."""

    runner: str
    agreement: float  # of top-1 with float
    accuracy: float | None
    sqnr_db: float  # of the first output against float's


@dataclass(frozen=True)
class Accuracy:
    """One model's scores, on `samples` inputs that calibration has not seen."""

    model: str
    samples: int
    calibration: int
    scores: tuple[Score, ...]
    skipped: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return plain data for json.dump."""
        return asdict(self)


def top1(logits: Floats) -> NDArray[np.intp]:
    """Return the index of the largest logit of each row: f32[n, classes] to [n]."""
    indices: NDArray[np.intp] = logits.argmax(axis=-1)
    return indices


def share_equal(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Return the share of equal elements of two arrays of one shape."""
    return float(np.mean(found == wanted))


def sqnr_db(found: Floats, wanted: Floats) -> float:
    """Return 10 log10(signal / noise) of `found` against `wanted`; infinite if they are equal."""
    noise = float(np.sum((found.astype(np.float64) - wanted) ** 2))
    signal = float(np.sum(wanted.astype(np.float64) ** 2))
    return float("inf") if noise == 0 else 10 * float(np.log10(signal / noise))


def logits_of(runner: Runner, feeds: Iterable[dict[str, Floats]]) -> Floats:
    """Return the runner's first output for each feed, flattened: f32[n, classes]."""
    rows = (next(iter(runner.run(feed).values())).reshape(-1) for feed in feeds)
    return np.stack([row.astype(np.float32) for row in rows])  # a copy: outputs may be reused


def prepare_all(
    runners: Iterable[Runner], task: Task, folder: Path
) -> tuple[list[Runner], dict[str, str]]:
    """Prepare every runner that can be; return them, and the reasons of the others by name."""
    ready: list[Runner] = []
    skipped: dict[str, str] = {}
    for runner in runners:
        if reason := runner.missing():
            skipped[runner.name] = reason
            continue
        try:
            prepare(runner, task, folder / runner.name)
        except Exception as error:  # a runner's failure is a result, not the end of the run
            skipped[runner.name] = f"failed: {type(error).__name__}: {error}"[:400]
        else:
            ready.append(runner)
    return ready, skipped


def unseen_samples(model: Model, count: int) -> tuple[Floats, NDArray[np.uint8] | None]:
    """Return inputs f32[n, ...] that calibration has not seen, and labels if there are any."""
    if not model.name.startswith("fashion"):
        return model.evaluation(count), None
    pixels, labels = fashion("t10k")
    return fashion_normalized(pixels), labels


def score(name: str, found: Floats, wanted: Floats, labels: NDArray[np.uint8] | None) -> Score:
    """Return the score of logits against float's logits and, where there are any, labels."""
    accuracy = None if labels is None else share_equal(top1(found), labels)
    return Score(name, share_equal(top1(found), top1(wanted)), accuracy, sqnr_db(found, wanted))


def measure(
    model: Model, runners: Sequence[Runner], *, count: int = CROPS, calibration: int = 16
) -> Accuracy:
    """Score the runners on a model, each built from the same calibration samples.

    Raises ValueError if the float reference can't run.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        task, _ = make_task(model, folder, threads=1, samples=calibration)
        ready, skipped = prepare_all([OnnxRuntime(REFERENCE), *runners], task, folder)
        if REFERENCE in skipped:
            raise ValueError(f"{model.name}: no reference: {REFERENCE}: {skipped[REFERENCE]}")
        samples, labels = unseen_samples(model, count)
        scores = _scores(ready, task, samples, labels)
    return Accuracy(model.name, len(samples), len(task.calibration), scores, skipped)


def _scores(
    runners: Sequence[Runner], task: Task, samples: Floats, labels: NDArray[np.uint8] | None
) -> tuple[Score, ...]:
    console = Console(stderr=True)
    feeds = task.feeds(samples)
    wanted = logits_of(runners[0], feeds)
    scores = [score(runners[0].name, wanted, wanted, labels)]
    for runner in runners[1:]:
        bar = track(feeds, f"{task.name}: {runner.name}", console=console, transient=True)
        scores.append(score(runner.name, logits_of(runner, bar), wanted, labels))
    return tuple(scores)


def accuracy_markdown(result: Accuracy) -> str:
    """Return one model's table under a heading."""
    rows = [
        (
            each.runner,
            f"{each.agreement:.2%}",
            "–" if each.accuracy is None else f"{each.accuracy:.2%}",
            f"{each.sqnr_db:.1f}",
        )
        for each in result.scores
    ]
    table = markdown_table(("runner", "top-1 = float", "accuracy", "SQNR dB"), rows)
    heading = f"### {result.model}: {result.samples} samples, {result.calibration} for calibration"
    return "\n".join([heading, "", table, *skipped_lines(result.skipped)])


def main() -> int:
    """Measure, print tables, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=DEFAULT_MODELS)
    parser.add_argument("--against", default=DEFAULT_PEERS, help="peers, comma-separated")
    parser.add_argument("--crops", type=int, default=CROPS, help="photo crops to evaluate on")
    parser.add_argument("--calibration", type=int, default=16, help="samples to calibrate with")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    given = parser.parse_args()
    machine = describe(peaks=False)
    print(machine_markdown(machine), flush=True)
    results = []
    try:
        for model in map(model_named, given.models):
            result = measure(
                model,
                select([name for name in given.against.split(",") if name]),
                count=given.crops,
                calibration=given.calibration,
            )
            print(f"\n{accuracy_markdown(result)}", flush=True)
            results.append(result.as_json())
    except (ObtainError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if given.json:
        write_json(given.json, machine, {"accuracy": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())

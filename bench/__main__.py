"""`python -m bench MODEL...`: compare irc with other runtimes on real models."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.cache import ObtainError
from bench.compare import Comparison, compare, select
from bench.isa import LEVELS, hold_to
from bench.machine import describe, pin
from bench.models import MODELS, Model, file_model, models_named
from bench.record import Record
from bench.report import comparison_markdown, machine_markdown


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    made = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    made.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help=f"all, table (those of docs/performance.md), others, or of {', '.join(MODELS)}; or an "
        "ONNX file, with --samples",
    )
    made.add_argument(
        "--samples", type=Path, metavar="FILE", help=".npz with the inputs of ONNX files"
    )
    made.add_argument(
        "--against",
        default="onnxruntime,openvino",
        help="peers, comma-separated: a family (onnxruntime) or one of it (onnxruntime-u8s8)",
    )
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--rounds", type=int, default=10, help="turns of each runner")
    made.add_argument(
        "--isa", choices=LEVELS, default="native", help="hold all to this level (not onnxruntime)"
    )
    made.add_argument("--calibration", type=int, default=16, help="samples to calibrate with")
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    made.add_argument(
        "--write",
        type=Path,
        metavar="FILE.md",
        help="also write this document's section for the level and the threads, with plots and "
        "JSON in the folder FILE beside it",
    )
    made.add_argument(
        "--subject", default="", metavar="WORDS", help="with --write: a section of this name"
    )
    made.add_argument(
        "--roofline", metavar="MODEL", help="with --write: also plot this model layer by layer"
    )
    return made


def chosen(names: Sequence[str], samples: Path | None) -> list[Model]:
    """Return models by name, or of files; raise ObtainError if there is none."""
    found = []
    for name in names:
        if not name.endswith(".onnx"):
            found += models_named([name])
        elif samples is None:
            raise ObtainError(f"{name} needs --samples, an .npz with its inputs")
        else:
            found.append(file_model(Path(name), samples))
    return found


def run(model: Model, given: argparse.Namespace, cores: tuple[int, ...]) -> Comparison:
    """Compare on one model and print its table; raise ObtainError or ValueError on failure."""
    runners = select([name for name in given.against.split(",") if name], LEVELS[given.isa])
    with Console(stderr=True).status(f"{model.name}: building and timing"):
        result = compare(
            model,
            runners,
            threads=given.threads,
            rounds=given.rounds,
            calibration=given.calibration,
            cores=cores,
        )
    print(f"\n{comparison_markdown(result)}", flush=True)
    return result


def main() -> int:
    """Run the comparisons, print tables, and return the exit status: 1 if any model failed."""
    given = parser().parse_args()
    try:
        models = chosen(given.models, given.samples)
        roofline = models_named([given.roofline] if given.roofline and given.write else [])
    except ObtainError as error:
        print(error, file=sys.stderr)
        return 1
    level = LEVELS[given.isa]
    cores = pin(given.threads)
    hold_to(level)
    machine = describe()
    print(f"{machine_markdown(machine)}\nInstruction sets: {given.isa}", flush=True)
    command = f"python -m bench {shlex.join(sys.argv[1:])}"
    record = Record(machine, level, given.threads, command, given.json, given.write, given.subject)
    for model in models:
        try:
            record.add(run(model, given, cores))
        except (ObtainError, ValueError) as error:
            print(error, file=sys.stderr)
            record.fail(model.name, str(error))
    for model in roofline:
        try:
            record.roofline(model, rounds=given.rounds, calibration=given.calibration)
        except ObtainError as error:
            print(error, file=sys.stderr)
            record.fail(f"layers of {model.name}", str(error))
    return 1 if record.failures else 0


if __name__ == "__main__":
    sys.exit(main())

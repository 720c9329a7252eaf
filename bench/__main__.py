"""`python -m bench MODEL...`: compare irc with other runtimes on real models."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from bench.cache import ObtainError
from bench.compare import compare, select
from bench.isa import LEVELS, hold_to
from bench.machine import describe, pin
from bench.models import MODELS, model_named
from bench.report import comparison_markdown, machine_markdown, write_json
from bench.worker import WorkerError


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    made = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    made.add_argument("models", nargs="+", metavar="MODEL", help=f"all, or of {', '.join(MODELS)}")
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
    return made


def main() -> int:
    """Run the comparisons, print tables, and return the exit status."""
    given = parser().parse_args()
    progress = Console(stderr=True)
    cores = pin(given.threads)
    level = LEVELS[given.isa]
    hold_to(level)
    machine = describe()
    print(f"{machine_markdown(machine)}\nInstruction sets: {level.name}", flush=True)
    results = []
    try:
        names = list(MODELS) if given.models == ["all"] else given.models
        for model in [model_named(name) for name in names]:
            with progress.status(f"{model.name}: building and timing"):
                result = compare(
                    model,
                    select([name for name in given.against.split(",") if name], level),
                    threads=given.threads,
                    rounds=given.rounds,
                    calibration=given.calibration,
                    cores=cores,
                )
            print(f"\n{comparison_markdown(result)}", flush=True)
            results.append(result.as_json())
            if given.json:
                write_json(given.json, machine, {"isa": level.name, "comparisons": results})
    except (ObtainError, ValueError, WorkerError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

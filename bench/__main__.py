"""`python -m bench MODEL...`: compare irc with other runtimes on real models."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from bench.cache import ObtainError
from bench.compare import Comparison, compare, select
from bench.isa import LEVELS, hold_to
from bench.machine import describe, pin
from bench.models import MODELS, Model, file_model, model_named
from bench.report import comparison_markdown, machine_markdown, write_json


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    made = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    made.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help=f"all, or of {', '.join(MODELS)}; or an ONNX file, with --samples",
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
    return made


def named(name: str, samples: Path | None) -> Model:
    """Return a model by its name, or of a file; raise ObtainError if there is none."""
    if not name.endswith(".onnx"):
        return model_named(name)
    if samples is None:
        raise ObtainError(f"{name} needs --samples, an .npz with its inputs")
    return file_model(Path(name), samples)


def run(model: Model, given: argparse.Namespace, cores: tuple[int, ...]) -> Comparison | None:
    """Compare on one model and print its table; on failure print why and return None."""
    try:
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
    except (ObtainError, ValueError) as error:
        print(error, file=sys.stderr)
        return None
    print(f"\n{comparison_markdown(result)}", flush=True)
    return result


def main() -> int:
    """Run the comparisons, print tables, and return the exit status: 1 if any model failed."""
    given = parser().parse_args()
    try:
        names = given.models if given.models != ["all"] else []
        models = [named(name, given.samples) for name in names]
    except ObtainError as error:
        print(error, file=sys.stderr)
        return 1
    cores = pin(given.threads)
    hold_to(LEVELS[given.isa])
    machine = describe()
    print(f"{machine_markdown(machine)}\nInstruction sets: {given.isa}", flush=True)
    results = []
    failures = 0
    for model in models or MODELS.values():
        if (result := run(model, given, cores)) is None:
            failures += 1
            continue
        results.append(result.as_json())
        if given.json:
            write_json(given.json, machine, {"isa": given.isa, "comparisons": results})
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line: arguments only; what the commands do stands in `irc/commands/`."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import irc
from irc import interrupt
from irc.commands.inputs import Pins
from irc.errors import IRCError


class Commands(TyperGroup):
    """Commands whose errors, where they are the user's to mend, are one line and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except IRCError as error:
            message = one_line(str(error))
        except BrokenPipeError:
            raise  # Typer's: whoever read the output has had enough
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            message = f"{place}{error.strerror or error}"
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(1)


def one_line(message: str) -> str:
    """A message whose lines are a list's entries, in one line."""
    lines = [" ".join(line.split()) for line in message.splitlines()]
    return re.sub(r"([:;,.]); ", r"\1 ", "; ".join(filter(None, lines)))


app = typer.Typer(
    name="irc",
    cls=Commands,
    help="Compile neural networks to standalone, integer-only CPU libraries.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text wraps words that the boxes cut
    pretty_exceptions_enable=False,
)

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL", help="An ONNX model, a PyTorch program (.pt2), or IR text (.irc)."
    ),
]
Subject = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A model, or a library that irc compiled.")
]
Library = Annotated[
    Path, typer.Argument(metavar="LIBRARY", help="A library that irc compiled: libNAME.so")
]
Compiled = Annotated[
    Path,
    typer.Argument(
        metavar="LIBRARY", help="What irc compiled, for any CPU: libNAME.so, libNAME.a or NAME.o"
    ),
]
IRFile = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE.irc",
        help="Write it there, its long constants to an .npz beside it, in place of printing it.",
    ),
]  # fmt: skip
Calibration = Annotated[
    str | None,
    typer.Option(
        metavar="DATA",
        help="Inputs to choose scales by: an .npz keyed by input name, samples on the first axis;"
        " a folder of images (with --input-u8); or random:N.",
    ),
]
MinSqnr = Annotated[
    float | None,
    typer.Option(
        metavar="DB", min=0.0, show_default=False,
        help="Accuracy that each output must have, in dB of signal to noise against float, measured"
        " on a quarter of the calibration data: values get 16 bits until it is reached.",
    ),
]  # fmt: skip
Data = Annotated[
    str | None,
    typer.Option(metavar="DATA", help="Inputs to measure on, like --calibration (its default)."),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME=1,3,224,224", help="Pin an input's shape. Repeatable."),
]
Values = Annotated[
    list[str] | None,
    typer.Option("--value", metavar="NAME=16000", help="Make an input a constant. Repeatable."),
]
States = Annotated[
    list[str] | None,
    typer.Option(
        "--state", metavar="NAME=OUTPUT", help="An output goes into an input next time. Repeatable."
    ),
]
Threads = Annotated[int, typer.Option(min=1, metavar="N", help="Threads to run on.")]
Pixels = Annotated[
    str | None,
    typer.Option(
        "--input-u8",
        metavar="mean=..,std=..",
        help="Take u8 camera frames [N,H,W,C]: real = (pixel / 255 - mean) / std, one number or one"
        " per channel: mean=0.485,0.456,0.406,std=0.229,0.224,0.225",
    ),
]
Folder = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the library.")
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CPU",
        help="CPU to compile for: host; x86-64 (all its levels), x86-64-v3, aarch64+dotprod,"
        " cortex-m4, riscv64+v, wasm32, …; a CPU (skylake, znver4, apple-m1, cortex-m7); a triple"
        " (aarch64-linux-gnu), or triple:cpu:features. Repeatable: each then gets its folder.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Name of the library, a C identifier: else the model's."),
]
Optimize = Annotated[str, typer.Option(metavar="speed|size", help="What to optimize for.")]
Emit = Annotated[
    str | None,
    typer.Option(metavar="so,a,o,ll,s,irc", help="Which files to write: else so,a,o."),
]
FloatIO = Annotated[
    bool,
    typer.Option(
        "--float-io/--no-float-io", show_default=False,
        help="With NAME_run_f32, which takes and gives floats, or without. [default: with]",
    ),
]
Tune = Annotated[
    bool,
    typer.Option(
        "--tune",
        help="Time the kernels that could do each layer on this machine and take the fastest;"
        " times are remembered in IRC_TUNE_CACHE [~/.cache/irc/tune.json].",
    ),
]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the results here too.")
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="True classes of --data (.npy, or .npz with 'labels'): report accuracy.",
    ),
]


def _pins(shapes: list[str] | None, values: list[str] | None, states: list[str] | None) -> Pins:
    return Pins(tuple(shapes or ()), tuple(values or ()), tuple(states or ()))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"irc {irc.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Compile neural networks to standalone, integer-only CPU libraries."""


@app.command("compile")
def compile_(
    model: Model,
    directory: Folder,
    calibration: Calibration = None,
    shapes: Shapes = None,
    values: Values = None,
    states: States = None,
    target: Targets = None,
    name: Name = None,
    threads: Threads = 1,
    optimize: Optimize = "speed",
    emit: Emit = None,
    float_io: FloatIO = True,
    pixels: Pixels = None,
    tune: Tune = False,
    data: Data = None,
    labels: Labels = None,
    min_sqnr: MinSqnr = None,
) -> None:
    """Compile a model to a library, its header, manifest and report."""
    from irc.commands.compile import Request, compile_model

    request = Request(
        model=model, directory=directory, calibration=calibration,
        pins=_pins(shapes, values, states),
        targets=tuple(target or ("host",)), name=name, threads=threads, optimize=optimize,
        emit=emit, float_io=float_io, pixels=pixels, tune=tune, data=data, labels=labels,
        min_sqnr=min_sqnr,
    )  # fmt: skip
    compile_model(request)


@app.command()
def run(
    library: Library,
    inputs: Annotated[Path, typer.Argument(metavar="INPUT.npz", help="Arrays by input name.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUTPUT.npz", help="Save outputs.")
    ] = None,
) -> None:
    """Run a compiled library on one input."""
    from irc.commands.run import run_library

    run_library(library, inputs, output)


@app.command()
def show(
    model: Model,
    after: Annotated[
        str | None, typer.Option(metavar="PASS", help="Show it as it is after this pass.")
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="A table: op, shape, MACs, parameters, bytes.")
    ] = False,
    output: IRFile = None,
    calibration: Calibration = None,
    shapes: Shapes = None,
    values: Values = None,
    states: States = None,
) -> None:
    """Show a model as IR text, or as a table of layers."""
    from irc.commands.show import show_model

    show_model(model, after, summary, output, calibration, _pins(shapes, values, states))


@app.command()
def opt(
    file: Annotated[Path, typer.Argument(metavar="FILE.irc", help="IR text.")],
    passes: Annotated[
        str,
        typer.Option(
            metavar="LIST", help='Passes in order, as in "fold,quantize{method=minmax}".'
        ),
    ],
    output: IRFile = None,
) -> None:
    """Run passes over IR text and print the result."""
    from irc.commands.opt import optimize

    optimize(file, passes, output)


@app.command()
def compare(
    model: Model,
    calibration: Calibration = None,
    data: Data = None,
    shapes: Shapes = None,
    values: Values = None,
    states: States = None,
    pixels: Pixels = None,
    json_file: Json = None,
) -> None:
    """Compare float with integer layer by layer: SQNR, worst first."""
    from irc.commands.compare import compare_model

    compare_model(model, calibration, data, _pins(shapes, values, states), pixels, json_file)


@app.command()
def prune(
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PRUNED.onnx", help="The model to write.")
    ],
    ratio: Annotated[
        float, typer.Option(metavar="R", help="Share of each layer's channels that goes, below 1.")
    ],
    calibration: Calibration = None,
    shapes: Shapes = None,
    values: Values = None,
    states: States = None,
    pixels: Pixels = None,
) -> None:
    """Remove a model's least important channels; what is left is ONNX."""
    from irc.commands.prune import prune_model

    prune_model(model, output, ratio, calibration, _pins(shapes, values, states), pixels)


@app.command()
def bench(
    model: Subject,
    calibration: Calibration = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="onnxruntime,openvino", help="Runtimes to compare with."),
    ] = None,
    target: Annotated[
        str, typer.Option(metavar="CPU", help="A CPU that this one can stand for.")
    ] = "host",
    threads: Threads = 1,
    layers: Annotated[bool, typer.Option("--layers", help="The time of every kernel.")] = False,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Turns that are timed.")] = 20,
    json_file: Json = None,
    shapes: Shapes = None,
    values: Values = None,
    states: States = None,
) -> None:
    """Measure latency, memory, size, start; of other runtimes, too.

    A library is timed as it is, on as many threads as it was compiled for; a model is compiled.
    """
    from irc.commands.bench import Request, bench_model

    request = Request(model, calibration, _pins(shapes, values, states), target, threads, rounds,
                      layers,
                      tuple(a.strip() for a in (against or "").split(",") if a.strip()),
                      json_file)  # fmt: skip
    bench_model(request)


@app.command()
def audit(library: Compiled, json_file: Json = None) -> None:
    """Check on the machine code what the library promises."""
    from irc.commands.audit import audit_library

    if not audit_library(library, json_file):
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Show what is there: CPU, features, linker, extras."""
    from irc.commands.doctor import examine

    if not examine():
        raise typer.Exit(1)


def unwind(number: int, frame: object) -> None:
    """What a signal does: end as by an exception, so that what is half-written is taken away."""
    del frame
    sys.exit(128 + number)


def main() -> None:
    """Entry point."""
    signal.signal(signal.SIGTERM, unwind)
    interrupt.allow()
    app()

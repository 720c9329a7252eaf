"""The composition root: the public functions, and the one folder of `irc` that imports the sibling
packages (inside functions, so that importing `irc` stays quick)."""

from irc.driver.compiling import (
    BACKENDS,
    arena_bounds,
    check_here,
    check_request,
    compile,
    leftovers,
    open_library,
)
from irc.driver.data import read_npz, samples
from irc.driver.forms import (
    NOISE_WARNING,
    as_float,
    camera,
    integerize,
    prune,
    quantize,
    run_passes,
    schedule,
    simplify,
    stages,
    to_onnx,
    unquantized,
)
from irc.driver.importing import from_torch, load
from irc.driver.measuring import cannot_run, compare, host_target, linker, profile

__all__ = [
    "BACKENDS", "NOISE_WARNING", "arena_bounds", "as_float", "camera", "cannot_run", "check_here",
    "check_request", "compare", "compile", "from_torch", "host_target", "integerize", "leftovers",
    "linker", "load", "open_library", "profile", "prune", "quantize", "read_npz", "run_passes",
    "samples", "schedule", "simplify", "stages", "to_onnx", "unquantized",
]  # fmt: skip

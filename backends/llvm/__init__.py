"""The LLVM backend: scheduled graphs become machine code, in process or as files for any CPU.

`target` says what a CPU can do, `work` what a kernel is to do. A folder per step from there; each
imports only those above it:

    code/     expressions as instructions, on scalars and on vectors; levels of CPUs
    kernels/  micro-kernels, and what chooses among them
    module/   a graph as one LLVM module: its kernels, and the C interface around them
    files/    the files of a library, for any CPU
    host/     libraries in this process: called, timed, tuned
"""

from irc.backends.llvm.files.aot import save
from irc.backends.llvm.host.jit import compile_graph
from irc.backends.llvm.host.jit import compile_graph as compile
from irc.backends.llvm.host.library import Library, open_library
from irc.backends.llvm.host.tuning import check_timeable, tune
from irc.backends.llvm.module.pool import check_threads
from irc.backends.llvm.target import Target, aim, parse_target

__all__ = [
    "Library", "Target", "aim", "check_threads", "check_timeable", "compile", "compile_graph",
    "open_library", "parse_target", "save", "tune",
]  # fmt: skip

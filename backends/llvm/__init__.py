"""The LLVM backend: scheduled graphs become machine code, in process or as files for any CPU."""

from irc.backends.llvm.aot import save
from irc.backends.llvm.jit import compile_graph
from irc.backends.llvm.jit import compile_graph as compile
from irc.backends.llvm.library import Library, open_library
from irc.backends.llvm.pool import check_threads
from irc.backends.llvm.target import Target, aim, parse_target
from irc.backends.llvm.tuning import check_timeable, tune

__all__ = [
    "Library", "Target", "aim", "check_threads", "check_timeable", "compile", "compile_graph",
    "open_library", "parse_target", "save", "tune",
]  # fmt: skip

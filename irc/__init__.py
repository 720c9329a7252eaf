"""irc: float models become integer-only, standalone CPU libraries.

    graph = irc.load("model.onnx")
    model = irc.compile(irc.quantize(graph, calibration=batches))
    model.save("build/", name="net")
"""

import irc.interrupt as _interrupt  # before all that takes time
import irc.ops as _ops  # registers every op
from irc.driver import compile, from_torch, load, open_library, prune, quantize, to_onnx
from irc.errors import IRCError
from irc.graph import Graph, evaluate
from irc.model import CompiledModel, Library
from irc.parser import parse
from irc.streams import Stream

__version__ = "0.1.0"
__all__ = [
    "CompiledModel", "Graph", "IRCError", "Library", "Stream", "compile", "evaluate",
    "from_torch", "load", "open_library", "parse", "prune", "quantize", "to_onnx",
]  # fmt: skip
del _interrupt, _ops

"""ATen operators by family; importing this package fills the table of handlers."""

from irc.frontends.torch.ops import (
    complex,
    conv,
    elementwise,
    fourier,
    functions,
    indexing,
    linear,
    normalization,
    pool,
    quantization,
    ranking,
    recurrent,
    reduce,
    resize,
    sampling,
    shape,
)
from irc.frontends.torch.ops.complex import OF_COMPLEX, results_of
from irc.frontends.torch.ops.quantization import KEPT
from irc.frontends.torch.ops.shape import FILLED
from irc.frontends.torch.ops.table import HANDLERS, Complex, Node

__all__ = [
    "FILLED",
    "HANDLERS",
    "KEPT",
    "OF_COMPLEX",
    "Complex",
    "Node",
    "complex",
    "conv",
    "elementwise",
    "fourier",
    "functions",
    "indexing",
    "linear",
    "normalization",
    "pool",
    "quantization",
    "ranking",
    "recurrent",
    "reduce",
    "resize",
    "results_of",
    "sampling",
    "shape",
]

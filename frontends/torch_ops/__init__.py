"""ATen operators by family; importing this package fills the table of handlers."""

from . import (
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
from .complex import OF_COMPLEX, results_of
from .quantization import KEPT
from .shape import FILLED
from .table import HANDLERS, Complex, Node

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

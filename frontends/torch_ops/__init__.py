"""ATen operators by family; importing this package fills the table of handlers."""

from . import (
    conv,
    elementwise,
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
from .quantization import KEPT
from .shape import FILLED
from .table import HANDLERS, Node

__all__ = [
    "FILLED",
    "HANDLERS",
    "KEPT",
    "Node",
    "conv",
    "elementwise",
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
    "sampling",
    "shape",
]

"""ATen operators by family; importing this package fills the table of handlers."""

from . import (
    conv,
    elementwise,
    linear,
    normalization,
    pool,
    quantization,
    recurrent,
    reduce,
    resize,
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
    "linear",
    "normalization",
    "pool",
    "quantization",
    "recurrent",
    "reduce",
    "resize",
    "shape",
]

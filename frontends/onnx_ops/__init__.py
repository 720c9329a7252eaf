"""ONNX operators by family; importing this package fills the table of handlers."""

from . import conv, elementwise, linear, normalization, pool, quantization, reduce, resize, shape
from .table import HANDLERS, Node

__all__ = [
    "HANDLERS",
    "Node",
    "conv",
    "elementwise",
    "linear",
    "normalization",
    "pool",
    "quantization",
    "reduce",
    "resize",
    "shape",
]

"""ONNX operators by family; importing this package fills the table of handlers."""

from . import (
    contrib,
    conv,
    elementwise,
    fused,
    linear,
    normalization,
    pool,
    qlinear,
    quantization,
    reduce,
    resize,
    shape,
)
from .table import HANDLERS, Node

__all__ = [
    "HANDLERS",
    "Node",
    "contrib",
    "conv",
    "elementwise",
    "fused",
    "linear",
    "normalization",
    "pool",
    "qlinear",
    "quantization",
    "reduce",
    "resize",
    "shape",
]

"""ONNX operators by family; importing this package fills the table of handlers."""

from . import (
    contrib,
    conv,
    einsum,
    elementwise,
    fused,
    gather,
    linear,
    normalization,
    norms,
    pool,
    qlinear,
    quantization,
    rare,
    reduce,
    resize,
    select,
    shape,
)
from .table import HANDLERS, Node

__all__ = [
    "HANDLERS",
    "Node",
    "contrib",
    "conv",
    "einsum",
    "elementwise",
    "fused",
    "gather",
    "linear",
    "normalization",
    "norms",
    "pool",
    "qlinear",
    "quantization",
    "rare",
    "reduce",
    "resize",
    "select",
    "shape",
]

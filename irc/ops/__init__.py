"""The ops, one file per family; importing this package registers all of them."""

from irc.ops import (
    activation,
    conv,
    core,
    elementwise,
    functions,
    linear,
    logic,
    normalization,
    pool,
    qnorm,
    quantization,
    ranking,
    reduce,
    resize,
    shape,
    softmax,
)

__all__ = [
    "activation",
    "conv",
    "core",
    "elementwise",
    "functions",
    "linear",
    "logic",
    "normalization",
    "pool",
    "qnorm",
    "quantization",
    "ranking",
    "reduce",
    "resize",
    "shape",
    "softmax",
]

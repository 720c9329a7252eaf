"""Counting a model's multiply-accumulates."""

from collections.abc import Callable

import numpy as np
import onnx

from bench.shapes import Shape, Shapes, static_shapes


def count_macs(model: onnx.ModelProto) -> int:
    """Return the multiply-accumulates of convolutions and matrix products, shapes being pinned.

    Elementwise work is not counted. Raises ValueError if a counted node's shapes are unknown.
    """
    shapes = static_shapes(model)
    return sum(_node_macs(node, shapes) for node in model.graph.node if node.op_type in _MACS)


def _node_macs(node: onnx.NodeProto, shapes: Shapes) -> int:
    names = (*node.input[:2], node.output[0])
    if unknown := [name for name in names if name not in shapes]:
        raise ValueError(f"{node.op_type} {node.name}: the shape of {unknown[0]} is not known")
    x, w, y = (shapes[name] for name in names)
    if node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute):
        x = x[::-1]
    return _MACS[node.op_type](x, w, y)


def _size(shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64))


# Each takes the shapes of the data, the weights and the result.
_MACS: dict[str, Callable[[Shape, Shape, Shape], int]] = {
    "Conv": lambda x, w, y: _size(y) * _size(w[1:]),  # w is [o, c / groups, *kernel]
    "ConvTranspose": lambda x, w, y: _size(x) * _size(w[1:]),  # w is [c, o / groups, *kernel]
    "Gemm": lambda x, w, y: _size(y) * x[-1],
    "MatMul": lambda x, w, y: _size(y) * x[-1],
}

"""Pinning a model's shapes, and counting its multiply-accumulates."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


def pin_shapes(model: onnx.ModelProto, inputs: Shapes) -> None:
    """Fix the shapes of the model's inputs in place and infer the others anew.

    An input that `inputs` does not name keeps its shape. Raises KeyError for a name the model has
    not.
    """
    by_name = {value.name: value for value in model.graph.input}
    for name, shape in inputs.items():
        dims = by_name[name].type.tensor_type.shape
        del dims.dim[:]
        for size in shape:
            dims.dim.add().dim_value = size
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    model.CopyFrom(inferred)


def write_pinned(source: Path, target: Path, inputs: Shapes) -> None:
    """Write a copy of an ONNX file whose input shapes are pinned."""
    model = onnx.load(source)
    pin_shapes(model, inputs)
    onnx.save(model, target)


def count_macs(model: onnx.ModelProto) -> int:
    """Return the multiply-accumulates of convolutions and matrix products, shapes being pinned.

    Nodes whose shapes could not be inferred are not counted; so are the elementwise ones.
    """
    shapes = _known_shapes(model)
    return sum(_node_macs(node, shapes) for node in model.graph.node)


def _known_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            shapes[node.output[0]] = numpy_helper.to_array(node.attribute[0].t).shape
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.dim_value > 0 for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def _node_macs(node: onnx.NodeProto, shapes: Shapes) -> int:
    names = (*node.input[:2], node.output[0])
    if node.op_type not in _MACS or not all(name in shapes for name in names):
        return 0
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

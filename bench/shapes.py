"""Pinning a model's input shapes and following them through everything that computes shapes."""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Constants = dict[str, NDArray[np.generic]]
MOST_ELEMENTS = 1024  # shapes are short; weights are left alone


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
    _infer_anew(model)


def _infer_anew(model: onnx.ModelProto) -> None:
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    model.CopyFrom(shape_inference.infer_shapes(model, data_prop=True))


def static_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Return the shape of every tensor that is known once the inputs are pinned.

    Where a shape is computed by nodes (Shape, Slice, Concat, Reshape, …) those are evaluated, and
    inference runs again until nothing new is learnt. The model is not changed.
    """
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    constants = _small_constants(folded)
    while _fold_once(folded, constants):
        _infer_anew(folded)
    return _known_shapes(folded)


def _small_constants(model: onnx.ModelProto) -> Constants:
    tensors = model.graph.initializer
    small = (t for t in tensors if np.prod(t.dims, dtype=np.int64) <= MOST_ELEMENTS)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in small}


def _fold_once(model: onnx.ModelProto, constants: Constants) -> bool:
    """Replace nodes that can be evaluated by initializers; return whether there were any."""
    shapes = _known_shapes(model)
    kept = []
    for node in model.graph.node:
        value = _value_of(node, shapes, constants, model)
        if value is None or value.size > MOST_ELEMENTS:
            kept.append(node)
            continue
        constants[node.output[0]] = value
        model.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    found = len(kept) < len(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return found


def _value_of(
    node: onnx.NodeProto, shapes: Shapes, constants: Constants, model: onnx.ModelProto
) -> NDArray[np.generic] | None:
    """Return the node's one result if its operands, or for Shape their shapes, are known."""
    if node.op_type == "Shape" and node.input[0] in shapes and not node.attribute:
        return np.array(shapes[node.input[0]], np.int64)
    if len(node.output) != 1 or not all(name in constants for name in node.input if name):
        return None
    feeds = {name: constants[name] for name in node.input if name}
    given = [onnx.ValueInfoProto(name=name) for name in feeds]
    graph = helper.make_graph([node], "fold", given, [onnx.ValueInfoProto(name=node.output[0])])
    alone = helper.make_model(graph, opset_imports=list(model.opset_import))
    (result,) = ReferenceEvaluator(alone).run(None, feeds)
    return np.asarray(result)


def _known_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            shapes[node.output[0]] = tuple(node.attribute[0].t.dims)
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.dim_value > 0 for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from bench.macs import count_macs
from bench.perceptron import perceptron
from bench.shapes import pin_shapes


def test_a_perceptron_is_its_layers() -> None:
    model = perceptron((1, 1, 2, 3), (5, 4))
    onnx.checker.check_model(model, full_check=True)
    pin_shapes(model, {"x": (1, 1, 2, 3)})
    assert count_macs(model) == 6 * 5 + 5 * 4
    assert [node.op_type for node in model.graph.node] == ["Flatten", "Gemm", "Relu", "Gemm"]
    x = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    (y,) = list(ReferenceEvaluator(model).run(None, {"x": x}))
    w1, _, w2, _ = (numpy_helper.to_array(t) for t in model.graph.initializer)
    wanted = np.maximum(x.reshape(1, 6) @ w1.T, 0) @ w2.T
    np.testing.assert_allclose(np.asarray(y), wanted, rtol=1e-5)


def test_weights_are_the_same_each_time() -> None:
    first, second = perceptron((1, 4), (3,)), perceptron((1, 4), (3,))
    assert first.SerializeToString() == second.SerializeToString()

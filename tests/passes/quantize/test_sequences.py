"""Attention blocks and decisions, from float to integers."""

import numpy as np

from irc.backends.llvm import compile as compile_llvm
from irc.driver import integerize, quantize, schedule
from irc.edge import to_integers
from irc.graph import Graph, evaluate
from irc.ops.activation import Gelu
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.linear import Linear, MatMul
from irc.ops.normalization import LayerNorm
from irc.ops.ranking import ArgMax
from irc.ops.shape import Reshape, Transpose
from irc.ops.softmax import Softmax
from irc.types import DType
from irc.value import Value

RNG = np.random.default_rng(11)
STEPS, HEADS, WIDTH = 6, 2, 8
DEPTH = HEADS * WIDTH


def linear(x: Value, outputs: int, name: str) -> Value:
    depth = x.shape[-1]
    w = RNG.normal(0, depth**-0.5, (outputs, depth)).astype(np.float32)
    b = RNG.normal(0, 0.1, outputs).astype(np.float32)
    return Linear(x, Const(w, name=f"{name}.w"), Const(b, name=f"{name}.b"), name=name)


def norm(x: Value, name: str) -> Value:
    scale = Const(RNG.uniform(0.5, 2, DEPTH).astype(np.float32), name=f"{name}.scale")
    bias = Const(RNG.normal(0, 0.5, DEPTH).astype(np.float32), name=f"{name}.bias")
    return LayerNorm(x, scale, bias, 2, 1e-5, name=name)


def heads(x: Value, perm: tuple[int, ...]) -> Value:
    return Transpose(Reshape(x, (1, STEPS, HEADS, WIDTH)), perm)


def attention(x: Value) -> Value:
    q, k, v = (linear(x, DEPTH, name) for name in "qkv")
    scale = Const(np.full((), WIDTH**-0.5, np.float32), name="scale")
    scores = MatMul(heads(Mul(q, scale), (0, 2, 1, 3)), heads(k, (0, 2, 3, 1)), name="scores")
    mixed = MatMul(Softmax(scores, 3), heads(v, (0, 2, 1, 3)), name="mixed")
    return linear(Reshape(Transpose(mixed, (0, 2, 1, 3)), x.shape), DEPTH, "out")


def transformer() -> Graph:
    """One block with the norm first, logits, and the decision."""
    x = Input(DType.F32, (1, STEPS, DEPTH), name="x")
    a = Add(x, attention(norm(x, "n0")), name="a")
    b = Add(a, linear(Gelu(linear(norm(a, "n1"), 32, "up")), DEPTH, "down"), name="b")
    logits = linear(norm(b, "n2"), 5, "logits")
    return Graph("block", (x,), (logits, ArgMax(logits, 2, False)), ("logits", "label"))


def test_transformer_block_in_integers() -> None:
    graph = transformer()
    samples = RNG.normal(0, 1, (24, STEPS, DEPTH)).astype(np.float32)
    integer = integerize(quantize(graph, {"x": samples}))
    assert sum(v.op == "qnorm" for v in integer.order) == 3
    run = compile_llvm(schedule(integer), "host", 1)
    signal = noise = 0.0
    same = 0
    for sample in samples[:, np.newaxis]:
        real = evaluate(graph, {"x": sample})
        feeds, _ = to_integers(integer.input_types, {"x": sample})
        found, compiled = evaluate(integer, feeds), run(feeds)
        for name, array in found.items():
            np.testing.assert_array_equal(compiled[name], array)
        t = integer.output_types["logits"]
        ours = (found["logits"].astype(np.float64) - t.zero) * t.scale
        signal += float((real["logits"] ** 2).sum())
        noise += float(((ours - real["logits"]) ** 2).sum())
        same += int((found["label"] == real["label"]).sum())
    assert 10 * np.log10(signal / noise) > 25
    assert same >= 0.9 * samples.shape[0] * STEPS

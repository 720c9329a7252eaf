"""Canonical forms: each rule as it is drawn, and what exporters write."""

import numpy as np
import pytest

from irc.graph import Graph
from irc.ops.activation import Sigmoid, Tanh
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.linear import Linear
from irc.ops.recurrent import Recurrent
from irc.ops.shape import Slice
from irc.parser import parse
from irc.passes.float import canonicalize
from irc.passes.float.canonicalize import Canonicalize
from irc.types import DType, TensorType
from irc.value import Value
from tests.passes.rules import AnyRule, check_equal, check_rule, parametrize


@parametrize((*canonicalize.RULES, *canonicalize.USE_RULES))
def test_rule(rule: AnyRule) -> None:
    check_rule(rule)


def ops(text: str) -> list[str]:
    """The ops that compute, after the pass; the meaning is checked on the way."""
    before = parse(text)
    after = Canonicalize()(before)
    check_equal(before, after)
    assert str(Canonicalize()(after)) == str(after)
    return [v.op for v in after.order if v.op not in ("input", "const", "dequantize")]


def function(*lines: str) -> str:
    """A graph of one input [2,3] with some numbers at hand."""
    numbers = {
        "one": 1, "two": 2, "three": 3, "half": 0.5, "six": 6, "sixth": 1 / 6,
        "root": np.sqrt(0.5), "root2": np.sqrt(2), "cubic": 0.044715, "tan": np.sqrt(2 / np.pi),
    }  # fmt: skip
    consts = [f"%{k} = const [{float(np.float32(n))}] : f32[]" for k, n in numbers.items()]
    nodes = [f"%{line} : f32[2,3]" for line in lines]
    last = lines[-1].split(" ")[0]
    return "\n".join(["graph @g(%x: f32[2,3]) {", *consts, *nodes, f"return %{last}", "}"])


EXPORTS = {
    "torch hard-sigmoid": (
        ["a = add(%x, %three)", "b = clip(%a) {lo = 0.0, hi = 6.0}", "y = div(%b, %six)"],
        "hard_sigmoid",
    ),
    "torch hard-swish": (
        ["a = add(%x, %three)", "b = clip(%a) {lo = 0.0, hi = 6.0}", "c = div(%b, %six)",
         "y = mul(%x, %c)"],
        "hard_swish",
    ),
    "paddle hard-swish": (
        ["a = add(%three, %x)", "b = clip(%a) {lo = 0.0, hi = 6.0}", "c = mul(%x, %b)",
         "y = div(%c, %six)"],
        "hard_swish",
    ),
    "tensorflow hard-swish": (
        ["a = add(%x, %three)", "r = relu(%a)", "b = minimum(%r, %six)", "c = mul(%b, %sixth)",
         "y = mul(%c, %x)"],
        "hard_swish",
    ),
    "onnx hard-swish": (
        [f"h = hard_sigmoid(%x) {{alpha = {1 / 6}, beta = 0.5}}", "y = mul(%x, %h)"],
        "hard_swish",
    ),
    "scaled first": (
        ["s = mul(%x, %sixth)", "a = add(%x, %three)", "b = clip(%a) {lo = 0.0, hi = 6.0}",
         "y = mul(%s, %b)"],
        "hard_swish",
    ),
    "torch gelu": (
        ["d = div(%x, %root2)", "e = erf(%d)", "f = add(%e, %one)", "g = mul(%x, %f)",
         "y = mul(%g, %half)"],
        "gelu",
    ),
    "half inside": (
        ["d = mul(%x, %root)", "e = erf(%d)", "f = add(%one, %e)", "g = mul(%half, %f)",
         "y = mul(%g, %x)"],
        "gelu",
    ),
    "tanh gelu by pow": (
        ["p = pow(%x, %three)", "q = mul(%p, %cubic)", "r = add(%x, %q)", "s = mul(%r, %tan)",
         "t = tanh(%s)", "u = add(%t, %one)", "h = mul(%x, %half)", "y = mul(%h, %u)"],
        "gelu",
    ),
    "tanh gelu by products": (
        ["c = mul(%cubic, %x)", "d = mul(%x, %x)", "q = mul(%c, %d)", "r = add(%q, %x)",
         "s = mul(%tan, %r)", "t = tanh(%s)", "u = add(%one, %t)", "h = mul(%half, %x)",
         "y = mul(%h, %u)"],
        "gelu",
    ),
    "silu": (["s = sigmoid(%x)", "y = mul(%s, %x)"], "silu"),
    "silu by exp": (
        ["n = neg(%x)", "e = exp(%n)", "f = add(%one, %e)", "s = div(%one, %f)",
         "y = mul(%x, %s)"],
        "silu",
    ),
    "mish by exp": (
        ["e = exp(%x)", "f = add(%e, %one)", "l = log(%f)", "t = tanh(%l)", "y = mul(%x, %t)"],
        "mish",
    ),
    "relu6": (["r = relu(%x)", "y = minimum(%six, %r)"], "clip"),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
def test_written_out(name: str) -> None:
    lines, wanted = EXPORTS[name]
    assert ops(function(*lines)) == [wanted]


def test_gate_of_another_value_is_no_silu() -> None:
    assert ops(function("a = add(%x, %one)", "s = sigmoid(%a)", "y = mul(%x, %s)")) == [
        "add", "sigmoid", "mul",
    ]  # fmt: skip


def test_wrong_constant_is_no_hard_swish() -> None:
    lines = ["a = add(%x, %two)", "b = clip(%a) {lo = 0.0, hi = 6.0}", "c = mul(%x, %b)",
             "y = mul(%c, %sixth)"]  # fmt: skip
    assert "hard_swish" not in ops(function(*lines))


def test_shared_linear_keeps_its_add() -> None:
    text = """graph @g(%x: f32[1,2]) {
      %w = const [1.0, 2.0, 3.0, 4.0] : f32[2,2]
      %c = const [1.0, 2.0] : f32[2]
      %l = matmul(%x, %w) : f32[1,2]
      %y = add(%l, %c) : f32[1,2]
      %z = tanh(%l) : f32[1,2]
      return %y, %z
    }"""
    assert ops(text) == ["linear", "add", "tanh"]


def test_padded_average_counts_the_padding() -> None:
    text = """graph @g(%x: f32[1,4,4,1]) {
      %p = pad(%x)
          {pads = [[0, 0], [1, 1], [1, 1], [0, 0]], value = 0.0, mode = "constant"} : f32[1,6,6,1]
      %y = avg_pool2d(%p)
          {kernel = [3, 3], strides = [1, 1], pads = [0, 0, 0, 0],
           count_include_pad = false, dilations = [1, 1]}
          : f32[1,4,4,1]
      return %y
    }"""
    assert ops(text) == ["avg_pool2d"]


@pytest.mark.parametrize(
    ("clamped", "count"), [("clip(%x) {lo = 0.0, hi = inf}", 2), ("tanh(%x)", 3)]
)
def test_zero_padding_before_a_maximum(clamped: str, count: int) -> None:
    text = f"""graph @g(%x: f32[1,4,4,1]) {{
      %c = {clamped} : f32[1,4,4,1]
      %p = pad(%c)
          {{pads = [[0, 0], [1, 1], [1, 1], [0, 0]], value = 0.0, mode = "constant"}} : f32[1,6,6,1]
      %y = max_pool2d(%p)
          {{kernel = [3, 3], strides = [2, 2], pads = [0, 0, 0, 0], dilations = [1, 1]}}
          : f32[1,2,2,1]
      return %y
    }}"""
    assert len(ops(text)) == count


def test_cells_of_a_stream_and_of_two_steps() -> None:
    """The product with the state is told from that with the input: by where it comes from."""
    rng = np.random.default_rng(0)
    w, r = (Const(rng.normal(0, 1, (16, 4)).astype(np.float32)) for _ in range(2))
    x = Input.of(TensorType(DType.F32, (1, 4)), "x")
    state = Input.of(TensorType(DType.F32, (2, 4)), "state")
    h: Value = Slice(state, (0, 0), (1, 4), (1, 1))
    c: Value = Slice(state, (1, 0), (2, 4), (1, 1))
    for _ in range(2):
        gates = Add(Linear(x, w), Linear(h, r))
        i, f, g, o = (Slice(gates, (0, 4 * n), (1, 4 * n + 4), (1, 1)) for n in range(4))
        c = Add(Mul(Sigmoid(f), c), Mul(Sigmoid(i), Tanh(g)))
        h = Mul(Sigmoid(o), Tanh(c))
    before = Graph("g", (x, state), (h, c), ("h", "c"))
    after = Canonicalize()(before)
    check_equal(before, after)
    steps = [v for v in after.order if isinstance(v, Recurrent)]
    assert [v.w for v in steps] == [r, r]
    assert not any(isinstance(v, Sigmoid | Tanh) for v in after.order)

"""Constant folding, identities and common subexpressions."""

import numpy as np

from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add
from irc.ops.shape import Concat, Expand
from irc.parser import parse
from irc.passes.float import fold
from irc.passes.float.fold import Fold
from irc.rewrite import Rule
from irc.types import DType
from tests.passes.rules import check_equal, check_rule, parametrize


@parametrize(fold.RULES)
def test_rule(rule: Rule) -> None:
    check_rule(rule)


def folded(text: str) -> Graph:
    before = parse(text)
    after = Fold()(before)
    check_equal(before, after)
    return after


def test_chain_of_shape_arithmetic_becomes_a_constant() -> None:
    graph = folded(
        """graph @g(%x: f32[2,6]) {
          %shape = const [2, 6] : i64[2]
          %two = const [2] : i64[1]
          %half = div(%shape, %two) : i64[2]
          %f = cast(%half) : f32[2]
          %s = reshape(%f) : f32[2,1]
          %y = add(%x, %s) : f32[2,6]
          return %y
        }"""
    )
    assert [v.op for v in graph.order] == ["input", "const", "add"]


def test_equal_constants_and_nodes_are_shared() -> None:
    graph = folded(
        """graph @g(%x: f32[2]) {
          %a = const [1.0, 2.0] : f32[2]
          %b = const [1.0, 2.0] : f32[2]
          %p = mul(%x, %a) : f32[2]
          %q = mul(%x, %b) : f32[2]
          %y = add(%p, %q) : f32[2]
          return %y
        }"""
    )
    assert [v.op for v in graph.order] == ["input", "const", "mul", "add"]


def test_attributes_keep_nodes_apart() -> None:
    graph = folded(
        """graph @g(%x: f32[2]) {
          %p = clip(%x) {lo = 0.0, hi = 6.0} : f32[2]
          %q = clip(%x) {lo = 0.0, hi = 1.0} : f32[2]
          %y = add(%p, %q) : f32[2]
          return %y
        }"""
    )
    assert len(graph.order) == 4


def test_quantized_weights_stay_quantized() -> None:
    graph = folded(
        """graph @g(%x: f32[1,2]) {
          %c = const [1, 2, 3, 4] : i8[2,2] q(0.5, 0)
          %d = dequantize(%c) : f32[2,2]
          %t = transpose(%d) {perm = [1, 0]} : f32[2,2]
          %y = linear(%x, %t, -) : f32[1,2]
          return %y
        }"""
    )
    assert [v.op for v in graph.order] == ["input", "const", "dequantize", "linear"]
    assert graph.constants[0].array.tolist() == [[1, 3], [2, 4]]


def test_dequantize_after_quantize_stays() -> None:
    graph = folded(
        """graph @g(%x: f32[2]) {
          %q = quantize(%x) : u8[2] q(0.5, 3)
          %y = dequantize(%q) : f32[2]
          return %y
        }"""
    )
    assert len(graph.order) == 3


def test_nothing_explodes() -> None:
    x = Input(DType.F32, (1, 1), name="x")
    small = Const(np.zeros((1, 1), np.float32))
    huge = Expand(small, (1 << 13, 1 << 12))
    graph = Fold()(Graph("g", (x,), (huge, Add(x, huge)), ("y", "z")))
    assert max(c.type.nbytes for c in graph.constants) == 4


GROWING = """graph @g(%x: f32[2,3], %y: f32[2,3], %z: f32[2,3]) {
  %a = concat([%x, %y]) {axis = 1} : f32[2,6]
  %b = concat([%x, %y, %z]) {axis = 1} : f32[2,9]
  %c = tanh(%a) : f32[2,6]
  %d = concat([%x, %y, %z, %c]) {axis = 1} : f32[2,15]
  %e = concat([%x, %z]) {axis = 1} : f32[2,6]
  return %b, %d, %e
}"""


def test_concatenations_that_begin_alike_are_chained() -> None:
    graph = folded(GROWING)
    found = {v.name: [x.name for x in v.operands] for v in graph.order if isinstance(v, Concat)}
    assert found == {"a": ["x", "y"], "b": ["a", "z"], "d": ["b", "c"], "e": ["x", "z"]}
    assert str(Fold()(graph)) == str(graph)


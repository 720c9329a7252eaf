"""Norms and softmax: each rule as it is drawn, and what exporters write."""

import pytest

from irc.parser import parse
from irc.passes import PIPELINES
from irc.passes.float import computed_parameters, expanded_norms, norm_patterns
from irc.pipeline import Pipeline
from tests.passes.rules import AnyRule, check_equal, check_rule, parametrize

RULES = (*norm_patterns.RULES, *norm_patterns.USE_RULES, *expanded_norms.RULES)


@parametrize((*RULES, *computed_parameters.RULES))
def test_rule(rule: AnyRule) -> None:
    check_rule(rule)


def ops(text: str) -> list[str]:
    """The ops that compute after the float pipeline, which keeps the meaning."""
    before = parse(text)
    after = Pipeline(PIPELINES["float"])(before)
    check_equal(before, after)
    return [v.op for v in after.order if v.op not in ("input", "const")]


def function(shape: str, *lines: str) -> str:
    """A graph of one input with some constants at hand; its rows are reduced over axis 2."""
    rows = shape.replace("8]", "1]")
    consts = {"two": "[2.0] : f32[]", "eps": "[1e-05] : f32[]", "half": "[0.5] : f32[]",
              "minus": "[-0.5] : f32[]", "one": "[1.0] : f32[]", "most": "[1000000.0] : f32[]",
              "g": "[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0] : f32[8]",
              "b": "[1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0] : f32[8]"}  # fmt: skip
    named = [f"%{name} = const {text}" for name, text in consts.items()]
    axes = "{axes = [2], keepdims = true}"
    written = [(line.replace("AXES", axes), "ROW" in line) for line in lines]
    nodes = [f"%{t.removesuffix(' ROW')} : {rows if row else shape}" for t, row in written]
    last = lines[-1].split(" ")[0]
    return "\n".join([f"graph @g(%x: {shape}) {{", *named, *nodes, f"return %{last}", "}"])


MEAN = ["m = reduce_mean(%x) AXES ROW", "d = sub(%x, %m)"]
EXPORTS = {
    "torch, paddle": (
        [*MEAN, "p = pow(%d, %two)", "v = reduce_mean(%p) AXES ROW", "e = add(%v, %eps) ROW",
         "s = sqrt(%e) ROW", "n = div(%d, %s)", "t = mul(%n, %g)", "y = add(%t, %b)"],
        ["layer_norm"],
    ),
    "tensorflow": (
        [*MEAN, "p = mul(%d, %d)", "v = reduce_mean(%p) AXES ROW", "e = add(%v, %eps) ROW",
         "s = sqrt(%e) ROW", "r = reciprocal(%s) ROW", "n = mul(%r, %d)", "y = mul(%g, %n)"],
        ["layer_norm"],
    ),
    "mean of squares": (
        [*MEAN, "p = mul(%x, %x)", "q = reduce_mean(%p) AXES ROW", "w = mul(%m, %m) ROW",
         "v = sub(%q, %w) ROW", "e = add(%v, %eps) ROW", "s = sqrt(%e) ROW", "y = div(%d, %s)"],
        ["layer_norm"],
    ),
    "rms by pow": (
        ["p = pow(%x, %two)", "v = reduce_mean(%p) AXES ROW", "e = add(%eps, %v) ROW",
         "s = pow(%e, %minus) ROW", "n = mul(%x, %s)", "y = mul(%g, %n)"],
        ["rms_norm"],
    ),
    "rms by one over": (
        ["p = mul(%x, %x)", "v = reduce_mean(%p) AXES ROW", "e = add(%eps, %v) ROW",
         "s = sqrt(%e) ROW", "r = div(%one, %s) ROW", "n = mul(%x, %r)", "y = mul(%g, %n)"],
        ["rms_norm"],
    ),
    "length by keras": (
        ["p = mul(%x, %x)", "v = reduce_sum(%p) AXES ROW", "s = sqrt(%v) ROW",
         "r = reciprocal(%s) ROW", "c = minimum(%r, %most) ROW", "y = mul(%x, %c)"],
        ["rms_norm"],
    ),
    "softmax": (
        ["m = reduce_max(%x) AXES ROW", "d = sub(%x, %m)", "e = exp(%d)",
         "s = reduce_sum(%e) AXES ROW", "y = div(%e, %s)"],
        ["softmax"],
    ),
    "softmax without a maximum": (
        ["e = exp(%x)", "s = reduce_sum(%e) AXES ROW", "y = div(%e, %s)"], ["softmax"],
    ),
    "another mean": (
        ["m = reduce_mean(%x) AXES ROW", "d = add(%x, %m)", "p = mul(%d, %d)",
         "v = reduce_mean(%p) AXES ROW", "e = add(%v, %eps) ROW", "s = sqrt(%e) ROW",
         "y = div(%d, %s)"],
        ["reduce_mean", "add", "rms_norm"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
def test_written_out(name: str) -> None:
    lines, wanted = EXPORTS[name]
    assert ops(function("f32[2,3,8]", *lines)) == wanted


def test_scale_and_offset_go_into_the_linear_map_behind() -> None:
    text = """graph @g(%x: f32[2,8]) {
      %g = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0] : f32[8]
      %w = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0] : f32[8,1]
      %n = layer_norm(%x, -, -) {axis = 1, epsilon = 0.001} : f32[2,8]
      %p = mul(%n, %g) : f32[2,8]
      %q = add(%p, %g) : f32[2,8]
      %y = matmul(%q, %w) : f32[2,1]
      return %y
    }"""
    assert ops(text) == ["layer_norm", "linear"]


def test_norm_of_channels_between_convolutions_needs_no_transpose() -> None:
    conv = "{strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], groups = 1}"
    text = f"""graph @g(%x: f32[1,2,3,2]) {{
      %w = const [1.0, 2.0, 3.0, 4.0] : f32[2,1,1,2]
      %eps = const [1e-05] : f32[]
      %c = conv2d(%x, %w, -) {conv} : f32[1,2,3,2]
      %t = transpose(%c) {{perm = [0, 3, 1, 2]}} : f32[1,2,2,3]
      %m = reduce_mean(%t) {{axes = [1], keepdims = true}} : f32[1,1,2,3]
      %d = sub(%t, %m) : f32[1,2,2,3]
      %p = mul(%d, %d) : f32[1,2,2,3]
      %v = reduce_mean(%p) {{axes = [1], keepdims = true}} : f32[1,1,2,3]
      %e = add(%v, %eps) : f32[1,1,2,3]
      %s = sqrt(%e) : f32[1,1,2,3]
      %n = div(%d, %s) : f32[1,2,2,3]
      %u = transpose(%n) {{perm = [0, 2, 3, 1]}} : f32[1,2,3,2]
      %y = conv2d(%u, %w, -) {conv} : f32[1,2,3,2]
      return %y
    }}"""
    assert ops(text) == ["conv2d", "layer_norm", "conv2d"]


KERAS = """graph @g(%x: f32[1,3,3]) {
  %eps = const [0.001] : f32[]
  %g = const [1.0, 2.0, 3.0] : f32[1,3,1]
  %b = const [4.0, 3.0, 2.0] : f32[3]
  %m = reduce_mean(%x) {axes = [2], keepdims = false} : f32[1,3]
  %k = reshape(%m) : f32[1,3,1]
  %d = sub(%x, %k) : f32[1,3,3]
  %q = mul(%d, %d) : f32[1,3,3]
  %w = reduce_mean(%q) {axes = [2], keepdims = false} : f32[1,3]
  %s = add(%w, %eps) : f32[1,3]
  %r = sqrt(%s) : f32[1,3]
  %i = reciprocal(%r) : f32[1,3]
  %j = reshape(%i) : f32[1,1,3]
  %f = mul(%j, %g) : f32[1,3,3]
  %t = transpose(%f) {perm = [0, 2, 1]} : f32[1,3,3]
  %p = mul(%x, %t) : f32[1,3,3]
  %n = neg(%m) : f32[1,3]
  %h = reshape(%n) : f32[1,1,3]
  %l = mul(%h, %f) : f32[1,3,3]
  %o = transpose(%l) {perm = [0, 2, 1]} : f32[1,3,3]
  %c = add(%o, %b) : f32[1,3,3]
  %y = add(%p, %c) : f32[1,3,3]
  return %y
}"""
"""A LayerNormalization of Keras's as tf2onnx writes it."""


def test_norm_whose_scale_stands_among_transposes() -> None:
    assert ops(KERAS) == ["layer_norm"]


ANOTHER_EPSILON = """%eps2 = const [0.000999] : f32[]
  %s2 = add(%w, %eps2) : f32[1,3]
  %r2 = sqrt(%s2) : f32[1,3]
  %i2 = reciprocal(%r2) : f32[1,3]
  %j2 = reshape(%i2) : f32[1,1,3]
  %f2 = mul(%j2, %g) : f32[1,3,3]
  %l = mul(%h, %f2)"""
"""Of the mean alone: where variances are near 1 this can't be seen."""
BOUNDED_MEAN = """%m2 = clip(%m) {lo = -9.0, hi = 9.0} : f32[1,3]
  %n = neg(%m2)"""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("%t = transpose(%f) {perm = [0, 2, 1]}", "%t = transpose(%f) {perm = [0, 1, 2]}"),
        ("neg(%m)", "neg(%i)"),
        ("sub(%x, %k)", "add(%x, %k)"),
        ("add(%p, %c)", "sub(%p, %c)"),
        ("%l = mul(%h, %f)", ANOTHER_EPSILON),
        ("%n = neg(%m)", BOUNDED_MEAN),
    ],
)
def test_what_only_looks_like_a_norm_stays(right: str, wrong: str) -> None:
    assert "layer_norm" not in ops(KERAS.replace(right, wrong))


def test_a_large_offset_hides_nothing() -> None:
    large = KERAS.replace("[4.0, 3.0, 2.0]", "[4000000.0, 3.0, 2.0]")
    assert ops(large) == ["layer_norm"]
    assert "layer_norm" not in ops(large.replace("neg(%m)", "neg(%i)"))

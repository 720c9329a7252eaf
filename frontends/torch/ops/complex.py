"""Complex tensors, as pairs of real ones: an operator on them is operators on their parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.builder import Builder
from irc.frontends.torch.ops.conv import spatial_axes
from irc.frontends.torch.ops.functions import angle_of
from irc.frontends.torch.ops.shape import part
from irc.frontends.torch.ops.table import HANDLERS, Complex, Node, Results, handles
from irc.ops.core import Const
from irc.ops.elementwise import Add, Div, Mul, Sub
from irc.ops.shape import Concat
from irc.ops.spectrum import Magnitude
from irc.ops.unary import Cos, Exp, Neg, Sin
from irc.types import DType
from irc.value import Value

CURE = (
    "complex numbers are taken by sums, products, quotients, layers, transforms and what moves"
    " them: say the rest with their real and imaginary parts (torch.view_as_real)"
)

PARTWISE = frozenset(
    f"aten.{name}"
    for name in (
        "add", "sub", "rsub", "neg", "sum", "mean", "cumsum", "where", "clone", "alias", "detach",
        "contiguous", "lift_fresh_copy", "view", "reshape", "_unsafe_view", "flatten", "permute",
        "transpose", "t", "unsqueeze", "squeeze", "expand", "repeat", "cat", "stack", "split",
        "split_with_sizes", "chunk", "unbind", "select", "slice", "narrow", "flip", "roll",
        "constant_pad_nd", "pad", "index", "index_select", "gather", "slice_scatter",
        "select_scatter", "zeros_like", "new_zeros", "copy",
    )
)  # fmt: skip
"""Operators that do to both parts what they do to a tensor; a real operand has the imaginary part
0."""
PRODUCTS = {
    "aten.mul": ("self", "other"), "aten.div": ("self", "other"), "aten.matmul": ("self", "other"),
    "aten.mm": ("self", "mat2"), "aten.bmm": ("self", "mat2"), "aten.mv": ("self", "vec"),
    "aten.dot": ("self", "tensor"), "aten.linear": ("input", "weight"),
    **{f"aten.conv{n}d": ("input", "weight") for n in (1, 2, 3)},
    **{f"aten.conv_transpose{n}d": ("input", "weight") for n in (1, 2, 3)},
}  # fmt: skip
"""Operators that are linear in each of two operands, and these; a bias besides is added to each
channel."""
SUMMANDS = ("other", "value")
"""Numbers that are added or filled in: their imaginary part is 0, as that of real tensors."""

OF_COMPLEX: dict[str, Callable[[Node], Results]] = {}
"""Handlers for complex operands."""


def of_complex(*ops: str) -> Callable[[Callable[[Node], Results]], Callable[[Node], Results]]:
    """Register a handler that is called where an operand is complex."""

    def register(handler: Callable[[Node], Results]) -> Callable[[Node], Results]:
        OF_COMPLEX.update(dict.fromkeys(ops, handler))
        return handler

    return register


def is_complex(entry: Any) -> bool:
    """Whether an argument is complex, or a list that holds what is."""
    return isinstance(entry, Complex) or (isinstance(entry, list) and any(map(is_complex, entry)))


def results_of(node: Node) -> Results:
    """What the call's handler makes, part by part where an operand is complex."""
    if not any(map(is_complex, node.arguments.values())):
        made = (HANDLERS.get(node.op) or OF_COMPLEX[node.op])(node)
        return Complex(made, _zeros(made)) if node.paired and isinstance(made, Value) else made
    if node.op in OF_COMPLEX:
        return OF_COMPLEX[node.op](node)
    if node.op in PRODUCTS:
        return _product(node, *PRODUCTS[node.op])
    if node.op not in PARTWISE:
        node.fail(CURE)
    real, imag = (
        HANDLERS[node.op](_with(node, {k: f(k, v) for k, v in node.arguments.items()}))
        for f in (partial(_part, number=0), partial(_part, number=1))
    )
    if isinstance(real, tuple) and isinstance(imag, tuple):
        return tuple(_pair(node, a, b) for a, b in zip(real, imag, strict=True))
    return _pair(node, real, imag)


def _with(node: Node, arguments: Mapping[str, Any]) -> Node:
    """The call with other arguments; what is asked of it counts for the whole."""
    return replace(node, arguments={**node.arguments, **arguments})


def _part(key: str, entry: Any, number: int) -> Any:
    """An argument's real (0) or imaginary (1) part."""
    if isinstance(entry, Complex):
        return (entry.real, entry.imag)[number]
    if isinstance(entry, list):
        return [_part(key, v, number) for v in entry]
    if number == 0:
        return entry
    if isinstance(entry, Value) and entry.type.dtype.is_float:
        return _zeros(entry)
    return 0.0 if key in SUMMANDS and isinstance(entry, int | float) else entry


def _zeros(x: Value) -> Value:
    return Const(np.zeros(x.shape, x.type.dtype.numpy), name="zero")


def _pair(node: Node, real: Any, imag: Any) -> Complex:
    if not isinstance(real, Value) or not isinstance(imag, Value):
        node.fail(CURE)
    return Complex(real, imag)


def _product(node: Node, first: str, second: str) -> Results:
    """`(a + bi)(c + di)`; of two real factors one part each."""
    a, b = node.any(first), node.any(second)
    if node.op == "aten.div" and isinstance(b, Complex):
        return _quotient(node, a, b)

    def made(x: Any, y: Any) -> Value:
        v = HANDLERS[node.op](_with(node, {first: x, second: y, **unbiased}))
        assert isinstance(v, Value)
        return v

    bias = node.any("bias") if node.has("bias") else None
    unbiased = {} if bias is None else {"bias": None}
    return _biased(node, _of_parts(node.builder, made, a, b), bias)


def _of_parts(build: Builder, made: Callable[[Any, Any], Value], a: Any, b: Any) -> Complex:
    """A product of complex factors, of products of their parts; one of them may be real."""
    if not isinstance(b, Complex):
        return Complex(made(a.real, b), made(a.imag, b))
    if not isinstance(a, Complex):
        return Complex(made(a, b.real), made(a, b.imag))
    real = build.add(Sub(made(a.real, b.real), made(a.imag, b.imag)))
    return Complex(real, build.add(Add(made(a.real, b.imag), made(a.imag, b.real))))


def _biased(node: Node, y: Complex, bias: Any) -> Complex:
    """A layer's sums with its bias, a number for each channel."""
    if bias is None:
        return y
    build = node.builder
    after = 0 if node.op == "aten.linear" else spatial_axes(node)
    parts = (bias.real, bias.imag) if isinstance(bias, Complex) else (bias, _zeros(bias))
    shaped = (build.reshape(p, (*p.shape, *(1,) * after)) for p in parts)
    return Complex(*(build.add(Add(v, p)) for v, p in zip((y.real, y.imag), shaped, strict=True)))


def _quotient(node: Node, a: Any, b: Complex) -> Complex:
    """`a / b = a * conj(b) / |b|^2`."""
    if node.has("rounding_mode"):
        node.fail(CURE)
    build = node.builder
    size = build.add(Add(build.add(Mul(b.real, b.real)), build.add(Mul(b.imag, b.imag))))
    if not isinstance(a, Complex | Value):
        a = build.const(np.asarray(a, np.float32))
    turned = Complex(b.real, build.add(Neg(b.imag)))
    made = _of_parts(build, lambda x, y: build.add(Mul(x, y)), a, turned)
    return Complex(*(build.add(Div(v, size)) for v in (made.real, made.imag)))


def argument(node: Node, name: str = "self") -> Complex:
    """An operand that is complex; a real one has the imaginary part 0."""
    given = node.any(name)
    if isinstance(given, Complex):
        return given
    x = node.x(name)
    return Complex(x, _zeros(x))


# ---------------------------------------------------------------- from and to reals


@handles("aten.complex")
def complex_of(node: Node) -> Results:
    """From both parts."""
    return Complex(node.operand("real", DType.F32), node.operand("imag", DType.F32))


@handles("aten.polar")
def polar(node: Node) -> Results:
    """From size and angle."""
    build, size, angle = node.builder, node.x("abs"), node.x("angle")
    parts = (build.add(Mul(size, build.add(f(angle)))) for f in (Cos, Sin))
    return Complex(*parts)


@handles("aten.view_as_complex")
def view_as_complex(node: Node) -> Results:
    """From parts along the last axis."""
    x = node.x()
    axis = x.type.rank - 1
    parts = (part(node, x, axis, i, i + 1) for i in (0, 1))
    return Complex(*(node.builder.reshape(v, x.shape[:-1]) for v in parts))


@of_complex("aten.view_as_real")
def view_as_real(node: Node) -> Results:
    """Parts along a new last axis."""
    x, build = argument(node), node.builder
    axis = x.real.type.rank
    parts = tuple(build.reshape(v, (*v.shape, 1)) for v in (x.real, x.imag))
    return build.add(Concat(parts, axis))


@of_complex("aten.real", "aten.imag")
def one_part(node: Node) -> Results:
    """One of the two."""
    x = argument(node)
    return x.real if node.op == "aten.real" else x.imag


@of_complex("aten.abs")
def size(node: Node) -> Results:
    """The distance from 0."""
    x = argument(node)
    return node.builder.add(Magnitude(x.real, x.imag))


@of_complex("aten.angle")
def angle(node: Node) -> Results:
    """In radians, from -pi to pi."""
    x = argument(node)
    return angle_of(node.builder, x.imag, x.real)


@of_complex("aten._conj", "aten.conj", "aten._conj_physical", "aten.conj_physical")
def conjugate(node: Node) -> Results:
    """The imaginary part with the other sign."""
    x = argument(node)
    return Complex(x.real, node.builder.add(Neg(x.imag)))


@of_complex("aten.resolve_conj", "aten.resolve_neg")
def resolved(node: Node) -> Results:
    """What means something to memory alone."""
    return argument(node)


@of_complex("aten._to_copy", "aten.to")
def convert(node: Node) -> Results:
    """Of another precision, or of reals, for which the imaginary part is left out."""
    node.ignore(*node.arguments)
    x = argument(node)
    return x if node.paired else node.cast(x.real, node.dtype or DType.F32)


@of_complex("aten.exp")
def exponential(node: Node) -> Results:
    """The size is that of the real part, the angle is the imaginary part."""
    x, build = argument(node), node.builder
    size = build.add(Exp(x.real))
    return Complex(*(build.add(Mul(size, build.add(f(x.imag)))) for f in (Cos, Sin)))


@of_complex("aten.reciprocal")
def reciprocal(node: Node) -> Results:
    """`1 / x`."""
    return _quotient(node, 1.0, argument(node))


@of_complex("aten.pow", "aten.square")
def square(node: Node) -> Results:
    """The second power alone."""
    if node.op == "aten.pow" and node.number("exponent") != 2:
        node.fail(CURE)
    x, build = argument(node), node.builder
    real = build.add(Sub(build.add(Mul(x.real, x.real)), build.add(Mul(x.imag, x.imag))))
    return Complex(real, forms.scaled(build, build.add(Mul(x.real, x.imag)), 2.0))

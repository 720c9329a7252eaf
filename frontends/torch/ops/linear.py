"""Linear layers, matrix products, attention."""

from __future__ import annotations

from math import sqrt

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.builder import Builder, is_weight
from irc.frontends.torch.ops.table import Node, Results, handles
from irc.ops.cast import Cast
from irc.ops.core import Const
from irc.ops.elementwise import Add
from irc.ops.linear import Linear, MatMul
from irc.ops.logic import And, Not
from irc.ops.reduce import ReduceMax, ReduceSum
from irc.ops.selection import Where
from irc.ops.shape import Expand, Reshape
from irc.ops.softmax import Softmax
from irc.types import DType, Shape
from irc.value import Value

MASKED = -1e4
"""What a score that must not count becomes: exp of it is 0, and unlike -inf it can be stored."""


@handles("aten.linear")
def linear(node: Node) -> Results:
    """`x @ weight^T + bias`."""
    x, w, bias = node.x("input"), node.x("weight"), node.optional("bias")
    return affine(node, x, w, bias)


def affine(node: Node, x: Value, w: Value, bias: Value | None = None) -> Value:
    """One linear layer where the weights [O, K] are known, else a product and a sum."""
    build = node.builder
    if w.type.rank == 2 and is_weight(w) and (bias is None or is_weight(bias)):
        return build.add(Linear(x, w, bias))
    columns = build.transpose(w, (1, 0)) if w.type.rank == 2 else w
    y = forms.matmul(build, x, columns, is_weight(w))
    return y if bias is None else build.add(Add(y, bias))


@handles("aten.bilinear")
def bilinear(node: Node) -> Results:
    """`sum_ij a_i * weight[o, i, j] * b_j + bias`: a linear layer of a, then a product with b."""
    build, a, b, w = node.builder, node.x("input1"), node.x("input2"), node.x("weight")
    out, rows, columns = w.shape
    matrix = build.reshape(build.transpose(w, (0, 2, 1)), (out * columns, rows))
    mixed = build.reshape(affine(node, a, matrix), (*a.shape[:-1], out, columns))
    y = build.add(MatMul(mixed, build.reshape(b, (*b.shape, 1))))
    y, bias = build.reshape(y, y.shape[:-1]), node.optional("bias")
    return y if bias is None else build.add(Add(y, bias))


FACTORS = {
    "aten.matmul": ("self", "other"), "aten.mm": ("self", "mat2"), "aten.bmm": ("self", "mat2"),
    "aten.mv": ("self", "vec"), "aten.dot": ("self", "tensor"),
    "aten._sparse_mm": ("sparse", "dense"),
}  # fmt: skip


@handles(*FACTORS)
def matmul(node: Node) -> Results:
    """NumPy's matmul; a linear layer where the second factor is one known matrix."""
    a, b = (node.x(name) for name in FACTORS[node.op])
    single = 2 <= b.type.rank <= a.type.rank and set(b.shape[:-2]) <= {1}
    if is_weight(b) and single:
        matrix = node.builder.reshape(b, b.shape[-2:])
        return affine(node, a, node.builder.transpose(matrix, (1, 0)))
    return forms.matmul(node.builder, a, b, False)


@handles("aten.addmm", "aten.baddbmm")
def addmm(node: Node) -> Results:
    """`beta * self + alpha * a @ b`."""
    names = ("mat1", "mat2") if node.op == "aten.addmm" else ("batch1", "batch2")
    bias, a, b = node.x("self"), node.x(names[0]), node.x(names[1])
    alpha, beta = node.number("alpha"), node.number("beta")
    build = node.builder
    if alpha == beta == 1.0 and b.type.rank == 2 and is_weight(b) and bias.shape == b.shape[1:]:
        return affine(node, a, build.transpose(b, (1, 0)), bias)
    y = forms.scaled(build, forms.matmul(build, a, b, is_weight(b)), alpha)
    return y if beta == 0 else build.add(Add(y, forms.scaled(build, bias, beta)))


@handles("aten.addmv", "aten.addbmm")
def add_vector(node: Node) -> Results:
    """`beta * self + alpha * a @ b`, of a vector b, or summed over a batch."""
    build, names = node.builder, ("mat", "vec") if node.op == "aten.addmv" else ("batch1", "batch2")
    a, b = node.x(names[0]), node.x(names[1])
    y = forms.matmul(build, a, b, False)
    if node.op == "aten.addbmm":
        y = build.add(ReduceSum(y, (0,), False))
    y = forms.scaled(build, y, node.number("alpha"))
    bias, beta = node.x("self"), node.number("beta")
    return y if beta == 0 else build.add(Add(y, forms.scaled(build, bias, beta)))


@handles(
    "aten.scaled_dot_product_attention", "aten._scaled_dot_product_flash_attention_for_cpu"
)  # fmt: skip
def attention(node: Node) -> Results:
    """`softmax(q @ k^T * scale + mask) @ v`."""
    y = _attention(node)
    return (y, None) if node.count > 1 else y


def _attention(node: Node) -> Value:
    build = node.builder
    q, k, v = node.x("query"), node.x("key"), node.x("value")
    if node.number("dropout_p") != 0:
        node.fail("dropout in attention: the module is in training mode, call .eval() first")
    if node.has("enable_gqa") and node.flag("enable_gqa") and k.shape[-3] != q.shape[-3]:
        k, v = (repeated(build, x, q.shape[-3]) for x in (k, v))
    rank = k.type.rank
    columns = build.transpose(k, (*range(rank - 2), rank - 1, rank - 2))
    scale = node.number("scale", 1 / sqrt(q.shape[-1]))
    scores = forms.scaled(build, build.add(MatMul(q, columns)), scale)
    mask = _mask(node, scores.shape)
    weights = build.add(Softmax(_masked(build, scores, mask), scores.type.rank - 1))
    y = build.add(MatMul(weights, v))
    counts = None if mask is None else _counts(build, mask)
    seeing = None if counts is None else _seeing(build, counts)
    if seeing is None:
        return y
    return build.add(Where(seeing, y, build.const(np.zeros((), np.float32))))


def repeated(build: Builder, x: Value, count: int) -> Value:
    """Each head of x as often as it takes to make so many."""
    heads = [h for h in range(x.shape[-3]) for _ in range(count // x.shape[-3])]
    return forms.gather_axis(build, x, heads, x.type.rank - 3)


def _mask(node: Node, shape: Shape) -> Value | None:
    """Which scores count, or what is added to them."""
    if node.flag("is_causal"):
        which = np.tri(*shape[-2:], dtype=np.bool_)
        return node.builder.const(which, name=f"{node.builder.name}.mask")
    return node.optional("attn_mask")


def _masked(build: Builder, scores: Value, mask: Value | None) -> Value:
    if mask is None:
        return scores
    if mask.type.dtype is DType.BOOL:
        least = np.asarray(MASKED, scores.type.dtype.numpy)
        return build.add(Where(mask, scores, build.const(least, name=f"{build.name}.masked")))
    if isinstance(mask, Const):
        mask = build.const(np.maximum(mask.array, MASKED).astype(np.float32), name=mask.name)
    return build.add(Add(scores, mask))


def _counts(build: Builder, mask: Value) -> Value | None:
    """Which keys count, b1: where a mask is true, or adds anything but -inf; None where no number
    of it is known to be that, as of those that are inputs."""
    if mask.type.dtype is DType.BOOL:
        return mask
    match mask:
        case Const():
            return build.const(mask.array > -np.inf)
        case Where(condition=c, a=Const() as a, b=b) if np.all(a.array == -np.inf):
            return _both(build, build.add(Not(c)), _counts(build, b))
        case Where(condition=c, a=a, b=Const() as b) if np.all(b.array == -np.inf):
            return _both(build, c, _counts(build, a))
        case Add(a=a, b=b):
            return _both(build, *(_counts(build, _infinite(build, m)) for m in (a, b)))
        case Reshape(x=x) | Expand(x=x) if (found := _counts(build, x)) is not None:
            return build.add(mask.replace(x=build.expand(found, x.shape)))
    return None


def _infinite(build: Builder, mask: Value) -> Value:
    """A constant term of a mask whose least numbers stood for -inf (see `masked_fill`)."""
    if not isinstance(mask, Const) or mask.array.dtype.kind != "f":
        return mask
    least = np.finfo(mask.array.dtype).min
    return build.const(np.where(mask.array == least, -np.inf, mask.array))


def _both(build: Builder, a: Value | None, b: Value | None) -> Value | None:
    """Where both are true, as far as they are known."""
    a, b = (None if isinstance(c, Const) and c.array.all() else c for c in (a, b))
    if a is None or b is None:
        return b if a is None else a
    return build.add(And(a, b))


def _seeing(build: Builder, counts: Value) -> Value | None:
    """The queries that see any key, b1[..., T, 1]; of others the result is 0. None where all do: a
    mask of data that is the same for all queries is taken to leave none without."""
    source = counts.x if isinstance(counts, Expand) else counts
    axis = source.type.rank - 1
    if isinstance(source, Const):
        some = np.asarray(source.array.any(axis, keepdims=True))
        return None if some.all() else build.const(some)
    if axis < 1 or source.shape[-2] == 1:
        return None
    numbers = build.add(Cast(source, DType.I32))
    return build.add(Cast(build.add(ReduceMax(numbers, (axis,), True)), DType.BOOL))


@handles("aten.softmax", "aten._softmax", "aten._safe_softmax")
def softmax(node: Node) -> Results:
    """Along an axis."""
    node.ignore("half_to_float", "dtype")
    x = node.x()
    return forms.softmax(node.builder, x, node.axis("dim", x.type.rank), flatten=False)


@handles("aten.log_softmax", "aten._log_softmax")
def log_softmax(node: Node) -> Results:
    """Along an axis."""
    node.ignore("half_to_float", "dtype")
    x = node.x()
    return forms.log_softmax(node.builder, x, node.axis("dim", x.type.rank), flatten=False)



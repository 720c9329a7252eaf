"""onnxruntime's fused operators of transformers (domain com.microsoft), taken apart again."""

from __future__ import annotations

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.builder import check_size, is_weight
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.ops.cast import Cast
from irc.ops.elementwise import Add
from irc.ops.linear import MatMul
from irc.ops.logic import Less
from irc.ops.normalization import LayerNorm
from irc.ops.reduce import ReduceSum
from irc.ops.selection import Gather, Where
from irc.ops.shape import Concat
from irc.ops.softmax import Softmax
from irc.types import DType, Shape
from irc.value import Value

MICROSOFT = "com.microsoft."


@handles(MICROSOFT + "Attention")
def attention(node: Node) -> Results:
    """Self-attention of x [B, S, H] with one matrix for queries, keys and values; with a past, the
    keys and values so far are the second output."""
    x, w, build = node.x(0), node.x(1), node.builder
    heads = node.integer("num_heads")
    if x.type.rank != 3 or w.type.rank != 2 or heads < 1 or w.shape[1] % (3 * heads):
        node.fail(f"{heads} heads of {x.type} and weights {w.type} are not supported")
    node.ignore("past_present_share_buffer", "rotary_embedding_dim")
    node.need("do_rotary", 0, "positions are turned before")
    y = forms.matmul(build, x, w, is_weight(w))
    if node.has(2):
        y = build.add(Add(y, node.x(2)))
    batch, steps, _ = x.shape
    size = w.shape[1] // (3 * heads)
    apart = build.transpose(build.reshape(y, (batch, steps, 3, heads, size)), (2, 0, 3, 1, 4))
    q, k, v = (
        build.reshape(forms.gather_axis(build, apart, [i], 0), (batch, heads, steps, size))
        for i in range(3)
    )
    k, v, present = _with_past(node, k, v)
    scores = masked_scores(node, q, k, mask=3, bias=5)
    weighed = build.add(MatMul(build.add(Softmax(scores, 3)), v))
    result = build.reshape(
        build.transpose(weighed, (0, 2, 1, 3)), (batch, steps, heads * size)
    )
    return (result, present) if len(node.proto.output) > 1 else result


def _with_past(node: Node, k: Value, v: Value) -> tuple[Value, Value, Value]:
    """Keys and values behind those of the past [2, B, N, P, D], and both as one."""
    build = node.builder
    if node.has(4):
        past = node.x(4)
        if past.shape[:3] != (2, *k.shape[:2]) or past.shape[4:] != k.shape[3:]:
            node.fail(f"the past {past.type} does not fit keys {k.type}")
        if past.shape[3]:
            old = [
                build.reshape(forms.gather_axis(build, past, [i], 0), past.shape[1:])
                for i in (0, 1)
            ]
            k, v = (build.add(Concat(pair, 2)) for pair in ((old[0], k), (old[1], v)))
    both = tuple(build.reshape(t, (1, *t.shape)) for t in (k, v))
    return k, v, build.add(Concat(both, 0))


def masked_scores(node: Node, q: Value, k: Value, mask: int, bias: int) -> Value:
    """What the softmax is taken of, for queries and keys [B, N, S, D]: with a bias and a mask, by
    the numbers of their inputs, and causal if the node says so."""
    build = node.builder
    scale = node.real("scale") or q.shape[3] ** -0.5
    scores = build.add(MatMul(forms.scaled(build, q, scale), build.transpose(k, (0, 1, 3, 2))))
    if node.has(bias):
        scores = build.add(Add(scores, node.x(bias)))
    low = build.const(np.asarray(node.real("mask_filter_value"), np.float32))
    if node.has(mask):
        scores = build.add(Where(_seen(node, node.x(mask), scores), scores, low))
    steps, total = scores.shape[2:]
    if not node.integer("unidirectional"):
        return scores
    check_size(1, (steps, total))
    earlier = np.tril(np.ones((steps, total), np.bool_), total - steps)
    return build.add(Where(build.const(earlier, name=f"{build.name}.causal"), scores, low))


def _seen(node: Node, mask: Value, scores: Value) -> Value:
    """A mask [B, T] or [B, S, T], 1 for what is seen, or how many are [B], as it broadcasts to
    scores [B, N, S, T]."""
    batch, _, steps, total = scores.shape
    if mask.shape == (batch,) and not mask.type.dtype.is_float:
        counts = node.builder.reshape(mask, (batch, 1, 1, 1))
        places = node.builder.const(np.arange(total, dtype=mask.type.dtype.numpy))
        return node.builder.add(Less(places, counts))
    shapes: dict[Shape, Shape] = {(batch, total): (batch, 1, 1, total)}
    shapes[batch, steps, total] = (batch, 1, steps, total)
    if mask.shape not in shapes or mask.type.dtype.is_float:
        node.fail(f"a mask {mask.type} for scores {scores.type} is not supported")
    truth = mask if mask.type.dtype is DType.BOOL else node.builder.add(Cast(mask, DType.BOOL))
    return node.builder.reshape(truth, shapes[mask.shape])


@handles(MICROSOFT + "EmbedLayerNormalization")
def embed_layer_norm(node: Node) -> Results:
    """Embeddings of words, positions and segments, summed and normalized; the lengths of masks."""
    ids, build = node.x(0), node.builder
    if ids.type.rank != 2:
        node.fail(f"the words {ids.type} must be [batch, steps]")
    table = node.x(3)
    if node.has(8):
        places: Value = build.add(Gather(table, node.x(8), 0))
    elif ids.shape[1] <= table.shape[0]:
        places = forms.gather_axis(build, table, range(ids.shape[1]), 0)
    else:
        node.fail(f"{ids.shape[1]} steps, but {table.shape[0]} positions")
    total = build.add(Add(build.add(Gather(node.x(2), ids, 0)), places))
    if node.has(1) and node.has(4):
        total = build.add(Add(total, build.add(Gather(node.x(4), node.x(1), 0))))
    y = build.add(LayerNorm(total, node.x(5), node.x(6), 2, node.real("epsilon")))
    node.ignore("mask_index_type")
    if len(node.proto.output) == 1:
        return y
    if node.has(7):
        lengths = build.add(ReduceSum(node.x(7), (1,), False))
    else:
        lengths = build.const(np.zeros(ids.shape[0], np.int32))
    return y, lengths, total

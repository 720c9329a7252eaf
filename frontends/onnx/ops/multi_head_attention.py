"""onnxruntime's attention over queries, keys and values of their own (domain com.microsoft), and
the positions that turn them: what its optimizer and its generators of decoders emit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.onnx.ops.attention import MICROSOFT, masked_scores
from irc.frontends.onnx.ops.gather import cached
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.ops.activation import Tanh
from irc.ops.cast import Cast
from irc.ops.core import Const
from irc.ops.elementwise import Add, Mul, Sub
from irc.ops.linear import MatMul
from irc.ops.logic import And, LessOrEqual
from irc.ops.selection import Gather, Where
from irc.ops.shape import Concat
from irc.ops.softmax import Softmax
from irc.types import DType
from irc.value import Value

LOW = np.asarray(-1e4, np.float32)
"""In the place of scores that are not seen."""


# ---------------------------------------------------------------- several heads


@handles(MICROSOFT + "MultiHeadAttention")
def multi_head_attention(node: Node) -> Results:
    """Queries [B, S, H] over keys and values [B, L, H], packed ones, or those of an encoder
    [B, N, L, D]; with a past in front of them."""
    heads = node.integer("num_heads")
    for i, name in ((8, "past_sequence_length"), (9, "cache_indirection")):
        if node.has(i):
            node.fail(f"{name}, a cache that is written in place, is not supported")
    if len(node.proto.output) > 3:
        node.fail("its output qk is not supported")
    q, k, v = (_headed(node, x, heads) for x in _apart(node, heads))
    if node.has(6):
        k, v = _behind(node, 6, k), _behind(node, 7, v)
    scores = masked_scores(node, q, k, mask=4, bias=5)
    weighed = node.builder.add(MatMul(node.builder.add(Softmax(scores, 3)), v))
    results = (_joined(node, weighed), k, v)
    return results[: max(1, len(node.proto.output))]


def _apart(node: Node, heads: int) -> tuple[Value, Value, Value]:
    """Queries, keys and values, with what the bias adds to each."""
    q, build = node.x(0), node.builder
    if q.type.rank == 5:  # [B, S, N, 3, D]
        parts = [_unpacked(node, q, i) for i in range(3)]
    elif node.has(2):
        parts = [q, node.x(1), node.x(2)]
    elif node.has(1) and node.x(1).type.rank == 5:  # [B, L, N, 2, D]
        parts = [q, *(_unpacked(node, node.x(1), i) for i in range(2))]
    else:
        node.fail("its keys or values are missing")
    if node.has(3):
        bias, begin = node.x(3), 0
        for i, part in enumerate(parts):
            if part.type.rank == 3:
                own = forms.gather_axis(build, bias, range(begin, begin + part.shape[2]), 0)
                parts[i] = build.add(Add(part, own))
                begin += part.shape[2]
    return parts[0], parts[1], parts[2]


def _unpacked(node: Node, packed: Value, i: int) -> Value:
    """Part i of [B, L, N, parts, D], as [B, L, N * D]."""
    batch, steps, heads, _, size = packed.shape
    part = forms.gather_axis(node.builder, packed, [i], 3)
    return node.builder.reshape(part, (batch, steps, heads * size))


def _headed(node: Node, x: Value, heads: int) -> Value:
    """[B, L, N * D] as [B, N, L, D], which may have been so before."""
    if x.type.rank == 4 and x.shape[1] == heads:
        return x
    if x.type.rank != 3 or heads < 1 or x.shape[2] % heads:
        node.fail(f"{heads} heads of {x.type} are not supported")
    batch, steps, width = x.shape
    apart = node.builder.reshape(x, (batch, steps, heads, width // heads))
    return node.builder.transpose(apart, (0, 2, 1, 3))


def _joined(node: Node, y: Value) -> Value:
    """[B, N, S, D] as [B, S, N * D]."""
    batch, heads, steps, size = y.shape
    back = node.builder.transpose(y, (0, 2, 1, 3))
    return node.builder.reshape(back, (batch, steps, heads * size))


def _behind(node: Node, past: int, new: Value) -> Value:
    """Keys or values [B, N, L, D] behind those of the past."""
    old = node.x(past)
    if old.type.rank != 4 or (*old.shape[:2], old.shape[3]) != (*new.shape[:2], new.shape[3]):
        node.fail(f"the past {old.type} does not fit {new.type}")
    return forms.concat(node.builder, (old, new), 2)


# ---------------------------------------------------------------- fewer keys than queries


@dataclass(frozen=True)
class _Step:
    """One call of a decoder: `begin` [B] is how many steps lie before, a constant where it can be
    known, i64; `steps` are new, `length` are in the cache afterwards."""

    begin: Value
    steps: int
    length: int
    grows: bool
    """Whether the cache has room for what lies before and no more: the new is put behind it."""


@handles(MICROSOFT + "GroupQueryAttention")
def group_query_attention(node: Node) -> Results:
    """Each head of keys serves several of queries, causally. The cache grows by the new steps
    where it is known to be full (`seqlens_k` is, or follows from a mask that is given as a value),
    else they are written behind as many of its steps as the inputs say."""
    groups, heads = node.integer("kv_num_heads"), node.integer("num_heads")
    if groups < 1 or heads % groups:
        node.fail(f"{heads} heads do not share {groups} keys evenly")
    _need_plain_cache(node)
    q, k, v = (_headed(node, x, n) for x, n in _queries(node, heads, groups))
    step = _step(node, q)
    if node.integer("do_rotary"):
        q, k = (_rotated(node, x, step) for x in (q, k))
    k, v = (_cached(node, i, new, step) for i, new in ((3, k), (4, v)))
    weighed = _grouped(node, q, k, v, step)
    results = (_joined(node, weighed), k, v)
    return results[: max(1, len(node.proto.output))]


def _need_plain_cache(node: Node) -> None:
    if len(node.proto.output) > 3 or node.integer("qk_output"):
        node.fail("its output qk is not supported")
    for name in ("k_quant_type", "v_quant_type"):
        node.need(name, "NONE", "the cache must hold reals")
    node.ignore("kv_cache_bit_width")


def _queries(node: Node, heads: int, groups: int) -> list[tuple[Value, int]]:
    """Queries, keys and values with their numbers of heads; they may come as one tensor."""
    q, counts = node.x(0), (heads, groups, groups)
    if node.has(1):
        return list(zip((q, node.x(1), node.x(2)), counts, strict=True))
    if q.type.rank != 3 or q.shape[2] % sum(counts):
        node.fail(f"queries, keys and values of {counts} heads are not in {q.type}")
    ends = np.cumsum((0, *counts)) * (q.shape[2] // sum(counts))
    pieces = zip(ends, ends[1:], counts, strict=False)
    return [(forms.gather_axis(node.builder, q, range(a, z), 2), n) for a, z, n in pieces]


def _step(node: Node, q: Value) -> _Step:
    """What `seqlens_k` (steps after this call, less one) and `total_sequence_length` say."""
    batch, _, steps, _ = q.shape
    total = int(node.scalar(6, "total_sequence_length"))
    before = node.x(3).shape[2] if node.has(3) and node.x(3).type.rank == 4 else 0
    build = node.builder
    if total == steps:  # the prompt
        begin: Value = build.const(np.zeros(batch, np.int64))
    else:
        last = build.add(Cast(build.reshape(node.x(5), (batch,)), DType.I64))
        begin = build.add(Sub(last, build.const(np.asarray(steps - 1, np.int64))))
    full = isinstance(begin, Const) and bool((begin.array == before).all())
    length = max(before, total)
    return _Step(begin, steps, length, full and before + steps == length)


def _cached(node: Node, i: int, new: Value, step: _Step) -> Value:
    """The cache after this call, [B, N, length, D]."""
    build, shape = node.builder, new.shape
    if step.grows:
        return _behind(node, i, new) if node.has(i) else new
    old = node.x(i) if node.has(i) else build.const(np.zeros((*shape[:2], 0, shape[3]), np.float32))
    if (missing := step.length - old.shape[2]) > 0:
        room = build.const(np.zeros((*shape[:2], missing, shape[3]), np.float32))
        old = forms.concat(build, (old, room), 2)
    return cached(build, old, new, step.begin, 2)


def _grouped(node: Node, q: Value, k: Value, v: Value, step: _Step) -> Value:
    """What each query takes of the values, [B, N, S, D]: the queries of one head of keys are rows
    of one product."""
    build = node.builder
    batch, heads, steps, size = q.shape
    groups, length = k.shape[1:3]
    rows = heads // groups * steps
    q = forms.scaled(build, q, node.real("scale") or size**-0.5)
    together = build.reshape(q, (batch, groups, rows, size))
    product = build.add(MatMul(together, build.transpose(k, (0, 1, 3, 2))))
    scores = build.reshape(product, (batch, heads, steps, length))
    if cap := node.real("softcap"):
        scores = forms.scaled(build, build.add(Tanh(forms.scaled(build, scores, 1 / cap))), cap)
    if node.has(10):
        scores = build.add(Add(scores, node.x(10)))
    scores = build.add(Where(_visible(node, step), scores, build.const(LOW)))
    weights = build.reshape(_weights(node, scores), (batch, groups, rows, length))
    return build.reshape(build.add(MatMul(weights, v)), (batch, heads, steps, v.shape[3]))


def _visible(node: Node, step: _Step) -> Value:
    """Which steps of the cache a query sees, [B, 1, S, length]: up to its own, the last ones of
    a window."""
    build, begin, window = node.builder, step.begin, node.integer("local_window_size")
    batch = begin.shape[0]
    places = build.const(np.arange(step.length, dtype=np.int64))
    own = _places(node, step)
    own = build.reshape(own, (batch, 1, step.steps, 1))
    seen = build.add(LessOrEqual(places, own))
    if window < 0:
        return seen
    first = build.add(Sub(own, build.const(np.asarray(window - 1, np.int64))))
    return build.add(And(seen, build.add(LessOrEqual(first, places))))


def _places(node: Node, step: _Step) -> Value:
    """The number of each new step, i64[B, S]."""
    start = node.builder.reshape(step.begin, (step.begin.shape[0], 1))
    each = node.builder.const(np.arange(step.steps, dtype=np.int64))
    return node.builder.add(Add(start, each))


def _weights(node: Node, scores: Value) -> Value:
    """The softmax of scores; part of it may go to a sink, which has a score and no value."""
    build = node.builder
    batch, heads, steps, _ = scores.shape
    if node.has(11):
        sink = build.reshape(node.x(11), (1, heads, 1, 1))
    elif node.integer("smooth_softmax"):
        sink = build.const(np.zeros((1, 1, 1, 1), np.float32))
    else:
        return build.add(Softmax(scores, 3))
    column = build.expand(sink, (batch, heads, steps, 1))
    y = build.add(Softmax(build.add(Concat((scores, column), 3)), 3))
    return forms.crop(build, y, (0, 0, 0, 0), (0, 0, 0, 1))


# ---------------------------------------------------------------- positions


@dataclass(frozen=True)
class _Turn:
    """Cosines and sines [B or 1, 1, S, R / 2] of what each pair is turned by; pairs are neighbours
    where `interleaved`, else halves of the first R elements."""

    cos: Value
    sin: Value
    interleaved: bool

    def __call__(self, node: Node, x: Value) -> Value:
        """x [B, N, S, D], turned."""
        build, size = node.builder, x.shape[3]
        width = 2 * self.cos.shape[3]
        if width > size:
            node.fail(f"{width} elements are to be turned, {x.type} has {size}")
        if self.interleaved:
            firsts, seconds = range(0, width, 2), range(1, width, 2)
        else:
            firsts, seconds = range(width // 2), range(width // 2, width)
        one, two = (forms.gather_axis(build, x, part, 3) for part in (firsts, seconds))
        parts = [
            build.add(Sub(build.add(Mul(one, self.cos)), build.add(Mul(two, self.sin)))),
            build.add(Add(build.add(Mul(one, self.sin)), build.add(Mul(two, self.cos)))),
        ]
        if width < size:
            parts.append(forms.gather_axis(build, x, range(width, size), 3))
        y = build.add(Concat(tuple(parts), 3))
        order = np.argsort([*firsts, *seconds, *range(width, size)])
        return forms.gather_axis(build, y, [int(i) for i in order], 3)


def _turn(node: Node, cos: int, places: Value, interleaved: str, width: int = 0) -> _Turn:
    """By the tables that are inputs `cos` and the next, at places i64[B, S]."""
    build = node.builder
    shape = (places.shape[0], 1, places.shape[1], width or node.x(cos).shape[-1])
    made = []
    for table in (node.x(cos), node.x(cos + 1)):
        if table.type.rank != 2 or table.shape[1] < shape[3]:
            node.fail(f"the cosines and sines must be [places, {shape[3]}], they are {table.type}")
        kept = forms.gather_axis(build, table, range(shape[3]), 1)
        made.append(build.reshape(build.add(Gather(kept, places, 0)), shape))
    return _Turn(made[0], made[1], bool(node.integer(interleaved)))


def _rotated(node: Node, x: Value, step: _Step) -> Value:
    if node.has(9):
        given = node.builder.reshape(node.x(9), (x.shape[0], step.steps))
        places = node.builder.add(Cast(given, DType.I64))
    else:
        places = _places(node, step)
    return _turn(node, 7, places, "rotary_interleaved")(node, x)


@handles(MICROSOFT + "RotaryEmbedding")
def rotary_embedding(node: Node) -> Results:
    """x [B, S, H] or [B, N, S, D], its pairs turned by angles that grow with the place: one offset
    for all, or a place for each step."""
    x, given, build = node.x(0), node.x(1), node.builder
    node.need("is_packed_batching", 0, "sequences of one length are needed")
    width, half = node.integer("rotary_embedding_dim"), node.x(2).shape[-1]
    if x.type.rank == 4:
        headed = x
    else:
        heads = node.integer("num_heads") if width else x.shape[-1] // (2 * half)
        headed = _headed(node, x, heads)
    batch, _, steps, _ = headed.shape
    places: Value = build.add(Cast(given, DType.I64))
    if given.type.size == 1:
        each = np.arange(steps, dtype=np.int64)
        places = build.add(Add(build.reshape(places, (1, 1)), build.const(each[np.newaxis])))
    elif given.shape != (batch, steps):
        node.fail(f"the places {given.type} do not fit {x.type}")
    turned = _turn(node, 2, places, "interleaved", width // 2)(node, headed)
    if scale := node.real("scale"):
        turned = forms.scaled(build, turned, scale)
    node.ignore("num_heads")
    return turned if x.type.rank == 4 else _joined(node, turned)

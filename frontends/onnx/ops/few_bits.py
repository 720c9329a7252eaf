"""Weights of few bits in onnxruntime's own packing: MatMulNBits and GatherBlockQuantized (domain
com.microsoft)."""

from __future__ import annotations

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.ops.elementwise import Add
from irc.ops.selection import Gather
from irc.types import Array

BITS = (2, 4, 8)


@handles("com.microsoft.MatMulNBits")
def matmul_few_bits(node: Node) -> Results:
    """`A @ W.T + bias`. W [N,K] lies in blocks along K, each with a scale and a zero point; its
    reals are quantized anew."""
    node.ignore("accuracy_level")
    if node.has(4):
        node.fail("an order of the columns (g_idx) is not supported")
    weights = node.builder.const(np.ascontiguousarray(_weights(node).T))
    y = forms.matmul(node.builder, node.x(0), weights, True)
    return node.builder.add(Add(y, node.x(5))) if node.has(5) else y


def _weights(node: Node) -> Array:
    """The real weights f32[N,K]."""
    n, k, bits, block = (node.integer(name) for name in ("N", "K", "bits", "block_size"))
    if bits not in BITS or block < 16 or block & (block - 1):
        node.fail(f"bits = {bits} and block_size = {block}: {BITS} bits and powers of two from 16"
                  " are supported")  # fmt: skip
    blocks = -(-k // block)
    packed = _of_size(node, 1, "weights", n * blocks * block * bits // 8)
    q = unpacked(packed.reshape(n, -1), bits).astype(np.float32)
    scale = _of_size(node, 2, "scales", n * blocks).astype(np.float32).reshape(n, blocks, 1)
    real = (q.reshape(n, blocks, block) - _zeros(node, n, blocks, bits)) * scale
    return real.reshape(n, -1)[:, :k]


def _zeros(node: Node, n: int, blocks: int, bits: int) -> Array:
    """The zero point of each block, that of symmetric weights where none is given."""
    if not node.has(3):
        return np.full((n, blocks, 1), 2 ** (bits - 1), np.float32)
    given = node.constant(3, "zero points")
    if given.dtype == np.uint8:
        rows = -(-blocks * bits // 8)
        packed = _of_size(node, 3, "zero points", n * rows).reshape(n, rows)
        given = unpacked(packed, bits)[:, :blocks]
    return given.reshape(n, blocks, 1).astype(np.float32)


@handles("com.microsoft.GatherBlockQuantized")
def gather_few_bits(node: Node) -> Results:
    """Rows of a table that lies in blocks along one axis, each with a scale and a zero point; its
    reals are quantized anew."""
    table = _table(node)
    axis = node.axis(node.integer("gather_axis"), table.ndim)
    return node.builder.add(Gather(node.builder.const(table), node.x(1), axis))


def _table(node: Node) -> Array:
    """The reals of a table of 4-bit integers, or of bytes that may hold several each."""
    q, bits, block = node.constant(0, "table"), node.integer("bits"), node.integer("block_size")
    if bits not in BITS or block < 16 or block & (block - 1):
        node.fail(f"bits = {bits} and block_size = {block} are not supported")
    # Bytes may hold several numbers; those of the model's 4-bit types were taken apart before.
    several = bits < 8 and q.dtype == np.uint8 and node.proto.input[0] not in node.builder.kinds
    axis = node.axis(node.integer("quantize_axis"), q.ndim)
    scale = node.constant(2, "scales").astype(np.float32)
    zero: Array = np.asarray(2 ** (bits - 1) if q.dtype == np.uint8 and several else 0)
    if node.has(3):
        zero = node.constant(3, "zero points")
        zero = unpacked(zero, bits)[..., : scale.shape[-1]] if several else zero
    q = unpacked(q, bits) if several else q
    extent = q.shape[axis]
    shape = (*q.shape[:axis], -(-extent // block), *q.shape[axis + 1 :])
    if scale.shape != shape or zero.size not in (1, scale.size):
        node.fail(f"scales {list(scale.shape)} do not fit {list(q.shape)} in blocks of {block}")
    wide = [np.repeat(a, block, axis) if a.ndim else a for a in (scale, zero.astype(np.float32))]
    cut = [a.take(range(extent), axis) if a.ndim else a for a in wide]
    return np.asarray((q.astype(np.float32) - cut[1]) * cut[0], np.float32)


def _of_size(node: Node, i: int, what: str, size: int) -> Array:
    found = node.constant(i, what)
    if found.size != size:
        node.fail(f"{size} {what} are needed, it has {node.x(i).type}")
    return found


def unpacked(packed: Array, bits: int) -> Array:
    """The numbers of `bits` bits that lie in each row of bytes, the lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    numbers = (packed[..., np.newaxis] >> shifts) & (2**bits - 1)
    return np.asarray(numbers).reshape(*packed.shape[:-1], -1)

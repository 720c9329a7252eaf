"""onnxruntime's attention of decoders and encoders, and rotary positions, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import irc
from irc.errors import ModelError
from irc.types import Array
from tests.frontends.single_op import agree, fused, reals

HEADS, GROUPS, SIZE, STEPS, BEFORE, MOST = 4, 2, 16, 3, 5, 16
ANGLES = reals(7, MOST, SIZE // 2, low=0.0, high=3.0)
TABLES = {"cos": np.cos(ANGLES), "sin": np.sin(ANGLES)}
PLAIN = ["q", "k", "v", "pk", "pv", "lens", "total"]


def decoder(batch: int = 1, steps: int = STEPS, before: int = BEFORE) -> dict[str, Array]:
    return {
        "q": reals(1, batch, steps, HEADS * SIZE),
        "k": reals(2, batch, steps, GROUPS * SIZE),
        "v": reals(3, batch, steps, GROUPS * SIZE),
        "pk": reals(4, batch, GROUPS, before, SIZE),
        "pv": reals(5, batch, GROUPS, before, SIZE),
    }


def lengths(total: int, *last: int) -> dict[str, Array]:
    return {"lens": np.asarray(last, np.int32), "total": np.asarray(total, np.int32)}


def grouped(
    x: dict[str, Array], constants: dict[str, Array], names: list[str] | None = None,
    **attributes: Any,
) -> onnx.ModelProto:  # fmt: skip
    return fused(
        "GroupQueryAttention", names or PLAIN, x, constants, ("y", "keys", "values"),
        num_heads=HEADS, kv_num_heads=GROUPS, **attributes,
    )  # fmt: skip


@pytest.mark.parametrize(
    "attributes",
    [{}, {"scale": 0.2}, {"local_window_size": 2}, {"softcap": 3.0}, {"smooth_softmax": 1}],
    ids=lambda a: next(iter(a), "plain"),
)
def test_grouped_queries(attributes: dict[str, Any]) -> None:
    agree(grouped(decoder(), lengths(BEFORE + STEPS, BEFORE + STEPS - 1), **attributes), decoder(),
          relative=1e-4)  # fmt: skip


@pytest.mark.parametrize("interleaved", [0, 1])
def test_grouped_queries_turn(interleaved: int) -> None:
    constants = {**lengths(BEFORE + STEPS, BEFORE + STEPS - 1), **TABLES}
    proto = grouped(
        decoder(), constants, [*PLAIN, "cos", "sin"], do_rotary=1, rotary_interleaved=interleaved
    )
    agree(proto, decoder(), relative=1e-4)


def test_a_prompt_in_one_tensor() -> None:
    x = {"q": reals(1, 2, STEPS, (HEADS + 2 * GROUPS) * SIZE)}
    names = ["q", "", "", "", "", "lens", "total", "cos", "sin"]
    constants = {**lengths(STEPS, STEPS - 1, STEPS - 1), **TABLES}
    agree(grouped(x, constants, names, do_rotary=1), x, relative=1e-4)


def test_a_cache_of_fixed_size() -> None:
    """Each sequence writes behind its own steps, whose number is an input."""
    x = decoder(batch=2, steps=1, before=8) | {"lens": np.asarray([4, 6], np.int32)}
    constants = {"total": np.asarray(7, np.int32), **TABLES}
    proto = grouped(x, constants, [*PLAIN, "cos", "sin"], do_rotary=1)
    found = irc.evaluate(irc.load(proto), x)
    for b, last in enumerate(x["lens"]):
        one = {k: a[b : b + 1] for k, a in x.items() if k != "lens"}
        short = one | {k: one[k][:, :, :last] for k in ("pk", "pv")}
        exact = {**lengths(last + 1, last), **TABLES}
        own = agree(grouped(short, exact, [*PLAIN, "cos", "sin"], do_rotary=1), short)
        y = irc.evaluate(own, short)
        np.testing.assert_allclose(found["y"][b], y["y"][0], atol=1e-5)
        np.testing.assert_array_equal(found["values"][b, :, : last + 1], y["values"][0])


def test_grouped_queries_in_integers() -> None:
    x = decoder(steps=1, before=8) | {"lens": np.asarray([4], np.int32)}
    constants = {"total": np.asarray(7, np.int32), **TABLES}
    graph = irc.load(grouped(x, constants, [*PLAIN, "cos", "sin"], do_rotary=1))
    quantized = irc.quantize(graph, calibration=[x])
    first, second = (irc.compile(quantized, backend=b)(x) for b in ("reference", "llvm"))
    real = irc.evaluate(graph, x)
    for name in real:
        np.testing.assert_array_equal(first[name], second[name])
        assert np.abs(first[name] - real[name]).max() < 0.05 * np.ptp(real[name])


def test_what_grouped_queries_refuse() -> None:
    constants = {**lengths(BEFORE + STEPS, BEFORE + STEPS - 1)}
    with pytest.raises(ModelError, match="the cache must hold reals"):
        irc.load(grouped(decoder(), constants, k_quant_type="PER_TENSOR"))
    x = decoder() | {"total": constants["total"]}
    with pytest.raises(ModelError, match="--value total="):
        irc.load(grouped(x, {"lens": constants["lens"]}))


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("extra", ["", "bias", "mask", "lengths", "added", "past"])
def test_many_heads(causal: int, extra: str) -> None:
    width = HEADS * SIZE
    x = {n: reals(i, 2, STEPS, width) for i, n in enumerate("qkv")}
    more: dict[str, Array] = {
        "bias": reals(8, 3 * width),
        "mask": np.asarray([[1, 1, 0], [1, 1, 1]], np.int32),
        "lengths": np.asarray([2, 3], np.int32),
        "added": reals(9, 1, HEADS, STEPS, STEPS),
        "past": reals(4, 2, HEADS, BEFORE, SIZE),
    }
    names = ["q", "k", "v", "", "", "", "", ""]
    where = {"bias": [3], "mask": [4], "lengths": [4], "added": [5], "past": [6, 7]}
    for at in where.get(extra, []):
        names[at] = extra
    constants = {"bias": more["bias"]} if extra == "bias" else {}
    if extra in more and extra != "bias":
        x[extra] = more[extra]
    while not names[-1]:
        names.pop()
    proto = fused(
        "MultiHeadAttention", names, x, constants, ("y", "keys", "values"), num_heads=HEADS,
        unidirectional=causal,
    )  # fmt: skip
    agree(proto, x, relative=1e-4)


def test_heads_of_an_encoder() -> None:
    across = {"q": reals(1, 2, STEPS, HEADS * SIZE)}
    across |= {n: reals(i, 2, HEADS, 5, SIZE) for i, n in enumerate("kv")}
    agree(fused("MultiHeadAttention", ["q", "k", "v"], across, {}, num_heads=HEADS), across,
          relative=1e-4)  # fmt: skip


def test_packed_heads() -> None:
    """onnxruntime has them for other devices alone."""
    each = {n: reals(i, 2, STEPS, HEADS, SIZE) for i, n in enumerate("qkv")}
    flat = {n: a.reshape(2, STEPS, HEADS * SIZE) for n, a in each.items()}
    plain = fused("MultiHeadAttention", [*flat], flat, {}, num_heads=HEADS)
    expected = irc.evaluate(irc.load(plain), flat)["y"]
    pair = {"q": flat["q"], "kv": np.stack([each["k"], each["v"]], 3)}
    for x in ({"qkv": np.stack(list(each.values()), 3)}, pair):
        packed = irc.load(fused("MultiHeadAttention", [*x], x, {}, num_heads=HEADS))
        np.testing.assert_allclose(irc.evaluate(packed, x)["y"], expected, atol=1e-6)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("shape", [(2, STEPS, HEADS * SIZE), (2, HEADS, STEPS, SIZE)], ids=str)
@pytest.mark.parametrize("places", [[2], [[0, 1, 2], [5, 6, 7]]], ids=["offset", "each"])
def test_rotary(interleaved: int, shape: tuple[int, ...], places: Any) -> None:
    x = {"x": reals(1, *shape)}
    constants = {"at": np.asarray(places, np.int64), **TABLES}
    agree(fused("RotaryEmbedding", ["x", "at", "cos", "sin"], x, constants,
                interleaved=interleaved), x)  # fmt: skip


def test_rotary_of_a_part() -> None:
    x = {"x": reals(1, 1, STEPS, HEADS * SIZE)}
    half = {n: t[:, : SIZE // 4] for n, t in TABLES.items()}
    constants = {"at": np.asarray([1], np.int64), **half}
    agree(fused("RotaryEmbedding", ["x", "at", "cos", "sin"], x, constants, num_heads=HEADS,
                rotary_embedding_dim=SIZE // 2), x)  # fmt: skip

"""Inputs such as sound keep 16 bits through the layers that take them apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irc
from irc import driver, edge
from irc.graph import Graph, evaluate
from irc.ops.activation import Clip
from irc.ops.conv import Conv2d
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.linear import Linear
from irc.ops.shape import Reshape, Slice
from irc.ops.unary import Log, Sin, Sqrt
from irc.passes.calibration.calibrate import calibrate
from irc.types import Array, DType, TensorType
from irc.value import Value
from tests.backends.harness import agree
from tests.passes.nets import sqnr

FRAME, BINS = 64, 9


def sound(seed: int, count: int = 60) -> list[dict[str, Array]]:
    """Frames that are mostly quiet."""
    rng = np.random.default_rng(seed)
    loud = np.where(np.arange(count) % 60, 10 ** rng.uniform(-3, -1.3, count), 1.0)[:, None]
    wave = np.sin(np.outer(rng.uniform(0.1, 1.5, count), np.arange(FRAME))) * loud
    return [{"x": w[None].astype(np.float32)} for w in wave]


def spectrum(pads: int = 0) -> Graph:
    """A convolution by sines and cosines, and the size of what comes out."""
    x = Input.of(TensorType(DType.F32, (1, FRAME)), "x")
    angles = np.outer(np.arange(1, BINS + 1) / 12, np.arange(16))
    basis = np.concatenate([np.cos(angles), np.sin(angles)]).astype(np.float32)
    image = Reshape(x, (1, 1, FRAME, 1))
    w = Const(basis.reshape(2 * BINS, 1, 16, 1))
    y = Conv2d(image, w, None, (1, 8), (0, pads, 0, pads), (1, 1), 1, name="stft")
    whole = y.shape
    parts = [
        Slice(y, (0, 0, 0, i * BINS), (*whole[:3], (i + 1) * BINS), (1, 1, 1, 1)) for i in (0, 1)
    ]
    squares = [Mul(p, p) for p in parts]
    size = Sqrt(Add(*squares), name="size")
    flat: Value = Reshape(size, (1, size.type.size))
    rng = np.random.default_rng(0)
    v = Const(rng.normal(0, 1, (5, size.type.size)).astype(np.float32))
    out = Clip(Linear(flat, v, name="out"), -1e3, 1e3)
    return Graph("spectrum", (x,), (out,), ("y",))


def integers(graph: Graph, **options: Any) -> Graph:
    return driver.integerize(irc.quantize(graph, calibration=sound(0), **options))


def error(graph: Graph, made: Graph) -> float:
    wanted, found = [], []
    for feed in sound(0):
        wanted.append(evaluate(graph, feed)["y"])
        got = evaluate(made, edge.to_integers(made.input_types, feed)[0])
        found.append(edge.to_reals(made.output_types, got)["y"])
    return sqnr(np.stack(wanted), np.stack(found))


@pytest.mark.parametrize("pads", [0, 5])
def test_sound_has_16_bits(pads: int) -> None:
    graph = spectrum(pads)
    made = integers(graph)
    assert made.input_types["x"].dtype is DType.I16
    assert {"join_bytes", "qmagnitude"} <= {v.op for v in made.order}
    assert error(graph, made) > 30
    assert error(graph, made) > error(graph, integers(graph, activations=8)) + 2.5


def test_pixels_have_8() -> None:
    graph = spectrum()
    rng = np.random.default_rng(0)
    flat = [{"x": rng.uniform(-1, 1, (1, FRAME)).astype(np.float32)} for _ in range(20)]
    made = driver.integerize(irc.quantize(graph, calibration=flat))
    assert made.input_types["x"].dtype is DType.U8


@pytest.mark.parametrize("pads", [0, 5])
def test_backends_agree(pads: int) -> None:
    made = integers(spectrum(pads))
    feed = edge.to_integers(made.input_types, sound(1)[0])[0]
    agree(made, feed, ["host"])
    extremes = np.random.default_rng(0).choice([-32768, 32767], feed["x"].shape).astype(np.int16)
    agree(made, {"x": extremes}, ["host"], numba=True)


def decibels() -> Graph:
    """A spectrum, each band by a factor of its own, in decibels."""
    graph = spectrum()
    size = next(v for v in graph.order if v.name == "size")
    bands = Const(np.linspace(1, 9, BINS).astype(np.float32))
    m = Mul(size, bands)
    power = Add(Mul(m, m), Const(np.asarray(1e-8, np.float32)))
    level = Log(power, name="level")
    w = np.random.default_rng(2).normal(0, 1, (5, level.type.size)).astype(np.float32)
    out = Linear(Reshape(level, (1, level.type.size)), Const(w), name="out")
    return Graph("decibels", graph.inputs, (out,), ("y",))


def tones(seed: int, count: int = 40) -> list[dict[str, Array]]:
    """As loud as can be: in 8 bits these and their spectra have 40 dB."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.outer(rng.uniform(0.1, 1.5, count), np.arange(FRAME)))
    return [{"x": (w + 1e-3 * rng.normal(size=FRAME))[None].astype(np.float32)} for w in wave]


def test_what_logarithms_read_has_16_bits() -> None:
    """However loud it is: what is quiet in it counts as much."""
    graph = decibels()
    quantized = irc.quantize(graph, calibration=tones(0), min_sqnr=0)
    types = {v.name: v.type.dtype for v in quantized.order if v.op == "quantize"}
    assert types["stft.q"] is types["size.q"] is DType.I16
    made = driver.integerize(quantized)
    real, found = [], []
    for feed in tones(1):
        real.append(evaluate(graph, feed)["y"])
        integers, _ = edge.to_integers(made.input_types, feed)
        found.append(edge.to_reals(made.output_types, evaluate(made, integers))["y"])
    assert sqnr(np.stack(real), np.stack(found)) > 25
    agree(made, edge.to_integers(made.input_types, tones(1)[0])[0], ["host"])


def test_signals_have_as_many_steps_as_there_are() -> None:
    """Inputs, as recorders give them, have powers of two; what is made of them has a bit for what
    is louder than all that was heard, but where a logarithm needs it."""
    for graph, heard, room in ((spectrum(), sound(0), 2.0), (decibels(), tones(0), 1.25)):
        quantized = irc.quantize(graph, calibration=heard, min_sqnr=0)
        types = {v.name: v.type for v in quantized.order if v.op == "quantize"}
        assert types["x.q"].scale == 2.0 ** np.rint(np.log2(types["x.q"].scale))
        profile = calibrate(graph, heard)
        largest = max(-profile.values["stft"].low, profile.values["stft"].high)
        np.testing.assert_allclose(types["stft.q"].scale * DType.I16.max, room * largest, rtol=1e-3)


@pytest.mark.parametrize("turns", [1, 8])
def test_sines_of_many_turns_read_16_bits(turns: int) -> None:
    """8 bits over 8 turns are 32 steps a turn."""
    x = Input(DType.F32, (64, 2), name="x")
    rng = np.random.default_rng(0)
    w, out = rng.uniform(-1, 1, (24, 2)), rng.normal(0, 0.2, (3, 24))
    angles = Linear(x, Const((turns * np.pi * w).astype(np.float32)), None)
    y = Linear(Sin(angles), Const(out.astype(np.float32)), None)
    graph = Graph("g", (x,), (y,), ("y",))
    made, *others = ({"x": rng.uniform(-1, 1, (64, 2)).astype(np.float32)} for _ in range(4))
    quantized = irc.quantize(graph, calibration=[made, *others])
    stored = [v.type for v in quantized.order if v.op == "quantize"]
    reach = [2**15 * t.scale for t in stored if t.dtype is DType.I16]
    largest = max(float(np.abs(s["x"] @ w.T).max()) for s in (made, *others)) * turns * np.pi
    assert bool(reach) == (turns > 1)
    assert all(r < 1.3 * largest for r in reach)
    assert sqnr(evaluate(graph, made)["y"], evaluate(quantized, made)["y"]) > 27

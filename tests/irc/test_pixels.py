"""Camera frames: the folded normalisation against the one done by hand, to one step."""

import numpy as np
import pytest

import irc
from irc.driver import integerize, quantize
from irc.errors import DataError, GraphError
from irc.graph import Graph
from irc.pixels import Pixels, frame_of, take_pixels


def model(shape: str, channels_last: bool = False) -> Graph:
    perm = "[0, 1, 2, 3]" if channels_last else "[0, 2, 3, 1]"
    out = shape if channels_last else ",".join(np.array(shape.split(","))[[0, 2, 3, 1]])
    return irc.parse(
        f"graph @g(%x: f32[{shape}]) {{\n  %y = transpose(%x) {{perm = {perm}}} : f32[{out}]\n"
        f"  %z = relu(%y) : f32[{out}]\n  return %z\n}}"
    )


@pytest.mark.parametrize(
    ("shape", "last"), [("1,3,4,5", False), ("1,1,4,4", False), ("2,6,7,3", True)]
)
def test_normalising_inside_is_one_rounding(shape: str, last: bool) -> None:
    graph = model(shape, last)
    frame = frame_of(graph)
    channels = frame.shape[3]
    pixels = Pixels((0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels])
    frames = np.random.default_rng(0).integers(0, 256, frame.shape, np.uint8)
    reals = frame.model_layout(pixels.normalize(frames))
    quantized = quantize(graph, {"x": reals})
    inner, outer = integerize(quantized), integerize(take_pixels(quantized, pixels))
    assert str(outer.inputs[0].type) == f"u8[{','.join(map(str, frame.shape))}] q(1.0, 0)"
    by_hand = irc.evaluate(inner, {"x": _quantized(reals, inner)})
    ours = irc.evaluate(outer, {"x": frames})
    difference = ours["z"].astype(int) - by_hand["z"].astype(int)
    assert np.abs(difference).max() <= 1
    assert np.mean(difference != 0) < 0.02


def _quantized(reals: np.ndarray, graph: Graph) -> np.ndarray:
    from irc.fixedpoint import quantize as to_integers

    return to_integers(reals, graph.inputs[0].type)


def test_texts() -> None:
    assert Pixels.parse("mean=0.1,0.2,0.3,std=2") == Pixels((0.1, 0.2, 0.3), (2.0,))
    assert Pixels.parse("std=0.5") == Pixels((0.0,), (0.5,))
    for text in ("", "mean", "mean=x", "0.5", "gain=2", "std=-1", "std=nan", "mean=inf"):
        with pytest.raises(DataError, match="pixels"):
            Pixels.parse(text)


def test_what_is_no_image_is_refused() -> None:
    flat = irc.parse("graph @g(%x: f32[1,9]) {\n  return %x\n}")
    two = irc.parse("graph @g(%x: f32[1,3,4,4], %y: f32[1]) {\n  return %x\n}")
    for graph in (flat, two):
        with pytest.raises(GraphError, match="pixels"):
            frame_of(graph)
    with pytest.raises(DataError, match="2 numbers"):
        Pixels((0.1, 0.2)).per_channel(3)

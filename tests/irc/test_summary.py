"""Layers, their multiply-accumulates and their constants, counted by hand."""

import pytest

import irc
from irc.driver import integerize, schedule
from irc.summary import layers

CONV = """
graph @g(%x: f32[1,8,8,4]) {
  %w = const [WEIGHTS] : f32[2,1,1,4]
  %b = const [1.0, -1.0] : f32[2]
  %c = conv2d(%x, %w, %b) {PLAIN} : f32[1,8,8,2]
  %y = reshape(%c) {dims = [1, 128]} : f32[1,128]
  return %y
}
"""
CONV = CONV.replace("WEIGHTS", ", ".join(f"{0.1 * i}" for i in range(1, 9))).replace(
    "PLAIN", "strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], groups = 1"
)


def test_a_convolution() -> None:
    (layer,) = layers(irc.parse(CONV))
    assert (layer.name, layer.op, layer.type.shape) == ("c", "conv2d", (1, 8, 8, 2))
    assert (layer.macs, layer.parameters, layer.nbytes) == (8 * 8 * 2 * 4, 10, 40)


def test_the_same_work_in_every_form() -> None:
    """Quantizing, integers and kernels change bytes, not multiply-accumulates or parameters."""
    quantized = irc.quantize(irc.parse(CONV), "random:2")
    integer = integerize(quantized)
    for graph in (quantized, integer, schedule(integer)):
        assert sum(layer.macs for layer in layers(graph)) == 512
        assert sum(layer.parameters for layer in layers(graph)) == 10
    (kernel,) = layers(schedule(integer))
    assert "qconv2d" in kernel.op
    assert kernel.nbytes == 8 + 2 * (4 + 4 + 1)  # w i8; b, m i32 and s i8 per channel


@pytest.mark.parametrize(
    ("text", "macs"),
    [
        ("linear(%a, %w, -) : f32[2,3]", 2 * 3 * 4),
        ("matmul(%a, %v) : f32[2,5]", 2 * 5 * 4),
    ],
)
def test_products(text: str, macs: int) -> None:
    graph = irc.parse(
        "graph @g(%a: f32[2,4], %w: f32[3,4], %v: f32[4,5]) {\n  %y = " + text + "\n  return %y\n}"
    )
    assert [layer.macs for layer in layers(graph)] == [macs]


def test_a_transposed_convolution_counts_every_tap_of_every_pixel() -> None:
    graph = irc.parse(
        "graph @g(%x: f32[1,4,4,6], %w: f32[2,3,3,6]) {\n  %y = conv_transpose2d(%x, %w, -)"
        " {strides = [2, 2], pads = [0, 0, 0, 0], dilations = [1, 1], groups = 1,"
        " output_padding = [0, 0]} : f32[1,9,9,2]\n  return %y\n}"
    )
    assert [layer.macs for layer in layers(graph)] == [4 * 4 * 3 * 3 * 6 * 2]

"""What takes elements from, or puts them to, places that are computed: against onnxruntime, and
whether the library finds the same places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irc
from irc.errors import ModelError
from irc.frontends.onnx import load
from irc.types import Array
from tests.frontends.single_op import agree, check, i64, model, node, reals

GRIDS = [(1, 5, 6, 2), (2, 3, 4, 2)]


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("constant", [False, True])
def test_grid_sample(mode: str, padding: str, align: int, constant: bool) -> None:
    for shape in GRIDS:
        x = {"x": reals(1, shape[0], 3, 4, 5)}
        grid = {"grid": reals(2, *shape, low=-1.6, high=1.6)}
        check(
            "GridSample", x if constant else x | grid, grid if constant else None,
            mode=mode, padding_mode=padding, align_corners=align, relative=1e-4,
        )  # fmt: skip


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [0, 1])
def test_grids_at_run_time_in_integers(mode: str, padding: str, align: int) -> None:
    """Coordinates have 16 bits, whatever they are computed from."""
    x = {"x": smooth(1, 3, 24, 32), "p": reals(2, 1, 5, 6, 2), "r": reals(3, 1, 5, 6, 2) / 9}
    nodes = [
        node("Sigmoid", ["p"], ["a"]), node("Add", ["a", "r"], ["b"]),
        node("Mul", ["b", "two"], ["c"]), node("Sub", ["c", "one"], ["d"]),
        node("Transpose", ["d"], ["g"], perm=[0, 2, 1, 3]),
        node("GridSample", ["x", "g"], mode=mode, padding_mode=padding, align_corners=align),
    ]  # fmt: skip
    constants = {"two": np.asarray(2, np.float32), "one": np.asarray(1, np.float32)}
    graph = agree(model(nodes, x, constants), x, relative=1e-4)
    same_bits(graph, x)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("batch", [1, 2])
def test_points_moved_by_what_is_computed(align: int, batch: int) -> None:
    """A spatial transformer; also of one row (whose only point onnxruntime moves), of volumes."""
    angles = {"x": smooth(batch, 3, 16, 20), "t": reals(1, batch, 2, 3, low=-1, high=1)}
    nodes = [
        node("AffineGrid", ["t", "size"], ["g"], align_corners=align),
        node("GridSample", ["x", "g"], align_corners=align),
    ]
    constants = {"size": i64(batch, 3, 12, 9)}
    graph = agree(model(nodes, angles, constants, opset=20), angles, relative=1e-4)
    same_bits(graph, angles)
    for sizes in ((2 if align else 1, 7), (2, 3, 4)):
        n = len(sizes)
        theta = {"t": reals(2, batch, n, n + 1)}
        check("AffineGrid", theta, {"size": i64(batch, 1, *sizes)}, opset=20, align_corners=align)


DEFORMABLE: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, dict[str, Any]]] = {
    "plain": ((1, 4, 7, 9), (6, 4, 3, 3), 1, {"pads": [1, 1, 1, 1]}),
    "groups": (
        (2, 8, 9, 8), (4, 4, 3, 2), 2,
        {"pads": [1, 0, 0, 1], "strides": [2, 1], "dilations": [1, 2], "group": 2},
    ),
    "a row": ((1, 2, 1, 5), (3, 2, 1, 3), 1, {"pads": [0, 1, 0, 1]}),
}  # fmt: skip


@pytest.mark.parametrize("factors", [False, True])
@pytest.mark.parametrize("case", DEFORMABLE)
def test_deformable_convolution(case: str, factors: bool) -> None:
    """Taps that look where offsets say."""
    shape, weights, groups, given = DEFORMABLE[case]
    n, _, h, w = shape
    kh, kw = weights[2:]
    pads, strides = given["pads"], given.get("strides", [1, 1])
    dilations = given.get("dilations", [1, 1])
    oh = (h + pads[0] + pads[2] - dilations[0] * (kh - 1) - 1) // strides[0] + 1
    ow = (w + pads[1] + pads[3] - dilations[1] * (kw - 1) - 1) // strides[1] + 1
    taps = groups * kh * kw
    image = smooth(*shape)
    x = {"x": image, "o": reals(2, n, 2 * taps, oh, ow, low=-1, high=1)}
    constants = {"w": reals(3, *weights), "b": reals(4, weights[0])}
    order = ["x", "w", "o", "b"]
    if factors:
        x["m"] = reals(5, n, taps, oh, ow, low=0, high=1)
        order.append("m")
    layer = node("DeformConv", order, offset_group=groups, **given)
    graph = agree(model([layer], x, constants, opset=19), x, relative=1e-5)
    if factors:
        same_bits(graph, x)


def test_deformable_convolutions_that_do_not_fit() -> None:
    x = {"x": reals(1, 1, 4, 7, 9), "o": reals(2, 1, 18, 7, 9)}
    weights = {"w": reals(3, 6, 4, 3, 3)}
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, r"offsets f32\[1,18,7,9\]: \[1, 18, 5, 7\] is needed"),
        ({"pads": [1, 1, 1, 1], "offset_group": 3}, "in 1 groups, 3 of offsets"),
        ({"pads": [1, 1]}, "two sizes for each of 2"),
    )
    for given, message in cases:
        layer = node("DeformConv", ["x", "w", "o"], **given)
        with pytest.raises(ModelError, match=rf"DeformConv_y.*{message}"):
            irc.load(model([layer], x, weights, opset=19))


def test_nearest_elements_of_volumes_at_run_time() -> None:
    x = {"x": np.round(reals(1, 2, 3, 4, 5, 6) * 9), "g": reals(2, 2, 2, 3, 4, 3, low=-1, high=1)}
    middle = np.round((x["g"] + 1) * [[6, 5, 4]] / 2 - 0.5)
    x["g"] = ((middle * 2 + 1) / [[6, 5, 4]] - 1).astype(np.float32)
    grid_sample = node("GridSample", ["x", "g"], mode="nearest")
    same_bits(agree(model([grid_sample], x, opset=20), x), x)


def smooth(n: int, c: int, h: int, w: int) -> Array:
    """An image without edges."""
    rows, columns = np.linspace(0, 3, h)[:, None], np.linspace(0, 4, w)
    waves = [np.sin(rows * (1 + i) / 3 + columns + i) for i in range(c)]
    return np.asarray([waves] * n, np.float32)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("how", ["half_pixel", "output_half_pixel"])
def test_regions(mode: str, ratio: int, how: str) -> None:
    if mode == "max" and how == "half_pixel":
        pytest.skip("onnxruntime takes another maximum there than ONNX")
    rois = np.asarray([[0, 0, 7, 5], [2, 1, 30, 20], [-3, 4, 9, 9.5]], np.float32)
    check(
        "RoiAlign", {"x": reals(1, 2, 3, 10, 12)}, {"rois": rois, "batch": i64(1, 0, 1)},
        mode=mode, sampling_ratio=ratio, output_height=3, output_width=2, spatial_scale=0.8,
        coordinate_transformation_mode=how, relative=1e-4,
    )  # fmt: skip


def boxes(seed: int, low: float, high: float) -> Array:
    """Six regions with corners between bounds."""
    points = np.sort(np.random.default_rng(seed).uniform(low, high, (6, 2, 2)), axis=1)
    return points.reshape(6, 4).astype(np.float32)


@pytest.mark.parametrize("ratio", [1, 2])
@pytest.mark.parametrize("how", ["half_pixel", "output_half_pixel"])
def test_regions_at_run_time(ratio: int, how: str) -> None:
    """In reals wherever they lie, in integers where they lie in the image: a point that lies one
    element outside is as good as beyond."""
    x = {"x": smooth(1, 3, 24, 32), "rois": boxes(0, -20, 110)}
    regions = node(
        "RoiAlign", ["x", "rois", "batch"], sampling_ratio=ratio, output_height=3, output_width=2,
        spatial_scale=0.3, coordinate_transformation_mode=how,
    )  # fmt: skip
    given = model([regions], x, {"batch": i64(*[0] * 6)})
    graph = agree(given, x, relative=1e-4)
    same_bits(graph, {**x, "rois": boxes(1, 4, 76)})


@pytest.mark.parametrize(
    ("batch", "attributes", "message"),
    [
        (1, {}, "depends on data: give a sampling_ratio, as 2"),
        (2, {"sampling_ratio": 2}, "pin the batch to 1"),
        (1, {"sampling_ratio": 2, "mode": "max"}, "the mean is supported"),
    ],
)
def test_regions_at_run_time_that_are_refused(
    batch: int, attributes: dict[str, Any], message: str
) -> None:
    x = {"x": smooth(batch, 3, 8, 9), "rois": boxes(0, 0, 8)}
    names = ["x", "rois", "batch"]
    regions = node("RoiAlign", names, output_height=2, output_width=2, **attributes)
    with pytest.raises(ModelError, match=message):
        load(model([regions], x, {"batch": i64(*[0] * 6)}))


@pytest.mark.parametrize("attributes", [
    {}, {"strides": [2, 1], "pads": [1, 0, 1, 1]}, {"dilations": [2, 1], "storage_order": 1},
    {"ceil_mode": 1, "strides": [3, 2]},
])  # fmt: skip
def test_places_of_maxima(attributes: dict[str, Any]) -> None:
    x = {"x": np.round(reals(1, 2, 3, 7, 8) * 4)}
    pool = node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 3], **attributes)
    agree(model([pool], x, outputs=["y", "i"]), x)


def test_what_a_pool_took_is_put_back() -> None:
    x = {"x": reals(1, 1, 2, 8, 6)}
    nodes = [
        node("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2], strides=[2, 2]),
        node("MaxUnpool", ["p", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    graph = agree(model(nodes, x), x)
    same_bits(graph, x)


def same_bits(graph: irc.Graph, feeds: dict[str, Array]) -> None:
    """The library's results are the reference's, and close to the reals."""
    real_inputs = any(v.type.dtype.is_float for v in graph.inputs)
    # One sample is all: ranges leave no room for others.
    quantized = irc.quantize(graph, calibration=[feeds], method="minmax") if real_inputs else graph
    first, second = (irc.compile(quantized, backend=b)(feeds) for b in ("reference", "llvm"))
    real = irc.evaluate(graph, feeds)
    for name, array in real.items():
        np.testing.assert_array_equal(first[name], second[name])
        spread = np.ptp(array) / 100 if array.dtype.kind == "f" else 0
        np.testing.assert_allclose(first[name], array, atol=spread)


def test_scatter_at_run_time() -> None:
    x = {"x": reals(1, 4, 5), "i": np.asarray([[0, 3, -1], [2, 2, 0]]), "u": reals(2, 2, 3)}
    graph = agree(model([node("ScatterElements", ["x", "i", "u"], axis=0)], x), x)
    same_bits(graph, x)
    x = {"x": reals(1, 4, 5), "i": np.asarray([[0], [3], [-2]]), "u": reals(2, 3, 5)}
    same_bits(agree(model([node("ScatterND", ["x", "i", "u"])], x), x), x)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_top_k(largest: int, axis: int) -> None:
    x = {"x": np.round(reals(1, 5, 4, 6) * 3)}
    nodes = [node("TopK", ["x", "k"], ["y", "i"], axis=axis, largest=largest)]
    graph = agree(model(nodes, x, {"k": i64(3)}, outputs=["y", "i"]), x)
    same_bits(graph, x)


@pytest.mark.parametrize("attributes", [{}, {"exclusive": 1}, {"reverse": 1}])
def test_running_sums(attributes: dict[str, Any]) -> None:
    x = {"x": reals(1, 3, 9)}
    graph = check("CumSum", x, {"axis": i64(1)}, **attributes)
    same_bits(graph, x)
    whole = {"x": np.asarray([[1, 1, 0], [1, 0, 1]], np.int64)}
    same_bits(check("CumSum", whole, {"axis": i64(1)}, **attributes), whole)


@pytest.mark.parametrize("groups", [1, 2])
def test_filters_that_are_computed(groups: int) -> None:
    x = {"x": reals(1, 2, 4, 6, 5), "w": reals(2, 6, 4 // groups, 3, 2), "b": reals(3, 6)}
    same_bits(check("Conv", x, group=groups, strides=[2, 1], pads=[1, 0, 1, 1]), x)
    row = {"x": reals(1, 2, 4, 9), "w": reals(2, 6, 4 // groups, 3)}
    same_bits(check("Conv", row, group=groups, dilations=[2], pads=[1, 0]), row)


def test_patches_overlap() -> None:
    x = {"x": reals(1, 2, 3 * 6, 12)}
    constants = {"image": i64(5, 6), "block": i64(2, 3)}
    graph = check("Col2Im", x, constants, opset=18, strides=[2, 1], pads=[1, 0, 1, 0])
    same_bits(graph, x)


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("parts", [1, 2])
def test_spectra(onesided: int, parts: int) -> None:
    if onesided and parts == 2:
        pytest.skip("a complex signal has two sides")
    x = reals(1, 2, 16, 3, parts)
    graph = check("DFT", {"x": x}, opset=17, axis=1, onesided=onesided, relative=1e-4)
    signal = x[..., 0] + (1j * x[..., 1] if parts == 2 else 0)
    expected = np.fft.fft(signal, axis=1)[:, : 9 if onesided else 16]
    found = irc.evaluate(graph, {"x": x})["y"]
    np.testing.assert_allclose(found[..., 0] + 1j * found[..., 1], expected, atol=1e-4)


def test_short_time_spectra() -> None:
    window = np.hanning(8).astype(np.float32)
    constants = {"step": np.asarray(4), "window": window}
    check("STFT", {"x": reals(1, 2, 40, 1)}, constants, relative=1e-4)


@pytest.mark.parametrize("reduction", ["add", "max", "min"])
def test_reductions_at_run_time(reduction: str) -> None:
    """Of edges into nodes: places are the same for a whole row, or each its own."""
    x, updates = reals(1, 4, 3), reals(2, 5, 3)
    inputs = {"x": x, "u": updates, "i": np.asarray([[2], [0], [2], [3], [0]], np.int64)}
    wide = node("Expand", ["i", "shape"], ["at"])
    scatter = node("ScatterElements", ["x", "at", "u"], axis=0, reduction=reduction)
    proto = model([wide, scatter], inputs, {"shape": i64(5, 3)}, opset=18)
    agree(proto, inputs)
    each = inputs | {"i": np.asarray([[2, 0, 1], [0, 0, 1], [2, 3, 1], [3, 3, 1], [0, 2, 1]])}
    alone = node("ScatterElements", ["x", "i", "u"], axis=0, reduction=reduction)
    graph = agree(model([alone], each, opset=18), each)
    quantized = irc.quantize(graph, calibration=[each])
    compiled = irc.compile(quantized)(each)["y"]
    np.testing.assert_allclose(compiled, irc.evaluate(graph, each)["y"], atol=0.08)

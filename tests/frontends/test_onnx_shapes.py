"""Moving elements as onnxruntime does, and shape arithmetic that vanishes at import."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from irc.graph import Graph
from tests.frontends.single_op import agree, check, f32, i64, model, node, reals

seeds = st.integers(0, 2**16)
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def ops(graph: Graph) -> list[str]:
    return [v.op for v in graph.order]


@pytest.mark.parametrize("target", [(6, 4), (-1,), (0, -1), (2, 0, 4), (0, 3, -1, 1), (4, -1, 1)])
def test_reshape(target: tuple[int, ...]) -> None:
    graph = check("Reshape", {"x": reals(0, 2, 3, 4)}, {"s": i64(*target)})
    assert set(ops(graph)) <= {"input", "reshape"}


def test_reshape_with_allowzero() -> None:
    x = {"x": reals(0, 2, 3)}
    nodes = [
        node("Slice", ["x", "z", "z"], ["none"]),
        node("Reshape", ["none", "s"], ["swapped"], allowzero=1),
        node("Concat", ["swapped", "w"], axis=1),
    ]
    constants = {"z": i64(0), "s": i64(3, 0), "w": reals(1, 3, 2)}
    agree(model(nodes, x, constants, 14), x)


@given(shapes, st.integers(-4, 4))
def test_flatten(shape: list[int], axis: int) -> None:
    assume(-len(shape) <= axis <= len(shape))
    check("Flatten", {"x": reals(0, *shape)}, axis=axis)


@given(shapes, st.randoms(use_true_random=False), st.booleans())
def test_transpose(shape: list[int], random: Any, default: bool) -> None:
    perm = list(range(len(shape)))
    random.shuffle(perm)
    check("Transpose", {"x": reals(0, *shape)}, perm=None if default else perm)


@pytest.mark.parametrize("axes", [None, (0,), (2,), (0, 2), (-2,)])
def test_squeeze(axes: tuple[int, ...] | None) -> None:
    x = {"x": reals(0, 1, 3, 1, 4) if axes != (-2,) else reals(0, 3, 1, 4)}
    check("Squeeze", x, opset=11, axes=axes)
    check("Squeeze", x, {} if axes is None else {"axes": i64(*axes)}, opset=13)


@pytest.mark.parametrize("axes", [(0,), (1, 3), (-1,), (0, -1)])
def test_unsqueeze(axes: tuple[int, ...]) -> None:
    check("Unsqueeze", {"x": reals(0, 3, 4)}, opset=11, axes=axes)
    check("Unsqueeze", {"x": reals(0, 3, 4)}, {"axes": i64(*axes)}, opset=13)


@given(shapes, st.integers(1, 3), st.integers(-4, 3), seeds)
def test_concat(shape: list[int], count: int, axis: int, seed: int) -> None:
    assume(-len(shape) <= axis < len(shape))
    check("Concat", {f"x{i}": reals(seed + i, *shape) for i in range(count)}, axis=axis)


@given(shapes, st.data())
@settings(max_examples=100)
def test_slice(shape: list[int], data: st.DataObject) -> None:
    axis = st.integers(0, len(shape) - 1)
    axes = data.draw(st.lists(axis, unique=True, min_size=1))
    ends = st.integers(-7, 7) | st.sampled_from([2**63 - 1, -(2**63) + 1])
    starts = [data.draw(st.integers(-7, 7)) for _ in axes]
    stops = [data.draw(ends) for _ in axes]
    steps = [data.draw(st.sampled_from([1, 1, 2, 3, -1, -2])) for _ in axes]
    # Backwards to the largest integer is empty by definition; onnxruntime turns it round.
    assume(all(s > 0 or e < 2**31 for s, e in zip(steps, stops, strict=True)))
    x = {"x": reals(0, *shape)}
    constants = {"s": i64(*starts), "e": i64(*stops), "a": i64(*axes), "t": i64(*steps)}
    check("Slice", x, constants, opset=data.draw(st.sampled_from([10, 11, 13])))
    check("Slice", x, opset=9, starts=starts, ends=stops, axes=axes)


@pytest.mark.parametrize(("opset", "as_input"), [(7, False), (11, False), (13, True), (17, True)])
def test_split(opset: int, as_input: bool) -> None:
    x = {"x": reals(0, 2, 6, 3)}
    sizes = i64(1, 3, 2)
    attr = None if as_input else sizes.tolist()
    n = node("Split", ["x", "s"] if as_input else ["x"], ("a", "b", "c"), axis=1, split=attr)
    agree(model([n], x, {"s": sizes} if as_input else {}, opset, ("a", "b", "c")), x)
    even = node("Split", ["x"], ("a", "b", "c"), axis=1)
    agree(model([even], x, {}, opset, ("a", "c")), x)


def test_split_since_18_may_be_uneven() -> None:
    x = {"x": reals(0, 7, 2)}
    n = node("Split", ["x"], ("a", "b", "c"), num_outputs=3)
    agree(model([n], x, {}, 18, ("a", "b", "c")), x)


@given(st.sampled_from(["constant", "edge", "reflect"]), st.data())
@settings(max_examples=80)
def test_pad(mode: str, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(3, 5), min_size=1, max_size=4))
    low = -1 if mode == "constant" else 0
    pads = [data.draw(st.integers(low, 2)) for _ in range(2 * len(shape))]
    x, value = {"x": reals(0, *shape)}, 1.5
    check("Pad", x, opset=9, mode=mode, pads=pads, value=value)
    constants = {"p": i64(*pads), "v": np.asarray(value, np.float32)}
    check("Pad", x, constants, opset=13, mode=mode)


def test_pad_axes_since_18() -> None:
    constants = {"p": i64(1, 2), "v": np.asarray(0, np.float32), "a": i64(-1)}
    check("Pad", {"x": reals(0, 2, 3)}, constants, opset=18)


INDICES = [np.int64(1), i64(0, 2), i64(-1, 0), np.array([[0, 1], [2, -3]])]


@pytest.mark.parametrize("indices", INDICES)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(indices: Any, axis: int) -> None:
    check("Gather", {"x": reals(0, 3, 4, 5)}, {"i": np.asarray(indices)}, axis=axis)


def test_expand_and_tile() -> None:
    check("Expand", {"x": reals(0, 3, 1)}, {"s": i64(2, 1, 4)})
    check("Expand", {"x": reals(0, 3, 4)}, {"s": i64(1)})
    check("Tile", {"x": reals(0, 2, 3)}, {"r": i64(2, 3)})
    check("Tile", {"x": reals(0, 2, 1)}, {"r": i64(1, 5)})


@pytest.mark.parametrize("mode", [None, "DCR", "CRD"])
def test_depth_to_space(mode: str | None) -> None:
    check("DepthToSpace", {"x": reals(0, 1, 12, 2, 3)}, blocksize=2, mode=mode)
    check("SpaceToDepth", {"x": reals(0, 1, 3, 4, 6)}, blocksize=2)


# ---------------------------------------------------------------- what vanishes


def test_shape_gather_concat_reshape_vanishes() -> None:
    x = {"x": reals(0, 2, 3, 4)}
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Unsqueeze", ["n"], ["n1"], axes=[0]),
        node("Concat", ["n1", "minus"], ["target"], axis=0),
        node("Reshape", ["x", "target"]),
    ]
    constants = {"zero": np.asarray(0, np.int64), "minus": i64(-1)}
    graph = agree(model(nodes, x, constants, 11), x)
    assert ops(graph) == ["input", "reshape"]


def test_shape_arithmetic_vanishes() -> None:
    x = {"x": reals(0, 1, 2, 6, 7)}
    nodes = [
        node("Shape", ["x"], ["s"], start=2),
        node("Cast", ["s"], ["f"], to=1),
        node("Mul", ["f", "half"], ["g"]),
        node("Floor", ["g"], ["h"]),
        node("Cast", ["h"], ["i"], to=7),
        node("ReduceProd", ["i"], ["p"], keepdims=1),
        node("Div", ["p", "p"], ["one"]),
        node("Mod", ["one", "seven"], ["m"]),
        node("Range", ["zero", "seven0", "two"], ["r"]),
        node("ConstantOfShape", ["i"], ["c"]),
        node("Shape", ["c"], ["cs"]),
        node("Concat", ["m", "minus", "cs"], ["target"], axis=0),
        node("Size", ["r"], ["size"]),
        node("Slice", ["x", "zeros", "i", "axes"], ["cut"]),
        node("Reshape", ["cut", "target"]),
    ]
    constants = {
        "half": np.asarray(0.5, np.float32), "seven": i64(7), "seven0": np.asarray(7, np.int64),
        "zero": np.asarray(0, np.int64), "two": np.asarray(2, np.int64), "minus": i64(-1),
        "zeros": i64(0, 0), "axes": i64(2, 3),
    }  # fmt: skip
    graph = agree(model(nodes, x, constants, 17, ("y", "size")), x)
    assert set(ops(graph)) == {"input", "slice", "const"}


def test_weights_behind_identity_cast_mul_and_transpose_fold() -> None:
    x = {"x": reals(0, 1, 2, 5, 5)}
    nodes = [
        node("Transpose", ["raw"], ["t"], perm=[3, 2, 0, 1]),
        node("Identity", ["t"], ["i"]),
        node("Cast", ["i"], ["c"], to=1),
        node("Mul", ["c", "two"], ["w"]),
        node("Conv", ["x", "w"]),
    ]
    constants = {"raw": reals(1, 3, 3, 2, 4).astype(np.float16), "two": f32(2)}
    graph = agree(model(nodes, x, constants), x)
    assert ops(graph) == ["input", "transpose", "const", "conv2d", "transpose"]


def test_constants_of_all_kinds() -> None:
    x = {"x": reals(0, 3)}
    nodes = [
        node("Constant", [], ["a"], value_float=2.0),
        node("Constant", [], ["b"], value_floats=[1.0, 2.0, 3.0]),
        node("Constant", [], ["i"], value_int=2),
        node("Constant", [], ["j"], value_ints=[1, 3]),
        node("Mul", ["x", "a"], ["m"]),
        node("Add", ["m", "b"], ["n"]),
        node("Reshape", ["n", "j"], ["o"]),
        node("Gather", ["o", "i"], ["y"], axis=1),
    ]
    agree(model(nodes, x), x)

"""Small valid models with something in them changed, by a fuzzer that knows their structure."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import onnx
from onnx import AttributeProto, ModelProto, numpy_helper

from tests.onnx_conformance.cases import Case

Change = Callable[[random.Random, ModelProto], None]

INTEGERS = (-5, -1, 0, 1, 2, 3, 7, 100, 1 << 33)
REALS = (0.0, -1.0, 1e30, float("nan"), float("inf"))
WORDS = (b"", b"foo", b"SAME_UPPER", b"ij,jk", b"...->", b"\xff")
KINDS = (1, 2, 3, 6, 7, 9, 10, 11, 16)


def mutated(rng: random.Random, case: Case, ops: Sequence[str]) -> ModelProto:
    """The case's model, some inputs perhaps constants, with one or two changes."""
    made = ModelProto()
    made.CopyFrom(case.model)
    if rng.random() < 0.6:
        _fix_inputs(rng, made, case)
    for _ in range(rng.randint(1, 2)):
        if rng.random() < 0.1:
            rng.choice(made.graph.node).op_type = rng.choice(ops)
        else:
            rng.choice(CHANGES)(rng, made)
    return made


def _fix_inputs(rng: random.Random, model: ModelProto, case: Case) -> None:
    for info, array in list(zip(model.graph.input, case.inputs, strict=False))[1:]:
        if array is not None and array.dtype.kind in "fiub" and rng.random() < 0.8:
            model.graph.initializer.append(numpy_helper.from_array(array, info.name))


def _attribute(rng: random.Random, model: ModelProto) -> None:
    attributes = rng.choice(model.graph.node).attribute
    if not attributes:
        return
    a = rng.choice(attributes)
    if a.type == AttributeProto.INT:
        a.i = rng.choice(INTEGERS)
    elif a.type == AttributeProto.INTS and a.ints:
        a.ints[rng.randrange(len(a.ints))] = rng.choice(INTEGERS)
    elif a.type == AttributeProto.FLOAT:
        a.f = rng.choice(REALS)
    elif a.type == AttributeProto.STRING:
        a.s = rng.choice(WORDS)


def _no_attribute(rng: random.Random, model: ModelProto) -> None:
    attributes = rng.choice(model.graph.node).attribute
    if attributes:
        del attributes[rng.randrange(len(attributes))]


def _no_input(rng: random.Random, model: ModelProto) -> None:
    inputs = rng.choice(model.graph.node).input
    if inputs:
        del inputs[rng.randrange(len(inputs))]


def _other_input(rng: random.Random, model: ModelProto) -> None:
    inputs = rng.choice(model.graph.node).input
    if inputs:
        names = [info.name for info in model.graph.input] or [""]
        inputs[rng.randrange(len(inputs))] = rng.choice(names)


def _type(rng: random.Random, model: ModelProto) -> onnx.TypeProto.Tensor | None:
    return rng.choice(model.graph.input).type.tensor_type if model.graph.input else None


def _other_kind(rng: random.Random, model: ModelProto) -> None:
    if (t := _type(rng, model)) is not None:
        t.elem_type = rng.choice(KINDS)


def _other_extent(rng: random.Random, model: ModelProto) -> None:
    if (t := _type(rng, model)) is not None and t.shape.dim:
        rng.choice(t.shape.dim).dim_value = rng.choice((0, 1, 2, 3, 5, 17))


def _no_axis(rng: random.Random, model: ModelProto) -> None:
    if (t := _type(rng, model)) is not None and t.shape.dim:
        del t.shape.dim[-1]


def _other_opset(rng: random.Random, model: ModelProto) -> None:
    model.opset_import[0].version = rng.randint(6, onnx.defs.onnx_opset_version())


CHANGES: tuple[Change, ...] = (
    _attribute, _attribute, _no_attribute, _no_input, _other_input, _other_kind, _other_extent,
    _no_axis, _other_opset,
)  # fmt: skip

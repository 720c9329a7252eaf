"""What becomes of a case: passed (some inputs as constants, or all), refused, or failed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

import irc
from irc.errors import IRCError
from irc.graph import Graph, evaluate
from irc.types import Array
from tests.onnx_conformance.cases import Case

PASSED, CONSTANT, FOLDED = "passed", "passed (constants)", "passed (folded)"
REFUSED, FAILED = "refused", "failed"
HALF = {"float16": 2e-3, "bfloat16": 2e-2}
"""Rounding of the outputs that a case stores in 16 bits, where ours are f32."""
BYTES = {"int4": np.int8, "uint4": np.uint8, "int2": np.int8, "uint2": np.uint8}
"""What holds integers of fewer bits, one a byte."""


@dataclass(frozen=True)
class Verdict:
    """`reason` says why a case was refused or failed; `graph` is the import of one that passed."""

    status: str
    reason: str = ""
    graph: Graph | None = None
    feeds: tuple[tuple[str, Array], ...] = ()


def judge(case: Case) -> Verdict:
    """Import and evaluate: as the model is, then with inputs as constants where it was refused
    because something must be known at compile time."""
    first = Verdict(REFUSED, "nothing was tried")
    for i, fixed in enumerate(_attempts(case)):
        found = _attempt(case, fixed)
        if found.status == PASSED and i:
            status = CONSTANT if found.feeds else FOLDED
            return Verdict(status, graph=found.graph, feeds=found.feeds)
        if found.status != REFUSED:
            return found
        first = found if i == 0 or "run time" in first.reason else first
    return first


def weights_fixed(case: Case) -> Verdict:
    """The verdict where all inputs but the first are constants, as in a trained model."""
    return _attempt(case, frozenset(v.name for v in list(case.model.graph.input)[1:]))


def _attempts(case: Case) -> Iterable[frozenset[str]]:
    """The names of inputs to fix: none; those of small integers and what stands behind the first;
    all but the first; all."""
    names = [v.name for v in case.model.graph.input]
    yield frozenset()
    whole = [
        n for n, a in zip(names, case.inputs, strict=False) if a is not None and _is_index(a)
    ]
    sets = [whole, names[1:], names]
    known: list[frozenset[str]] = []
    for each in map(frozenset, sets):
        if each and each not in known:
            known.append(each)
            yield each


def _is_index(a: Array) -> bool:
    return a.dtype.kind in "iub" and a.ndim <= 1


def _attempt(case: Case, fixed: frozenset[str]) -> Verdict:
    names = [v.name for v in case.model.graph.input]
    arrays = {n: a for n, a in zip(names, case.inputs, strict=False) if a is not None}
    try:
        graph = irc.load(_with_constants(case.model, arrays, fixed), shapes=_shapes(arrays, fixed))
        feeds = {v.name: _plain(arrays[v.name]) for v in graph.inputs}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = evaluate(graph, feeds)
    except IRCError as error:
        return Verdict(REFUSED, _first_line(error))
    except Exception as error:  # a traceback is what a case must never give
        return Verdict(FAILED, f"{type(error).__name__}: {_first_line(error)}")
    wrong = _differences(case, list(found.values()))
    if wrong:
        return Verdict(FAILED, wrong)
    return Verdict(PASSED, graph=graph, feeds=tuple(feeds.items()))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    joined = " ".join(lines[:2])
    return joined if len(joined) < 240 else joined[:237] + "..."


def _with_constants(
    model: onnx.ModelProto, arrays: dict[str, Array], fixed: frozenset[str]
) -> onnx.ModelProto:
    if not fixed:
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for name in fixed & arrays.keys():
        made.graph.initializer.append(numpy_helper.from_array(arrays[name], name))
    return made


def _shapes(arrays: dict[str, Array], fixed: frozenset[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of what stays an input; an empty one is not pinned, since none may be."""
    return {n: a.shape for n, a in arrays.items() if n not in fixed and 0 not in a.shape}


def _plain(a: Array) -> Array:
    """In a dtype that the graph takes: floats are f32, small integers take a byte."""
    if a.dtype.name in BYTES:
        return a.astype(BYTES[a.dtype.name])
    return a.astype(np.float32) if _is_real(a) else a


def _is_real(a: Array) -> bool:
    return a.dtype.kind == "f" or a.dtype.name in HALF or a.dtype.name.startswith("float8")


def _differences(case: Case, found: Sequence[Array]) -> str:
    """What is wrong with the outputs, "" if nothing is."""
    expected = list(case.outputs)
    if len(found) != len(expected):
        return f"{len(found)} outputs instead of {len(expected)}"
    for i, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        if theirs is None:
            continue
        wrong = _difference(ours, theirs, case)
        if wrong:
            return f"output {i}: {wrong}"
    return ""


def _difference(ours: Array, theirs: Array, case: Case) -> str:
    if ours.shape != theirs.shape:
        return f"shape {list(ours.shape)} instead of {list(theirs.shape)}"
    if not _is_real(theirs):
        theirs = _plain(theirs)
        if ours.dtype != theirs.dtype:
            return f"{ours.dtype} instead of {theirs.dtype}"
        wrong = np.abs(ours.astype(np.int64) - theirs.astype(np.int64)).max(initial=0)
        return "" if wrong <= case.last_places else f"other numbers, by up to {wrong}"
    if ours.dtype != np.float32:
        return f"{ours.dtype} instead of float32"
    rtol = max(case.rtol, HALF.get(theirs.dtype.name, 0.0))
    atol = max(case.atol, 1e-6, HALF.get(theirs.dtype.name, 0.0) * 1e-1)
    lowest = np.finfo(np.float32).min  # stands for -inf in masks
    real = np.maximum(theirs.astype(np.float32), lowest)
    ours = np.maximum(ours, lowest)
    if np.allclose(ours, real, rtol=rtol, atol=atol, equal_nan=True):
        return ""
    with np.errstate(all="ignore"):
        return f"other numbers, by up to {np.nanmax(np.abs(ours - real)):.3g}"

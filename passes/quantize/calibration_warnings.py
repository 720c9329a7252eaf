"""What makes one doubt that calibration data are like those in use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from irc.graph import Graph
from irc.ops.core import Input
from irc.passes.quantize.sites import PICTURE, given
from irc.types import Array

ENOUGH = 4
"""Fewer samples say little of others."""
PIXEL = 255
"""The largest pixel that is not normalised."""

Feeds = Sequence[Mapping[str, Array]]


def doubts(graph: Graph, samples: int, feeds: Feeds) -> Iterator[str]:
    """What to be told, by the number of samples and the first ones."""
    inputs = [v for v in graph.inputs if given(graph, v)]
    if samples < ENOUGH and all(v.shape[:1] in ((), (1,)) for v in inputs):
        number = "1 sample" if samples == 1 else f"{samples} samples"
        yield (
            f"calibrated on {number}: what others hold is a guess; 16 or more, as unlike as those"
            " in use, tell it"
        )
    for v in inputs:
        arrays = [feed[v.name] for feed in feeds if v.name in feed]
        if v.type.dtype.is_float and arrays and v.type.size > 1:
            yield from _of_input(v, arrays)


def _of_input(v: Input, arrays: Sequence[Array]) -> Iterator[str]:
    first = arrays[0]
    if all(np.all(a == first.flat[0]) for a in arrays):
        yield f"input {v.name} is {first.flat[0]:g} everywhere in the calibration data"
    elif len(arrays) > 1 and all(np.array_equal(a, first) for a in arrays):
        yield f"input {v.name} is the same in all calibration samples"


def pixels(graph: Graph, feeds: Feeds) -> Iterator[str]:
    """Notes of pictures whose pixels seem not to be normalised."""
    for v in graph.inputs:
        if v.type.rank != PICTURE or not v.type.dtype.is_float or not given(graph, v):
            continue
        arrays = [feed[v.name] for feed in feeds if v.name in feed]
        if arrays and all(map(_raw, arrays)):
            yield (
                f"input {v.name} holds whole numbers from 0 to {max(a.max() for a in arrays):g} in"
                " the calibration data: right for a model that takes pixels as they are"
            )


def _raw(array: Array) -> bool:
    """Whether an array holds whole numbers of 8 bits, and not the same or two or three of them."""
    low, high = array.min(initial=PIXEL), array.max(initial=0)
    whole = bool(np.all(array == np.rint(array)))
    return whole and low >= 0 and high <= PIXEL and high - low > 2

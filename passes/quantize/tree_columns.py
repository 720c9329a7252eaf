"""Scales of an input's columns, where trees alone read it: ages beside incomes beside ratios.

Trees only compare. A column's integers need to tell its thresholds from each other and from what
lies between; what lies beyond all of them may saturate. Scales are powers of two, so that whole
numbers, and thresholds halfway between, stay what they are. An integer at the end of the range is
for what is missing, which goes where the trees send it: the largest one where that is always where
large numbers go, as in trees that know of nothing missing, else the least one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from irc.ops.quantization import constant
from irc.ops.shape import Concat, joined_columns
from irc.ops.tree_integers import integer_of_missing
from irc.ops.trees import TreeEnsemble
from irc.passes.calibration.missing import trees_of
from irc.passes.quantize.options import Options
from irc.passes.quantize.sites import Sites, from_outside
from irc.types import Array, DType, Quant, TensorType
from irc.value import Value

MARGIN = 2
"""Integers beyond the outermost thresholds, on either side."""
SMALLEST = 2.0**-40
"""A scale for thresholds of 0."""


def columns(
    sites: Sites, options: Options
) -> Mapping[Value, TensorType]:
    """The inputs that trees alone read, and tables of such inputs, by columns: of 16 bits, or of 8
    where these are asked for."""
    dtype = DType.U8 if str(options.activations) == "8" else DType.I16
    found: dict[Value, TensorType] = {}
    for x in dict.fromkeys(v.x for v in sites.graph.order if isinstance(v, TreeEnsemble)):
        parts = x.xs if isinstance(x, Concat) else (x,)
        trees = [trees_of(sites.graph, v) for v in parts]
        if not all(trees) or not all(from_outside(sites.graph, v) for v in parts):
            continue
        types = _by_columns(x, trees[0], [v.shape[1] for v in parts], dtype)
        found |= dict(zip(parts, types, strict=True))
        quant = joined_columns(types, 1)
        found[x] = TensorType(dtype, x.shape, quant)
    return found


def _by_columns(
    x: Value, trees: Sequence[TreeEnsemble], widths: Sequence[int], dtype: DType
) -> list[TensorType]:
    """The types of a table's parts, of so many columns, with a scale and a zero point for each."""
    feature = np.concatenate([constant(t.feature, "trees").array for t in trees])
    threshold = np.concatenate([constant(t.threshold, "trees").array for t in trees])
    threshold = threshold.astype(np.float64)
    known = np.isfinite(threshold)
    feature, threshold = feature[known], threshold[known]
    pairs = [
        _one(threshold[feature == column], dtype) for column in range(x.shape[1])
    ]
    sent = [constant(t.missing, "trees").array for t in trees]
    missing = None if any(t.filled for t in trees) else integer_of_missing(sent, dtype)
    made, start = [], 0
    for width in widths:
        scales, zeros = zip(*pairs[start : start + width], strict=True)
        made.append(TensorType(dtype, (x.shape[0], width), Quant(scales, zeros, 1, missing)))
        start += width
    return made


def _one(thresholds: Array, dtype: DType) -> tuple[float, int]:
    """The scale and the zero point for a column's thresholds; any for one that has none."""
    if not thresholds.size:
        return 1.0, 0
    low, high = float(thresholds.min()), float(thresholds.max())
    steps = dtype.max - dtype.min - 2 * MARGIN
    finest = 2 * float(np.spacing(np.float32(max(abs(low), abs(high)) / 2)))  # finite for all
    least = max((high - low) / steps, finest, SMALLEST)
    scale = 2.0 ** math.ceil(math.log2(least))
    middle = (dtype.min + dtype.max + 1) // 2
    return scale, middle - round((low + high) / 2 / scale)


"""What puts, finds and mixes elements by their places, and running sums, as ONNX."""

from __future__ import annotations

import numpy as np

from irc.backends.onnx.writer import EITHER, TO_PLAIN, Layout, Writer, exports
from irc.errors import GraphError
from irc.ops import bits
from irc.ops.core import Const
from irc.ops.cumulative import CumSum
from irc.ops.elementwise import Mod
from irc.ops.grid import GridSample
from irc.ops.ranking import TopK
from irc.ops.resample import Resample
from irc.ops.scatter import Scatter
from irc.ops.spectrum import Magnitude
from irc.types import Array
from irc.value import Value

BITWISE: dict[type[Value], str] = {
    bits.BitAnd: "BitwiseAnd", bits.BitOr: "BitwiseOr", bits.BitXor: "BitwiseXor",
}  # fmt: skip


@exports(*BITWISE, layouts=EITHER)
def _bitwise(w: Writer, v: Value) -> str:
    return w.emit(BITWISE[type(v)], [w.read(o) for o in v.operands], name=v.name)


@exports(Mod, layouts=EITHER)
def _mod(w: Writer, v: Mod) -> str:
    """Of reals ONNX has the remainder with the sign of a alone."""
    a, b = w.read(v.a), w.read(v.b)
    if v.fmod or not v.type.dtype.is_float:
        return w.emit("Mod", [a, b], name=v.name, fmod=int(v.fmod))
    whole = w.emit("Floor", [w.emit("Div", [a, b])])
    return w.emit("Sub", [a, w.emit("Mul", [whole, b])], name=v.name)


@exports(Magnitude, layouts=EITHER)
def _magnitude(w: Writer, v: Magnitude) -> str:
    squares = [w.emit("Mul", [w.read(o), w.read(o)]) for o in (v.a, v.b)]
    return w.emit("Sqrt", [w.emit("Add", squares)], name=v.name)


@exports(GridSample)
def _grid_sample(w: Writer, v: GridSample) -> str:
    """ONNX's images are planar, its grids are not."""
    rank = v.type.rank
    if rank not in (4, 5):
        raise GraphError(f"grid_sample %{v.name} of {rank - 2} axes has no ONNX form")
    if v.padding == "region":
        raise GraphError(f"grid_sample %{v.name} in regions that are computed has no ONNX form")
    perm = [0, rank - 1, *range(1, rank - 1)]
    x = w.read(v.x, Layout.PLANAR) if rank == 4 else w.emit("Transpose", [w.read(v.x)], perm=perm)
    y = w.emit(
        "GridSample", [x, w.read(v.grid)], mode=v.mode, padding_mode=v.padding,
        align_corners=int(v.align_corners),
    )  # fmt: skip
    if rank == 4:
        w.alias(v, Layout.PLANAR, y)
    back = list(TO_PLAIN) if rank == 4 else [0, *range(2, rank), 1]
    return w.emit("Transpose", [y], name=v.name, perm=back)


@exports(CumSum, layouts=EITHER)
def _running_sum(w: Writer, v: CumSum) -> str:
    axis = w.constant(np.array(w.axis(v.axis), np.int64))
    return w.emit(
        "CumSum", [w.read(v.x), axis], name=v.name, exclusive=int(v.exclusive),
        reverse=int(v.reverse),
    )  # fmt: skip


@exports(TopK)
def _places_of_largest(w: Writer, v: TopK) -> str:
    """The second result; what the elements are, a gather says."""
    return w.emit_many(
        "TopK", [w.read(v.x), w.integers([v.k])], ["", v.name], axis=v.axis,
        largest=int(v.largest), sorted=1,
    )[1]  # fmt: skip


@exports(Scatter)
def _scatter(w: Writer, v: Scatter) -> str:
    """Places that do not exist are a row behind the last one, which goes again. ONNX does not say
    which of several updates of a row stays; its runtime takes the last one, too."""
    rows, real = v.x.shape[0], v.type.dtype.numpy
    spare = w.constant(np.zeros((1, *v.x.shape[1:]), real))
    longer = w.emit("Concat", [w.read(v.x), spare], axis=0)
    first, last, at = w.integers([0]), w.integers([rows]), w.read(v.at)
    inside = w.emit("And", [w.emit("GreaterOrEqual", [at, first]), w.emit("Less", [at, last])])
    kept = w.emit("Unsqueeze", [w.emit("Where", [inside, at, last]), w.integers([1])])
    put = w.emit("ScatterND", [longer, kept, w.read(v.updates)])
    return w.emit("Slice", [put, first, last, first], name=v.name)


@exports(Resample)
def _resample(w: Writer, v: Resample) -> str:
    """A product with a matrix of the weights, axis after axis."""
    y = w.read(v.x)
    for axis, places, weights in zip(v.over, v.places, v.weights, strict=True):
        if not isinstance(places, Const) or not isinstance(weights, Const):
            raise GraphError(f"resample %{v.name} by computed places has no ONNX form")
        matrix = _matrix(places.array, weights.array, v.x.shape[axis])
        perm = list(range(v.type.rank))
        perm[axis], perm[-1] = perm[-1], perm[axis]
        moved = w.emit("Transpose", [y], perm=perm)
        mixed = w.emit("MatMul", [moved, w.constant(matrix.astype(v.type.dtype.numpy))])
        y = w.emit("Transpose", [mixed], perm=perm)
    return y


def _matrix(places: Array, weights: Array, size: int) -> Array:
    """Taps [out, taps] as a matrix [size, out]."""
    matrix = np.zeros((size, len(places)))
    np.add.at(matrix, (places, np.arange(len(places))[:, np.newaxis]), weights)
    return matrix

"""Where a float graph is quantized: the structure, before any range is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain

import numpy as np

from irc.errors import CompileError
from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.ops.grid import GridSample
from irc.ops.interpolate import jump, straightness
from irc.ops.logic import Relation
from irc.ops.normalization import RowNorm
from irc.ops.ranking import Ranking
from irc.ops.shape import Pad
from irc.passes.calibration.calibrate import Visible
from irc.passes.float.pointwise import apply, is_clamp, roots, scaling
from irc.passes.quantize.masks import STANDS_FOR_INFINITY, finite, masked
from irc.passes.quantize.scales import Function
from irc.passes.quantize.states import States, precise_operands
from irc.types import Array, DType, TensorType
from irc.value import Value, operand_fields

EIGHT_BITS = (DType.U8, DType.I8)
STRAIGHT = 1 / 1024
"""What lines may be off, as a share of a function's range: a quarter of a step of 8 bits."""
JUMP = 1 / 16
"""How far results of neighbours in 16 bits are apart where a function jumps, as a share of its
range."""
PICTURE = 4
"""Axes of pictures."""
SCALED = frozenset({"matmul", "add", "sub", "reduce_sum", "reduce_mean"})
"""Ops that take a factor behind them into their own rescaling."""
READ_WIDE = frozenset({
    "add", "sub", "mul", "prelu", "softmax", "reduce_sum", "reduce_mean", "minimum", "maximum",
    "argmax", "argmin", "topk", "tree_ensemble", "cumsum", "div",
})  # fmt: skip
"""Ops whose integer form takes 16 bits, besides norms, recurrent cells and all that moves
elements."""


def is_float(v: Value) -> bool:
    """Whether a node computes reals at run time."""
    return v.type.dtype.is_float and not isinstance(v, Const)


def given(graph: Graph, v: Value) -> bool:
    """Whether a value is an input that the caller makes, no state."""
    return isinstance(v, Input) and all(v is not state for state in graph.carried.values())


def from_outside(graph: Graph, v: Value) -> bool:
    """Whether a value is such an input of reals whose range the data hardly tells: no picture, of
    which each sample holds all shades."""
    return given(graph, v) and is_float(v) and v.type.rank < PICTURE


def from_reals(v: Value) -> bool:
    """Whether a node that makes no reals of reals has an integer form: it compares, or ranks."""
    return isinstance(v, Ranking) or (isinstance(v, Relation) and v.kind is not None)


def weighted(v: Value) -> bool:
    """Whether the op multiplies by weights, operand `w` (and adds a bias, `b`)."""
    return "w" in operand_fields(type(v))


def has_integer_twin(v: Value) -> bool:
    """Whether the op says what it is over integers."""
    return v.moves or type(v).quantized is not Value.quantized


def brought(v: Value) -> list[Array]:
    """The reals that a moving op brings in from elsewhere: constants, the value of a pad, unless
    that stands for an infinity, which saturates."""
    if isinstance(v, Pad):
        real = v.mode == "constant" and abs(v.value) < STANDS_FOR_INFINITY
        return [np.asarray(v.value)] if real else []
    return [o.array for o in v.operands if isinstance(o, Const) and o.type.dtype.is_float]


@dataclass(frozen=True)
class Sites:
    """The structure of a graph's quantization, before any range is known."""

    graph: Graph

    @cached_property
    def fused(self) -> frozenset[Value]:
        """Values that never exist as integers: they flow into a clamp or factor, or a table."""
        return frozenset(v for v in self.graph.order if self._absorbed(v) or self._in_table(v))

    @cached_property
    def own(self) -> tuple[Value, ...]:
        """Values that are quantized where they are computed."""
        return tuple(
            v
            for v in self.graph.order
            if is_float(v) and not self.moving(v) and v not in self.fused
        )

    @cached_property
    def observed(self) -> frozenset[Value]:
        """What calibration must measure: these, and what weights are multiplied with."""
        multiplied = (v.operands[0] for v in self.graph.order if weighted(v))
        return frozenset(self.own) | {x for x in multiplied if is_float(x)} | self.states.read

    @cached_property
    def visible(self) -> Mapping[Value, Visible]:
        """Values of which their readers see a part only, and which."""
        return masked(self.graph)

    def seen_as(self, c: Const, reader: Value) -> Array:
        """A constant as its reader sees it."""
        return finite(c.array) if reader in self.visible else c.array

    @cached_property
    def root(self) -> Mapping[Value, Value]:
        """What each value is a pointwise function of; clamps and factors that fuse end one."""
        return roots(self.graph.order, self.absorbs)

    def seen(self, v: Value) -> tuple[Function, ...]:
        """The functions through which all readers see a value; none where one reads it itself."""
        users = self.graph.users[v]
        if self.graph.uses(v) > len(users) or any(self.root[u] is not v for u in users):
            return ()
        return tuple(partial(apply, u, v) for u in self._functions.get(v, ()))

    def follows(self, v: Value) -> bool:
        """Whether there are functions of a value that are quantized themselves."""
        return bool(self._functions.get(v))

    def straight(self, v: Value, type_: TensorType) -> bool:
        """Whether the functions of a value are known well enough by straight lines between some of
        their results for a 16-bit type of it."""
        found = self._functions.get(v, ())
        return all(straightness(partial(apply, u, v), type_) < STRAIGHT for u in found)

    def jumps(self, v: Value, type_: TensorType) -> bool:
        """Whether a function of a value of a 16-bit type jumps: 8 bits may be on the other side."""
        found = self._functions.get(v, ())
        return any(jump(partial(apply, u, v), type_) > JUMP for u in found)

    @cached_property
    def _functions(self) -> Mapping[Value, list[Value]]:
        """The functions of each value that are quantized themselves."""
        found: dict[Value, list[Value]] = {}
        for v in self.own:
            if self.root[v] is not v:
                found.setdefault(self.root[v], []).append(v)
        return found

    def moving(self, v: Value) -> bool:
        """Whether a node only moves elements; a choice between functions of one value is a
        function itself."""
        return v.moves and self.root[v] is v

    def _only_user(self, v: Value) -> Value | None:
        users = self.graph.users[v]
        return users[0] if len(users) == 1 and self.graph.uses(v) == 1 else None

    def absorbs(self, v: Value) -> bool:
        """Whether a clamp or a factor is part of the kernel that computes its operand."""
        fuses = is_clamp(v) or (scaling(v) is not None and v.operands[0].op in SCALED)
        return fuses and self._absorbed(v.operands[0])

    def _absorbed(self, v: Value) -> bool:
        if not is_float(v) or v.moves or isinstance(v, Input):
            return False
        user = self._only_user(v)
        if user is None:
            return False
        return is_clamp(user) or (v.op in SCALED and scaling(user) is not None)

    def _in_table(self, v: Value) -> bool:
        users, root = self.graph.users[v], self.root[v]
        if root is v or not users or self.graph.uses(v) > len(users):
            return False
        return all(self.root[u] is root for u in users)

    @cached_property
    def states(self) -> States:
        """What recurrent cells keep in 16 bits."""
        return States(self.graph)

    def reads_wide(self, reader: Value, v: Value) -> bool:
        """Whether an op reads an operand of 16 bits as it is; tables of reals take 8."""
        if v in precise_operands(reader) or (isinstance(reader, GridSample) and v is reader.grid):
            return True
        if self.root[reader] is v or not is_float(reader):
            return self.tells(reader)
        normalizes = isinstance(reader, RowNorm) and reader.takes_wide
        return (normalizes or reader.op in READ_WIDE) and self.root[reader] is reader

    def tells(self, reader: Value) -> bool:
        """Whether of a value's function only booleans or whole numbers remain."""
        return reader in self._telling

    @cached_property
    def _telling(self) -> frozenset[Value]:
        found: set[Value] = set()
        for v in reversed(self.graph.order):
            fused = v in self.fused
            if found.issuperset(self.graph.users[v]) if fused else not is_float(v):
                found.add(v)
        return frozenset(found)

    def read_narrow(self, v: Value) -> bool:
        """Whether an op reads a value that takes no 16 bits."""
        return any(not self.moving(u) and not self.reads_wide(u, v) for u in self.graph.users[v])

    @cached_property
    def pixels(self) -> frozenset[Value]:
        """8-bit integer inputs that are only read as numbers, and what they are moved to."""
        found: set[Value] = set()
        for v in reversed(self.graph.order):
            if v.type.dtype not in EIGHT_BITS or isinstance(v, Const):
                continue
            users = self.graph.users[v]
            read = users and all(u in found or to_float(u) for u in users)
            plain = given(self.graph, v) or (v.moves and len(v.operands) == 1)
            if plain and read and v not in self.graph.outputs:
                found.add(v)
        return frozenset(found)

    def fills(self, v: Value) -> tuple[float, ...]:
        """The ends of what a moving op brings in."""
        if not (self.moving(v) and is_float(v)):
            return ()
        ends = [float(end(a)) for a in brought(v) if a.size for end in (np.min, np.max)]
        return tuple(e for e in ends if abs(e) < STANDS_FOR_INFINITY)

    def masks(self, v: Value) -> bool:
        """Whether a moving op brings in what stands for -inf, in the eyes of a softmax."""
        if v not in self.visible or not self.moving(v):
            return False
        return any(a.min(initial=0) <= -STANDS_FOR_INFINITY for a in brought(v))

    def parts(self, v: Value) -> tuple[Value, ...]:
        """The quantized values whose elements `v` holds: itself, or what it was moved from."""
        if not self.moving(v):
            return (v,) if is_float(v) else ()
        return tuple(p for o in v.operands for p in self.parts(o))

    def check(self) -> None:
        """Raise `CompileError` listing every node that can't be quantized."""
        named = zip(self.graph.output_names, self.graph.outputs, strict=True)
        empty = (f'output "{n}": has no elements, {v.type}' for n, v in named if not v.type.size)
        refuse(self.graph, chain(empty, map(self._problem, self.graph.order)))

    def _problem(self, v: Value) -> str:
        floats = [o for o in v.operands if is_float(o)]
        at = f"{v.op} %{v.name}"
        if isinstance(v, Const | Input) or not (floats or is_float(v)):
            return ""
        if v.op in ("quantize", "dequantize"):
            return f"{at}: the graph is quantized already (compile it as it is)"
        if not is_float(v):
            known = self.root[v] is not v or from_reals(v)
            return "" if known else f"{at}: makes {v.type} from floats, which has no integer form"
        if not floats and not self._from_integers(v):
            return f"{at}: makes floats from {v.operands[0].type if v.operands else 'nothing'}"
        if weighted(v) and not isinstance(v.w, Const):  # type: ignore[attr-defined]
            return f"{at}: its weights are computed at run time"
        if weighted(v) and not isinstance(v.b, None | Const):  # type: ignore[attr-defined]
            return f"{at}: its bias is computed at run time: add it by a node of its own"
        return "" if has_integer_twin(v) else f"{at}: the op has no integer form"

    def _from_integers(self, v: Value) -> bool:
        """Whether an op makes reals of integers in a way that is known: picks them from a
        constant, or takes whole numbers or booleans as numbers."""
        if to_float(v):
            return True
        return v.moves and any(o.type.dtype.is_float for o in v.operands)


def to_float(v: Value) -> bool:
    """Whether a node takes whole numbers or booleans as reals."""
    return v.op == "cast" and v.type.dtype.is_float and not v.operands[0].type.dtype.is_float


def refuse(graph: Graph, problems: Iterable[str]) -> None:
    """Raise `CompileError` listing the problems; empty ones are none."""
    found = [p for p in problems if p]
    if found:
        nodes = "1 node" if len(found) == 1 else f"{len(found)} nodes"
        listed = "\n  ".join(found)
        raise CompileError(f"{graph.name}: {nodes} can't be quantized to integers:\n  {listed}")

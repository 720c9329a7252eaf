"""A registry of hypothesis strategies: for each integer op, random small valid nodes with inputs.

A file `tests/ops/samples_*.py` registers a family's strategies:

    @sample("qlinear")
    def qlinear(draw: Draw) -> Sample:
        x = operand(draw, "x", shape(draw, 1, 3))
        ...
        return sample_of(QLinear(...), x)

`load_samples()` imports these files and gives the filled registry. Every suite that holds code to
the reference runs over it: loops against `evaluate`, text against graph, backend against backend.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar

import hypothesis.strategies as st
import numpy as np

from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.types import Array, DType, Quant, Shape, TensorType
from irc.value import Value

T = TypeVar("T")


class Draw(Protocol):
    """What hypothesis hands to a composite strategy: draws a value of a strategy."""

    def __call__(self, strategy: st.SearchStrategy[T], /) -> T: ...


@dataclass(frozen=True)
class Sample:
    """A graph of one node, and arrays for its inputs."""

    graph: Graph
    feeds: dict[str, Array]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What hypothesis shows of a failing draw."""
        del cycle
        printer.text(f"\n{self.graph}\nfeeds {self.feeds}\n")


SAMPLES: dict[str, st.SearchStrategy[Sample]] = {}
"""The strategies by op name, as far as their files are imported (see `load_samples`)."""


def sample(name: str) -> Callable[[Callable[[Draw], Sample]], Callable[[Draw], Sample]]:
    """Register a function that draws a sample of the op `name`."""

    def register(f: Callable[[Draw], Sample]) -> Callable[[Draw], Sample]:
        assert name not in SAMPLES, f"two strategies for {name}"
        SAMPLES[name] = st.composite(lambda draw: f(draw))()
        return f

    return register


def load_samples() -> dict[str, st.SearchStrategy[Sample]]:
    """The registry, filled from every `samples_*.py` next to this file."""
    for path in sorted(Path(__file__).parent.glob("samples_*.py")):
        importlib.import_module(f"tests.ops.{path.stem}")
    return SAMPLES


@dataclass(frozen=True)
class Feed:
    """An operand: the value, and its array if it is an input of the graph."""

    value: Value
    array: Array


def sample_of(node: Value, *feeds: Feed) -> Sample:
    """The graph that has `node` as its output; constants among the operands need no feed."""
    inputs = {f.value: f.array for f in feeds if isinstance(f.value, Input)}
    graph = Graph("sample", tuple(inputs), (node,), ("result",))
    return Sample(graph, {v.name: array for v, array in inputs.items()})


# ---------------------------------------------------------------- what strategies are made of

EIGHT_BITS = (DType.U8, DType.I8)
RESULTS = (*EIGHT_BITS, DType.I16)
"""What integer ops make: 16 bits where 8 are too few."""


def integer(draw: Draw, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return draw(st.integers(low, high))


def pick(draw: Draw, choices: Sequence[T]) -> T:
    """One of the choices."""
    return draw(st.sampled_from(list(choices)))


def shape(draw: Draw, min_rank: int = 1, max_rank: int = 4, largest: int = 4) -> Shape:
    """A shape without empty axes."""
    return tuple(draw(st.lists(st.integers(1, largest), min_size=min_rank, max_size=max_rank)))


def scale(draw: Draw) -> float:
    """A positive scale over four orders of magnitude, powers of two among them."""
    exact = st.integers(-12, 2).map(lambda e: 2.0**e)
    return draw(st.one_of(exact, st.floats(2.0**-12, 4.0)))


def zero_point(draw: Draw, dtype: DType) -> int:
    """A zero point: an end of the dtype's range, 0, or anything between."""
    ends = st.sampled_from([dtype.min, dtype.max, 0])
    return draw(st.one_of(ends, st.integers(dtype.min, dtype.max)))


def quant(draw: Draw, dtype: DType) -> Quant:
    """A per-tensor quantization."""
    return Quant(scale(draw), zero_point(draw, dtype))


def clamp(draw: Draw, dtype: DType) -> tuple[int, int]:
    """A fused clamp: none, or some range."""
    if draw(st.booleans()):
        return dtype.min, dtype.max
    ends = sorted((integer(draw, dtype.min, dtype.max), integer(draw, dtype.min, dtype.max)))
    return ends[0], ends[1]


def array(draw: Draw, dtype: DType, dims: Shape, bounds: tuple[int, int] | None = None) -> Array:
    """Random integers: all over the range, only its two ends, or all at one end."""
    low, high = bounds or (dtype.min, dtype.max)
    rng = np.random.default_rng(integer(draw, 0, 2**32 - 1))
    kind = pick(draw, ["any", "any", "ends", "low", "high"])
    if kind == "any":
        made: Any = rng.integers(low, high, dims, np.int64, endpoint=True)
    elif kind == "ends":
        made = rng.choice([low, high], dims)
    else:
        made = np.full(dims, low if kind == "low" else high)
    return np.asarray(made, dtype.numpy)


def operand(
    draw: Draw,
    name: str,
    dims: Shape,
    dtypes: Sequence[DType] = EIGHT_BITS,
    *,
    constant: bool = False,
    like: TensorType | None = None,
) -> Feed:
    """An activation quantized per tensor (as `like`, if given); with `constant`, sometimes a
    constant instead of an input."""
    dtype = pick(draw, dtypes) if like is None else like.dtype
    q = quant(draw, dtype) if like is None else like.quant
    values = array(draw, dtype, dims)
    if constant and draw(st.booleans()):
        return Feed(Const(values, q, name=name), values)
    return Feed(Input(dtype, dims, q, name=name), values)


def weights(draw: Draw, dims: Shape) -> Const:
    """Weights i8 in [-127, 127]."""
    return Const(array(draw, DType.I8, dims, (-127, 127)), name="w")


def multiplier(draw: Draw, low: int, high: int) -> tuple[int, int]:
    """A multiplier of equation (5): m of 31 bits (or 0), and s from `low` to `high`."""
    m = draw(st.one_of(st.integers(2**30, 2**31 - 1), st.sampled_from([0, 2**30, 2**31 - 1])))
    return m, integer(draw, low, high)


def multipliers(draw: Draw, count: int, low: int, high: int) -> tuple[Const, Const]:
    """The constants m and s of `count` channels."""
    pairs = [multiplier(draw, low, high) for _ in range(count)]
    m = Const(np.array([p[0] for p in pairs], np.int32), name="m")
    return m, Const(np.array([p[1] for p in pairs], np.int8), name="s")


def fraction(draw: Draw) -> int:
    """Bits below an accumulator's unit, for sums of products below 2^24."""
    return pick(draw, [0, 0, 3, 6])


class Steps(TypedDict):
    """How a layer departs from equation (6)."""

    exception: Value | None
    power: int


def steps(draw: Draw, b: Const) -> Steps:
    """Ordinary, by a power of two, or with one to three exceptions for each channel: of the sum
    that a u8 tensor of zeros gives, or a small change of one of its bytes."""
    kind = pick(draw, ["ordinary", "ordinary", "power", "exception", "both"])
    power = integer(draw, 1, 20) if kind in ("power", "both") else 0
    if kind not in ("exception", "both"):
        return {"exception": None, "power": power}
    rows = list[Array]()
    for _ in range(integer(draw, 1, 3)):
        rows.append(b.array + array(draw, DType.I32, b.shape, (-2, 2)))
        rows.append(array(draw, DType.I32, b.shape, (-1, 1)))
    return {"exception": Const(np.stack(rows), name="exception"), "power": power}


def broadcastable(draw: Draw, dims: Shape) -> Shape:
    """A shape that broadcasts to `dims`: leading axes dropped, some axes 1."""
    kept = dims[integer(draw, 0, len(dims)) :]
    return tuple(d if draw(st.booleans()) else 1 for d in kept)

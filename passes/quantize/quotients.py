"""Division by a function of one value: as a quotient, or as a product with the reciprocal.

An exponential spans more than 16 bits tell apart, and a quotient is largest where its divisor is
least. The reciprocal is a function of the same value, of which no divisor is ever rounded:

    %e = exp(%x)                     %e = exp(%x)
    %y = div(%a, %e)           ->    %r = reciprocal(%e)
                                     %y = mul(%a, %r)

But where the dividend is zero with the divisor (the norm of a row of padding, and 1e-8), the
largest reciprocal is one that nothing needs, and leaves all others no bits. Calibration measures
both the divisor and its reciprocal, and samples tell which form comes nearer to the quotient.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irc.graph import Graph, evaluate
from irc.ops.core import Const
from irc.ops.elementwise import Add, Div, Mul, Sub
from irc.ops.unary import Reciprocal
from irc.passes.calibration.calibrate import Profile, Statistics, Visible, keys
from irc.passes.quantize.options import Options
from irc.passes.quantize.scales import HEADROOM, choose_wide, fitted, rounded
from irc.passes.quantize.sites import Sites
from irc.rewrite import rebuild
from irc.types import Array
from irc.value import Value

LARGEST = 1e30
"""Values beyond this are as good as infinite."""
CLOSER = 0.5
"""A quotient is taken where its squared error is less than this share of the product's."""


def by_reciprocals(graph: Graph) -> Graph:
    """The graph with such divisions as products."""
    sites = Sites(graph)
    place = {v: i for i, v in enumerate(graph.order)}
    made_of: dict[Value, Value] = {v: v for v in graph.inputs}

    def product(v: Value, made: Value) -> Value:
        if isinstance(made, Div) and sites.root[v] is v and _curved(sites, v.operands[1]):
            path = sorted(_path(sites, v.operands[1]), key=place.__getitem__)
            root = sites.root[v.operands[1]]
            divisor = _anew(path, root, made_of[root])
            return Mul(made.a, Reciprocal(divisor, name=f"{v.name}.by"), name=v.name)
        return made

    def remembered(v: Value, made: Value) -> Value:
        made_of[v] = product(v, made)
        return made_of[v]

    return rebuild(graph, remembered)


def measured_too(sites: Sites) -> dict[Value, Visible]:
    """What calibration must measure besides: products with reciprocals, these, and divisors, which
    may be infinite."""
    return {v: _bounded for v in _told(sites.graph) if v not in sites.observed}


def _told(graph: Graph) -> Iterator[Value]:
    for p in _products(graph):
        yield from (p.made, p.factor, p.divisor)


def _bounded(array: Array) -> Array:
    return np.clip(array, -LARGEST, LARGEST)


def settled(graph: Graph, profile: Profile, options: Options) -> tuple[Graph, Profile]:
    """The graph with those products as quotients that come nearer to float's so, and what is known
    of it."""
    values, names = profile.values, keys(graph)
    known = {v: values[names[v]] for v in _told(graph)}
    products = list(_products(graph))
    kept = _nearer(graph, products, known, profile.first, options)
    quotients: dict[Value, _Product] = {p.made: p for p in products if p not in kept}
    if not quotients:
        return graph, profile
    new: dict[Value, Value] = {v: v for v in graph.inputs}

    def remembered(v: Value, made: Value) -> Value:
        p = quotients.get(v)
        new[v] = made if p is None else Div(new[p.dividend], new[p.divisor], name=v.name)
        return new[v]

    made = rebuild(graph, remembered)
    return made, profile.of_another(graph, made, new)


@dataclass(frozen=True, eq=False)
class _Product:
    """A product with a reciprocal."""

    made: Mul
    dividend: Value
    factor: Reciprocal

    @property
    def divisor(self) -> Value:
        return self.factor.x


def _products(graph: Graph) -> Iterator[_Product]:
    """The products with reciprocals of a graph, in its order."""
    for v in graph.order:
        match v:
            case Mul(a=a, b=Reciprocal() as r) | Mul(a=Reciprocal() as r, b=a) if not (
                isinstance(a, Const) or isinstance(r.x, Const) or not v.type.size
            ):
                yield _Product(v, a, r)


def _nearer(
    graph: Graph,
    products: Sequence[_Product],
    known: Mapping[Value, Statistics],
    feeds: Sequence[Mapping[str, Array]],
    options: Options,
) -> set[_Product]:
    """The products that come no further from what floats make of feeds than quotients."""
    wanted = {v for p in products for v in (p.dividend, p.factor, p.divisor)}
    lost: dict[_Product, Array] = defaultdict(lambda: np.zeros(2))
    for feed in feeds if products else ():
        seen: dict[Value, Array] = {}

        def take(v: Value, array: Array, seen: dict[Value, Array] = seen) -> None:
            if v in wanted:
                seen[v] = array.astype(np.float64)

        evaluate(graph, feed, observe=take)
        for p in products:
            lost[p] += _errors(p, seen, known, options)
    return {p for p in products if not lost[p][0] < CLOSER * lost[p][1]}


def _errors(
    p: _Product, seen: Mapping[Value, Array], known: Mapping[Value, Statistics], options: Options
) -> Array:
    """The squared errors of the quotient and of the product: [2]."""
    a, d, r = seen[p.dividend], seen[p.divisor], seen[p.factor]
    if max(abs(known[p.divisor].low), abs(known[p.divisor].high)) >= LARGEST:
        return np.array([np.inf, 0.0])
    limit = HEADROOM * max(abs(known[p.made].low), abs(known[p.made].high))
    with np.errstate(all="ignore"):
        divisor = _rounded(d, known[p.divisor], options)
        # 0 / 0 is 0, as in `QDiv`; what is infinite saturates.
        quotient = np.where((divisor == 0) & (a == 0), 0.0, a / divisor)
        product = a * _rounded(r, known[p.factor], options)
        both = (np.clip(y, -limit, limit) - a * r for y in (quotient, product))
        return np.array([np.sum(error**2) for error in both])


def _rounded(real: Array, s: Statistics, options: Options) -> Array:
    """Reals as 16 bits hold them, or 8."""
    if str(options.activations) == "8":
        return rounded(real, fitted([s], options))
    scale = choose_wide([s]).tensor_scale
    return np.asarray(np.rint(real / scale) * scale)


def _path(sites: Sites, v: Value) -> set[Value]:
    """All that a function of a value consists of, but that value and constants."""
    found: set[Value] = set()
    stack = [v]
    while stack:
        top = stack.pop()
        if top not in found and top is not sites.root[v] and not isinstance(top, Const):
            found.add(top)
            stack += top.operands
    return found


def _anew(path: Sequence[Value], root: Value, made: Value) -> Value:
    """A function of `root`, of what is made of it, computed once more: others may read it
    rounded."""
    new = {root: made}
    for v in path:
        again = v.map_operands(lambda o: new.get(o, o))
        new[v] = again.replace() if again is v else again
    return new[path[-1]]


def _curved(sites: Sites, v: Value) -> bool:
    """Whether a value is a function of another one that does more than scale and move it."""
    root = sites.root[v]
    while v is not root and isinstance(v, Add | Sub | Mul | Div):
        inner = [o for o in v.operands if not isinstance(o, Const)]
        if len(inner) > 1:
            return True
        (v,) = inner
    return v is not root and not sites.absorbs(v)

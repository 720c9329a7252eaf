"""Division by a function of one value.

An exponential spans more than 16 bits tell apart, and a quotient is largest where its divisor is
least. The reciprocal is a function of the same value, of which no divisor is ever rounded:

    %e = exp(%x)                     %e = exp(%x)
    %y = div(%a, %e)           ->    %r = reciprocal(%e)
                                     %y = mul(%a, %r)
"""

from __future__ import annotations

from irc.graph import Graph
from irc.ops.core import Const
from irc.ops.elementwise import Add, Div, Mul, Sub
from irc.ops.unary import Reciprocal
from irc.passes.quantize.sites import Sites
from irc.rewrite import rebuild
from irc.value import Value, operand_fields


def by_reciprocals(graph: Graph) -> Graph:
    """The graph with such divisions as products."""
    sites = Sites(graph)

    def product(v: Value, made: Value) -> Value:
        if not isinstance(made, Div) or sites.root[v] is not v or not _curved(sites, v.operands[1]):
            return made
        divisor = _anew(made.b, made_of[sites.root[v.operands[1]]])
        return Mul(made.a, Reciprocal(divisor, name=f"{v.name}.by"), name=v.name)

    made_of: dict[Value, Value] = {v: v for v in graph.inputs}

    def remembered(v: Value, made: Value) -> Value:
        made_of[v] = product(v, made)
        return made_of[v]

    return rebuild(graph, remembered)


def _anew(v: Value, root: Value) -> Value:
    """A function of `root`, computed once more: others may read it rounded."""
    if v is root or isinstance(v, Const):
        return v
    return v.replace(**{f: _anew(getattr(v, f), root) for f in operand_fields(type(v))})


def _curved(sites: Sites, v: Value) -> bool:
    """Whether a value is a function of another one that does more than scale and move it."""
    root = sites.root[v]
    while v is not root and isinstance(v, Add | Sub | Mul | Div):
        inner = [o for o in v.operands if not isinstance(o, Const)]
        if len(inner) > 1:
            return True
        (v,) = inner
    return v is not root and not sites.absorbs(v)

"""Micro-kernels: vector code for the ops that networks spend their time in.

Each kind looks at a `Work` and answers with a `MicroKernel`, or None where it does not fit or, by
its cost model, does not pay; then its alternatives come, whatever their estimated cost. What no
kind takes, `generic` does: the nests as plain loops.

A folder per family; each imports only those above it:

    vectors/    dot products, tiles of registers, lanes, packs, copies: what all are made of
    results/    what follows the products: the elementwise tail, and how words become bytes
    tables/     functions of bytes
    rows/       along the last axis: norms, softmax
    depthwise/  lanes are channels
    gemm/       convolutions and linear layers by dot products
    amx/        the same on tiles
    winograd/   3x3 convolutions by minimal filtering
    matmul/     products of two activations
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from irc.backends.llvm.kernels.amx.layers import amx, amxs
from irc.backends.llvm.kernels.depthwise.layers import depthwise, depthwises
from irc.backends.llvm.kernels.depthwise.rowpairs import depthwise_pairs, rowpairs
from irc.backends.llvm.kernels.gate import gate
from irc.backends.llvm.kernels.gemm.layers import gemm, gemms
from irc.backends.llvm.kernels.gemm.ordered import ordered, ordereds
from irc.backends.llvm.kernels.generic import generic
from irc.backends.llvm.kernels.matmul.choice import matmul, matmuls
from irc.backends.llvm.kernels.rows.norm import norm
from irc.backends.llvm.kernels.rows.softmax import softmax
from irc.backends.llvm.kernels.tables.table import tables
from irc.backends.llvm.kernels.window_sums import window_sums
from irc.backends.llvm.kernels.winograd.layers import winograd, winograds
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import MicroKernel, Work

CANDIDATES: tuple[Callable[[Work, Target], MicroKernel | None], ...] = (
    window_sums, depthwise_pairs, depthwise, amx, winograd, ordered, gemm, matmul, softmax, norm,
    gate,
)  # fmt: skip
"""The best of each kind that pays; the first that fits is the cost model's choice."""
ALTERNATIVES: tuple[Callable[[Work, Target], Iterator[MicroKernel]], ...] = (
    amxs, winograds, ordereds, gemms, rowpairs, depthwises, matmuls,
)  # fmt: skip
"""Others of each kind, the cheapest first."""
LONG = (winograd, winograds)
"""Those whose code is too long where it is to be short."""
FEW_PRODUCTS = 10**6
"""Up to so many the generic loops are worth a try beside micro-kernels."""


def select(work: Work, target: Target) -> MicroKernel:
    """The cost model's choice."""
    return next(candidates(work, target))


def candidates(work: Work, target: Target) -> Iterator[MicroKernel]:
    """Every way to do a work, the cost model's choice first, each made when it is asked for: those
    for a work that ends with a table, or else the micro-kernels and the generic loops. All give
    the same bits; their names tell them apart."""
    names = set[str]()
    for micro in tables(work, target, candidates):
        names.add(micro.name)
        yield micro
    if names:
        return
    for micro in _fitting(work, target):
        if micro.name not in names:
            names.add(micro.name)
            yield micro
    if not names or work.products <= FEW_PRODUCTS:
        yield generic(work)


def _fitting(work: Work, target: Target) -> Iterator[MicroKernel]:
    """Micro-kernels, some of them twice."""
    for candidate in CANDIDATES:
        made = None if target.small and candidate in LONG else candidate(work, target)
        if made is not None:
            yield made
    for alternatives in ALTERNATIVES:
        if not (target.small and alternatives in LONG):
            yield from alternatives(work, target)

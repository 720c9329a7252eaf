"""Micro-kernels: vector code for the ops that networks spend their time in.

Each candidate looks at a `Work` and answers with a `MicroKernel`, or None where it does not fit;
what no candidate takes is emitted by the generic renderer.
"""

from __future__ import annotations

from collections.abc import Callable

from irc.backends.llvm.kernels.amx import amx
from irc.backends.llvm.kernels.depthwise import depthwise
from irc.backends.llvm.kernels.gemm import gemm
from irc.backends.llvm.kernels.matmul import matmul
from irc.backends.llvm.kernels.rowpairs import depthwise_pairs
from irc.backends.llvm.kernels.softmax import softmax
from irc.backends.llvm.kernels.table import table
from irc.backends.llvm.kernels.winograd import winograd
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import MicroKernel, Work

CANDIDATES: tuple[Callable[[Work, Target], MicroKernel | None], ...] = (
    depthwise_pairs, depthwise, amx, winograd, gemm, matmul, softmax,
)  # fmt: skip


LONG = (winograd,)
"""Those whose code is too long where it is to be short."""


def select(work: Work, target: Target) -> MicroKernel | None:
    """The first candidate that fits, behind it the table that the work ends with."""
    made = table(work, target, select)
    if made is not None:
        return made
    for candidate in CANDIDATES:
        made = None if target.small and candidate in LONG else candidate(work, target)
        if made is not None:
            return made
    return None

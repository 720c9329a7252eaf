"""Micro-kernels: hot work in vector code that its target's instructions were made for."""

from __future__ import annotations

from irc.backends.llvm.target import Target
from irc.backends.llvm.work import MicroKernel, Work


def select(work: Work, target: Target) -> MicroKernel | None:
    """The cheapest proved micro-kernel for a work; None leaves it to the generic loops."""
    del work, target
    return None

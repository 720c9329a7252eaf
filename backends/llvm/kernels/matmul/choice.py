"""Products of two activations, by the instruction that suits the target and the sizes."""

from __future__ import annotations

from collections.abc import Iterator

from irc.backends.llvm.kernels.matmul.amx import matmuls_amx, pays
from irc.backends.llvm.kernels.matmul.i8 import matmuls_dot
from irc.backends.llvm.kernels.matmul.i16 import matmuls_i16
from irc.backends.llvm.kernels.matmul.matrices import match
from irc.backends.llvm.target import Dot, Target
from irc.backends.llvm.work import MicroKernel, Work


def matmul(work: Work, target: Target) -> MicroKernel | None:
    """A kernel for the product of two activations with its elementwise tail."""
    return next(matmuls(work, target), None)


def matmuls(work: Work, target: Target) -> Iterator[MicroKernel]:
    """Kernels for it, the one that mostly is best first."""
    found = match(work)
    if found is None or target.dot is Dot.NONE:
        return
    if pays(found):
        yield from matmuls_amx(found, target)
    yield from matmuls_dot(found, target)
    yield from matmuls_amx(found, target)
    yield from matmuls_i16(found, target)

"""Memory that tells when it is misused: arrays that end at a page nobody may touch, with a pattern
before them, and native code run in a child process, so that a crash is only a failed test."""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
from collections.abc import Callable, Sequence

import numpy as np

from irc.types import Array, TensorType

PAGE = mmap.PAGESIZE
PATTERN = 0xA5
_NO_ACCESS = 0  # PROT_NONE
_libc = ctypes.CDLL(None, use_errno=True)


class Guarded:
    """`nbytes` bytes, shared with child processes, that end where a forbidden page begins; all
    bytes, and those before them, hold a pattern at first."""

    def __init__(self, nbytes: int) -> None:
        whole = -(-max(nbytes, 1) // PAGE) * PAGE
        self.memory = mmap.mmap(-1, whole + PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        if _libc.mprotect(ctypes.c_void_p(start + whole), ctypes.c_size_t(PAGE), _NO_ACCESS):
            raise OSError(ctypes.get_errno(), "mprotect")
        self.bytes: Array = np.frombuffer(self.memory, np.uint8, whole)
        self.bytes[:] = PATTERN
        self.first = whole - nbytes
        self.pointer = start + self.first

    def fill(self, array: Array) -> None:
        """Hold the array's bytes."""
        self.bytes[self.first :] = np.frombuffer(array.tobytes(), np.uint8)

    def array(self, t: TensorType) -> Array:
        """A copy of the bytes as a tensor."""
        return self.bytes[self.first :].copy().view(t.dtype.numpy).reshape(t.shape)

    @property
    def untouched_before(self) -> bool:
        """Whether nothing was written in front of the bytes."""
        return bool(np.all(self.bytes[: self.first] == PATTERN))


def run_guarded(
    run: Callable[..., int],
    inputs: Sequence[Array],
    outputs: Sequence[TensorType],
    workspace: int,
) -> list[Array]:
    """Call `run(inputs…, outputs…, workspace)` in a child process on guarded memory.

    Fails if it crashes, writes to its inputs or around its memory, or returns an error.
    """
    given = [Guarded(a.nbytes) for a in inputs]
    made = [Guarded(t.nbytes) for t in outputs]
    for guarded, array in zip(given, inputs, strict=True):
        guarded.fill(array)
    arena = Guarded(workspace)
    pointers = [g.pointer for g in (*given, *made, arena)]
    assert (status := in_child(lambda: run(*pointers))) == 0, f"the code returned {status}"
    assert all(g.untouched_before for g in (*given, *made, arena)), "wrote in front of its memory"
    for guarded, array in zip(given, inputs, strict=True):
        assert guarded.bytes[guarded.first :].tobytes() == array.tobytes(), "wrote to an input"
    return [g.array(t) for g, t in zip(made, outputs, strict=True)]


def in_child(run: Callable[[], int]) -> int:
    """What `run` returns, run in a forked process; negative is the signal that ended it."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()  # who asked is told, the terminal is not
        status = 127
        try:
            status = run() & 0xFF
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

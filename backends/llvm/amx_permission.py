"""AMX in this process: Linux lends a program the tile registers when it asks for them."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

from llvmlite import binding

ARCH_PRCTL, REQUEST, TILE_DATA = 158, 0x1023, 18
"""The system call of x86-64, ARCH_REQ_XCOMP_PERM, and the number of the tiles' state."""


@cache
def tiles_permitted() -> bool:
    """Whether this process may use AMX from now on: the CPU has it, and the system agrees."""
    if sys.platform != "linux" or not binding.get_process_triple().startswith("x86_64"):
        return False
    present = binding.get_host_cpu_features()
    if not (present.get("amx-tile") and present.get("amx-int8")):
        return False
    return bool(ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST, TILE_DATA) == 0)

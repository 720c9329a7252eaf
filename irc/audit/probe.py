"""Runs a library's own self test, in a process of its own: `python probe.py LIBRARY NAME BYTES`.

Needs the standard library only. Exit status 0: every bit is right.
"""

import ctypes
import sys

ALIGN = 64


def self_test(path: str, name: str, nbytes: int) -> int:
    """What `NAME_self_test` returns, given a workspace of `nbytes`."""
    function = getattr(ctypes.CDLL(path), f"{name}_self_test")
    function.argtypes = [ctypes.c_void_p]
    function.restype = ctypes.c_int
    memory = ctypes.create_string_buffer(nbytes + ALIGN)
    address = ctypes.addressof(memory)
    return int(function(address + -address % ALIGN))


if __name__ == "__main__":
    sys.exit(0 if self_test(sys.argv[1], sys.argv[2], int(sys.argv[3])) == 0 else 1)

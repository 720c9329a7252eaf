"""Ctrl-C while the command line is being imported, which takes some tenths of a second.

To import this module is to be prepared for it: in a command, and in nothing else, Ctrl-C then is no
exception in the middle of an import, until `allow`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

STATUS = 128 + signal.SIGINT


def is_command() -> bool:
    """Whether this process is `irc`, or `python -m irc`: not a program that imports the package."""
    if sys.argv[:1] == ["-m"]:  # what it is while the package is imported for it
        return "irc" in sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1]
    return Path(sys.argv[0] if sys.argv else "").stem == "irc"


def end(number: int, frame: FrameType | None) -> None:
    """Say so in a line and end, at once: nothing was begun, and imports are half done."""
    del number, frame
    os.write(2, b"Aborted.\n")
    os._exit(STATUS)


def allow() -> None:
    """From now on it is an exception again, so that what is half-written is taken away."""
    if signal.getsignal(signal.SIGINT) is end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, end)

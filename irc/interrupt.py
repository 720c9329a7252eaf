"""Ctrl-C while the command line is being imported, which takes some tenths of a second.

To import this module is to be prepared for it: in a command, and in nothing else, Ctrl-C then is no
exception in the middle of an import, until `allow`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

STATUS = 128 + signal.SIGINT


def is_command() -> bool:
    """Whether this process is `irc`, or `python -m irc`: not a program that imports the package."""
    if sys.argv[:1] == ["-m"]:  # what it is while the package is imported for it
        return _module(sys.orig_argv[1:]) == "irc"
    return os.path.basename(sys.argv[0] if sys.argv else "") in ("irc", "irc.exe")


def _module(arguments: list[str]) -> str:
    """What `-m` names among an interpreter's arguments, in `-mirc` and `-Im irc`, too; "" without
    it."""
    left = iter(arguments)
    for argument in left:
        letters = argument[1:] if argument.startswith("-") else ""
        if letters.startswith("-"):  # a long option, of which one takes a value
            if argument == "--check-hash-based-pycs":
                next(left, "")
            continue
        at = next((i for i, letter in enumerate(letters) if letter in "cmWX"), None)
        if at is None:
            continue
        value = letters[at + 1 :] or next(left, "")
        if letters[at] in "cm":  # what follows is the program's
            return value if letters[at] == "m" else ""
    return ""


def end(number: int, frame: FrameType | None) -> None:
    """Say so in a line and end, at once: nothing was begun, and imports are half done."""
    del number, frame
    os.write(2, b"Aborted.\n")
    os._exit(STATUS)


def allow() -> None:
    """From now on it is an exception again, so that what is half-written is taken away."""
    if signal.getsignal(signal.SIGINT) is end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def prepare() -> None:
    """Of commands alone; only a main thread may set handlers."""
    alone = threading.current_thread() is threading.main_thread()
    if alone and is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)


prepare()

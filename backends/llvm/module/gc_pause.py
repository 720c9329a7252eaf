"""A pause of Python's cycle collector while the code of a library is made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_gc() -> Iterator[None]:
    """Collect no cycles within; also a decorator.

    The instructions of a module are hundreds of thousands of objects, none of which goes before
    the last is there: the collector would walk them again and again, a third of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

"""Stored bytes, written over and over: what states begin with."""

from __future__ import annotations

from typing import Any

from irc.backends.llvm.code.functions import I8
from irc.backends.llvm.code.loop import counted


def emit_repeated(builder: Any, stored: Any, size: int, nbytes: int, target: Any) -> None:
    """Write `nbytes`, a multiple of `size`, to `target`: the `size` stored bytes, repeated."""
    if nbytes == 0:
        return
    with counted(builder, nbytes, step=size) as outer, counted(builder, size) as inner:
        source = builder.gep(stored, [inner.index], inbounds=True, source_etype=I8)
        at = builder.add(outer.index, inner.index)
        place = builder.gep(target, [at], inbounds=True, source_etype=I8)
        builder.store(builder.load(source, typ=I8, align=1), place, align=1)

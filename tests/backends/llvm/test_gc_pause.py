"""The collector rests while code is made, and no longer."""

from __future__ import annotations

import gc

import pytest

from irc.backends.llvm.module.gc_pause import without_gc


def test_the_collector_is_back_even_after_an_error() -> None:
    @without_gc()
    def failing() -> None:
        assert not gc.isenabled()
        raise ValueError("within")

    with pytest.raises(ValueError, match="within"):
        failing()
    assert gc.isenabled()


def test_who_switched_it_off_keeps_it_off() -> None:
    gc.disable()
    try:
        with without_gc():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()

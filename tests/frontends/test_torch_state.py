"""State that a module keeps in attributes of Python's: told, where it changes results."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import irc
from irc.errors import ModelError
from tests.frontends.torch_peer import Module, nn, torch


class _Keeping(Module):
    """A layer with an attribute, which `step` reads and may replace."""

    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.layer, self.kept = nn.Linear(4, 4), kept

    def forward(self, x: Any) -> Any:
        return self.step(self.layer(x))

    def step(self, y: Any) -> Any:
        raise NotImplementedError


class _Counts(_Keeping):
    def step(self, y: Any) -> Any:
        self.kept += 1
        return y * self.kept


class _Recalls(_Keeping):
    def step(self, y: Any) -> Any:
        self.kept = y if self.kept is None else y + self.kept
        return self.kept


class _Collects(_Keeping):
    def step(self, y: Any) -> Any:
        self.kept.append(y)
        return torch.stack(self.kept).sum(0)


class _Looks(_Keeping):
    """Keeps what it computed for somebody to look at, and a table that is made once."""

    def step(self, y: Any) -> Any:
        if self.kept is None:
            self.table = torch.arange(4.0)
        self.kept = y + self.table
        return self.kept


class _InPlace(_Keeping):
    def step(self, y: Any) -> Any:
        self.kept.mul_(0.5).add_(y)
        return self.kept + 0


class _Cache:
    rows: Any = None


class _Caches(_Keeping):
    def step(self, y: Any) -> Any:
        self.kept.rows = y if self.kept.rows is None else torch.cat([self.kept.rows, y])
        return self.kept.rows.sum(0)


def _import(module: Any) -> irc.Graph:
    return irc.from_torch(module.eval(), (torch.ones(1, 4),))


@pytest.mark.parametrize(
    "module",
    [
        _Counts(0), _Recalls(None), _Recalls(torch.zeros(4)), _Collects([]), _Caches(_Cache()),
        _InPlace(torch.zeros(1, 4)),
    ],
    ids=lambda m: type(m).__name__,
)  # fmt: skip
def test_what_changes_the_next_result_is_refused(module: Any) -> None:
    with pytest.raises(ModelError, match=r"'0\.kept' when it is called.*an input and an output"):
        _import(nn.Sequential(module))


def test_what_changes_no_result_is_taken_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _import(_Looks(None)).output_names == ("output",)


def test_an_attribute_that_an_earlier_call_computed_is_no_hindrance() -> None:
    module = _Looks(None)
    before = module(torch.ones(1, 4))
    assert _import(module).output_names == ("output",)
    assert module.kept is before


def test_the_module_is_left_as_it_was() -> None:
    module, state = _Counts(3), torch.get_rng_state()
    with pytest.raises(ModelError, match="kept"):
        _import(module)
    assert module.kept == 3
    assert not module._forward_hooks
    assert not module._forward_pre_hooks
    assert torch.equal(torch.get_rng_state(), state)

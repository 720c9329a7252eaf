"""State that a module keeps in attributes of Python's: told, where it changes results."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
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


class _Observes(Module):
    """Installs a hook at its first call, and goes by what it saw: transformers record hidden states
    so."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(4, 4), list[Any]()

    def forward(self, x: Any) -> Any:
        if not hasattr(self, "installed"):
            self.installed = True
            self.layer.register_forward_hook(lambda *seen: self.seen.append(seen[-1]))
        y = self.layer(x) * (1 + len(self.seen))
        self.seen.clear()
        return y


def test_hooks_that_a_first_call_installs() -> None:
    module = _Observes()
    assert _import(nn.Sequential(module)).output_names == ("output",)
    assert not module.layer._forward_hooks


class _Settings(Module):
    """Its numbers are buffers, as those of Encodec's convolutions are."""

    stride: Any

    def __init__(self, kept: bool = True) -> None:
        super().__init__()
        self.layer, self.kept = nn.Linear(6, 4), kept
        self.register_buffer("stride", torch.tensor(3), persistent=False)

    def forward(self, x: Any) -> Any:
        missing = torch.ceil(x.shape[-1] / self.stride).to(torch.int64) * self.stride - x.shape[-1]
        if missing > 0:
            x = nn.functional.pad(x, (0, int(missing)))
        if not self.kept:
            self.stride += 1
        return self.layer(x)


def test_numbers_in_buffers_are_known() -> None:
    module, x = _Settings(), torch.ones(1, 4)
    graph = irc.from_torch(module, x)
    (name,) = graph.input_types
    y = irc.evaluate(graph, {name: x.numpy()})["output"]
    np.testing.assert_allclose(y, module(x).detach().numpy(), rtol=1e-5)
    assert type(module) is _Settings
    assert [*module._buffers] == ["stride"]
    with pytest.raises(ModelError, match="can't be exported"):
        irc.from_torch(_Settings(kept=False), x)


def test_sizes_that_data_decide_are_told_as_such() -> None:
    """Not by the operators that have such a size further on."""

    class Loops(Module):
        def forward(self, x: Any, edges: Any) -> Any:
            kept = edges[:, edges[0] != edges[1]]
            weights = torch.ones(kept.shape[1])
            return torch.zeros(4).index_add(0, kept[0], weights) + x

    edges = torch.tensor([[0, 1, 2], [1, 1, 3]])
    with pytest.raises(ModelError, match="no fixed shape: it depends on data"):
        irc.from_torch(Loops(), (torch.ones(4), edges))

"""Buffers that a module changes are states: of the graph and of the integer library."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irc
from irc import fixedpoint
from irc.errors import ModelError
from irc.types import DType
from tests.frontends.torch_peer import F, Module, agree, nn, torch


class _Causal(Module):
    """A streaming convolution; `assigned` replaces its cache instead of writing into it."""

    cache: Any

    def __init__(self, channels: int = 4, *, assigned: bool = False) -> None:
        super().__init__()
        self.conv, self.assigned = nn.Conv1d(channels, 4, 3), assigned
        self.register_buffer("cache", torch.zeros(1, channels, 2))

    def forward(self, x: Any) -> Any:
        line = torch.cat([self.cache, x], 2)
        if self.assigned:
            self.cache = line[:, :, -2:]
        else:
            self.cache.copy_(line[:, :, -2:])
        return self.conv(line)


class _Average(Module):
    """An average, a count of the calls, and a flag; the last one is for somebody to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([[1.0, 0.5, 2.0, 1.0]]))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("loud", torch.zeros(1, 4, dtype=torch.bool))
        self.register_buffer("peak", torch.zeros(1, 4))

    def forward(self, x: Any) -> dict[str, Any]:
        self.count += 1
        self.mean += 0.05 * (x.abs() - self.mean)
        self.loud |= x > 1.5
        self.peak.copy_(torch.maximum(self.peak, x))
        scaled = torch.where(self.count < 3, x, x / (self.mean + 0.1))
        return {"scaled": scaled, "loud": self.loud.clone()}


class _Gru(Module):
    """A recurrent cell by hand."""

    h: Any

    def __init__(self) -> None:
        super().__init__()
        self.input, self.hidden, self.head = nn.Linear(4, 24), nn.Linear(8, 24), nn.Linear(8, 3)
        self.register_buffer("h", torch.zeros(1, 8), persistent=False)

    def forward(self, x: Any) -> Any:
        a, b, c = self.input(x).chunk(3, -1)
        d, e, f = self.hidden(self.h).chunk(3, -1)
        update, new = torch.sigmoid(b + e), torch.tanh(c + torch.sigmoid(a + d) * f)
        self.h = (1 - update) * new + update * self.h
        return self.head(self.h)


class _Lstm(Module):
    """torch's layer, whose states are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(4, 8, batch_first=True)
        self.register_buffer("h", torch.zeros(1, 1, 8))
        self.register_buffer("c", torch.zeros(1, 1, 8))

    def forward(self, x: Any) -> Any:
        y, (h, c) = self.layer(x[None], (self.h, self.c))
        self.h.copy_(h)
        self.c.copy_(c)
        return y


class _Attention(Module):
    """Attention over the last eight steps, whose keys and values lie in a ring."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(4, 24), nn.Linear(8, 4)
        self.register_buffer("keys", torch.zeros(1, 2, 8, 4))
        self.register_buffer("values", torch.zeros(1, 2, 8, 4))
        self.register_buffer("place", torch.zeros(1, dtype=torch.long))

    def forward(self, x: Any) -> Any:
        q, k, v = (t.view(1, 1, 2, 4).transpose(1, 2) for t in self.project(x).chunk(3, -1))
        self.keys.index_copy_(2, self.place, k)
        self.values[:, :, self.place] = v
        seen = (torch.arange(8) <= self.place)[None, None, None]
        y = F.scaled_dot_product_attention(q, self.keys, self.values, attn_mask=seen)
        self.place.copy_((self.place + 1) % 8)
        return self.out(y.reshape(1, 8))


class _Overlap(Module):
    """Frames that overlap are added."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("tail", torch.zeros(1, 4))

    def forward(self, x: Any) -> Any:
        whole = self.tail + torch.tanh(self.layer(x))
        self.tail.copy_(F.pad(whole[:, 2:], (0, 2)))
        return whole[:, :2]


class _Deep(Module):
    """Streaming layers within layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(_Causal(), nn.ReLU(), _Causal(), nn.BatchNorm1d(4))

    def forward(self, x: Any) -> Any:
        return self.layers(x) + x


VECTOR, SIGNAL = (1, 4), (1, 4, 3)
MODULES: list[tuple[Any, tuple[int, ...], dict[str, DType]]] = [
    (_Causal, SIGNAL, {"cache": DType.U8}),
    (lambda: _Causal(assigned=True), SIGNAL, {"cache": DType.U8}),
    (_Average, VECTOR, {"mean": DType.I16, "count": DType.I64, "loud": DType.BOOL}),
    (_Gru, VECTOR, {"h": DType.I16}),
    (_Lstm, VECTOR, {"h": DType.I16, "c": DType.I16}),
    (_Attention, VECTOR, {"keys": DType.U8, "values": DType.U8, "place": DType.I64}),
    (_Overlap, VECTOR, {"tail": DType.I16}),
    (_Deep, SIGNAL, {"layers.0.cache": DType.U8, "layers.2.cache": DType.U8}),
]
each_module = pytest.mark.parametrize(
    ("make", "shape", "states"), MODULES, ids=[
        "causal", "assigned", "average", "gru", "lstm", "attention", "overlap", "deep",
    ],
)  # fmt: skip


def _made(make: Any, shape: tuple[int, ...]) -> tuple[Any, irc.Graph]:
    torch.manual_seed(0)
    module = make().eval()
    graph = irc.from_torch(module, (torch.zeros(shape),))
    return module, graph


def _steps(count: int, shape: tuple[int, ...], seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.uniform(-2, 2, shape).astype(np.float32)} for _ in range(count)]


@each_module
def test_float_graphs_equal_torch_over_many_steps(
    make: Any, shape: tuple[int, ...], states: dict[str, DType]
) -> None:
    module, graph = _made(make, shape)
    assert [(s.input, s.output) for s in graph.states] == [(n, f"{n}_next") for n in states]
    stream = irc.Stream(graph)
    for feed in _steps(12, shape):
        with torch.no_grad():
            expected = module(torch.from_numpy(feed["x"]))
        expected = expected if isinstance(expected, dict) else {"output": expected}
        found = stream(feed)
        assert list(found) == list(expected)
        for name, tensor in expected.items():
            np.testing.assert_allclose(found[name], tensor.numpy(), rtol=1e-4, atol=1e-5)
        for name, array in stream.states.items():
            buffer = module.get_buffer(name).numpy()
            np.testing.assert_allclose(array, buffer, rtol=1e-4, atol=1e-5)


@each_module
def test_integer_libraries_equal_evaluate_and_stay_near_float(
    make: Any, shape: tuple[int, ...], states: dict[str, DType]
) -> None:
    _, graph = _made(make, shape)
    model = irc.compile(irc.quantize(graph, _steps(30, shape)))
    types = model.graph.input_types
    assert {n: types[n].dtype for n in states} == states
    real, exact, ours = irc.Stream(graph), irc.Stream(model.graph), irc.Stream(model)
    x = types["x"]
    signal = noise = 0.0
    for feed in _steps(40, shape, seed=1):
        wanted, found = real(feed), ours(feed)
        exact({"x": fixedpoint.quantize(feed["x"], x)})
        for name in states:
            np.testing.assert_array_equal(ours.states[name], exact.states[name])
        first = next(iter(wanted))
        signal += float(np.square(wanted[first]).sum())
        noise += float(np.square(found[first] - wanted[first]).sum())
    assert 10 * np.log10(signal / noise) > 24


def test_what_no_result_depends_on_is_no_state() -> None:
    _, graph = _made(_Average, VECTOR)
    assert "peak" not in graph.input_types
    assert list(graph.output_types) == ["scaled", "loud", "mean_next", "count_next", "loud_next"]


class _Placed(Module):
    """A table that every call puts where its input is, as Hugging Face's CTRL does."""

    table: Any

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(12.0).reshape(3, 4))

    def forward(self, x: Any) -> Any:
        self.table = self.table.to(device=x.device, dtype=x.dtype)
        return x @ self.table.T


def test_what_is_written_over_with_itself_is_no_state() -> None:
    assert not agree(_Placed(), torch.rand(1, 4)).states


def test_initial_values_are_those_of_the_module() -> None:
    module = _Average().eval()
    for _ in range(4):
        module(torch.ones(VECTOR))
    graph = irc.from_torch(module, (torch.zeros(VECTOR),))
    initial = {s.input: s.initial for s in graph.states}
    assert initial["count"] == 4
    np.testing.assert_array_equal(initial["mean"], module.mean.numpy())
    assert module.count == 4


def test_an_argument_that_is_written_to_is_a_state_from_zeros_on() -> None:
    class Updates(Module):
        def forward(self, x: Any, h: Any) -> Any:
            h.copy_(torch.tanh(h + x))
            return h * 2

    graph = irc.from_torch(Updates(), (torch.ones(3), torch.ones(3)))
    (state,) = graph.states
    assert (state.input, state.output, state.fill) == ("h", "h_next", 0.0)
    found = irc.evaluate(graph, {"x": np.ones(3), "h": np.zeros(3)})
    np.testing.assert_allclose(found["h_next"], np.tanh(1.0), rtol=1e-6)


def test_a_buffer_that_an_object_holds_too_is_a_state() -> None:
    """As caches of attention do, which are no modules."""

    class Held(Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("sums", torch.ones(3))
            self.cache = {"sums": self.sums}

        def forward(self, x: Any) -> Any:
            self.cache["sums"].mul_(0.5).add_(x)
            return self.cache["sums"] * 2

    module = Held()
    graph = irc.from_torch(module, (torch.ones(3),))
    (state,) = graph.states
    assert (state.input, state.fill) == ("sums", 1.0)
    stream = irc.Stream(graph)
    for _ in range(3):
        with torch.no_grad():
            expected = module(torch.ones(3)).numpy()
        np.testing.assert_allclose(stream({"x": np.ones(3)})["output"], expected)


def test_names_that_are_taken_are_numbered() -> None:
    class Clashes(Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("x", torch.zeros(3))

        def forward(self, x: Any) -> dict[str, Any]:
            self.x.copy_((self.x + x) / 2)
            return {"x_next": self.x * 2}

    (state,) = irc.from_torch(Clashes(), (torch.ones(3),)).states
    assert (state.input, state.output) == ("x_1", "x_next_1")


def test_programs_and_files_have_states(tmp_path: Path) -> None:
    module, graph = _made(_Causal, SIGNAL)
    program = torch.export.export(module, (torch.zeros(SIGNAL),))
    torch.export.save(program, tmp_path / "causal.pt2")
    for again in (irc.from_torch(program), irc.load(tmp_path / "causal.pt2")):
        assert [s.input for s in again.states] == [s.input for s in graph.states]


def test_norms_in_training_are_refused() -> None:
    module = nn.Sequential(nn.BatchNorm1d(4)).train()
    with pytest.raises(ModelError, match=r"running_mean.* training mode, call \.eval\(\)"):
        irc.from_torch(module, (torch.zeros(2, 4, 3),))


def test_a_running_mean_of_ones_own_is_a_state() -> None:
    class Centred(Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("running_mean", torch.zeros(3))

        def forward(self, x: Any) -> Any:
            self.running_mean += 0.1 * (x - self.running_mean)
            return x - self.running_mean

    graph = irc.from_torch(nn.Sequential(Centred()), (torch.ones(3),))
    assert [s.input for s in graph.states] == ["0.running_mean"]


def test_the_module_is_left_as_it_was() -> None:
    module = _Lstm().eval()
    before = copy.deepcopy(module.state_dict())
    irc.from_torch(module, (torch.ones(VECTOR),))
    assert all(torch.equal(a, before[n]) for n, a in module.state_dict().items())

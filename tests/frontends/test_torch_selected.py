"""Rows that a mask chooses, computed by themselves and put back: mixtures of experts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import irc
from irc.errors import ModelError
from irc.frontends.torch.selected import same
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add, Mul
from irc.ops.shape import Concat
from irc.ops.unary import Neg
from irc.types import Array, DType
from irc.value import Value
from tests.passes.nets import sqnr

torch = pytest.importorskip("torch")
DEPTH, EXPERTS = 8, 2


class Module(torch.nn.Module):  # type: ignore[name-defined]
    """Experts, a gate, and a function of these that says how tokens go through."""

    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        nn = torch.nn
        self.gate = nn.Linear(DEPTH, EXPERTS)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(DEPTH, DEPTH), nn.ReLU()) for _ in range(EXPERTS)
        )
        self.body = body

    def forward(self, x: Any) -> Any:
        return self.body(self, x)


def masks(m: Any, x: Any) -> Any:
    w, which = m.gate(x).softmax(-1).max(-1)
    y, chosen = torch.zeros_like(x), which == 1
    y[chosen] = m.experts[1](x[chosen]) * w[chosen][:, None]
    return y


def masks_twice(m: Any, x: Any) -> Any:
    y = torch.zeros_like(x)
    y[x[:, 0] > 0] += m.experts[0](x[x[:, 0] > 0])
    return y


def batches(m: Any, x: Any) -> Any:
    y = x.view(2, 5, DEPTH).clone()
    y[y[..., 0] > 0] = m.experts[0](y[y[..., 0] > 0])
    return y


def places(m: Any, x: Any) -> Any:
    y = torch.zeros_like(x)
    (t,) = (x[:, 0] > 0).nonzero(as_tuple=True)
    h = x[t]
    pairs = h.view(h.shape[0], 2, DEPTH // 2).transpose(1, 2).reshape(h.shape[0], DEPTH)
    y[t] = pairs.softmax(-1)
    return y


def columns(m: Any, x: Any) -> Any:
    """As Mistral has them: both columns may choose a row, but not for one expert."""
    w, which = torch.topk(m.gate(x), 2, -1)
    t, k = torch.where(which == 1)
    y = torch.zeros_like(x)
    y[t] += w[t, k, None] * x[t]
    return y


def last_of_columns(m: Any, x: Any) -> Any:
    """Several columns choose a row."""
    y = x.clone()
    t, k = torch.where(x > 0)
    y[t] = k[:, None] + x[t]
    return y


def one_for_all(m: Any, x: Any) -> Any:
    t = torch.where(x[:, 0] > 0)[0]
    y = x.clone()
    y[t] = 3.0
    y[t] += m.gate.weight[:1]
    return y


def number_of_one_row(m: Any, x: Any) -> Any:
    """A row is repeated as often as there are others."""
    chosen = x[x[:, 0] > 0]
    row = m.gate.weight[:1].expand(chosen.shape[0], DEPTH)
    return row.sum(0), (row * chosen).sum(0)


def added(m: Any, x: Any) -> Any:
    """As Mixtral has them."""
    w, which = torch.topk(m.gate(x).softmax(-1), 1, -1)
    y = torch.zeros_like(x)
    mask = torch.nn.functional.one_hot(which, EXPERTS).permute(2, 1, 0)
    for e, f in enumerate(m.experts):
        k, t = torch.where(mask[e])
        y.index_add_(0, t, f(x[t]) * w[t, k, None])
    return y


def elements(m: Any, x: Any) -> Any:
    y = x.clone()
    y[x > 0] = x[x > 0].exp() * 2
    return y


def counts(m: Any, x: Any) -> Any:
    rows, columns = torch.where(x > 0.5)
    return torch.zeros(len(x)).index_add_(0, rows, x[rows, columns])


def accumulated(m: Any, x: Any) -> Any:
    t = torch.where(x > 0.5)[0]
    return x.index_put((t,), m.experts[0](x[t]), accumulate=True)


def pooled(m: Any, x: Any) -> Any:
    chosen = m.experts[0](x)[x[:, 0] > -0.5]
    return chosen.mean(0), chosen.sum(-2, keepdim=True), chosen.sum(), chosen.mean((0, 1))


def each_by_itself(m: Any, x: Any) -> Any:
    chosen = x[x[:, 0] > -0.5]
    unit = torch.nn.functional.normalize(chosen, dim=-1) / chosen.std(-1, keepdim=True)
    return unit.sort(-1).values.sum(0)


TAKEN = [
    masks, masks_twice, batches, places, columns, last_of_columns, one_for_all, number_of_one_row,
    added, elements, counts, accumulated, pooled, each_by_itself,
]  # fmt: skip


def feeds(count: int, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(10, DEPTH)).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("body", TAKEN)
def test_rows_are_put_back(body: Any) -> None:
    module = Module(body).eval()
    graph = irc.from_torch(module, (torch.zeros(10, DEPTH),))
    for x in feeds(4):
        with torch.no_grad():
            wanted = module(torch.from_numpy(x))
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        found = irc.evaluate(graph, {"x": x}).values()
        for w, f in zip(wanted, found, strict=True):
            np.testing.assert_allclose(f, w.numpy(), rtol=1e-5, atol=1e-5)


def test_experts_in_integers() -> None:
    graph = irc.from_torch(Module(masks).eval(), (torch.zeros(10, DEPTH),))
    integers = irc.quantize(graph, calibration=[{"x": x} for x in feeds(8)])
    real, found = [], []
    for x in feeds(8, 1):
        real.append(irc.evaluate(graph, {"x": x})["output"])
        found.append(irc.evaluate(integers, {"x": x})["output"])
    assert sqnr(np.stack(real), np.stack(found)) > 15  # where gates are near, choices differ


def replaced(make: Callable[[Any], Any]) -> Callable[..., Any]:
    """x with what is made of its chosen rows in their place."""

    def body(m: Any, x: Any) -> Any:
        chosen, y = x[:, 0] > 0, x.clone()
        y[chosen] = make(x[chosen])
        return y

    return body


def first_rows(m: Any, x: Any) -> Any:
    """The elements are the first rows', their numbers those of chosen ones."""
    chosen, y = x[:, 0] > 0, x[:, :1].clone()
    y[chosen] = x.gather(1, x.argmax(1, keepdim=True)[chosen])
    return y


def of_fewer(m: Any, x: Any) -> Any:
    t, y = torch.where(x[:5, 0] > 0)[0], x.clone()
    y[t] = -x[t]
    return y


def others(m: Any, x: Any) -> Any:
    y = x.clone()
    y[x[:, 0] > 0] = x[x[:, 1] > 0]
    return y


REFUSED = {
    "chosen rows": (lambda m, x: x[x[:, 0] > 0], "index in .*no fixed shape"),
    "places": (lambda m, x: (x > 0).nonzero(), "nonzero in .*no fixed shape"),
    "others' places": (others, "index_put in .*each can only be computed by itself"),
    "a softmax over them": (replaced(lambda r: r.softmax(0)), "softmax in .*by itself"),
    "a sum of those before": (replaced(lambda r: r.cumsum(0)), "cumsum in .*by itself"),
    "turned round": (replaced(lambda r: r.flip(0)), "flip in .*by itself"),
    "products of two": (replaced(lambda r: r @ r.T @ r), "in .*by itself"),
    "beside the first ones": (first_rows, "gather in .*by itself"),
    "of fewer rows": (of_fewer, "index_put in .*by itself"),
    "their number": (replaced(lambda r: r / r.shape[0]), "sym_size in .*how many rows"),
    "their largest": (lambda m, x: x[x[:, 0] > 0].amax(0), "amax in .*by itself"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_rows_that_depend_on_others_are_refused(kind: str) -> None:
    body, message = REFUSED[kind]
    with pytest.raises(ModelError, match=message):
        irc.from_torch(Module(body).eval(), (torch.zeros(10, DEPTH),))


def test_what_is_computed_twice_is_the_same() -> None:
    """A chain of sums has more paths than can be walked, and is deeper than calls may be."""
    x = Input(DType.F32, (4,), name="x")

    def chain(last: float) -> Value:
        v: Value = Concat((x, Neg(x)), 0)
        for _ in range(2000):
            v = Add(v, v)
        return Concat((v, Mul(v, Const(np.array(last, np.float32)))), 0)

    assert same(chain(2.0), chain(2.0))
    assert not same(chain(2.0), chain(3.0))

"""Operators that run graphs of their own: loops turn by turn, attention by changed scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import irc
from irc.errors import ModelError
from tests.frontends.torch_peer import Module, agree, nn, reals, torch

ops: Any = pytest.importorskip("torch._higher_order_ops")
flex: Any = pytest.importorskip("torch.nn.attention.flex_attention")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9),
        reason="older versions of torch don't export these",
    ),
]


class Layered(Module):
    """A function of a layer and what is given."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.function = nn.Linear(4, 4), function

    def forward(self, *args: Any) -> Any:
        return self.function(self.layer, *args)


def mapped(layer: Any, rows: Any, y: Any) -> Any:
    return ops.map(lambda x, y: torch.relu(layer(x)) + y, rows, y)


def scanned(layer: Any, rows: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        new = torch.tanh(layer(h) + x)
        return new, new.clone()

    scan: Any = ops.scan
    return scan(step, torch.zeros(2, 4), rows, dim=1, reverse=True)


def looped(layer: Any, x: Any) -> Any:
    def step(i: Any, x: Any) -> Any:
        return i + 1, torch.tanh(layer(x))

    start = torch.tensor(0)
    return ops.while_loop(lambda i, x: i < 3, step, (start, x))[1]


LOOPS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "map": (mapped, [(3, 2, 4), (2, 4)]),
    "scan": (scanned, [(2, 3, 4)]),
    "while_loop": (looped, [(1, 4)]),
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops_are_written_out(name: str) -> None:
    function, shapes = LOOPS[name]
    agree(Layered(function), *(reals(*shape, seed=i) for i, shape in enumerate(shapes)))


def test_loops_that_data_end_are_refused() -> None:
    def doubled(_: Any, x: Any) -> Any:
        return ops.while_loop(lambda x: x.sum() < 10, lambda x: (x * 2,), (x,))[0]

    with pytest.raises(ModelError, match=r"while_loop in .* depends on data: .* torch\.where"):
        irc.from_torch(Layered(doubled), (torch.ones(1, 4),))


# ---------------------------------------------------------------- attention


def biased(q: Any, k: Any, v: Any) -> Any:
    """Causal, by a table of distances, with fewer keys' heads than queries'."""
    table = torch.linspace(-1, 1, 4 * 31).view(4, 31)

    def score(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        return torch.where(i >= j, s + table[h, i - j + 15] * (j - i), -float("inf"))

    return flex.flex_attention(q, k, v, score_mod=score, enable_gqa=True, scale=0.3)


def windowed(q: Any, k: Any, v: Any) -> Any:
    """Of which the first row sees nothing."""

    def near(b: Any, h: Any, i: Any, j: Any) -> Any:
        return (j < i) & (i - j <= 4)

    mask = flex.create_block_mask(near, None, None, 16, 16, device="cpu", BLOCK_SIZE=16)
    return flex.flex_attention(
        q, k, v, score_mod=lambda s, *_: 5 * torch.tanh(s / 5), block_mask=mask
    )


@pytest.mark.parametrize(("function", "heads"), [(biased, 2), (windowed, 4)])
def test_attention_whose_scores_are_changed(function: Any, heads: int) -> None:
    q, k, v = (reals(2, n, 16, 16, seed=i) for i, n in enumerate((4, heads, heads)))
    agree(function, q, k, v)


def test_attention_of_what_is_trained() -> None:
    def attention(layer: Any, x: Any) -> Any:
        return flex.flex_attention(layer(x), x, x, score_mod=lambda s, b, h, i, j: s + i - j)

    agree(Layered(attention), reals(1, 2, 8, 4))


def test_attention_within_documents_that_come_at_run_time() -> None:
    def within(q: Any, k: Any, v: Any, document: Any) -> Any:
        def same(b: Any, h: Any, i: Any, j: Any) -> Any:
            return document[i] == document[j]

        mask = flex.create_block_mask(same, None, None, 16, 16, device="cpu", BLOCK_SIZE=16)
        return flex.flex_attention(q, k, v, block_mask=mask)

    given = [reals(1, 2, 16, 16, seed=i) for i in range(3)]
    given.append(torch.tensor([0] * 5 + [1] * 6 + [2] * 5))
    graph = agree(within, *given)
    feed = {v.name: x.numpy() for v, x in zip(graph.inputs, given, strict=True)}
    model = irc.compile(irc.quantize(graph, calibration=[feed]))
    found, wanted = model(feed), irc.compile(model.graph, backend="reference")(feed)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


def blocks(*numbers: int) -> Any:
    """The first so many blocks of each row."""
    count = torch.tensor([[numbers]], dtype=torch.int32)
    return count, torch.arange(2, dtype=torch.int32).expand(1, 1, len(numbers), 2).contiguous()


def causal(b: Any, h: Any, i: Any, j: Any) -> Any:
    return j <= i


@pytest.mark.parametrize("mask", [None, causal], ids=["all", "causal"])
@pytest.mark.parametrize("full", [False, True], ids=["partial", "full"])
def test_blocks_that_are_listed_are_what_counts(mask: Any, full: bool) -> None:
    """As kernels of flex_attention have it; run one operator at a time, torch reads masks alone."""
    more = blocks(0, 1) if full else (None, None)
    partial = blocks(2, 0) if full else blocks(1, 2)
    made = flex.BlockMask.from_kv_blocks(*partial, *more, BLOCK_SIZE=8, mask_mod=mask)

    def attention(q: Any, k: Any, v: Any) -> Any:
        return flex.flex_attention(q, k, v, block_mask=made)

    given = [reals(2, 3, 16, 8, seed=i) for i in range(3)]
    graph = irc.from_torch(Layered(lambda _, *args: attention(*args)), tuple(given))
    counts = torch.ones(16, 16, dtype=torch.bool)
    if mask:
        counts = counts.tril()
    counts[8 * full : 8 * full + 8, 8:] &= False
    if full:
        counts[8:, :8] = True
    feed = {v.name: x.numpy() for v, x in zip(graph.inputs, given, strict=True)}
    (found,) = irc.evaluate(graph, feed).values()
    wanted = nn.functional.scaled_dot_product_attention(*given, attn_mask=counts)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_listed_blocks_of_a_mask_that_comes_at_run_time() -> None:
    def attention(_: Any, q: Any, keep: Any) -> Any:
        def kept(b: Any, h: Any, i: Any, j: Any) -> Any:
            return keep[j] > 0

        made = flex.BlockMask.from_kv_blocks(*blocks(1, 2), BLOCK_SIZE=8, mask_mod=kept)
        return flex.flex_attention(q, q, q, block_mask=made)

    q, keep = reals(1, 2, 16, 8), torch.tensor([1.0] * 3 + [0.0] * 7 + [1.0] * 6)
    graph = irc.from_torch(Layered(attention), (q, keep))
    feed = {v.name: x.numpy() for v, x in zip(graph.inputs, (q, keep), strict=True)}
    (found,) = irc.evaluate(graph, feed).values()
    counts = (keep > 0).expand(16, 16).clone()
    counts[:8, 8:] = False
    wanted = nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=counts)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_blocks_that_depend_on_data_are_refused() -> None:
    def attention(_: Any, q: Any, count: Any) -> Any:
        made = flex.BlockMask.from_kv_blocks(
            count, blocks(1, 2)[1], BLOCK_SIZE=8, mask_mod=causal
        )
        return flex.flex_attention(q, q, q, block_mask=made)

    given = reals(1, 2, 16, 8), blocks(1, 2)[0]
    with pytest.raises(ModelError, match=r"depend on data.* create_block_mask"):
        irc.from_torch(Layered(attention), given)


def test_what_turns_may_not_do_is_refused_with_the_cure() -> None:
    def many(_: Any, x: Any) -> Any:
        return ops.map(torch.relu, x)

    def turned(_: Any, x: Any) -> Any:
        return ops.map(lambda x: torch.fft.fft(x), x).real

    with pytest.raises(ModelError, match=r"1001 turns .*: give a call fewer rows"):
        irc.from_torch(Layered(many), (torch.ones(1001, 2),))
    with pytest.raises(ModelError, match=r"complex results .*torch\.view_as_real"):
        irc.from_torch(Layered(turned), (torch.ones(3, 4),))

"""Every ATen operator of the table: what we import evaluates to what torch computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

import irc
from irc.errors import ModelError
from tests.frontends.torch_peer import F, Function, Module, agree, nn, reals, torch


class Several(Module):
    """Modules side by side, each with an input of its own."""

    def __init__(self, modules: Iterable[Any]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, *args: Any) -> Any:
        return [part(x) for part, x in zip(self.parts, args, strict=True)]


def settled(norm: Any) -> Any:
    """A norm whose numbers are not those that it begins with."""
    with torch.no_grad():
        for tensor in norm.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    return norm


WINDOWS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(1, 0)), (1, 3, 8, 7)),
    "conv2d_dilated": (lambda: nn.Conv2d(3, 4, 3, dilation=2, bias=False), (1, 3, 8, 8)),
    "conv2d_grouped": (lambda: nn.Conv2d(6, 4, 3, groups=2), (1, 6, 5, 5)),
    "conv2d_depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4, padding=1), (1, 4, 5, 5)),
    "conv2d_same": (lambda: nn.Conv2d(2, 3, 4, padding="same"), (1, 2, 6, 6)),
    "conv2d_valid": (lambda: nn.Conv2d(2, 3, 3, padding="valid"), (1, 2, 6, 6)),
    "conv2d_reflect": (
        lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (1, 2, 6, 6)
    ),
    "conv2d_unbatched": (lambda: nn.Conv2d(2, 3, 3), (2, 6, 6)),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(4, 3, 3, stride=2, padding=1), (1, 4, 5)),
    "conv_transpose2d": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        (1, 4, 4, 5),
    ),
    "max_pool1d": (lambda: nn.MaxPool1d(3, 2, padding=1), (1, 2, 9)),
    "max_pool2d": (lambda: nn.MaxPool2d(3, 2, padding=1, dilation=2), (1, 2, 9, 9)),
    "max_pool2d_ceil": (lambda: nn.MaxPool2d(3, 2, ceil_mode=True), (1, 2, 8, 8)),
    "avg_pool1d": (lambda: nn.AvgPool1d(2), (1, 2, 8)),
    "avg_pool2d": (lambda: nn.AvgPool2d(3, 2, padding=1), (1, 2, 9, 9)),
    "avg_pool2d_inside": (
        lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), (1, 2, 9, 9)
    ),
    "avg_pool2d_ceil": (lambda: nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), (1, 2, 8, 8)),
    "adaptive_avg_pool1d": (lambda: nn.AdaptiveAvgPool1d(3), (1, 2, 9)),
    "adaptive_avg_pool2d": (lambda: nn.AdaptiveAvgPool2d((1, 1)), (1, 2, 6, 5)),
    "adaptive_avg_pool2d_even": (lambda: nn.AdaptiveAvgPool2d((3, 2)), (1, 2, 6, 8)),
    "adaptive_avg_pool2d_overlapping": (lambda: nn.AdaptiveAvgPool2d((4, None)), (1, 2, 5, 3)),
    "adaptive_max_pool2d": (lambda: nn.AdaptiveMaxPool2d(2), (1, 2, 6, 6)),
    "batch_norm1d": (lambda: settled(nn.BatchNorm1d(5)), (3, 5)),
    "batch_norm2d": (lambda: settled(nn.BatchNorm2d(3)), (2, 3, 4, 4)),
    "batch_norm2d_plain": (lambda: settled(nn.BatchNorm2d(3, affine=False)), (1, 3, 4, 4)),
    "layer_norm": (lambda: settled(nn.LayerNorm((3, 4))), (2, 3, 4)),
    "layer_norm_plain": (lambda: nn.LayerNorm(4, elementwise_affine=False), (2, 3, 4)),
    "group_norm": (lambda: settled(nn.GroupNorm(2, 6)), (2, 6, 3, 4)),
    "instance_norm1d": (lambda: settled(nn.InstanceNorm1d(3, affine=True)), (2, 3, 5)),
    "instance_norm2d": (lambda: nn.InstanceNorm2d(3), (2, 3, 4, 5)),
    "rms_norm": (lambda: settled(nn.RMSNorm(4)), (2, 3, 4)),
    "linear": (lambda: nn.Linear(4, 3), (2, 5, 4)),
    "linear_plain": (lambda: nn.Linear(4, 3, bias=False), (4,)),
    "bilinear_up": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), (1, 2, 3, 4)),
    "bilinear_corners": (
        lambda: nn.Upsample(size=(7, 5), mode="bilinear", align_corners=True), (1, 2, 3, 4)
    ),
    "linear_up": (lambda: nn.Upsample(scale_factor=2, mode="linear"), (1, 2, 5)),
    "nearest": (lambda: nn.Upsample(scale_factor=(2, 1.5)), (1, 2, 4, 4)),
    "nearest_size": (lambda: nn.Upsample(size=(5, 7)), (1, 2, 3, 4)),
    "nearest_exact": (lambda: nn.Upsample(size=(5, 7), mode="nearest-exact"), (1, 2, 3, 4)),
    "pixel_shuffle": (lambda: nn.PixelShuffle(2), (1, 8, 3, 2)),
    "pixel_unshuffle": (lambda: nn.PixelUnshuffle(2), (1, 2, 6, 4)),
    "channel_shuffle": (lambda: nn.ChannelShuffle(2), (1, 6, 2, 2)),
    "reflection_pad": (lambda: nn.ReflectionPad2d((1, 2, 0, 1)), (1, 2, 4, 4)),
    "replication_pad": (lambda: nn.ReplicationPad1d((1, 2)), (1, 2, 4)),
    "zero_pad": (lambda: nn.ZeroPad2d((1, 2, 3, 0)), (1, 2, 4, 4)),
    "dropout": (lambda: nn.Dropout(0.5), (2, 3)),
    "glu": (lambda: nn.GLU(1), (1, 4, 3)),
    "prelu": (lambda: nn.PReLU(3, init=0.3), (1, 3, 4, 4)),
    "prelu_single": (nn.PReLU, (2, 3)),
}  # fmt: skip


def test_layers() -> None:
    torch.manual_seed(1)
    modules = [make() for make, _ in WINDOWS.values()]
    agree(Several(modules), *(reals(*shape) for _, shape in WINDOWS.values()), names=WINDOWS)


ACTIVATIONS = (
    "ReLU", "ReLU6", "Sigmoid", "Tanh", "Hardsigmoid", "Hardswish", "SiLU", "GELU", "ELU", "CELU",
    "SELU", "LeakyReLU", "Softplus", "Softsign", "Mish", "Hardtanh", "LogSigmoid", "Tanhshrink",
)  # fmt: skip


def test_activations() -> None:
    modules = [getattr(nn, name)() for name in ACTIVATIONS]
    agree(Several(modules), *([reals(2, 5) * 3] * len(modules)), names=ACTIVATIONS)


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "add_scalar": lambda x: x + 1,
    "add_alpha": lambda x: torch.add(x, x * x, alpha=0.5),
    "rsub": lambda x: 1 - x,
    "div": lambda x: x / (x.abs() + 2),
    "div_scalar": lambda x: 3 / (x + 5),
    "pow": lambda x: x**2,
    "cube": lambda x: (x + 3) ** 3,
    "exp": lambda x: torch.exp(x) + torch.expm1(x) + torch.log1p(x + 3) + torch.log2(x + 3),
    "rsqrt": lambda x: torch.rsqrt(x + 3) + torch.sqrt(x + 3) + torch.reciprocal(x + 3),
    "round": lambda x: torch.floor(x) + torch.ceil(x) + torch.round(x) + torch.sign(x),
    "waves": lambda x: torch.sin(x) + torch.cos(x) + torch.erf(x),
    "clamp": lambda x: x.clamp(-1, 0.5) + x.clamp_min(0) + x.clamp(max=1),
    "maximum": lambda x: torch.maximum(x, x.flip(0)) + torch.minimum(x, -x),
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "where": lambda x: torch.where(x > 0, x, -x * 2),
    "masked": lambda x: x.masked_fill(torch.tensor([[True], [False], [True], [True]]), 3.0),
    "mask": lambda x: torch.where((x > 0) & ~(x >= 1) | (x == 0), x, torch.zeros_like(x)),
    "mean": lambda x: x.mean(-1) + x.mean(),
    "sum": lambda x: x.sum(1, keepdim=True) + x.sum(),
    "extremes": lambda x: x.amax(-1) + x.amin((1, 2)).unsqueeze(1) + x.max() + x.min(),
    "max_axis": lambda x: x.max(1).values,
    "var": lambda x: x.var(-1) + x.std((1, 2), unbiased=False).unsqueeze(1),
    "norm": lambda x: F.normalize(x, dim=-1),
    "logsumexp": lambda x: x.logsumexp(1),
    "softmax": lambda x: F.softmax(x, 1) + F.log_softmax(x, -1),
    "view": lambda x: x.view(3, -1).reshape(6, 2, -1),
    "permute": lambda x: x.permute(2, 0, 1).transpose(0, 1).mT,
    "squeeze": lambda x: x.unsqueeze(-1).unsqueeze(0).squeeze(-1).squeeze(),
    "expand": lambda x: x[:, :1].expand(-1, 4, -1) + x[0, 0].expand_as(x),
    "repeat": lambda x: x.repeat(2, 1, 1, 2),
    "cat": lambda x: torch.cat([x, x * 2, x.new_zeros(3, 4, 1)], -1),
    "stack": lambda x: torch.stack([x, -x], 1),
    "split": lambda x: x.split([1, 3], 1)[1],
    "chunk": lambda x: torch.cat(x.chunk(3, -1)[::-1], -1),
    "unbind": lambda x: x.unbind(1)[2],
    "slice": lambda x: x[1:, ::2, -3:],
    "select": lambda x: x[-1, 2],
    "index": lambda x: x[:, torch.tensor([3, 0, -1])],
    "grid": lambda x: x[:, torch.tensor([[1], [0]]), torch.tensor([2, 4, 0])],
    "index_select": lambda x: x.index_select(2, torch.tensor([0, 2])),
    "flip": lambda x: x.flip((0, -1)),
    "roll": lambda x: x.roll((1, -2), (0, 2)) + x.roll(5),
    "pad": lambda x: F.pad(x, (1, -1, 2, 0), value=1.5),
    "assign": lambda x: torch.select_scatter(x, x[:, 1], 1, 0),
    "in_place": lambda x: (x.clone().mul_(2).add_(x)).relu_(),
    "arange": lambda x: x + torch.arange(x.shape[-1]) * torch.ones(4, 1),
    "tril": lambda x: x.tril(),
    "matmul": lambda x: x @ x.mT @ torch.arange(12.0).view(4, 3),
    "einsum": lambda x: torch.einsum("bij,kj->bik", x, torch.ones(2, x.shape[-1])),
    "outer": lambda x: torch.einsum("bi,bj->bij", x[:, 0], x[:, 1]),
    "addmm": lambda x: torch.addmm(torch.ones(2), x[0], torch.ones(x.shape[-1], 2), alpha=2),
    "baddbmm": lambda x: torch.baddbmm(x[:, :, :4], x, x.mT, beta=0.5, alpha=0.25),
    "attention": lambda x: F.scaled_dot_product_attention(x, x * 2, x + 1),
    "causal": lambda x: F.scaled_dot_product_attention(x, x * 2, x + 1, is_causal=True),
    "bfloat": lambda x: (x * 0 + 3).bfloat16().float() * x,
    "mixed": lambda x: x.int() + x,
}


def test_functions() -> None:
    agree(lambda x: [f(x) for f in FUNCTIONS.values()], reals(3, 4, 6), names=FUNCTIONS)


def test_the_log_of_a_sum_of_nothing() -> None:
    """A row that is masked as a whole."""
    x = torch.full((2, 3), -torch.inf)
    x[0, 1] = 2.0
    graph = irc.from_torch(Function(lambda x: x.logsumexp(1)), (x,))
    with np.errstate(divide="ignore"):
        (found,) = irc.evaluate(graph, {graph.inputs[0].name: x.numpy()}).values()
    np.testing.assert_allclose(found, [2.0, -np.inf])


def test_embedding_takes_integers() -> None:
    agree(nn.Embedding(7, 3), torch.tensor([[1, 6, 0]]))


def test_attention_of_a_module_and_a_mask() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    agree(layer, reals(1, 5, 8))
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    x = reals(1, 2, 5, 4)
    agree(lambda q: F.scaled_dot_product_attention(q, q, q, attn_mask=mask), x)


@pytest.mark.parametrize("known", [False, True])
def test_queries_that_see_no_key(known: bool) -> None:
    """Padding within a window: of sequences shorter than the rest, torch gives zeros."""
    window = torch.ones(5, 5, dtype=torch.bool).tril(1).triu(-1)
    there = torch.tensor([[True, True, False, False, False], [True] * 5])

    def attend(q: Any, there: Any) -> Any:
        mask = window & there[:, None, None, :]
        return F.scaled_dot_product_attention(q, q, q, attn_mask=mask)

    x = reals(2, 2, 5, 4)
    assert not attend(x, there)[0, :, 4].any()
    if known:
        agree(lambda q: attend(q, there), x)
    else:
        agree(attend, x, there)


def test_queries_that_see_no_key_by_masks_that_are_added() -> None:
    """As `MultiheadAttention` adds them of a window and padding; of constants in any form."""
    x, inf = reals(2, 5, 4), float("-inf")
    there = torch.tensor([[False, False, True, True, True], [True] * 5])
    later = ~torch.ones(5, 5, dtype=torch.bool).tril()

    def attend(x: Any, there: Any) -> Any:
        padding = torch.zeros(2, 5).masked_fill(~there, inf).reshape(2, 1, 5)
        mask = torch.zeros(5, 5).masked_fill(later, inf) + padding
        return F.scaled_dot_product_attention(x, x, x, attn_mask=mask)

    assert not attend(x, there)[0, :2].any()
    agree(attend, x, there)
    nobody = torch.zeros(2, 1, 5).masked_fill(torch.tensor([[[True]], [[False]]]), inf)
    for mask in (nobody, nobody == 0, nobody.expand(2, 5, 5)):
        agree(lambda x, m=mask: F.scaled_dot_product_attention(x, x, x, attn_mask=m), x)


def test_grouped_queries() -> None:
    q, k = reals(1, 4, 3, 2), reals(1, 2, 3, 2, seed=1)
    agree(lambda q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True), q, k)


def test_recurrent_layers_are_unrolled() -> None:
    torch.manual_seed(2)
    agree(Function(nn.LSTM(4, 3, bidirectional=True)), reals(5, 1, 4))
    agree(Function(nn.GRU(4, 3, batch_first=True)), reals(1, 5, 4))


REFUSED: dict[str, tuple[Any, str]] = {
    "training": (nn.BatchNorm2d(2, track_running_stats=False), "training mode"),
    "dropout": (lambda x: F.dropout(x, 0.5), "training mode"),
    "random": (lambda x: x + torch.rand(5), "random numbers"),
    "indices": (nn.AdaptiveMaxPool2d(2, return_indices=True), "output 1 is not supported"),
    "divisor": (nn.AvgPool2d(2, divisor_override=3), "divisor_override = 3"),
    "boolean index": (lambda x: x[x > 0], "its result has no fixed shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusal(case: str) -> None:
    module, message = REFUSED[case]
    made = (module if isinstance(module, Module) else Function(module)).eval()
    with pytest.raises(ModelError, match=message):
        irc.from_torch(made, (reals(1, 2, 5, 5),))

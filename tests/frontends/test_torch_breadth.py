"""What torch.nn and torch's functions offer beyond `test_torch_ops`: torch and `evaluate` agree, in
slow tests the integer library too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pytest

import irc
from irc.errors import ModelError
from tests.frontends.single_op import model as onnx_model
from tests.frontends.single_op import node as onnx_node
from tests.frontends.torch_peer import F, Function, Module, agree, nn, reals, torch

IMAGE, ROW, VOLUME = (1, 4, 6, 8), (1, 4, 9), (1, 2, 5, 6, 7)
TOKENS, CUBE = (2, 5, 8), (3, 4, 6)
Layer = Callable[[], Any]
Case = tuple[Layer, tuple[int, ...]]


def volumes() -> dict[str, Case]:
    """Three spatial axes, and what all numbers of them have."""
    cases: dict[str, Case] = {
        "conv3d": (lambda: nn.Conv3d(2, 4, 3, stride=2, padding=1), VOLUME),
        "conv3d_dilated": (lambda: nn.Conv3d(2, 3, 2, dilation=2, groups=1), VOLUME),
        "conv3d_depthwise": (lambda: nn.Conv3d(2, 4, 3, groups=2, padding=1), VOLUME),
        "conv_transpose3d": (lambda: nn.ConvTranspose3d(2, 3, 3, stride=2, padding=1), VOLUME),
        "max_pool3d": (lambda: nn.MaxPool3d(3, 2, 1), VOLUME),
        "avg_pool3d": (lambda: nn.AvgPool3d(3, 2, 1, count_include_pad=False), VOLUME),
        "batch_norm3d": (lambda: nn.BatchNorm3d(2), VOLUME),
        "instance_norm3d": (lambda: nn.InstanceNorm3d(2, affine=True), VOLUME),
        "reflection_pad3d": (lambda: nn.ReflectionPad3d(1), VOLUME),
        "lp_pool3d": (lambda: nn.LPPool3d(2, 2), VOLUME),
    }
    for axes, shape in ((1, ROW), (2, IMAGE), (3, VOLUME)):
        for out in (2, 3, 4):
            for kind in ("Avg", "Max"):
                layer = getattr(nn, f"Adaptive{kind}Pool{axes}d")
                cases[f"adaptive_{kind}{axes}d_{out}"] = partial(layer, out), shape
        around, roots = getattr(nn, f"CircularPad{axes}d"), getattr(nn, f"LPPool{axes}d")
        cases[f"circular_pad{axes}d"] = partial(around, 2), shape
        cases[f"lp_pool{axes}d"] = partial(roots, 2, 2), shape
        conv, channels = getattr(nn, f"Conv{axes}d"), shape[1]
        cases[f"conv{axes}d_circular"] = (
            partial(conv, channels, 3, 3, padding=1, padding_mode="circular"), shape
        )  # fmt: skip
    return cases


class Unpooled(Module):
    """A pool whose maxima go back to where they were, and their places."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.pool = getattr(nn, f"MaxPool{axes}d")(2, return_indices=True)
        self.back = getattr(nn, f"MaxUnpool{axes}d")(2)

    def forward(self, x: Any) -> Any:
        y, places = self.pool(x)
        return self.back(y * 2, places, output_size=x.shape), places


class Neighbours(Module):
    """Rows that a sparse matrix in a buffer adds up."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("near", torch.eye(4)[[0, 2, 2, 1]].to_sparse())
        self.register_buffer("far", torch.eye(4)[[3, 1, 0, 0]].to_sparse_csr())

    def forward(self, x: Any) -> Any:
        return torch.sparse.mm(self.near, x) + self.far @ x


def resized(**options: Any) -> Layer:
    return lambda: Function(lambda x: F.interpolate(x, **options))


LAYERS: dict[str, Case] = {
    **volumes(),
    "cubic": (resized(size=(9, 13), mode="bicubic"), IMAGE),
    "cubic_corners": (resized(size=(9, 13), mode="bicubic", align_corners=True), IMAGE),
    "cubic_factor": (resized(scale_factor=1.7, mode="bicubic"), IMAGE),
    "area": (resized(size=(4, 5), mode="area"), IMAGE),
    "trilinear": (resized(size=(7, 5, 4), mode="trilinear"), VOLUME),
    "nearest3d": (resized(scale_factor=2), VOLUME),
    "nearest_exact3d": (resized(size=(7, 5, 4), mode="nearest-exact"), VOLUME),
    "smooth_linear": (resized(size=(3, 5), mode="bilinear", antialias=True), IMAGE),
    "smooth_cubic": (resized(size=(3, 11), mode="bicubic", antialias=True), IMAGE),
    "local_response": (lambda: nn.LocalResponseNorm(3), IMAGE),
    "fold": (lambda: nn.Fold((6, 8), 3, stride=2, padding=1), (1, 18, 12)),
    "unfold": (lambda: nn.Unfold((2, 3), dilation=2, padding=1, stride=2), IMAGE),
    "unpool1d": (lambda: Unpooled(1), (2, 3, 9)),
    "unpool2d": (lambda: Unpooled(2), IMAGE),
    "unpool3d": (lambda: Unpooled(3), (1, 1, 4, 4, 4)),
    "unpool_one_image": (
        lambda: Function(lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True)), (4, 6, 8)
    ),
    "strided": (lambda: Function(lambda x: x.as_strided((5, 3, 4), (9, 2, 1), 1)), CUBE),
    "sparse": (Neighbours, (4, 6)),
    "hard_shrink": (nn.Hardshrink, CUBE),
    "soft_shrink": (nn.Softshrink, CUBE),
    "threshold": (lambda: nn.Threshold(0.1, 2), CUBE),
    "random_relu": (nn.RReLU, CUBE),
    "weight_norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 3, 3)), IMAGE),
    "spectral_norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 3)), TOKENS),
    "lstm_projected": (lambda: Last(nn.LSTM(4, 3, proj_size=2)), (5, 2, 4)),
    "lstm_projected_twice": (
        lambda: Last(nn.LSTM(4, 3, 2, bidirectional=True, proj_size=2, bias=False)), (4, 1, 4)
    ),
    "encoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
        TOKENS,
    ),
    "attention": (lambda: Attention(nn.MultiheadAttention(8, 2, batch_first=True)), TOKENS),
    "attention_bias": (
        lambda: Attention(nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True)),
        TOKENS,
    ),
}  # fmt: skip


class Last(Module):
    """A recurrent layer's results, flat."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return torch.utils._pytree.tree_leaves(self.layer(x))


class Attention(Module):
    """Self-attention with its weights."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x, x, x)


def places(*rows: int) -> Any:
    return torch.tensor(rows)


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "inverse": lambda x: torch.asin(x / 4) + torch.acos(x / 4) + torch.atan(x) + torch.asinh(x),
    "hyperbolic": lambda x: torch.sinh(x) + torch.cosh(x) + torch.atanh(x / 4) + torch.tan(x / 2),
    "acosh": lambda x: torch.acosh(x + 4),
    "powers": lambda x: torch.exp2(x) + torch.log10(x + 3) + torch.square(x) + torch.erfc(x),
    "parts": lambda x: torch.trunc(x) + torch.frac(x) + torch.round(x, decimals=1),
    "remainders": lambda x: torch.fmod(x, 0.7) + x % 0.7 + x // 0.7,
    "divided": lambda x: torch.div(x, 0.7, rounding_mode="trunc"),
    "joined": lambda x: torch.hypot(x, x + 1) + torch.logaddexp(x, 2 * x),
    "entropy": lambda x: torch.xlogy(F.relu(x), F.relu(x)) - torch.special.xlog1py(x, F.relu(x)),
    "numbers": lambda x: torch.nan_to_num(x) * torch.isfinite(x) + torch.isnan(x).float(),
    "steps": lambda x: torch.heaviside(x, torch.tensor(0.5)) + torch.where(x > 0, 1.0, -1.0),
    "infinite": lambda x: torch.where(x > 0, x, -torch.inf).softmax(-1),
    "masked": lambda x: (x[:, :, :4] + torch.full((4, 4), -torch.inf).triu(1)).softmax(-1),
    "any": lambda x: (x > 1).any(1).float() + (x > -1).all(1).float() + (x > 0).any().float(),
    "cumsum": lambda x: x.cumsum(1) + x.cumsum(-1),
    "filters": lambda x: [
        F.conv2d(x[None], x[:2, None, :3, :3].tile(1, 3, 1, 1), x[0, 0, :2], padding=1),
        F.conv2d(x[None], x[:, None, :2, :3], groups=3, stride=(2, 1), dilation=(1, 2)),
        F.conv1d(x, x[:2, :4, :3], padding=2, stride=2),
    ],
    "running": lambda x: [
        x.cumprod(1), (x[..., :5] / 2).cumprod(-1), x.cummax(-1).values, x.cummin(1).values,
        x.logcumsumexp(-1),
    ],
    "distances": lambda x: [
        torch.cdist(x, x[:, :3]), torch.cdist(x, x[0], p=1), torch.cdist(x[0], x[1], p=torch.inf),
    ],
    "prod": lambda x: [x.prod(-1), x.prod(1, keepdim=True), x[0, 0, :3].prod()],
    "argmax": lambda x: [x.argmax(1), x.argmax(), x.argmin(-1, keepdim=True)],
    "max": lambda x: [*x.max(1), *x.min(-1, keepdim=True)],
    "topk": lambda x: [*x.topk(2, -1), *x.topk(2, 1, largest=False)],
    "sort": lambda x: [*x.sort(1), x.argsort(-1, descending=True), x.msort()],
    "median": lambda x: [*x.median(1), x.median(), *x.kthvalue(2, 1)],
    "moments": lambda x: [*torch.var_mean(x, 1), *torch.std_mean(x, (0, 2), keepdim=True)],
    "norms": lambda x: x.norm(dim=-1) + x.norm(p=1, dim=-1) + x.norm(p=torch.inf, dim=-1),
    "gradients": lambda x: [
        torch.ops.aten.silu_backward(x, x * 2),
        *torch.native_layer_norm(x, (4, 6), None, None, 1e-3),
    ],
    "computed parameters": lambda x: [
        F.layer_norm(x, (4, 6), x[0], x[1]), F.prelu(x, x[0, :, 0]),
        F.conv1d(x, torch.ones(5, 4, 3), x[0, 0, :5]),
        F.batch_norm(x, torch.ones(4), x[1, :, 0] ** 2 + 1, x[0, :, 0], x[0, :, 1]),
        F.group_norm(x, 2, x[0, :, 0]),
    ],
    "counted": lambda x: [torch.count_nonzero(x > 0, 1), *torch.aminmax(x, dim=1)],
    "buckets": lambda x: [
        torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0])),
        torch.searchsorted(torch.tensor([-1.0, 0.0, 1.0]), x, right=True),
        torch.searchsorted(x.sort(-1)[0], x[..., ::2] + 0.5, side="right"),
    ],
    "gather": lambda x: x.gather(1, places(0, 1, 2, 3, 2, 1).expand(3, 1, 6)),
    "gather_own": lambda x: torch.take_along_dim(x, x.argsort(1), 1),
    "take": lambda x: x.take(places(0, 5, -7)),
    "pairs": lambda x: [x[places(0, 1), places(1, 2)], x[places(0, 1), :, places(1, 2)]],
    "pairs_inside": lambda x: x[:, places(0, 1)[:, None], places(1, 2)],
    "chosen": lambda x: x[:, torch.tensor([True, False, True, False])],
    "scatter": lambda x: x.scatter(1, places(0, 1, 2, 3, 2, 1).expand(3, 1, 6), 0.5),
    "scatter_own": lambda x: x.scatter(1, x.argmax(1, keepdim=True), 9.0),
    "scatter_add": lambda x: torch.zeros(3, 4, 6).scatter_add(
        1, places(0, 2, 2).expand(3, 2, 3), x
    ),
    "scatter_reduced": lambda x: [
        torch.ones(3, 4, 6).scatter_reduce(
            1, places(0, 2, 2).view(1, 3, 1).expand(3, 3, 6), x[:, :3], how, include_self=own
        ) for how in ("sum", "mean", "amax", "prod") for own in (True, False)
    ],
    "added at run time": lambda x: [
        torch.zeros(5, 6).index_add(0, x[0].argmax(-1) % 5, x[1]),
        torch.zeros(3, 5, 6).scatter_add(1, (x.argmax(-1) % 5)[..., None].expand(3, 4, 6), x),
        torch.zeros(5, 6).scatter_add(0, (x[0].argmax(-1) % 5).view(-1, 1).expand(4, 6), x[1]),
    ],
    "index_add": lambda x: x.index_add(1, places(0, 2), torch.ones(3, 2, 6), alpha=2),
    "index_reduce": lambda x: [
        x.index_reduce(1, places(0, 2, 2), x[:, :3], how, include_self=own)
        for how in ("mean", "amax") for own in (True, False)
    ],
    "averaged at run time": lambda x: [
        y.index_reduce(0, x[0].argmax(-1) % 5, x[1], "mean", include_self=own)
        for y in (torch.zeros(5, 6), x[2].flatten().repeat(2)[:30].view(5, 6))
        for own in (True, False)
    ],
    "index_copy": lambda x: x.index_copy(1, places(0, 2), torch.ones(3, 2, 6)),
    "index_fill": lambda x: x.index_fill(1, places(0, 3), 5.0),
    "index_put": lambda x: x.index_put((places(0, 1),), torch.ones(4, 6)),
    "assigned": lambda x: assigned(x.clone()),
    "scatter_extremes_at_run_time": lambda x: [
        x.scatter_reduce(1, x.argmax(1, keepdim=True), x.flip(1), "amin"),
        torch.zeros(5, 6).scatter_reduce(
            0, (x[0].argmax(-1) % 5).view(-1, 1).expand(4, 6), x[1], "amax", include_self=False
        ),
        torch.zeros(5, 6).scatter_reduce(
            0, (x[0].argmax(-1) % 5).view(-1, 1).expand(4, 6), x[1], "sum", include_self=False
        ),
    ],
    "slices": lambda x: [
        x.slice_scatter(torch.zeros(3, 2, 6), 1, 0, 4, 2),
        x.slice_scatter(torch.zeros(3, 2, 6), 1, 1, 3),
        x.slice_scatter(torch.zeros(3, 4, 4), 2, 2),
        x.slice_scatter(torch.zeros(3, 4, 6), 2),
        x.slice_scatter(torch.zeros(3, 0, 6), 1, 2, 2),
    ],
    "diagonal": lambda x: [x.diagonal(1, 1, 2), x.diagonal(-1), torch.diag_embed(x[0])],
    "windows": lambda x: x.unfold(2, 3, 2),
    "around": lambda x: F.pad(x, (1, 2), mode="circular"),
    "one_hot": lambda x: F.one_hot(x.argmax(1), 4).float(),
    "whole": lambda x: [x.argmax(1) & 1, x.argmax(1).int() << 1, x.argmax(1) // 2, x.argmax(1) % 2],
    "bits": lambda x: [~x.argmax(1), x.argmax(1) ^ 3, (x > 0) & ~(x > 1), (x > 0) ^ (x > 1)],
    "products": lambda x: [
        torch.addmv(x[0, :, 0], x[0], x[0, 0]), torch.addbmm(x[0, :, :4], x, x.mT),
        torch.kron(x[0], x[1]), torch.linalg.vecdot(x, x),
    ],
    "grid": lambda x: F.grid_sample(x[None], grid(), mode="bicubic", align_corners=False),
    "affine": lambda x: F.grid_sample(
        x[None], F.affine_grid(torch.tensor([[[0.7, 0.1, 0], [0.2, 0.8, 0.1]]]), (1, 3, 4, 6)),
        padding_mode="reflection", align_corners=True,
    ),
}  # fmt: skip


def grid() -> Any:
    lines = torch.linspace(-1, 1, 3), torch.linspace(-1, 1, 5)
    return torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], -1)[None] * 0.9


def assigned(x: Any) -> Any:
    x[:, 1:3] = 0
    x[0, 0, 0] = 7
    x[:, ::2] += 1
    x[x > 1.5] = -1
    x[:, [3, 0]] = torch.ones(6)
    return x


def deformed(x: Any) -> Any:
    """torchvision's operator, whose kernels need not be there to import it."""
    w, offset, mask = (torch.linspace(-1, 1, n) for n in (4 * 3 * 9, 18 * 48, 9 * 48))
    return torch.ops.torchvision.deform_conv2d(
        x, w.view(4, 3, 3, 3), offset.view(1, 18, 6, 8) * 2, mask.view(1, 9, 6, 8), torch.ones(4),
        1, 1, 1, 1, 1, 1, 1, 1, True,
    )  # fmt: skip


def test_deformable_convolution_of_torchvision() -> None:
    """As from ONNX, which is compared with onnxruntime."""
    schema = (
        "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias,"
        " SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h,"
        " SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor"
    )
    x = reals(1, 3, 6, 8)
    with torch.library._scoped_library("torchvision", "FRAGMENT") as library:
        if not hasattr(torch.ops.torchvision, "deform_conv2d"):
            library.define(schema)
            library.impl("deform_conv2d", lambda x, w, *_: x.new_empty(1, 4, 6, 8), "Meta")
        graph = irc.from_torch(Function(deformed), x)
    w, offset, mask = (
        np.linspace(-1, 1, n, dtype=np.float32) for n in (4 * 3 * 9, 18 * 48, 9 * 48)
    )
    constants = {
        "w": w.reshape(4, 3, 3, 3), "o": offset.reshape(1, 18, 6, 8) * 2,
        "b": np.ones(4, np.float32), "m": mask.reshape(1, 9, 6, 8),
    }  # fmt: skip
    layer = onnx_node("DeformConv", ["x", "w", "o", "b", "m"], pads=[1, 1, 1, 1])
    feeds = {"x": x.numpy()}
    wanted = irc.evaluate(irc.load(onnx_model([layer], feeds, constants, 19)), feeds)["y"]
    found = next(iter(irc.evaluate(graph, {graph.inputs[0].name: x.numpy()}).values()))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def regions(x: Any, boxes: Any) -> Any:
    """torchvision's operator, as its `roi_align` calls it."""
    return torch.ops.torchvision.roi_align(x, boxes, 0.5, 3, 2, 2, True)


@pytest.mark.parametrize("batch", [1, 2])
def test_regions_of_torchvision(batch: int) -> None:
    """As from ONNX, which is compared with onnxruntime; of one image."""
    schema = (
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height,"
        " SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor"
    )
    corners = np.asarray([[1, 2, 9, 8], [0, 0, 15, 11], [4, 1, 5, 10]], np.float32)
    x, boxes = reals(batch, 3, 6, 8), torch.tensor(np.pad(corners, ((0, 0), (1, 0))))
    with torch.library._scoped_library("torchvision", "FRAGMENT") as library:
        if not hasattr(torch.ops.torchvision, "roi_align"):
            library.define(schema)
            library.impl("roi_align", lambda x, *_: x.new_empty(3, 3, 3, 2), "Meta")
        if batch > 1:
            with pytest.raises(ModelError, match="one image at a time"):
                irc.from_torch(Function(regions), (x, boxes))
            return
        graph = irc.from_torch(Function(regions), (x, boxes))
    layer = onnx_node(
        "RoiAlign", ["x", "boxes", "images"], sampling_ratio=2, output_height=3, output_width=2,
        spatial_scale=0.5, coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    feeds = {"x": x.numpy(), "boxes": corners}
    constants = {"images": np.zeros(3, np.int64)}
    wanted = irc.evaluate(irc.load(onnx_model([layer], feeds, constants, 19)), feeds)["y"]
    names = [v.name for v in graph.inputs]
    given = dict(zip(names, (x.numpy(), boxes.numpy()), strict=True))
    found = next(iter(irc.evaluate(graph, given).values()))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


class Several(Module):
    """Modules side by side, each with an input of its own; the results of all."""

    def __init__(self, modules: Iterable[Any]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, *args: Any) -> Any:
        return [part(x) for part, x in zip(self.parts, args, strict=True)]


def layers() -> tuple[Any, list[Any]]:
    torch.manual_seed(1)
    module = Several([make() for make, _ in LAYERS.values()])
    return module, [reals(*shape) for _, shape in LAYERS.values()]


def functions() -> tuple[Any, list[Any]]:
    return Function(lambda x: [f(x) for f in FUNCTIONS.values()]), [reals(*CUBE)]


@pytest.mark.parametrize("made", [layers, functions])
def test_torch_and_evaluate_agree(made: Callable[[], tuple[Any, list[Any]]]) -> None:
    module, inputs = made()
    agree(module, *inputs)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*LAYERS, *FUNCTIONS])
def test_the_integer_library_follows(case: str) -> None:
    """Bit for bit what the reference says, and near torch: whole numbers the same or nearly so."""
    torch.manual_seed(1)
    make, shape = LAYERS[case] if case in LAYERS else (lambda: Function(FUNCTIONS[case]), CUBE)
    module, x = make().eval(), reals(*shape)
    graph = irc.from_torch(module, x)
    feed = {graph.inputs[0].name: x.numpy()}
    model = irc.compile(irc.quantize(graph, calibration=[feed]))
    found, expected = model(feed), irc.compile(model.graph, backend="reference")(feed)
    with torch.no_grad():
        wanted = torch.utils._pytree.tree_leaves(module(x))
    for name, tensor in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(found[name], expected[name])
        real = tensor.double().numpy()
        error = np.abs(found[name].astype(np.float64) - real)
        if tensor.is_floating_point():
            assert np.sum(error**2) <= 0.01 * np.sum(real**2), name  # 20 dB
        else:
            assert np.mean(error > 0) <= 0.1, name  # neighbours that 8 bits can't tell apart


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "nonzero": (lambda x: x.nonzero(), "no fixed shape: it depends on data; torch.where"),
    "masked_select": (lambda x: x.masked_select(x > 0), "no fixed shape"),
    "unique": (lambda x: x.unique(), "no fixed shape"),
    "values under a mask": (
        lambda x: x.index_put((x > 0,), torch.ones(30)), "values that differ"
    ),
    "product at run time": (
        lambda x: x.scatter_reduce(1, x.argmax(1, keepdim=True), x, "prod"),
        "'mul' .* computed at run time is not supported, only sums",
    ),
    "means of whole numbers": (
        lambda x: x.long().index_reduce(1, places(0, 0), x[:, :2].long(), "mean"),
        "'mean' of i64.* is not supported, only of reals",
    ),
    "added among too many": (
        lambda x: torch.zeros(50000).index_add(0, x.argmax(1).tile(20)[0, 0], x.tile(20)[0, 0, 0]),
        "too many",
    ),
    "one number everywhere": (
        lambda x: x.maximum(torch.full((5, 5), -torch.inf)), "one number, .* write a finite one"
    ),
    "places without a choice": (lambda x: torch.where(x > 0)[0], "no fixed shape"),
    "places of the largest": (lambda x: x.cummax(1).indices, "output 1 is not supported"),
    "a broken constant": (lambda x: x * torch.tensor(torch.nan), "NaN or infinite"),
    "broken weights": (lambda x: x @ torch.full((5, 5), torch.nan), "25 of 25.* the training"),
    "NaN for a number": (
        lambda x: torch.where(x > 0, x, torch.nan), "one number, read by where .* a finite one"
    ),
    "a part of bags": (
        lambda x: F.embedding_bag(x.long().clamp(0, 3).flatten(), torch.ones(4, 2), places(0, 3)),
        "only of one size",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusal(case: str) -> None:
    function, message = REFUSED[case]
    with pytest.raises(ModelError, match=message):
        irc.from_torch(Function(function), (reals(1, 2, 5, 5),))


def test_several_inputs() -> None:
    torch.manual_seed(3)
    agree(nn.Bilinear(8, 8, 3), reals(*TOKENS), reals(*TOKENS, seed=1))
    agree(nn.CosineSimilarity(), reals(*TOKENS), reals(*TOKENS, seed=1))
    agree(nn.Transformer(8, 2, 1, 1, 16, batch_first=True), reals(2, 4, 8), reals(*TOKENS))
    agree(
        lambda x, hidden: nn.functional.scaled_dot_product_attention(x, x, x, hidden),
        reals(*TOKENS), torch.tensor([True, True, True, True, False]).expand(2, 5, 5),
    )  # fmt: skip
    agree(
        nn.MultiheadAttention(8, 2, kdim=6, vdim=4), reals(5, 1, 8), reals(3, 1, 6), reals(3, 1, 4)
    )


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_words(mode: str) -> None:
    words = torch.tensor([[1, 2, 4, 5], [4, 3, 2, 0]])
    layer = nn.EmbeddingBag(10, 3, mode=mode)
    agree(layer, words)
    if mode == "sum":
        agree(lambda x, w: layer(x, per_sample_weights=w), words, reals(2, 4))
    with pytest.raises(ModelError, match=r"offsets are given at run time: .* \[bags, size\]"):
        irc.from_torch(layer, (words.flatten(), torch.tensor([0, 4])))

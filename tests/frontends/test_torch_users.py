"""What users have in their hands: wrapped, nested, stateful, half-prepared modules. Each works, or
is refused in one line that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import irc
from irc.errors import ModelError
from tests.frontends.torch_peer import F, Module, agree, image, net, nn, reals, torch


class Through(Module):
    """A function of what a small network makes of an image."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.inner, self.function = net(), function

    def forward(self, x: Any) -> Any:
        return self.function(self.inner(x))


@dataclass
class Result:
    scores: Any


class Streaming(Module):
    """A convolution over time that remembers what came before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3)
        self.past = torch.zeros(1, 4, 2)  # no buffer

    def forward(self, x: Any) -> Any:
        joined = torch.cat([self.past, x], 2)
        self.past = joined[:, :, -2:]
        return self.conv(joined)


class Packed(Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Any) -> Any:
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5]), batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]


def scripted_inside() -> Any:
    """A network of which one layer was compiled by TorchScript."""
    return nn.Sequential(torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())))


def checked(y: Any) -> Any:
    assert torch.isfinite(y).all()
    return y


def observed() -> Any:
    """Prepared for eager static quantization, not converted."""
    module = torch.ao.quantization.QuantWrapper(net())
    module.qconfig = torch.ao.quantization.get_default_qconfig("x86")
    torch.ao.quantization.prepare(module, inplace=True)
    module(image())
    return module


def as_in_torchvision(y: Any) -> Any:
    """Regions, of which as many are left as data say, by code that calls itself torchvision's."""
    code = "def kept(y): return y if torch.nonzero(y > 0).shape[0] > 2 else y + 1"
    namespace: dict[str, Any] = {"__name__": "torchvision.ops.boxes", "torch": torch}
    exec(code, namespace)
    return namespace["kept"](y)


REFUSED: dict[str, tuple[Any, Any, str]] = {
    "a class of its own": (
        lambda: Through(Result), image, r"(known|unhashable) type.*; .*export\.register_dataclass"
    ),
    "state": (Streaming, lambda: torch.rand(1, 4, 6), "'past' .* register it as a buffer"),
    "packed": (Packed, lambda: torch.rand(1, 5, 3), "packed sequences can't be exported: give"),
    "dropout by hand": (lambda: Through(F.dropout), image, "F.dropout training=self.training"),
    "NumPy": (
        lambda: Through(lambda y: torch.from_numpy(y.detach().numpy())), image,
        "compute with torch's functions",
    ),
    "two types": (lambda: net().half(), image, r"module\.float\(\)"),
    "no weights": (lambda: net().to("meta"), image, "load the weights"),
    "lazy layers": (
        lambda: nn.Sequential(nn.LazyConv2d(4, 3)), image, "uninitialized .* call the module once"
    ),
    "TorchScript inside": (scripted_inside, image, "'0' is TorchScript.* nn.Module it came from"),
    "an assertion on values": (
        lambda: Through(checked), image, "test_torch_users.py, line .*if, while and assert on"
    ),
    "a detector": (
        lambda: Through(as_in_torchvision), image, r"; of a detector .* boxes \(nms\) outside"
    ),
    "random numbers": (
        lambda: Through(torch.rand_like), image, "rand_like .*make random numbers an input"
    ),
    "other channels": (
        net, lambda: torch.rand(1, 4, 8, 8), r"3 channels.* \(in stem, Conv2d, at torch_peer"
    ),
    "too many inputs": (
        net, lambda: (image(), image()), "positional arguments.* a tuple, or a dictionary by name"
    ),
    "no tensor": (net, lambda: "photo.png", "'photo.png': tensors or arrays are wanted"),
    "weights alone": (lambda: net().state_dict(), image, "load the weights into their module"),
    "observers": (observed, image, r"HistogramObserver\) only observes.* as calibration"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line_with_the_cure(case: str) -> None:
    made, example, message = REFUSED[case]
    module = made()
    if isinstance(module, nn.Module):
        module.eval()
    with pytest.raises(ModelError, match=message) as caught:
        irc.from_torch(module, example())
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_what_is_around_a_module_is_taken_off(wrap: Any) -> None:
    graph = irc.from_torch(wrap(net().eval()), image())
    assert str(graph) == str(irc.from_torch(net().eval(), image()))


def test_an_array_is_an_example() -> None:
    graph = irc.from_torch(net().eval(), image().numpy())
    assert str(graph) == str(irc.from_torch(net().eval(), image()))


def test_a_mask_of_a_decoder_is_not_examined() -> None:
    """`nn.Transformer` would look whether it is causal."""
    torch.manual_seed(0)
    module = nn.Transformer(8, 2, 1, 1, 16, batch_first=True).eval()
    mask, source, target = module.generate_square_subsequent_mask(5), reals(1, 4, 8), reals(1, 5, 8)
    agree(lambda x, y: module(x, y, tgt_mask=mask), source, target)
    agree(Decoding(module), source, target)


class Decoding(Module):
    """A transformer that makes its mask when it is called."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, source: Any, target: Any) -> Any:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.inner(source, target, tgt_mask=mask)


class Branching(Module):
    """Two layers, one of which is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        return torch.cond(
            x.sum() > 0, lambda v: self.left(v), lambda v: self.right(v).relu(), (x,)
        )


@pytest.mark.filterwarnings("ignore")
def test_both_branches_are_computed() -> None:
    torch.manual_seed(0)
    module = Branching()
    for x in (torch.ones(1, 4), -torch.ones(1, 4)):
        graph = agree(module, x)
    feeds = [{"x": reals(1, 4, seed=i).numpy()} for i in range(8)]
    model = irc.compile(irc.quantize(graph, calibration=feeds), backend="reference")
    for feed in feeds:
        with torch.no_grad():
            wanted = module(torch.from_numpy(feed["x"])).numpy()
        (found,) = model(feed).values()
        assert np.abs(found - wanted).max() < 0.05


class Mapped(Module):
    """A dictionary in, nested dictionaries out."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, batch: dict[str, Any]) -> Any:
        scores = self.inner(batch["image"]) + batch["bias"]
        return {"scores": scores, "more": [scores * 2, {"deep": torch.relu(scores)}, None]}


def test_dictionaries_in_and_out() -> None:
    given = {"image": image(), "bias": torch.rand(1, 1)}
    module = Mapped().eval()
    graph = irc.from_torch(module, (given,))
    assert [v.name for v in graph.inputs] == ["batch_image", "batch_bias"]
    assert graph.output_names == ("scores", "more_0", "more_1_deep")
    found = irc.evaluate(graph, {f"batch_{k}": v.numpy() for k, v in given.items()})
    with torch.no_grad():
        wanted = module(given)["more"][1]["deep"].numpy()
    np.testing.assert_allclose(found["more_1_deep"], wanted, atol=1e-5)


PARAMETRIZED = {
    "weight norm": nn.utils.parametrizations.weight_norm,
    "spectral norm": nn.utils.parametrizations.spectral_norm,
    "orthogonal": nn.utils.parametrizations.orthogonal,
}


@pytest.mark.parametrize("name", PARAMETRIZED)
def test_parametrized_weights_are_constants(name: str) -> None:
    module = nn.Sequential(PARAMETRIZED[name](nn.Linear(8, 8)), nn.ReLU()).eval()
    x = torch.rand(2, 8)
    graph = irc.from_torch(module, x)
    assert {v.op for v in graph.order} <= {"const", "input", "linear", "relu", "transpose"}
    with torch.no_grad():
        wanted = module(x).numpy()
    (found,) = irc.evaluate(graph, {graph.inputs[0].name: x.numpy()}).values()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float64"])
def test_other_floats_become_f32_and_calibrate(name: str) -> None:
    kind = getattr(torch, name)
    module = net().eval().to(kind)
    x = image().to(kind)
    graph = irc.from_torch(module, x)
    loader = torch.utils.data.DataLoader(x.repeat(4, 1, 1, 1), batch_size=2)
    model = irc.compile(irc.quantize(graph, calibration=loader), backend="reference")
    (found,) = model({graph.inputs[0].name: x.float().numpy()}).values()
    with torch.no_grad():
        wanted = module(x).float().numpy()
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


class Caching(Module):
    """Keeps what it made of its weights, by device, as LeViT does outside of training."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.made = nn.Parameter(torch.linspace(0, 1, 4)), {"kept": [torch.ones(4)]}

    def forward(self, x: Any) -> Any:
        if str(x.device) not in self.made:
            self.made[str(x.device)] = [self.table.flip(0) * 2]
        return x + self.made[str(x.device)][0] * self.made["kept"][0]


def test_what_a_first_call_keeps_is_taken_out_again() -> None:
    module, x = Caching().eval(), torch.zeros(1, 4)
    graph = irc.from_torch(module, (x,))
    assert list(module.made) == ["kept"]
    with torch.no_grad():
        wanted = module(x).numpy()
    np.testing.assert_allclose(irc.evaluate(graph, {"x": x.numpy()})["output"], wanted)


class Rescaling(Module):
    """Divides its weights when it is first called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.done = nn.Linear(4, 3), False

    def forward(self, x: Any) -> Any:
        if not self.done:
            with torch.no_grad():
                self.layer.weight.div_(2)
            self.done = True
        return self.layer(x)


def test_a_module_that_changes_its_weights_is_to_be_called_before() -> None:
    module, x = Rescaling().eval(), torch.zeros(1, 4)
    with pytest.raises(ModelError, match=r"changes its weights.*once before"):
        irc.from_torch(module, (x,))
    module.done = False
    module(x)
    assert irc.from_torch(module, (x,)).output_names == ("output",)


class Decoded(Module):
    """Boxes of a grid by their scores, which are written over in place, as YOLO's are."""

    def forward(self, x: Any) -> Any:
        y = x.sigmoid()
        y[..., 0:2] = (y[..., 0:2] * 2 + torch.arange(8.0)[:, None]) * 8
        y[..., 2:4] = (y[..., 2:4] * 2) ** 2 * torch.tensor([10.0, 13.0])
        return y


def test_what_is_written_in_place_keeps_no_scale_of_its_neighbours() -> None:
    graph = irc.from_torch(Decoded(), torch.rand(8, 6))
    (name,) = graph.input_types
    data = [{name: reals(8, 6, seed=i).numpy()} for i in range(6)]
    quantized = irc.quantize(graph, calibration=data[:4], progress=lambda _: None)
    wanted, found = (
        np.stack([irc.evaluate(g, sample)["output"] for sample in data[4:]])
        for g in (graph, quantized)
    )
    error = np.abs(wanted - found).max((0, 1))
    assert (error < np.abs(wanted).max((0, 1)) / 50).all()


class Forces(Module):
    """The slope of an energy, by autograd; a weight for each atom, by vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.weights = nn.Parameter(torch.rand(5, 3, 3))

    def forward(self, places: Any) -> Any:
        with torch.enable_grad():
            places = places.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(self.energy(places).sum(), places)
        return torch.vmap(torch.matmul)(-slope, self.weights).detach()


def test_gradients_that_a_module_takes_and_what_it_maps() -> None:
    torch.manual_seed(0)
    module = Forces()
    agree(module, reals(5, 3))
    assert module.weights.requires_grad
    assert "forward" not in vars(module)


class SparseAttention(Module):
    """Fails for another reason than its name says."""

    def forward(self, x: Any) -> Any:
        return x.reshape(7, 7)


def test_the_name_of_a_layer_is_no_reason() -> None:
    with pytest.raises(ModelError, match="invalid for input") as caught:
        irc.from_torch(nn.Sequential(SparseAttention()).eval(), image())
    assert "sparse tensors" not in str(caught.value)


class CausalPadding(Module):
    """Pads by numbers that it computes from tensors, which are no buffers."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 3, kernel, stride)
        self.register_buffer("kernel", torch.tensor(kernel), persistent=False)
        self.register_buffer("stride", torch.tensor(stride), persistent=False)
        self.left = self.kernel - self.stride

    def forward(self, x: Any) -> Any:
        frames = torch.ceil((x.shape[-1] - self.kernel + self.left) / self.stride + 1).long() - 1
        right = frames * self.stride + self.kernel - self.left - x.shape[-1]
        return self.conv(F.pad(x, (self.left, right)))[..., 1:-1]


def test_sizes_that_are_computed_from_tensors() -> None:
    up = nn.ConvTranspose1d(3, 3, 4, 4)
    layers = CausalPadding(3, 1), up, CausalPadding(3, 1), nn.ELU()
    agree(nn.Sequential(*layers), torch.rand(1, 3, 9))


class Changeling(Module):
    """Looks whether it is being exported, as transformers does to leave masks out."""

    def __init__(self, outside: Callable[[Any], Any]) -> None:
        super().__init__()
        self.outside = outside

    def forward(self, x: Any) -> Any:
        return x * 2 if torch.compiler.is_exporting() else self.outside(x)


@pytest.mark.parametrize(
    ("outside", "apart"),
    [(lambda x: x, 50), (torch.zeros_like, 100), (lambda x: x[:, :1], 100)],
    ids=["half", "nothing", "another shape"],
)
def test_a_module_that_computes_something_else_while_it_is_exported_is_told_of(
    outside: Any, apart: int
) -> None:
    told = f"Changeling: torch.export's program gives other results than the module, by {apart}%"
    with pytest.warns(UserWarning, match=told):
        irc.from_torch(Changeling(outside), image())


@pytest.mark.filterwarnings("ignore:Changeling")
def test_random_numbers_go_on_as_if_nothing_was_imported() -> None:
    x, state = image(), torch.get_rng_state()
    irc.from_torch(Changeling(lambda x: x * 2 + torch.rand(1)), x)
    assert torch.equal(state, torch.get_rng_state())

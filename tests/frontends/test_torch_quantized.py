"""Quantized programs: PT2E by two quantizers, trained quantization; layer by layer."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irc
from irc.driver import integerize
from irc.errors import ModelError
from irc.frontends.torch.names import node_names
from irc.frontends.torch.program import decomposed
from irc.frontends.torch.regions import needed
from irc.graph import Graph
from irc.ops.core import Const, Input
from irc.properties import is_qdq
from irc.types import Array
from irc.value import Value
from tests.frontends.torch_peer import (
    F,
    Module,
    difference,
    image,
    needs_torchvision,
    net,
    nn,
    torch,
)

# ---------------------------------------------------------------- PT2E


def xnnpack(*, training: bool = False) -> Any:
    from_: Any = pytest.importorskip("torchao.testing.pt2e._xnnpack_quantizer")
    config = from_.get_symmetric_quantization_config(is_per_channel=True, is_qat=training)
    return from_.XNNPACKQuantizer().set_global(config)


def x86() -> Any:
    name = "torchao.quantization.pt2e.quantizer.x86_inductor_quantizer"
    from_: Any = pytest.importorskip(name)
    return from_.X86InductorQuantizer().set_global(
        from_.get_default_x86_inductor_quantization_config()
    )


QUANTIZERS = {"xnnpack": xnnpack, "x86": x86}
NAMES = ["xnnpack", pytest.param("x86", marks=pytest.mark.slow)]


def flow() -> Any:
    return pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")


def quantized(module: Any, quantizer: Any, samples: Any) -> Any:
    """The program that PT2E makes, calibrated on `samples`."""
    program = torch.export.export(module, (samples[:1],), strict=True).module()
    prepared = flow().prepare_pt2e(program, quantizer)
    for sample in samples:
        prepared(sample[None])
    return flow().convert_pt2e(prepared)


def seen(program: Any, x: Any) -> dict[str, Array]:
    """The integers that torch computes, by the names of values, channels last; those that have a
    name to themselves."""
    made = decomposed(torch.export.export(program, (x,)))
    order = [n for n in needed(made.graph) if n.op == "call_function"]
    names = node_names(n for n in order if "getitem" not in str(n.target))
    found: dict[str, Array] = {}
    twice: set[str] = set()

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            result = super().run_node(n)
            if "quantize_per_tensor" in str(n.target) and "dequantize" not in str(n.target):
                name = str(names.get(n.args[0], n.args[0].name))
                twice.update({name} & found.keys())
                array = result.numpy()
                found[name] = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
            return result

    stored = {**made.state_dict, **made.constants}
    specs = made.graph_signature.input_specs
    with torch.no_grad():
        Watch(made.graph_module).run(*[stored.get(s.target, x) for s in specs])
    return {name: array for name, array in found.items() if name not in twice}


def by_layer(graph: Graph, torchs: Mapping[str, Array]) -> Counter[int]:
    """How far each of our integers is from torch's, every layer given torch's own operands."""
    known: dict[Value, Array] = {}
    off: Counter[int] = Counter()
    for v in integerize(graph).order:
        theirs = _stored_as(torchs.get(v.name), v)
        if isinstance(v, Const | Input):
            known[v] = v.array if isinstance(v, Const) else np.asarray(theirs)
            continue
        ours = np.asarray(v.call(known.__getitem__))
        known[v] = ours
        if theirs is not None and not v.moves and v.op != "requantize":
            off.update((ours.astype(int) - theirs.astype(int)).reshape(-1).tolist())
            known[v] = theirs
    return off


def _stored_as(array: Array | None, v: Value) -> Array | None:
    """Torch's integers in our dtype and shape; None where the value is another."""
    if array is None or array.size != v.type.size or v.type.dtype.bits != 8:
        return None
    if isinstance(v, Input) and array.ndim == 4:
        array = array.transpose(0, 3, 1, 2)
    shift = 128 * (int(v.type.dtype.numpy == np.uint8) - int(array.dtype == np.uint8))
    return (array.astype(int) + shift).astype(v.type.dtype.numpy).reshape(v.shape)


@pytest.mark.parametrize("name", NAMES)
def test_a_program_agrees_layer_by_layer_and_as_a_whole(name: str) -> None:
    samples = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    program = quantized(net(), QUANTIZERS[name](), samples)
    graph = irc.from_torch(program, image())
    assert is_qdq(graph)
    assert difference(graph, program, image()) < 1e-5
    off = by_layer(graph, seen(program, image()))
    assert off.keys() <= {-1, 0, 1}
    assert off[0] > 0.99 * off.total() > 600
    model = irc.compile(graph)
    with torch.no_grad():
        expected = program(image()).numpy()
    found = model({graph.inputs[0].name: image().numpy()})["output"]
    step = float(np.diff(np.unique(expected)).min()) if name == "xnnpack" else 0.02
    assert np.abs(found - expected).max() < 1.01 * step


class Separable(Module):
    """A block as in MobileNets: its biases are real, X86InductorQuantizer leaves its sum float."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.wide = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.deep, self.narrow = nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        x = F.relu6(self.stem(x))
        y = self.narrow(F.relu6(self.deep(F.relu6(self.wide(x)))))
        return self.head(F.relu(x + y).mean((2, 3)))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_rounded_but_where_the_program_says(name: str) -> None:
    samples = torch.randn(5, 3, 33, 33, generator=torch.Generator().manual_seed(0))
    program = quantized(Separable().eval(), QUANTIZERS[name](), samples[:4])
    off = by_layer(irc.from_torch(program, samples[4:]), seen(program, samples[4:]))
    assert off.keys() <= {-1, 0, 1}
    assert off[0] > 0.9999 * off.total() > 50_000


class Averaged(Module):
    """A residual sum that only a mean reads, which X86InductorQuantizer leaves in float."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.conv = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        y = torch.relu(self.stem(x))
        return self.head(torch.relu(y + self.conv(y)).mean((2, 3)))


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_of_a_sum_that_nobody_quantized(name: str) -> None:
    samples = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    program = quantized(Averaged().eval(), QUANTIZERS[name](), samples)
    model = irc.compile(irc.from_torch(program, image()))
    with torch.no_grad():
        expected = program(image()).numpy()
    found = model({"x": image().numpy()})["output"]
    kind = model.graph.outputs[0].type
    step = float(kind.scale) if kind.dtype.bits == 8 else float(np.ptp(expected)) / 255
    assert np.abs(found - expected).max() < 1.01 * step


def photos(count: int, seed: int) -> Any:
    zoo: Any = pytest.importorskip("bench.models")
    return torch.from_numpy(zoo.imagenet_crops(count, seed))


@needs_torchvision
@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize(
    "architecture", ["mobilenet_v2", pytest.param("resnet18", marks=pytest.mark.long)]
)
def test_real_networks_agree_layer_by_layer(architecture: str, name: str) -> None:
    export: Any = pytest.importorskip("bench.torch_export")
    samples = photos(4, 0)
    module = export.random_classifier(architecture, samples)
    program = quantized(module, QUANTIZERS[name](), samples)
    x = photos(1, 1)
    graph = irc.from_torch(program, x)
    off = by_layer(graph, seen(program, x))
    assert off.keys() <= {-1, 0, 1}
    assert off[0] > 0.9999 * off.total()
    assert off.total() > 1_000_000
    irc.compile(graph, backend="reference")


@pytest.mark.slow
def test_a_file_is_read_where_nothing_of_quantization_is_imported(tmp_path: Path) -> None:
    program = quantized(net(), xnnpack(), torch.rand(2, 3, 8, 8))
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(program, (image(),)), path)
    code = f"import irc; print(irc.load({str(path)!r}).name)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.strip() == "net", done.stderr


@pytest.mark.slow
def test_training_with_pt2e() -> None:
    dynamic = ({0: torch.export.Dim("batch", min=1, max=64)},)
    samples = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    trained = net().train()
    program = torch.export.export(trained, (samples,), dynamic_shapes=dynamic).module()
    prepared = flow().prepare_qat_pt2e(program, xnnpack(training=True))
    prepared(samples)
    converted = flow().convert_pt2e(prepared)
    pytest.importorskip("torchao.quantization.pt2e").move_exported_model_to_eval(converted)
    graph = irc.from_torch(converted, image())
    assert difference(graph, converted, image()) < 1e-5
    model = irc.compile(graph, backend="reference")
    found, scale = model({"image": image().numpy()})["output"], model.graph.outputs[0].type.scale
    with torch.no_grad():
        assert np.abs(found - converted(image()).numpy()).max() < 1.01 * scale


# ---------------------------------------------------------------- fake quantization


class FakeQuantized(Module):
    """What training with quantization leaves: rounding, as operators."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.register_buffer("scales", torch.tensor([0.003, 0.004, 0.002, 0.005]))

    def forward(self, x: Any) -> Any:
        zeros = torch.zeros(4, dtype=torch.int32)
        w = self.conv.weight
        w = torch.fake_quantize_per_channel_affine(w, self.scales, zeros, 0, -127, 127)
        x = torch.fake_quantize_per_tensor_affine(x, 1 / 255, 0, 0, 255)
        y = torch.relu(F.conv2d(x, w))
        return torch.fake_quantize_per_tensor_affine(y, 0.01, 0, 0, 127)


def agrees_within_a_step(module: Any, step: float) -> None:
    graph = irc.from_torch(module, image())
    assert is_qdq(graph)
    assert difference(graph, module, image()) < 1e-5
    found = irc.compile(graph)({"x": image().numpy()})["output"]
    with torch.no_grad():
        expected = module(image()).numpy()
    assert np.abs(found - expected).max() < 1.01 * step


def test_fake_quantization_becomes_exact() -> None:
    torch.manual_seed(0)
    agrees_within_a_step(FakeQuantized(), 0.01)


class Staged(Module):
    """A network between stubs, as eager quantization wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = torch.ao.quantization.QuantStub()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
        self.again, self.sum = nn.Conv2d(8, 8, 1), torch.ao.nn.quantized.FloatFunctional()
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = self.relu(self.norm(self.conv(self.quant(x))))
        x = self.sum.add_relu(x, self.again(x))
        return self.head(self.pool(x).flatten(1))


def eager() -> Any:
    """Trained for a moment with eager fake quantization, observers still on."""
    ao = torch.ao.quantization
    torch.manual_seed(0)
    module = Staged().train()
    module.qconfig = ao.get_default_qat_qconfig("x86")
    module = ao.fuse_modules_qat(module, [["conv", "norm", "relu"]])
    ao.prepare_qat(module, inplace=True)
    for _ in range(4):
        module(torch.rand(4, 3, 8, 8))
    return module.eval()


@pytest.mark.filterwarnings("ignore")
def test_eager_training_is_taken_as_it_stands() -> None:
    module = eager()
    module.apply(torch.ao.quantization.disable_observer)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    agrees_within_a_step(module, 3 * float(module.head.activation_post_process.scale))
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


@pytest.mark.filterwarnings("ignore")
def test_packed_weights_are_refused() -> None:
    with pytest.raises(ModelError, match=r"holds packed weights.*before convert"):
        irc.from_torch(torch.ao.quantization.convert(eager()), image())


@pytest.mark.filterwarnings("ignore")
def test_what_makes_quantized_tensors_is_refused() -> None:
    """Without layers that hold packed weights, too."""
    from_ = torch.ao.nn.quantized
    module = nn.Sequential(from_.Quantize(0.1, 3, torch.quint8), from_.DeQuantize(), nn.ReLU())
    with pytest.raises(ModelError, match=r"^0 \(Quantize\) makes or takes .* before convert"):
        irc.from_torch(module.eval(), torch.rand(3, 4))


@pytest.mark.filterwarnings("ignore")
def test_layers_that_choose_scales_at_run_time_are_refused() -> None:
    module = nn.Sequential(nn.LSTM(4, 4)).eval()
    found = torch.ao.quantization.quantize_dynamic(module, {nn.LSTM})
    with pytest.raises(ModelError, match=r"^0 \(LSTM\) chooses its scales .* as calibration"):
        irc.from_torch(found, torch.rand(3, 4))


@pytest.mark.filterwarnings("ignore")
def test_types_of_quantized_tensors_are_refused() -> None:
    fx: Any = pytest.importorskip("torch.ao.quantization.quantize_fx")
    mapping = torch.ao.quantization.get_default_qconfig_mapping("x86")
    prepared = fx.prepare_fx(net().eval(), mapping, (image(),))
    prepared(image())
    with pytest.raises(ModelError, match=r"quantized types can't be exported: .* PT2E"):
        irc.from_torch(fx.convert_to_reference_fx(prepared), image())


def dynamic(module: Any) -> None:
    from_: Any = pytest.importorskip("torchao.quantization")
    from_.quantize_(module, from_.Int8DynamicActivationInt8WeightConfig())


REFUSED: dict[str, Callable[[Any], None]] = {
    r"in 0 \(Linear\): scales are chosen at run time .* as calibration": dynamic
}


@pytest.mark.parametrize("message", REFUSED)
def test_scales_of_run_time_are_refused(message: str) -> None:
    module = nn.Sequential(nn.Linear(16, 16)).eval()
    REFUSED[message](module)
    with pytest.raises(ModelError, match=message):
        irc.from_torch(module, torch.rand(1, 16))

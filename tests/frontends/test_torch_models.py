"""Whole modules: names, outputs, files, dynamic shapes, quantized programs, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from typer.testing import CliRunner

import irc
from irc.cli import app
from irc.errors import ModelError
from irc.frontends.torch.regions import _cure
from irc.ops.core import Kernel
from tests.frontends.torch_peer import (
    Module,
    difference,
    image,
    needs_torchvision,
    net,
    nn,
    torch,
)


def test_values_are_called_like_modules() -> None:
    graph = irc.from_torch(net(), image())
    names = {v.name for v in graph.order}
    assert names >= {
        "image", "stem", "stem.weight", "layers.0.conv1", "layers.0.bn1", "layers.0.relu",
        "layers.0.conv2", "layers.0.add", "layers.0.relu_1", "layers.1.conv2", "head.2",
    }  # fmt: skip
    assert graph.name == "net"
    assert [v.name for v in graph.inputs] == ["image"]
    assert graph.output_names == ("output",)
    assert difference(graph, net(), image()) < 1e-5


def test_integers_come_close_to_torch() -> None:
    module, samples = net(), torch.rand(16, 3, 8, 8)
    model = irc.compile(irc.quantize(irc.from_torch(module, image()), calibration=samples))
    with torch.no_grad():
        expected = module(image()).numpy()
    found = model({"image": image().numpy()})["output"]
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def numbered(graph: irc.Graph) -> list[Any]:
    """The graph without names: ops, operands by number, attributes, types."""
    number = {v: i for i, v in enumerate(graph.order)}
    return [
        (v.op, [number[o] for o in v.operands], str(v.type), *map(hashed, v.attributes.items()))
        for v in graph.order
    ]


def hashed(attribute: tuple[str, Any]) -> tuple[str, Any]:
    name, value = attribute
    return (name, value.tobytes()) if isinstance(value, np.ndarray) else attribute


def both_ways(module: Any, samples: Any) -> Any:
    """The module compiled, by way of torch.export and of ONNX; the exporter folds nothing."""
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs it")
    program = torch.onnx.export(
        module, (samples[:1],), dynamo=True, input_names=["x"], output_names=["output"],
        optimize=False, verbose=False,
    )  # fmt: skip
    graphs = (
        irc.from_torch(module, samples[:1]),
        irc.load(program.model_proto.SerializeToString()),
    )
    feeds = [[{g.inputs[0].name: s[None]} for s in samples] for g in graphs]
    return [
        irc.compile(irc.quantize(g, calibration=f)) for g, f in zip(graphs, feeds, strict=True)
    ]


def test_onnx_gives_the_same_integer_graph() -> None:
    first, second = (unpacked(m.graph) for m in both_ways(net(), torch.rand(4, 3, 8, 8)))
    assert first == second


@needs_torchvision
@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture", ["resnet18", pytest.param("mobilenet_v2", marks=pytest.mark.long)]
)
def test_onnx_gives_the_same_machine_code(architecture: str, tmp_path: Path) -> None:
    zoo: Any = pytest.importorskip("bench.torch_zoo")
    subject = zoo.from_torchvision(architecture)
    models = both_ways(subject.module, torch.from_numpy(subject.samples(2, 0)))
    first, second = (unpacked(m.graph) for m in models)
    assert first == second
    codes = []
    for name, model in zip(("torch", "onnx"), models, strict=True):
        model.save(tmp_path / name, name="net")
        # Before linking: names are of different lengths, which moves what lies behind them.
        with (tmp_path / name / "net.o").open("rb") as file:
            section = ELFFile(file).get_section_by_name(".text")
            assert section is not None
            codes.append(section.data())
    assert codes[0] == codes[1]
    assert len(codes[0]) > 10_000


def unpacked(graph: irc.Graph) -> list[Any]:
    """The nodes of a scheduled graph, kernels by what stands in them."""
    bodies = [numbered(v.body) for v in graph.order if isinstance(v, Kernel)]
    return [*bodies, [(v.op, str(v.type)) for v in graph.order]]


class Outputs(Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, a: Any, scale: float = 2.0, *, b: Any = None) -> Any:
        y = a * scale
        z = y if b is None else y + b
        match self.kind:
            case "single":
                return y
            case "tuple":
                return y, z + 1
            case "dictionary":
                return {"logits": y, "parts": [z + 1, y - 1], "none": None}
        return a


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("single", ("output",)),
        ("tuple", ("output_0", "output_1")),
        ("dictionary", ("logits", "parts_0", "parts_1")),
        ("input", ("output",)),
    ],
)
def test_outputs_have_names(kind: str, names: tuple[str, ...]) -> None:
    graph = irc.from_torch(Outputs(kind), (torch.rand(2, 3),))
    assert graph.output_names == names


def test_inputs_are_called_as_in_forward() -> None:
    example = {"a": torch.rand(2, 3), "scale": 3.0, "b": torch.rand(3)}
    graph = irc.from_torch(Outputs("tuple"), example)
    assert {v.name: v.shape for v in graph.inputs} == {"a": (2, 3), "b": (3,)}
    feed = {"a": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}
    np.testing.assert_array_equal(irc.evaluate(graph, feed)["output_1"], np.full((2, 3), 5.0))


def test_a_program_in_a_file(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(net(), (image(2),), dynamic_shapes={"image": {0: batch}})
    path = tmp_path / "small-net.pt2"
    torch.export.save(program, path)
    with pytest.raises(ModelError, match="--shape image=N,3,8,8"):
        irc.load(path)
    with pytest.raises(ModelError, match=r"'x', the program's inputs are"):
        irc.load(path, shapes={"x": (1,)})
    with pytest.raises(ModelError, match="the program says"):
        irc.load(path, shapes={"image": (1, 3, 9, 8)})
    graph = irc.load(path, shapes={"image": (4, 3, 8, 8)})
    assert graph.name == "small_net"
    assert difference(graph, net(), image(4)) < 1e-5
    assert irc.from_torch(program, image(3)).inputs[0].shape == (3, 3, 8, 8)


def cut_short(path: Path) -> None:
    torch.export.save(torch.export.export(net(), (image(),)), path)
    path.write_bytes(path.read_bytes()[:1000])


def damaged(path: Path) -> None:
    """The archive is whole; the program in it is not."""
    torch.export.save(torch.export.export(net(), (image(),)), path)
    path.write_bytes(path.read_bytes().replace(b'"graph_module"', b'"graph_nodule"'))


SOMETHING_ELSE: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda _: None, "there is no model"),
    "an empty file": (lambda path: path.write_bytes(b""), "no zip archive at all"),
    "half a program": (cut_short, "no zip archive at all"),
    "a damaged program": (damaged, "is no program that torch.export.save wrote"),
    "weights": (lambda path: torch.save(net().state_dict(), path), "what torch.save wrote"),
    "TorchScript": (
        lambda path: torch.jit.save(torch.jit.trace(net(), image()), path), "a TorchScript module"
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", SOMETHING_ELSE)
def test_a_file_of_something_else_is_refused_in_a_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    write, message = SOMETHING_ELSE[kind]
    write(path)
    done = CliRunner().invoke(app, ["compile", str(path), "-o", str(tmp_path / "out")])
    assert done.exit_code == 1
    said = done.output.strip()
    assert said.startswith("error: ")
    assert "\n" not in said
    assert f"{path}" in said
    assert message in said


def test_the_command_line_takes_programs(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(net(), (image(),)), tmp_path / "net.pt2")
    options = ["-o", str(tmp_path / "out"), "--calibration", "random:2", "--emit", "so"]
    done = CliRunner().invoke(app, ["compile", str(tmp_path / "net.pt2"), *options])
    assert done.exit_code == 0, done.output
    library = irc.open_library(tmp_path / "out" / "libnet.so")
    assert library({"image": image().numpy()})["output"].shape == (1, 5)


def test_dynamic_modules_take_the_shapes_of_the_examples() -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    graph = irc.from_torch(net(), image(3), dynamic={"image": {0: batch}})
    assert graph.inputs[0].shape == (3, 3, 8, 8)
    assert difference(graph, net(), image(3)) < 1e-5


@pytest.mark.parametrize("lowered", [False, True])
def test_programs_that_torch_has_taken_apart(lowered: bool) -> None:
    """Core ATen says norms and attention in operators of its own."""
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.Hardswish()
    images = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.LayerNorm(72)).eval()
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    for module, example in ((images, image()), (encoder, torch.rand(1, 5, 8))):
        program = torch.export.export(module, (example,))
        graph = irc.from_torch(program.run_decompositions() if lowered else program)
        assert difference(graph, module, example) < 1e-5


def test_shared_weights_are_one_constant() -> None:
    layer = nn.Linear(4, 4)
    graph = irc.from_torch(nn.Sequential(layer, nn.ReLU(), layer), (torch.rand(1, 4),))
    assert sorted(c.shape for c in graph.constants) == [(4,), (4, 4)]


class NoGrad(Module):
    def forward(self, x: Any) -> Any:
        with torch.no_grad():
            y = x * 2
        return y + 1


def test_training_goes_on() -> None:
    module = nn.Linear(3, 2, bias=False)
    graph = irc.from_torch(module, torch.rand(1, 3))
    with torch.no_grad():
        expected = module(torch.ones(1, 3)).numpy()
        module.weight.add_(1.0)
    found = irc.evaluate(graph, {"input": np.ones((1, 3), np.float32)})["output"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_regions_without_gradients() -> None:
    x = torch.rand(2, 3)
    assert difference(irc.from_torch(NoGrad(), x), NoGrad(), x) < 1e-6


# ---------------------------------------------------------------- refusals


class Choice(Module):
    def forward(self, x: Any) -> Any:
        return x if x.sum() > 0 else -x


class Reading(Module):
    def forward(self, x: Any) -> Any:
        return x * x.sum().item()


class Counter(Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Any) -> Any:
        self.calls += 1
        return x * self.calls


class Strange(Module):
    def forward(self, x: Any) -> Any:
        return torch.histc(x, 4) + torch.linalg.det(x)


def test_data_dependent_control_flow(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError) as caught:
        irc.from_torch(Choice(), torch.rand(2))
    message = str(caught.value)
    assert "Choice can't be exported: Could not guard on data-dependent" in message
    assert "test_torch_models.py, line" in message
    assert "torch.where" in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("module", "example", "message"),
    [
        (Reading(), torch.rand(2), "numbers are read out of tensors: usual cures"),
        (Counter(), torch.rand(2), "changes its own 'calls' when it is called"),
        (nn.BatchNorm1d(2), torch.rand(3, 2), r"call .eval\(\)"),
        (nn.Dropout(), torch.rand(3, 2), r"training mode; call .eval\(\)"),
        (nn.Linear(3, 2), torch.rand(2), "Linear can't be exported"),
        (nn.Linear(3, 2), None, "example_inputs are needed"),
        ("net.pt", torch.rand(2), "not str"),
    ],
)  # fmt: skip
def test_refusals(module: Any, example: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        irc.from_torch(module, example)


def test_unsupported_operators_are_listed_with_their_modules() -> None:
    module = nn.Sequential(nn.ReLU(), Strange()).eval()
    with pytest.raises(ModelError) as caught:
        irc.from_torch(module, torch.rand(4, 4))
    message = str(caught.value)
    assert "aten._linalg_det (1 (Strange))" in message
    assert "aten.histc (1 (Strange))" in message
    assert "compute that part outside of the module" in message


def test_experts_that_sort_tokens_are_told_what_to_do() -> None:
    assert "batched_mm" in _cure({"aten.histc": ["m"], "transformers.grouped_mm_fallback": ["m"]})

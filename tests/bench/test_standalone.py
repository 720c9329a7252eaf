import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bench.accuracy import sqnr_db
from bench.compare import select
from bench.isa import LEVELS
from bench.models import MODELS
from bench.peers import absent_from, importable
from bench.runners import Task
from bench.standalone import (
    IREE_FLAGS,
    EmmtrixC,
    Iree,
    called,
    cpu_of,
    generators,
    shape_of,
    write_model,
)

GENERATORS = {runner.name: runner for runner in generators()}


@pytest.fixture
def task() -> Task:
    model = MODELS["fashion_dscnn"]
    noise = np.random.default_rng(0).standard_normal((2, 1, 28, 28), np.float32)
    return Task(model.name, model.obtain(), model.input, model.shape, noise)


@pytest.mark.slow  # compiles the network by another compiler: minutes
@pytest.mark.parametrize("name", GENERATORS)
def test_generators_agree_with_float(name: str, task: Task, tmp_path: Path) -> None:
    reference, runner = select(["onnxruntime-fp32"])[1], GENERATORS[name]
    if reason := reference.missing() or runner.missing():
        pytest.skip(reason)
    found = []
    for each in (reference, runner):
        folder = tmp_path / each.name
        folder.mkdir()
        each.load(task, each.build(task, folder))
        found.append(each.run(task.feeds(task.calibration)[0])["logits"].copy())
    assert sqnr_db(found[1], found[0]) > (80 if "fp32" in name else 12)


def test_families_are_chosen_by_name() -> None:
    names = [runner.name for runner in select(["iree", "emx-int8"])]
    assert names == ["irc", "iree-fp32", "iree-int8", "emx-int8"]


def test_what_is_absent_is_named_as_it_is_installed() -> None:
    assert importable("json.decoder")
    assert not importable("surely_not_there.inside")
    modules = {"numpy": "numpy", "some-package": "surely_not_there.inside"}
    assert absent_from(modules) == "not installed: pip install some-package"


def test_an_absent_generator_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.peers.importable", lambda module: False)
    reasons = {name: runner.missing() for name, runner in GENERATORS.items()}
    assert reasons["iree-int8"].endswith("pip install iree-base-compiler iree-base-runtime")
    assert reasons["emx-fp32"].endswith("pip install emx-onnx-cgen")


def test_an_absent_compiler_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.peers.importable", lambda module: True)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert GENERATORS["emx-int8"].missing() == "no C compiler: install gcc"


@pytest.mark.parametrize(
    ("level", "cpu", "features"),
    [
        ("native", "host", ()),
        ("avx2", "x86-64-v3", ()),
        ("avx-vnni", "x86-64-v3", ("avxvnni",)),
        ("avx512-vnni", "x86-64-v4", ("avx512vnni",)),
    ],
)
def test_levels_become_flags(level: str, cpu: str, features: tuple[str, ...]) -> None:
    held = LEVELS[level]
    assert cpu_of(held) == (cpu, features)
    iree = Iree("iree", level=held).flags()
    assert iree[0] == f"--iree-llvmcpu-target-cpu={cpu}"
    assert tuple(iree[-len(IREE_FLAGS) :]) == IREE_FLAGS
    added = f"--iree-llvmcpu-target-cpu-features=+{features[0]}" if features else ""
    assert not added or added in iree
    gcc = EmmtrixC("emx", level=held).flags()
    assert f"-march={'native' if cpu == 'host' else cpu}" in gcc
    assert all(f"-m{feature}" in gcc for feature in features)


def test_c_without_threads_says_so(task: Task, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no threads"):
        EmmtrixC("emx").build(replace(task, threads=2), tmp_path)


def test_a_failed_command_tells_its_error() -> None:
    script = "import sys; print('note: x\\nerror: no such op', file=sys.stderr); sys.exit(1)"
    with pytest.raises(RuntimeError, match=r"error: no such op$"):
        called([sys.executable, "-c", script])


def test_outputs_need_shapes() -> None:
    fixed = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])
    assert shape_of(fixed) == (1, 10)
    free = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "n"])
    with pytest.raises(ValueError, match="output y has no fixed shape"):
        shape_of(free)


def test_int8_is_the_static_quantizer_s(task: Task, tmp_path: Path) -> None:
    if reason := select(["onnxruntime-u8s8"])[1].missing():
        pytest.skip(reason)
    kinds = {
        node.op_type for node in onnx.load(write_model(task, tmp_path, quantized=True)).graph.node
    }
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert write_model(task, tmp_path, quantized=False).read_bytes() == task.path.read_bytes()


def test_one_result_or_several_have_the_model_s_names() -> None:
    runner = Iree("iree", _outputs=("y",), _call=lambda x: x + 1)
    assert runner.run({"x": np.zeros(1)})["y"] == 1
    several = Iree("iree", _outputs=("y", "z"), _call=lambda x: (x, x + 2))
    assert several.run({"x": np.zeros(1)})["z"] == 2


def test_modules_run_inline_on_one_thread(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drivers: list[str] = []
    flags: list[str] = []

    def config(driver: str) -> SimpleNamespace:
        drivers.append(driver)
        return SimpleNamespace(vm_instance=None)

    module = SimpleNamespace(name="module", function_names=["__init", "main$async", "main"])
    context = SimpleNamespace(
        add_vm_module=lambda added: None, modules={"module": {"main": lambda x: x}}
    )
    runtime = SimpleNamespace(
        flags=SimpleNamespace(parse_flags=flags.append),
        Config=config,
        SystemContext=lambda config: context,
        VmModule=SimpleNamespace(mmap=lambda instance, path: module),
    )
    monkeypatch.setattr("importlib.import_module", lambda name: runtime)
    runner = Iree("iree", _outputs=("y",))
    for threads in (1, 2):
        runner.load(replace(task, threads=threads), (tmp_path / "net.vmfb",))
    assert drivers == ["local-sync", "local-task"]
    assert flags == ["--task_topology_max_group_count=2"]
    assert runner.run({"x": np.ones(1)})["y"] == 1

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import pytest

from bench import images, models
from bench.cache import ObtainError, Wheel
from bench.macs import count_macs
from bench.models import MODELS, OTHERS, model_named, models_named
from bench.shapes import pin_shapes

EXAMPLES = ("fashion_resnet8", "fashion_dscnn")
WHEELS = [
    models.RAPIDOCR,
    models.DDDDOCR,
    models.LITE_CODE,
    models.LITE_WEIGHTS,
    images.SCIKIT_IMAGE,
    images.SCIKIT_LEARN,
]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every download and every export fail."""

    def refuse(*command: Any, **_: Any) -> NoReturn:
        raise AssertionError(f"a default test must not run {command}")

    monkeypatch.setattr(subprocess, "run", refuse)


def test_keys_are_names() -> None:
    assert all(name == model.name for name, model in MODELS.items())
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in MODELS)


def test_shapes_are_pinned_and_of_one_sample() -> None:
    for model in MODELS.values():
        batch, *sample = model.shape
        assert batch == 1
        assert min(sample) > 0
        assert len(sample) == 2 or sample[0] in (1, 3), "neither tokens nor an image"


def test_groups_stand_for_their_models() -> None:
    assert [model.name for model in models_named(["table"])] == list(models.TABLE)
    assert [model.name for model in models_named(["all"])] == list(MODELS)
    assert [model.name for model in models_named(["others"])] == list(OTHERS)
    named = models_named(["vit_tiny", "resnet18"])
    assert [model.name for model in named] == ["vit_tiny", "resnet18"]


@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: wheel.package)
def test_packages_are_pinned(wheel: Wheel) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", wheel.sha256)
    assert wheel.filename.startswith(f"{wheel.package.replace('-', '_')}-{wheel.version}-")
    assert bool(wheel.tag) != wheel.filename.endswith("-none-any.whl")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_need_no_network(name: str) -> None:
    model = MODELS[name]
    proto = onnx.load(model.obtain())
    onnx.checker.check_model(proto, full_check=True)
    (given,) = proto.graph.input
    assert given.name == model.input
    assert tuple(dim.dim_value for dim in given.type.tensor_type.shape.dim) == model.shape
    assert [output.name for output in proto.graph.output] == ["logits"]


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ObtainError, match=r"no model is called vgg; there are .*resnet18"):
        model_named("vgg")


def test_calibration_and_evaluation_differ() -> None:
    def noise(count: int, seed: int) -> images.Floats:
        return np.random.default_rng(seed).random((count, 3), dtype=np.float32)

    model = models.Model("m", "x", (1, 3), Path, noise, trained=False)
    assert not np.array_equal(model.calibration(4), model.evaluation(4))
    assert np.array_equal(model.calibration(4), model.calibration(4))


def test_calibration_file_is_keyed_by_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRC_CACHE", str(tmp_path))
    made = np.zeros((16, 1, 2, 2), np.float32)
    model = models.Model("m", "pixels", (1, 1, 2, 2), Path, lambda *_: made, trained=False)
    path = models.calibration_file(model)
    with np.load(path) as arrays:
        assert list(arrays) == ["pixels"]
        assert arrays["pixels"].shape == (16, 1, 2, 2)


def test_failed_export_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRC_TORCH_PYTHON", sys.executable)
    with pytest.raises(ObtainError, match=r"resnet18: export failed; it needs torch"):
        models.run_torch_export(tmp_path / "m.onnx", "resnet18", ["--images", "missing.npy"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    # Exporting takes most of the time: those of one kind once.
    "name", [pytest.param(n, marks=pytest.mark.long if n in OTHERS else ()) for n in MODELS]
)
def test_obtained_models_fit_the_registry(name: str) -> None:
    model = MODELS[name]
    try:
        proto = onnx.load(model.obtain())
        samples = model.calibration(1)
    except ObtainError as error:
        pytest.skip(str(error)[:200])
    pin_shapes(proto, {model.input: model.shape})
    assert count_macs(proto) > 1_000_000
    assert samples.shape == (1, *model.shape[1:])
    assert samples.dtype == np.float32

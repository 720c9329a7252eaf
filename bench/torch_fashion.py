"""Torch networks trained on Fashion-MNIST: that of examples/torch_to_c, and torchvision's.

Weights are kept in the cache. torchvision's networks see the images twice as large, in three equal
channels.
"""

import importlib
from typing import Any

import numpy as np

from bench.cache import cache_folder, written_whole
from bench.fashion import Split, fashion, fashion_normalized
from bench.images import Floats, Pixels
from bench.torch_export import import_torchvision

IMAGES, BATCH = 12_000, 32
EXAMPLE = "torch_to_c"
"""The network of the example; other names are torchvision's."""
SEED = 0


def as_taken(name: str, pixels: Pixels) -> Floats:
    """Images u8[n, 28, 28] as a network takes them: f32[n, 1, 28, 28] or f32[n, 3, 56, 56]."""
    images = fashion_normalized(pixels)
    if name == EXAMPLE:
        return images
    return np.ascontiguousarray(images.repeat(2, 2).repeat(2, 3).repeat(3, 1))


def labelled(name: str, split: Split, count: int) -> tuple[Floats, Any]:
    """The first images of a split and their labels, u8[n]."""
    pixels, labels = (array[:count] for array in fashion(split))
    return as_taken(name, pixels), labels


def epochs(name: str) -> int:
    """How often a network sees the images: the example's is small."""
    return 6 if name == EXAMPLE else 2


def untrained(name: str) -> Any:
    """The module, ten classes, in seeded random weights."""
    importlib.import_module("torch").manual_seed(SEED)
    if name == EXAMPLE:
        return importlib.import_module("examples.torch_to_c.train").Net()
    return import_torchvision().models.get_model(name, weights=None, num_classes=10)


def trained(name: str) -> Any:
    """The module in evaluation mode; trained if it is not in the cache."""
    torch = importlib.import_module("torch")
    path = cache_folder() / f"{name}_fashion_{IMAGES}x{epochs(name)}.pt"
    module = untrained(name)
    if not path.exists():
        train(name, module)
        with written_whole(path) as part:
            torch.save(module.state_dict(), part)
    module.load_state_dict(torch.load(path, weights_only=True))
    return module.eval()


def train(name: str, module: Any) -> None:
    """As the example does it."""
    torch, data = (importlib.import_module(n) for n in ("torch", "torch.utils.data"))
    images, labels = labelled(name, "train", IMAGES)
    pairs = data.TensorDataset(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))
    loader = data.DataLoader(pairs, batch_size=BATCH, shuffle=True)
    importlib.import_module("examples.torch_to_c.train").train(module, loader, epochs(name))

"""A network is trained in PyTorch, compiled, and called from C; both must say the same.

Writes to build/torch_to_c/. Exits with 1 where an expectation is not met.
"""

import argparse
import gzip
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import irc

HERE = Path(__file__).resolve().parent
DATASET = Path(os.environ.get("IRC_FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
"""Where Debian's package dataset-fashion-mnist puts its files."""
BUNDLED = HERE.parent / "data" / "fashion_test.npz"
"""2,000 images that lie here, for those who don't have the whole set."""
MEAN, STD = 0.2860, 0.3530  # of the training images, pixels in [0, 1]
MOST_LOST = 1.5  # points of accuracy, by the integers
Reals = NDArray[np.float32]


class Residual(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to the same."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(y)))


class Net(nn.Module):
    """A small residual classifier of 28 x 28 images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.block1 = Residual(16)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.block2 = Residual(32)
        self.classifier = nn.Linear(32, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """[N, 1, 28, 28] to scores [N, 10]."""
        x = self.block1(torch.relu(self.stem(image)))
        x = self.block2(torch.relu(self.down(x)))
        scores: torch.Tensor = self.classifier(x.mean((2, 3)))
        return scores


def dataset(pixels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> TensorDataset:
    """Normalized images [n, 1, 28, 28] and their labels."""
    images = torch.from_numpy(pixels.reshape(-1, 1, 28, 28).copy()).float() / 255
    return TensorDataset((images - MEAN) / STD, torch.from_numpy(labels.astype(np.int64)))


def read_idx(kind: str, count: int) -> TensorDataset:
    """The first images of the data set's files: "train" or "t10k"."""
    pixels, labels = (
        np.frombuffer(gzip.decompress((DATASET / f"{kind}-{name}-ubyte.gz").read_bytes()), np.uint8)
        for name in ("images-idx3", "labels-idx1")
    )
    return dataset(pixels[16:][: count * 28 * 28], labels[8:][:count])  # what precedes are sizes


def read_images() -> tuple[TensorDataset, TensorDataset]:
    """What to train on and what to test with: 20,000 and 1,000 images of the whole set where it is
    installed, else 1,600 and 400."""
    if (DATASET / "train-images-idx3-ubyte.gz").exists():
        return read_idx("train", 20_000), read_idx("t10k", 1_000)
    with np.load(BUNDLED) as data:
        pixels, labels = data["x"], data["labels"]
    return dataset(pixels[:1600], labels[:1600]), dataset(pixels[1600:], labels[1600:])


def train(module: nn.Module, loader: Any, epochs: int) -> None:
    """Adam, with a learning rate that falls to nothing."""
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        total = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(images), labels)
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(labels)
        schedule.step()
        print(f"  epoch {epoch + 1}: loss {total / len(loader.dataset):.3f}", flush=True)


def run(*command: str | Path) -> str:
    """A command's output; the example ends where it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(map(str, command))}: status {done.returncode}: {done.stderr}")
    return done.stdout


def c_scores(folder: Path, images: Reals) -> Reals:
    """Scores f32[n, 10] by the C program, built against the library in `folder`."""
    program, raw = folder / "main", folder / "images.f32"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    run(*compiler, "-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{folder}",
        HERE / "main.c", folder / "libnet.a", "-o", program)  # fmt: skip
    images.tofile(raw)
    lines = run(program, raw).splitlines()
    return np.array([line.split() for line in lines], np.float32)


def accuracy(scores: Reals, labels: NDArray[np.int64]) -> float:
    """In percent."""
    return 100 * float(np.mean(scores.argmax(1) == labels))


def main() -> int:
    """Run the example; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=HERE.parents[1] / "build" / "torch_to_c")
    parser.add_argument(
        "--epochs", type=int, help="default: 5 over the whole set, 12 over the small one"
    )
    options = parser.parse_args()
    start = time.monotonic()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # layers so small gain little by more, and on a busy machine lose much
    training, testing = read_images()
    module = Net()
    epochs = options.epochs or min(12, 100_000 // len(training))
    print(f"training on {len(training)} images of Fashion-MNIST")
    train(module, DataLoader(training, batch_size=32, shuffle=True), epochs)
    module.eval()  # irc takes no module in training mode

    graph = irc.from_torch(module, torch.zeros(1, 1, 28, 28))  # an input like those to come
    samples = Subset(training, range(500))  # real inputs, from which the scales are found
    quantized = irc.quantize(graph, calibration=DataLoader(samples, batch_size=32))
    model = irc.compile(quantized)
    model.save(options.output, name="net")

    # From here on: the proof. The same images through torch, through Python, and through C.
    images, labels = (t.numpy() for t in testing.tensors)
    with torch.no_grad():
        real = module(testing.tensors[0]).numpy()
    integer = np.concatenate([model({"image": x[np.newaxis]})["output"] for x in images])
    compiled = c_scores(options.output, images)
    alike = int(np.sum((compiled == integer).all(1)))
    before, after = accuracy(real, labels), accuracy(compiled, labels)
    print(f"accuracy on {len(labels)} other images: torch {before:.1f} %, C {after:.1f} %")
    print(f"the C program's scores equal Python's on {alike} of {len(labels)} images")
    print(f"library: {options.output / 'libnet.a'}")
    print(f"done in {time.monotonic() - start:.0f} s")
    return int(alike != len(labels) or after < before - MOST_LOST)


if __name__ == "__main__":
    sys.exit(main())

"""A network is trained in PyTorch, compiled, and called from C; both must say the same.

Writes to build/torch_to_c/. Exits with 1 where an expectation is not met.
"""

import argparse
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
from torch.utils.data import DataLoader, TensorDataset

import irc

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "data" / "fashion_test.npz"
MEAN, STD = 0.2860, 0.3530
TRAINED_ON = 1600  # of the 2,000 images that lie here; the others test
MOST_LOST = 1.5  # points of accuracy on 400 images
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


def read_images() -> tuple[TensorDataset, TensorDataset]:
    """What to train on, and what to test with."""
    with np.load(IMAGES) as data:
        pixels = torch.from_numpy(data["x"]).float().permute(0, 3, 1, 2)
        labels = torch.from_numpy(data["labels"].astype(np.int64))
    images = (pixels / 255 - MEAN) / STD
    return (
        TensorDataset(images[:TRAINED_ON], labels[:TRAINED_ON]),
        TensorDataset(images[TRAINED_ON:], labels[TRAINED_ON:]),
    )


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
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    start = time.monotonic()
    torch.manual_seed(0)
    training, testing = read_images()
    module = Net()
    print(f"training on {len(training)} images of Fashion-MNIST")
    train(module, DataLoader(training, batch_size=32, shuffle=True), options.epochs)
    module.eval()

    graph = irc.from_torch(module, torch.zeros(1, 1, 28, 28))
    quantized = irc.quantize(graph, calibration=DataLoader(training, batch_size=32))
    model = irc.compile(quantized)
    model.save(options.output, name="net")

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

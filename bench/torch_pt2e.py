"""`python -m bench.torch_pt2e [NAME...] [--images N] [--write FILE.md]`: trained networks that
PyTorch quantized.

Networks trained on Fashion-MNIST, and EfficientNet-lite0 as it was trained on ImageNet, are
quantized by PT2E with two quantizers and compiled without calibration: how the logits and choices
of the library compare with those of torch's own quantized program, how these compare with
themselves where torch computes without oneDNN, and how both compare with the same program
evaluated in float64. Needs torch, torchvision, torchao, and Debian's dataset-fashion-mnist.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import irc
from bench.document import write_measured
from bench.images import Floats
from bench.models import EVALUATION_SEED, lite_crops, lite_files
from bench.report import markdown_table
from bench.torch_exact import exactly
from bench.torch_export import efficientnet_lite0, one_thread
from bench.torch_fashion import EXAMPLE, IMAGES, labelled, trained

TESTED_WITH, PHOTOS, CALIBRATED_ON = 500, 100, 32
SEED = 0
SECTION = "pt2e"
PHOTO_NETWORK = "efficientnet_lite0"
NETWORKS = (EXAMPLE, "resnet18", "mobilenet_v2", PHOTO_NETWORK)
HEADINGS = ["network", "quantizer", "within 1 unit", "furthest", "torch, furthest",
            "exact: torch, furthest", "irc, furthest", "same choice", "others tied",
            "torch, same choice", "right: torch", "irc"]  # fmt: skip

MEANING = (
    f"Networks trained on {IMAGES:,} images of Fashion-MNIST (`{EXAMPLE}`: that of the example, for"
    " 6 epochs; torchvision's, at 56 x 56, for 2) and run on"
    f" {TESTED_WITH} others; `{PHOTO_NETWORK}`, where it is listed, with its ImageNet weights on"
    f" {PHOTOS} crops of photos, for which the float network's choices count as right. Quantized by"
    f" PT2E on {CALIBRATED_ON} samples. *Within 1"
    " unit*: logits of the library from those of torch's quantized program, in units of their scale"
    " (X86Inductor leaves logits in float: 1/255 of their range). *Torch, furthest*, *same choice*:"
    " the program against itself, computed without oneDNN. *Exact*: both against the program"
    " evaluated in float64, in which nothing but its own quantizing rounds. *Others tied*: choices"
    " that differ where torch's logits of both are the same integer. Torch computes on one thread."
)


@dataclass(frozen=True)
class Task:
    """A network; f32[n, ...] to calibrate on and to test with; its right answers [n]."""

    name: str
    module: Any
    samples: Floats
    images: Floats
    labels: NDArray[Any]


@dataclass(frozen=True)
class Agreement:
    """Logits [n, k] of torch's quantized program, of the same without oneDNN, of the same in
    float64, and of our library; the right answers."""

    network: str
    quantizer: str
    torchs: Floats
    plain: Floats
    exact: NDArray[np.float64]
    ours: Floats
    labels: NDArray[Any]
    unit: float
    """What one integer of 8-bit logits stands for."""

    def cells(self) -> list[str]:
        """A row of the table."""
        ours, theirs, plain = (a.argmax(1) for a in (self.ours, self.torchs, self.plain))
        count = len(theirs)
        return [
            self.network,
            self.quantizer,
            f"{100 * np.mean(self.off(self.ours, self.torchs) < 1.01):.2f} %",
            f"{self.off(self.ours, self.torchs).max():.1f}",
            f"{self.off(self.plain, self.torchs).max():.1f}",
            f"{self.off(self.torchs, self.exact).max():.1f}",
            f"{self.off(self.ours, self.exact).max():.1f}",
            f"{np.sum(ours == theirs)} of {count}",
            str(np.sum((ours != theirs) & self.tied(ours))),
            f"{np.sum(plain == theirs)} of {count}",
            f"{100 * np.mean(theirs == self.labels):.1f} %",
            f"{100 * np.mean(ours == self.labels):.1f} %",
        ]

    def shares(self) -> str:
        """How many logits lie within a unit of torch's, and of the exact ones."""
        pairs: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {
            "torch's: irc": (self.ours, self.torchs),
            "torch without oneDNN": (self.plain, self.torchs),
            "the exact: irc": (self.ours, self.exact), "torch": (self.torchs, self.exact),
        }  # fmt: skip
        found = (f"{k} {100 * np.mean(self.off(a, b) < 1.01):.2f} %" for k, (a, b) in pairs.items())
        return f"within 1 unit of {', '.join(found)}"

    def off(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        """How far logits lie apart, in units."""
        apart: NDArray[Any] = np.abs(a - b) / self.unit
        return apart

    def tied(self, chosen: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Where what was chosen is, to torch, less than half a unit below the highest: [n]."""
        theirs = np.take_along_axis(self.torchs, chosen[:, None], 1)[:, 0]
        tied: NDArray[np.bool_] = self.torchs.max(1) - theirs < 0.5 * self.unit
        return tied


def xnnpack() -> Any:
    """Symmetric, weights per channel."""
    of = importlib.import_module("torchao.testing.pt2e._xnnpack_quantizer")
    return of.XNNPACKQuantizer().set_global(
        of.get_symmetric_quantization_config(is_per_channel=True)
    )


def x86() -> Any:
    """The defaults for x86."""
    of = importlib.import_module("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    return of.X86InductorQuantizer().set_global(of.get_default_x86_inductor_quantization_config())


QUANTIZERS: dict[str, Callable[[], Any]] = {"XNNPACK": xnnpack, "X86Inductor": x86}


def task(name: str) -> Task:
    """A network with its data; the float network's choices are the right ones for photos."""
    if name != PHOTO_NETWORK:
        samples, _ = labelled(name, "train", CALIBRATED_ON)
        return Task(name, trained(name), samples, *labelled(name, "t10k", TESTED_WITH))
    module = efficientnet_lite0(*lite_files())
    images = lite_crops(PHOTOS, EVALUATION_SEED)
    return Task(
        name, module, lite_crops(CALIBRATED_ON, SEED), images, outputs(module, images).argmax(1)
    )


def quantized(module: Any, quantizer: Any, samples: Floats) -> Any:
    """The program that PT2E makes of a module."""
    torch = importlib.import_module("torch")
    flow = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    tensors = torch.from_numpy(samples)
    program = torch.export.export(module, (tensors[:1],), strict=True).module()
    prepared = flow.prepare_pt2e(program, quantizer)
    with torch.no_grad():
        for sample in tensors:
            prepared(sample[None])
    return flow.convert_pt2e(prepared)


def outputs(program: Any, images: Floats, *, onednn: bool = True) -> Floats:
    """What torch computes, one image at a time: f32[n, k]."""
    torch = importlib.import_module("torch")
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=onednn):
        return np.concatenate([program(torch.from_numpy(x[None])).numpy() for x in images])


def unit_of(logits: Floats, kind: Any) -> float:
    """The scale of the logits; of those left in float, what 8 bits would have over their range."""
    if kind.dtype.bits == 8:
        return float(kind.scale)
    return float(logits.max() - logits.min()) / 255


def compared(given: Task, quantizer: str) -> Agreement:
    """One image at a time, through both."""
    torch = importlib.import_module("torch")
    program = quantized(given.module, QUANTIZERS[quantizer](), given.samples)
    model = irc.compile(irc.from_torch(program, torch.from_numpy(given.images[:1])))
    key, kind = model.graph.inputs[0].name, model.graph.outputs[0].type
    torchs = outputs(program, given.images)
    plain = outputs(program, given.images, onednn=False)
    ours = np.concatenate([next(iter(model({key: x[None]}).values())) for x in given.images])
    unit = unit_of(torchs, kind)
    exact = exactly(program, given.images)
    return Agreement(given.name, quantizer, torchs, plain, exact, ours, given.labels, unit)


def section(found: Iterable[Agreement]) -> str:
    """The table, and what its columns mean."""
    return f"{MEANING}\n\n{markdown_table(HEADINGS, [each.cells() for each in found])}"


def main() -> None:
    """Print the table; write it into a document."""
    parser = argparse.ArgumentParser(prog="python -m bench.torch_pt2e", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("--images", type=int, metavar="N", help="the first N alone")
    parser.add_argument("--write", type=Path, metavar="FILE.md")
    given = parser.parse_args()
    if given.images and given.write:
        parser.error("--write is for all images")
    one_thread()
    found = []
    for whole in map(task, given.names or NETWORKS):
        first = slice(given.images)
        each = replace(whole, images=whole.images[first], labels=whole.labels[first])
        for quantizer in QUANTIZERS:
            found.append(compared(each, quantizer))
            said = (" | ".join(found[-1].cells()), found[-1].shares())
            print(*said, sep="\n", file=sys.stderr, flush=True)
    text = section(found)
    print(text)
    if given.write:
        write_measured(given.write, SECTION, text)


if __name__ == "__main__":
    main()

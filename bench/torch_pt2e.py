"""`python -m bench.torch_pt2e [--write FILE.md]`: a trained network, quantized by PyTorch.

The network of examples/torch_to_c, trained on Fashion-MNIST, quantized by PT2E with two quantizers,
and compiled without calibration: how its library's logits and choices compare with those of
torch's own quantized program. Needs torch, torchao, and Debian's dataset-fashion-mnist.
"""

import argparse
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import irc
from bench.cache import written_whole
from bench.document import replaced
from bench.fashion import fashion, fashion_images, fashion_normalized
from bench.images import Floats
from bench.report import markdown_table

TRAINED_ON, TESTED_WITH, CALIBRATED_ON = 20_000, 1_000, 64
EPOCHS = 2
SEED = 0
SECTION = "pt2e"


@dataclass(frozen=True)
class Agreement:
    """Logits f32[n, 10] of torch's quantized program and of our library, and the truth."""

    quantizer: str
    torchs: Floats
    ours: Floats
    labels: NDArray[np.uint8]
    unit: float
    """What one integer of the logits stands for."""

    @property
    def off(self) -> Floats:
        """How far the logits are apart, in units."""
        apart: Floats = np.abs(self.ours - self.torchs) / np.float32(self.unit)
        return apart

    def cells(self) -> list[str]:
        """A row of the table."""
        chosen, theirs = self.ours.argmax(1), self.torchs.argmax(1)
        tied = np.sort(self.torchs, 1)
        tied_differ = (chosen != theirs) & (tied[:, -1] - tied[:, -2] < 0.5 * self.unit)
        return [
            self.quantizer,
            f"{100 * np.mean(self.off < 0.5):.2f} %",
            f"{self.off.max():.1f}",
            f"{int(np.sum(chosen == theirs))} of {len(theirs)}",
            str(int(np.sum(tied_differ))),
            f"{100 * np.mean(theirs == self.labels):.1f} %",
            f"{100 * np.mean(chosen == self.labels):.1f} %",
        ]


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


QUANTIZERS: dict[str, Callable[[], Any]] = {
    "XNNPACKQuantizer": xnnpack,
    "X86InductorQuantizer": x86,
}


def trained() -> Any:
    """The example's network after its training."""
    torch, data = (importlib.import_module(n) for n in ("torch", "torch.utils.data"))
    example = importlib.import_module("examples.torch_to_c.train")
    pixels, labels = (array[:TRAINED_ON] for array in fashion("train"))
    images = torch.from_numpy(fashion_normalized(pixels))
    training = data.TensorDataset(images, torch.from_numpy(labels.astype(np.int64)))
    torch.manual_seed(SEED)
    module = example.Net()
    example.train(module, data.DataLoader(training, batch_size=32, shuffle=True), EPOCHS)
    return module.eval()


def quantized(module: Any, quantizer: Any) -> Any:
    """The program that PT2E makes of a module."""
    torch = importlib.import_module("torch")
    flow = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    samples = torch.from_numpy(fashion_images(CALIBRATED_ON, SEED))
    program = torch.export.export(module, (samples[:1],), strict=True).module()
    prepared = flow.prepare_pt2e(program, quantizer)
    for sample in samples:
        prepared(sample[None])
    return flow.convert_pt2e(prepared)


def compared(name: str, module: Any) -> Agreement:
    """One image at a time, through both."""
    torch = importlib.import_module("torch")
    program = quantized(module, QUANTIZERS[name]())
    pixels, labels = (array[:TESTED_WITH] for array in fashion("t10k"))
    images = fashion_normalized(pixels)
    model = irc.compile(irc.from_torch(program, torch.from_numpy(images[:1])))
    key = model.graph.inputs[0].name
    with torch.no_grad():
        torchs = np.concatenate([program(torch.from_numpy(x[None])).numpy() for x in images])
    ours = np.concatenate([model({key: x[None]})["output"] for x in images])
    return Agreement(name, torchs, ours, labels, float(model.graph.outputs[0].type.scale))


def section(found: Iterable[Agreement]) -> str:
    """The table, and what its columns mean."""
    headings = ["quantizer", "logits alike", "furthest, units", "same choice",
                "others in a tie", "torch right", "irc right"]  # fmt: skip
    told = (
        "`python -m bench.torch_pt2e --write docs/torch-support.md`: the network of"
        f" examples/torch_to_c, trained for {EPOCHS} epochs on {TRAINED_ON:,} images of"
        f" Fashion-MNIST, quantized by PT2E on {CALIBRATED_ON}, run on {TESTED_WITH:,} others by"
        " torch's quantized program and by the library. *Alike*: nearer than half a unit of the"
        " logits' scale. *Others in a tie*: where torch's two highest logits are the same integer."
    )
    return f"{told}\n\n{markdown_table(headings, [each.cells() for each in found])}"


def main() -> None:
    """Print the table; write it into a document."""
    parser = argparse.ArgumentParser(prog="python -m bench.torch_pt2e", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE.md")
    given = parser.parse_args()
    module = trained()
    text = section([compared(name, module) for name in QUANTIZERS])
    print(text)
    if given.write:
        document = replaced(given.write.read_text(), SECTION, text)
        with written_whole(given.write) as part:
            part.write_text(document)


if __name__ == "__main__":
    main()

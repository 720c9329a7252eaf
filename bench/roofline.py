"""Each layer of a model under the machine's roofs: what it reaches, and how many products it makes
of each byte."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from bench.cache import ObtainError
from bench.isa import Level
from bench.models import Model
from bench.shapes import pin_shapes

LIMIT = 180.0  # seconds
MULTIPLIES = ("amx", "vpdpbusd", "maddubs", "madd", "winograd", "rowpairs", "sdot")


@dataclass(frozen=True)
class Layer:
    """One layer that multiplies: `nbytes` it reads and writes at least, `share` of the whole
    network's time, `kind` of kernel."""

    name: str
    kind: str
    macs: int
    nbytes: int
    milliseconds: float
    share: float

    @property
    def gmacs(self) -> float:
        """Billions of multiply-accumulates a second."""
        return self.macs / self.milliseconds / 1e6

    @property
    def intensity(self) -> float:
        """Multiply-accumulates per byte."""
        return self.macs / self.nbytes


def measure_layers(model: Model, level: Level, *, rounds: int, calibration: int) -> list[Layer]:
    """Time a model's layers by `irc bench --layers`, on this process's cores and one thread.

    Raises ObtainError where that fails.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        source, samples, results = (folder / f for f in ("model.onnx", "data.npz", "layers.json"))
        proto = onnx.load(model.obtain())
        pin_shapes(proto, {model.input: model.shape})
        onnx.save(proto, source)
        arrays: dict[str, Any] = {model.input: model.calibration(calibration)}
        np.savez(samples, **arrays)
        command = [
            sys.executable, "-m", "irc", "bench", str(source), "--calibration", str(samples),
            "--layers", "--rounds", str(rounds), "--target", level.target, "--json", str(results),
        ]  # fmt: skip
        try:
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT)
        except subprocess.CalledProcessError as error:
            raise ObtainError(f"{model.name}: irc bench failed: {error.stderr[-300:]}") from None
        except subprocess.TimeoutExpired:
            raise ObtainError(f"{model.name}: irc bench took more than {LIMIT:.0f} s") from None
        return merged(json.loads(results.read_text())["layers"])


def kind_of(kernel: str) -> str:
    """Return the family of a kernel and how it multiplies, of its name."""
    family, *words = kernel.split("_")
    return " ".join([family, *(word for word in words if word in MULTIPLIES)][:2])


def merged(calls: Iterable[Mapping[str, Any]]) -> list[Layer]:
    """Return the layers that multiply, of kernel calls in their order: a layer's calls follow each
    other, and what prepares its products (halos) counts as its time."""
    groups = [list(group) for _, group in groupby(calls, key=lambda call: call["layer"])]
    total = sum(call["milliseconds"] for group in groups for call in group)
    found = []
    for group in groups:
        macs = sum(call["macs"] for call in group)
        spent = sum(call["milliseconds"] for call in group)
        main = max(group, key=lambda call: call["macs"])
        if macs and main["nbytes"] and spent > 0:
            kind = kind_of(main["kernel"])
            found.append(Layer(main["layer"], kind, macs, main["nbytes"], spent, spent / total))
    return found

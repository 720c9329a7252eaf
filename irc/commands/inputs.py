"""What several commands are given: shapes, calibration data, labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irc import driver
from irc.commands.console import note
from irc.errors import DataError, ModelError, ShapeError
from irc.graph import Graph
from irc.pixels import Pixels, normalized, read_images
from irc.types import Array, Shape

LABELS = "labels"
"""The array of true classes in an `.npz`; data may hold it too."""


@dataclass(frozen=True)
class Pins:
    """What is said of a model's inputs: texts `NAME=1,3,224,224`, `NAME=16000`, `NAME=OUTPUT`."""

    shapes: Sequence[str] = ()
    values: Sequence[str] = ()
    states: Sequence[str] = ()


NO_PINS = Pins()


def load_model(path: Path, pins: Pins = NO_PINS, data: str | None = None) -> Graph:
    """The model at `path`, its inputs pinned; dimensions that are open then are those of samples,
    where `data` names an `.npz`."""
    if path.is_dir():
        raise ModelError(f"{path} is a folder, no model: a file is wanted, .onnx, .pt2 or .irc")
    if not path.is_file():
        raise ModelError(f"there is no model {path}")
    shapes, values = parse_shapes(pins.shapes), parse_values(pins.values)
    states = parse_states(pins.states)
    while True:
        try:
            return driver.load(path, shapes, values, states)
        except ShapeError as error:
            shape = None if error.name in shapes else _shape_of_samples(data, error)
            if shape is None and data is not None and not data.endswith(".npz"):
                told = f"{error}, or by samples: --calibration DATA.npz with {error.name!r} in it"
                raise ShapeError(told, error.name, error.dims) from None
            if shape is None:
                raise
            note(f"input {error.name} has the shape {','.join(map(str, shape))} of {data}")
            shapes[error.name] = shape


def _shape_of_samples(data: str | None, wanted: ShapeError) -> Shape | None:
    """The shape of an input by samples of it, one where a batch is open; None where none fits."""
    if data is None or not data.endswith(".npz"):
        return None
    array = driver.read_npz(Path(data)).get(wanted.name)
    if array is None or array.ndim < 1:
        return None
    dims = wanted.dims or (None,) * array.ndim
    seen = (dims[0] or 1, *array.shape[1:]) if array.ndim == len(dims) else array.shape[1:]
    fits = len(seen) == len(dims) and all(d in (None, s) for d, s in zip(dims, seen, strict=True))
    return seen if fits else None


def parse_states(texts: Sequence[str]) -> dict[str, str]:
    """`NAME=OUTPUT`, each; raises `ModelError` for anything else."""
    found: dict[str, str] = {}
    for text in texts:
        name, _, output = text.partition("=")
        if not name or not output:
            raise ModelError(f"--state {text}: write INPUT=OUTPUT, as in --state h=h_next")
        found[name] = output
    return found


def parse_values(texts: Sequence[str]) -> dict[str, Array]:
    """`NAME=16000` or `NAME=1,0.5,2`, each; raises `ModelError` for anything else."""
    found: dict[str, Array] = {}
    for text in texts:
        name, _, numbers = text.rpartition("=")
        try:
            read = [float(n) if re.search(r"[.eE]", n) else int(n) for n in numbers.split(",")]
        except ValueError:
            read = []
        if not name or not read:
            raise ModelError(f"--value {text}: write NAME=16000, or NAME=1,0.5,2")
        found[name] = np.array(read if len(read) > 1 else read[0])
    return found


def parse_shapes(texts: Sequence[str]) -> dict[str, Shape]:
    """`NAME=1,3,224,224`, each; raises `ModelError` for anything else."""
    found: dict[str, Shape] = {}
    for text in texts:
        name, _, dims = text.rpartition("=")
        if not name or not re.fullmatch(r"\d+(,\d+)*", dims):
            raise ModelError(f"--shape {text}: write NAME=1,3,224,224")
        found[name] = tuple(int(d) for d in dims.split(","))
    return found


def parse_pixels(text: str | None) -> Pixels | None:
    """What `--input-u8` says, if it is given."""
    return None if text is None else Pixels.parse(text)


def read_data(text: str, graph: Graph, pixels: Pixels | None) -> Any:
    """What `--calibration` or `--data` names, in a form that `irc.quantize` takes.

    A list, where it is a folder of images; the `.npz`'s arrays, u8 pixels normalised; `random:N`
    as it stands. Raises `DataError` where there is nothing of use.
    """
    if text.startswith("random:"):
        return text
    path = Path(text)
    if path.is_dir():
        if pixels is None:
            raise DataError(f"{path} is a folder: images need --input-u8 mean=..,std=..")
        return _Images(path, graph, pixels)
    if not path.exists():
        raise DataError(f"there is no data {path}: give an .npz keyed by input name, or random:16")
    arrays = driver.read_npz(path)
    if LABELS not in graph.input_types:
        arrays.pop(LABELS, None)
    return arrays if pixels is None else normalized(arrays, graph, pixels)


class _Images:
    """A folder of images as samples: read anew each time, never all at once in memory."""

    def __init__(self, folder: Path, graph: Graph, pixels: Pixels) -> None:
        self.folder, self.graph, self.pixels = folder, graph, pixels

    def __iter__(self) -> Any:
        return read_images(self.folder, self.graph, self.pixels)


def read_labels(path: Path) -> Array:
    """Classes, i64[n], of an `.npy`, or of that array in an `.npz`."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            array = loaded if isinstance(loaded, np.ndarray) else loaded[LABELS]
    except OSError as error:
        raise DataError(f"can't read labels {path}: {error.strerror or error}") from None
    except (ValueError, EOFError, KeyError) as error:
        raise DataError(f"can't read labels {path}: {error}") from None
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"labels {path}: integers on one axis are wanted, not {array.dtype}"
                        f"{list(array.shape)}")  # fmt: skip
    return array.astype(np.int64)


def need_calibration(calibration: str | None) -> str:
    """The data, or a `DataError` that says how to make some."""
    if calibration is None:
        raise DataError(
            "a float model needs --calibration DATA: save some hundred real inputs with"
            " np.savez('data.npz', INPUT=array), samples on the first axis; or try random:16"
        )
    return calibration

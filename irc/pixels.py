"""Camera frames as input: u8 pixels [N,H,W,C], normalised inside the library.

    real = (pixel / 255 - mean) / std          per channel, as models are trained

The normalisation becomes a depthwise 1x1 convolution in front of the model, quantized like any
other: `real` is rounded once, straight into the model's own input scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from irc.errors import DataError, GraphError
from irc.graph import Graph
from irc.ops.conv import Conv2d
from irc.ops.core import Const, Input
from irc.ops.quantization import Dequantize
from irc.ops.shape import Reshape, Transpose
from irc.types import Array, DType, Quant, Shape
from irc.value import Value

CHANNELS = (1, 3, 4)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm")
LARGEST_WEIGHT = 127
FARTHEST = 2.0
"""No mean of pixels lies as far out, in units of 0..1."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Pixels:
    """How pixels become the reals that a model was trained on; one number, or one per channel."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        finite = all(np.isfinite(x) for x in (*self.mean, *self.std))
        if not self.mean or not self.std or not finite or min(self.std) <= 0:
            raise DataError("pixels: mean must be finite, std positive and finite")
        if (largest := max(map(abs, self.mean))) > FARTHEST:
            raise DataError(
                f"pixels: mean={largest:g} seems to be of pixels 0..255; mean and std are in units"
                " of 0..1, a 255th of that"
            )

    @classmethod
    def parse(cls, text: str) -> Pixels:
        """Read `mean=0.485,0.456,0.406,std=0.229,0.224,0.225`; raises `DataError` else."""
        found: dict[str, list[float]] = {}
        key = ""
        for word in text.split(","):
            name, equals, number = word.rpartition("=")
            key = name.strip() if equals else key
            try:
                found.setdefault(key, []).append(float(number))
            except ValueError:
                found[""] = []
        if not found or not set(found) <= {"mean", "std"}:
            raise DataError(
                f"pixels {text!r} can't be read: write mean=M,std=S with one number or one per"
                " channel each, in units of 0..1, as in"
                " mean=0.485,0.456,0.406,std=0.229,0.224,0.225"
            )
        return cls(tuple(found.get("mean", [0.0])), tuple(found.get("std", [1.0])))

    def per_channel(self, channels: int) -> tuple[Array, Array]:
        """Mean and std as float64[channels]; raises `DataError` where their number is another."""
        for what, given in (("mean", self.mean), ("std", self.std)):
            if len(given) not in (1, channels):
                raise DataError(f"pixels: {len(given)} numbers for {what}, {channels} channels")
        shape = (channels,)
        return np.broadcast_to(self.mean, shape), np.broadcast_to(self.std, shape)

    def normalize(self, pixels: Array) -> Array:
        """u8 [..., C] to the reals of the model, f32."""
        mean, std = self.per_channel(pixels.shape[-1])
        return ((pixels.astype(np.float64) / 255 - mean) / std).astype(np.float32)


@dataclass(frozen=True)
class Frame:
    """The image input of a graph: [N,H,W,C] as the camera has it, and the axes to get there."""

    input: Input
    shape: Shape
    channels_first: bool

    def model_layout(self, images: Array) -> Array:
        """[..., N,H,W,C] in the model's own layout."""
        if not self.channels_first:
            return images
        return np.moveaxis(images, -1, -3)


def frame_of(graph: Graph) -> Frame:
    """The image input; raises `GraphError` unless there is exactly one input, an image."""
    if len(graph.inputs) != 1:
        names = [v.name for v in graph.inputs]
        raise GraphError(f"pixels: {graph.name} has the inputs {names}, one image is wanted")
    (v,) = graph.inputs
    if len(v.shape) == 4 and v.type.dtype.is_float:
        n, *rest = v.shape
        if rest[0] in CHANNELS:
            return Frame(v, (n, rest[1], rest[2], rest[0]), channels_first=True)
        if rest[2] in CHANNELS:
            return Frame(v, v.shape, channels_first=False)
    raise GraphError(f"pixels: input %{v.name} is {v.type}, no image of 1, 3 or 4 channels")


def take_pixels(graph: Graph, pixels: Pixels) -> Graph:
    """A QDQ graph whose image input is u8 [N,H,W,C] of that name, normalised by the graph.

    %x = input : u8[1,224,224,3] q(1.0, 0)
    %r = transpose(reshape(conv2d(reshape(dequantize(%x)), dequantize(%w), dequantize(%b))))
    """
    frame = frame_of(graph)
    camera = Input(DType.U8, frame.shape, Quant(1.0, 0), name=frame.input.name)
    made: Value = _normalized(camera, pixels)
    if frame.channels_first:
        made = Transpose(made, (0, 3, 1, 2), name=frame.input.name)
    new: dict[Value, Value] = {frame.input: made}
    for v in graph.order:
        if v not in new:
            new[v] = v.map_operands(new.__getitem__)
    outputs = tuple(new[v] for v in graph.outputs)
    return Graph(graph.name, (camera,), outputs, graph.output_names)


def _normalized(camera: Input, pixels: Pixels) -> Value:
    """`pixel * w + b` per channel: all weights are the largest i8, their scales do the rest.

    The pixels of a row and their channels are one axis for it, which fills vectors where three
    channels would not.
    """
    n, height, width, channels = camera.shape
    mean, std = (np.tile(v, width) for v in pixels.per_channel(channels))
    scales = 1 / (255 * std * LARGEST_WEIGHT)
    w = np.full((width * channels, 1, 1, 1), LARGEST_WEIGHT, np.int8)
    b = np.rint(-mean / std / scales).astype(np.int32)
    name = camera.name
    row = Conv2d(
        Reshape(Dequantize(camera, name=f"{name}.pixels"), (n, height, 1, width * channels)),
        Dequantize(_constant(w, scales, f"{name}.std"), name=f"{name}.std"),
        Dequantize(_constant(b, scales, f"{name}.mean"), name=f"{name}.mean"),
        groups=width * channels,
        name=f"{name}.rows",
    )
    return Reshape(row, camera.shape, name=name)


def _constant(array: Array, scales: npt.NDArray[np.float64], name: str) -> Const:
    return Const(array, Quant(tuple(float(s) for s in scales), 0, 0), name=name)


def read_images(folder: Path, graph: Graph, pixels: Pixels) -> Iterator[dict[str, Array]]:
    """The images of a folder, in the order of their names, as samples of the graph's input.

    Each is scaled until its shorter side fits, cut to the centre, and normalised. Raises
    `DataError` where there is none, or one can't be read.
    """
    frame = frame_of(graph)
    batch, height, width, channels = frame.shape
    pixels.per_channel(channels)
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{folder} holds no image ({', '.join(SUFFIXES)})")
    for path in paths:
        image = read_image(path, height, width, channels)
        images = np.broadcast_to(pixels.normalize(image), (batch, height, width, channels))
        yield {frame.input.name: frame.model_layout(images)}


def read_image(path: Path, height: int, width: int, channels: int) -> Array:
    """An image as u8 [height, width, channels]; raises `DataError` where it can't be read."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            fit = ImageOps.fit(image.convert(MODES[channels]), (width, height))
            return np.asarray(fit, np.uint8).reshape(height, width, channels)
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"can't read image {path}: {error}") from None


def normalized(data: Mapping[str, Array], graph: Graph, pixels: Pixels) -> dict[str, Array]:
    """Stacked arrays by input name; those of u8 pixels [samples, H, W, C] become the model's
    reals, others stay."""
    frame = frame_of(graph)
    name = frame.input.name
    array = data.get(name)
    if array is None or array.dtype != np.uint8:
        return dict(data)
    if array.shape[-3:] != frame.shape[1:]:
        raise DataError(
            f"input {name}: pixels of shape {list(array.shape)} given, [samples,"
            f" {', '.join(map(str, frame.shape[1:]))}] wanted"
        )
    return {**data, name: frame.model_layout(pixels.normalize(array))}

"""Photographs that PyPI packages carry, seeded crops of them, and rendered lines of text."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bench.cache import Wheel, member

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

SCIKIT_IMAGE = Wheel(
    "scikit-image",
    "0.26.0",
    "scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    tag="manylinux_2_28_x86_64",
)
SCIKIT_LEARN = Wheel(
    "scikit-learn",
    "1.9.1",
    "scikit_learn-1.9.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
    tag="manylinux_2_28_x86_64",
)
PHOTOS: tuple[tuple[Wheel, str], ...] = (
    *((SCIKIT_LEARN, f"sklearn/datasets/images/{name}") for name in ("china.jpg", "flower.jpg")),
    *(
        (SCIKIT_IMAGE, f"skimage/data/{name}")
        for name in (
            "astronaut.png",
            "brick.png",
            "camera.png",
            "chelsea.png",
            "coffee.png",
            "coins.png",
            "grass.png",
            "gravel.png",
            "hubble_deep_field.jpg",
            "ihc.png",
            "motorcycle_left.png",
            "retina.jpg",
            "rocket.jpg",
        )
    ),
)
SMALLEST_CROP = 0.35  # of the photo's shorter side
WORDS = (
    "integer", "kernel", "scale", "zero point", "Winograd", "1234567890", "No. 42", "LIBRARY",
    "static arena", "90 % faster", "Quantize", "(proof)", "channels", "u8 x i8 -> i32", "MOBILE",
)  # fmt: skip


@cache
def photos() -> tuple[Image.Image, ...]:
    """Return every sample photo as an RGB image."""
    return tuple(Image.open(member(wheel, name)).convert("RGB") for wheel, name in PHOTOS)


def random_crop(photo: Image.Image, size: int, generator: np.random.Generator) -> Pixels:
    """Return a random square crop resized to `size`, mirrored half of the time: u8[h, w, 3]."""
    shorter = min(photo.size)
    side = int(shorter * generator.uniform(SMALLEST_CROP, 1.0))
    left = int(generator.integers(photo.width - side + 1))
    top = int(generator.integers(photo.height - side + 1))
    box = (left, top, left + side, top + side)
    pixels = np.asarray(photo.resize((size, size), Image.Resampling.BICUBIC, box=box))
    return pixels[:, ::-1] if generator.random() < 0.5 else pixels


def photo_crops(count: int, size: int, seed: int) -> Pixels:
    """Return `count` seeded crops, taken from the photos in turn: u8[count, size, size, 3]."""
    generator = np.random.default_rng(seed)
    every = photos()
    return np.stack([random_crop(every[i % len(every)], size, generator) for i in range(count)])


def text_line(height: int, width: int, generator: np.random.Generator) -> Pixels:
    """Return one rendered line of text, dark on light or light on dark: u8[h, w, 3]."""
    image = Image.new("RGB", (width, height), _colour(generator, 170, 256))
    font = ImageFont.load_default(size=int(height * generator.uniform(0.45, 0.75)))
    text = " ".join(generator.choice(WORDS, size=3))
    draw = ImageDraw.Draw(image)
    draw.text((height // 8, height // 8), text, fill=_colour(generator, 0, 90), font=font)
    noise = generator.normal(0, generator.uniform(0, 12), (height, width, 1))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    return 255 - pixels if generator.random() < 0.3 else pixels


def _colour(generator: np.random.Generator, low: int, high: int) -> tuple[int, int, int]:
    red, green, blue = generator.integers(low, high, size=3)
    return int(red), int(green), int(blue)


def text_lines(count: int, height: int, width: int, seed: int) -> Pixels:
    """Return `count` seeded lines of text, half of them upside down: u8[count, h, w, 3]."""
    generator = np.random.default_rng(seed)
    lines = [text_line(height, width, generator) for _ in range(count)]
    return np.stack([line[::-1, ::-1] if i % 2 else line for i, line in enumerate(lines)])


def text_pages(count: int, size: int, seed: int) -> Pixels:
    """Return `count` seeded photo crops with text laid on them: u8[count, size, size, 3]."""
    generator = np.random.default_rng(seed)
    pages = photo_crops(count, size, seed).copy()
    for page in pages:
        for _ in range(6):
            height = int(generator.integers(24, 64))
            width = min(height * 8, size)
            top, left = generator.integers(size - height), generator.integers(size - width + 1)
            page[top : top + height, left : left + width] = text_line(height, width, generator)
    return pages


def normalized(pixels: Pixels, mean: Sequence[float], std: Sequence[float]) -> Floats:
    """Return (pixels - mean) / std, both in pixel units: u8[n, h, w, 3] to f32[n, 3, h, w]."""
    values = (pixels - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

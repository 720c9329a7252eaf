import numpy as np
import pytest
from PIL import Image

from bench import images
from bench.models import HALF, LITE_MEAN, LITE_STD


@pytest.fixture
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_crops_follow_their_seed(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "photos", lambda: (photo, photo.rotate(90)))
    first = images.photo_crops(5, 32, seed=1)
    assert first.shape == (5, 32, 32, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, images.photo_crops(5, 32, seed=1))
    assert not np.array_equal(first, images.photo_crops(5, 32, seed=2))


def test_more_crops_begin_with_the_same_ones(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "photos", lambda: (photo,))
    assert np.array_equal(images.photo_crops(3, 16, seed=1), images.photo_crops(6, 16, seed=1)[:3])


def test_normalization_is_mean_and_deviation_per_channel() -> None:
    pixels = np.zeros((1, 2, 2, 3), np.uint8)
    pixels[0, 1, 0] = (10, 20, 30)
    values = images.normalized(pixels, (10.0, 10.0, 10.0), (1.0, 2.0, 4.0))
    assert values.shape == (1, 3, 2, 2)
    assert values.dtype == np.float32
    assert values[0, :, 1, 0].tolist() == [0.0, 5.0, 5.0]


def test_ranges_of_the_models_own_preprocessing() -> None:
    ends = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1).repeat(3, axis=3)
    assert images.normalized(ends, LITE_MEAN, LITE_STD)[0, 0, 0].tolist() == [-127 / 128, 1.0]
    assert images.normalized(ends, HALF, HALF)[0, 0, 0].tolist() == [-1.0, 1.0]


def test_lines_of_text_have_ink_and_alternate_upside_down() -> None:
    lines = images.text_lines(4, 48, 192, seed=0)
    assert lines.shape == (4, 48, 192, 3)
    assert all(line.std() > 20 for line in lines)
    generator = np.random.default_rng(0)
    upright = [images.text_line(48, 192, generator) for _ in range(2)]
    assert np.array_equal(lines[0], upright[0])
    assert np.array_equal(lines[1], upright[1][::-1, ::-1])

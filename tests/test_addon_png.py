"""The encoder of packed images, against Pillow."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

spec = importlib.util.spec_from_file_location(
    "addon_png", Path(__file__).parents[1] / "operators" / "build" / "png.py"
)
png = importlib.util.module_from_spec(spec)
spec.loader.exec_module(png)


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 3), (5, 7, 4), (64, 33, 3)])
def test_pillow_reads_the_same_pixels(shape):
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    read = np.asarray(Image.open(io.BytesIO(png.encode(image))))
    assert np.array_equal(read, image)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 2, 3)), np.zeros((2, 2), np.uint8), np.zeros((0, 2, 3), np.uint8)],
)
def test_other_arrays_are_refused(wrong):
    with pytest.raises(ValueError):
        png.encode(wrong)

"""A JPEG's orientation, against Pillow's transposition."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

spec = importlib.util.spec_from_file_location(
    "addon_exif", Path(__file__).parents[1] / "operators" / "build" / "exif.py"
)
exif = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exif)


@pytest.mark.parametrize("how", range(1, 9))
def test_a_bright_spot_is_found_in_the_turned_photo(tmp_path, how):
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[8:16, 32:40] = 255  # centre at x 36, y 12
    tags = Image.Exif()
    tags[0x0112] = how
    path = tmp_path / "photo.jpg"
    Image.fromarray(pixels).save(path, exif=tags, quality=95)
    assert exif.orientation(str(path)) == how
    meant = np.asarray(ImageOps.exif_transpose(Image.open(path)))[..., 0] > 128
    y, x = (a.mean() + 0.5 for a in np.nonzero(meant))
    assert exif.turned(36, 12, 48, 32, how) == pytest.approx((x, y), abs=0.1)


def test_other_files_stand_upright(tmp_path):
    for name, data in {"a.jpg": b"", "b.jpg": b"\xff\xd8\xff\xe1\xff", "c.png": b"text"}.items():
        (tmp_path / name).write_bytes(data)
        assert exif.orientation(str(tmp_path / name)) == 1
    assert exif.orientation(str(tmp_path / "missing.jpg")) == 1

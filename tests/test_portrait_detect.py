"""Faces and their points, on the example photo in all positions and sizes, and on nothing."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import Cancelled, NoFaceError, ParameterError
from engine.portrait import detect
from engine.portrait.detect import Face, detect_faces, find_points
from engine.portrait.image import load_photo

ASTRONAUT = Path(__file__).parent.parent / "examples" / "astronaut.png"
# Read off the enlarged picture by eye: pupils, tip of the nose, corners of the mouth.
BY_EYE = np.array([[203.9, 101.2], [246.8, 103.6], [224.5, 128.5], [203.5, 140.3], [244.5, 142.0]])
MIRROR = [1, 0, 2, 4, 3]


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return load_photo(ASTRONAUT).rgb


@pytest.fixture(scope="module")
def points(rgb) -> np.ndarray:
    return detect_faces(rgb)[0].points


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b, axis=-1).max())


def resized(rgb: np.ndarray, side: int) -> np.ndarray:
    return np.array(Image.fromarray(rgb).resize((side, side), Image.Resampling.BICUBIC))


def test_astronaut(rgb, points):
    start = time.perf_counter()
    faces = detect_faces(rgb)
    assert time.perf_counter() - start < 1.0
    assert len(faces) == 1 and faces[0].score > 0.99
    assert distance(points, BY_EYE) < 3.0
    assert distance(points[:2], BY_EYE[:2]) < 1.5
    x0, y0, x1, y1 = faces[0].box
    assert 170 < x0 < 190 and 50 < y0 < 75 and 255 < x1 < 280 and 160 < y1 < 185


def test_mirrored(rgb, points):
    mirrored = detect_faces(rgb[:, ::-1])[0].points[MIRROR]
    assert distance(np.stack([512 - mirrored[:, 0], mirrored[:, 1]], 1), points) < 1.5


def test_exif_orientation_gives_the_same(rgb, points, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(rgb).copy()).save(tmp_path / "turned.png", exif=exif)
    assert distance(detect_faces(load_photo(tmp_path / "turned.png").rgb)[0].points, points) == 0


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_lying_photo(rgb, points, quarters):
    faces = detect_faces(np.rot90(rgb, quarters))
    assert len(faces) == 1
    x, y = points[:, 0], points[:, 1]
    expected = {1: [y, 512 - x], 2: [512 - x, 512 - y], 3: [512 - y, x]}[quarters]
    assert distance(faces[0].points, np.stack(expected, 1)) < 1.5
    x0, y0, x1, y1 = faces[0].box
    assert x0 < faces[0].points[:, 0].min() and faces[0].points[:, 0].max() < x1
    assert y0 < faces[0].points[:, 1].min() and faces[0].points[:, 1].max() < y1


def test_grey(rgb, points):
    grey = np.array(Image.fromarray(rgb).convert("L").convert("RGB"))
    assert distance(detect_faces(grey)[0].points, points) < 3.0


@pytest.mark.parametrize("degrees", [-25, 25])
def test_tilted(rgb, points, degrees):
    turned = Image.fromarray(rgb).rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(200,) * 3)
    a = np.radians(-degrees)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    expected = (points - 256) @ turn.T + 256
    assert distance(detect_faces(np.array(turned))[0].points, expected) < 4.0


@pytest.mark.parametrize("side", [160, 2500])
def test_scale(rgb, points, side):
    found = detect_faces(resized(rgb, side))[0].points
    assert distance(found * 512 / side, points) < (3.0 if side < 512 else 1.5)


def test_large_photo_of_small_faces(rgb):
    # Faces of 1.5 % to 3 % of the photo's width, as in a photo of a whole class.
    photo = np.full((2400, 3600, 3), 190, np.uint8)
    sizes, corners = (150, 200, 260, 320), []
    for i, side in enumerate(sizes):
        x, y = 300 + 800 * i, 400 + 450 * i
        photo[y : y + side, x : x + side] = resized(rgb[:256, 96:352], side)
        corners.append((x, y, side))
    faces = detect_faces(photo)
    assert len(faces) == 4
    for face, (x, y, side) in zip(faces, reversed(corners)):  # the largest comes first
        expected = (BY_EYE - [96, 0]) * side / 256 + [x, y]
        assert distance(face.points, expected) < 0.05 * side


def test_face_index(monkeypatch):
    faces = [Face((0, 0, 50 - i, 50 - i), 1.0, BY_EYE.astype(np.float32) + i) for i in range(3)]
    monkeypatch.setattr(detect, "detect_faces", lambda rgb, check: faces)
    picture = np.zeros((64, 64, 3), np.uint8)
    assert find_points(picture)[0] is faces[0].points
    assert find_points(picture, face_index=2)[0] is faces[2].points
    for index in (-1, 3):
        with pytest.raises(ParameterError) as caught:
            find_points(picture, face_index=index)
        assert "3 faces were found" in caught.value.sentence


@pytest.mark.parametrize("kind", ["noise", "flat", "sliver", "texture"])
def test_no_face(kind):
    rng = np.random.default_rng(3)
    pictures = {
        "noise": rng.integers(0, 256, (400, 500, 3), np.uint8),
        "flat": np.full((300, 300, 3), 127, np.uint8),
        "sliver": rng.integers(0, 256, (48, 900, 3), np.uint8),
        "texture": resized(rng.integers(0, 256, (30, 30, 3), np.uint8), 500),
    }
    assert detect_faces(pictures[kind]) == []
    with pytest.raises(NoFaceError) as caught:
        find_points(pictures[kind])
    assert "by hand" in caught.value.remedy


def test_headless_body(rgb):
    assert detect_faces(rgb[220:]) == []


def test_given_points_override(rgb):
    blank = np.full((300, 400, 3), 127, np.uint8)
    given = [150, 100, 250, 100, 200, 150, 160, 200, 240, 200]
    points, faces = find_points(blank, given)
    assert faces == [] and points.shape == (5, 2) and points.ravel().tolist() == given
    points, _ = find_points(rgb, given)  # a face is there, but the user knows better
    assert points.ravel().tolist() == given


def test_given_points_with_sides_swapped():
    given = np.array([[150, 100], [250, 100], [200, 150], [160, 200], [240, 200]])
    blank = np.full((300, 400, 3), 127, np.uint8)
    points, _ = find_points(blank, given[MIRROR])
    assert (points == given).all()


@pytest.mark.parametrize(
    "given",
    [[1, 2, 3], [5.0] * 10, [np.nan] * 10, [150, 100, 250, 100, 200, 150, 160, 200, 9999, 200]],
)
def test_unusable_points(given):
    with pytest.raises(ParameterError) as caught:
        find_points(np.zeros((300, 400, 3), np.uint8), given)
    assert "eye" in caught.value.remedy


def test_cancel(rgb):
    def stop() -> None:
        raise Cancelled()

    with pytest.raises(Cancelled):
        detect_faces(rgb, stop)

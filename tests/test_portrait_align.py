"""The aligned crop: where points land, round trips, sampling without shift or aliasing, edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.portrait.align import align, alignment_matrix
from engine.portrait.image import Photo

FACE = np.array([[-0.5, -0.4], [0.5, -0.4], [0.0, 0.1], [-0.4, 0.6], [0.4, 0.6]])


def face(scale: float, centre: tuple[float, float], degrees: float = 0.0) -> np.ndarray:
    a = np.radians(degrees)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return FACE @ turn.T * scale + centre


def photo(rgb: np.ndarray, alpha: np.ndarray | None = None) -> Photo:
    return Photo(rgb, alpha, Path("photo.png"))


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def ffhq_quad(p: np.ndarray) -> np.ndarray:
    """The corners of FFHQ's square by the published formula, in complex numbers: top left, bottom
    left, bottom right, top right."""
    z = p[:, 0] + 1j * p[:, 1]
    eye, mouth = (z[0] + z[1]) / 2, (z[3] + z[4]) / 2
    x = (z[1] - z[0]) - 1j * (mouth - eye)
    x *= max(abs(z[1] - z[0]) * 2.0, abs(mouth - eye) * 1.8) / abs(x)
    centre, y = eye + 0.1 * (mouth - eye), 1j * x
    corners = np.array([centre - x - y, centre - x + y, centre + x + y, centre + x - y])
    return np.stack([corners.real, corners.imag], 1)


@pytest.mark.parametrize("degrees", [0, 17, -80, 180])
def test_corners_follow_the_rule(degrees):
    points = face(90, (300, 200), degrees) + np.random.default_rng(0).normal(0, 4, (5, 2))
    corners = moved(alignment_matrix(points, 512), ffhq_quad(points))
    assert np.allclose(corners, [[0, 0], [0, 512], [512, 512], [512, 0]], atol=1e-6)


def test_many_at_once_and_widened():
    points = np.stack([face(90, (300, 200)), face(40, (100, 120), 30)])
    matrices = alignment_matrix(points, 256)
    assert matrices.shape == (2, 3, 3)
    for one, matrix in zip(points, matrices):
        assert np.allclose(alignment_matrix(one, 256), matrix)
        assert np.isclose(np.linalg.det(matrix[:2, :2]), matrix[0, 0] ** 2 + matrix[0, 1] ** 2)
    wide = alignment_matrix(points, 256, widen=2.0)
    corners = moved(wide[1], ffhq_quad(points[1]))
    assert np.allclose(corners, [[64, 64], [64, 192], [192, 192], [192, 64]])


@pytest.mark.parametrize("side", [130, 300, 999, 2500])
@pytest.mark.parametrize("degrees", [0, 25])
def test_sampling_has_no_shift(side, degrees):
    # On ramps every crop pixel says where in the photo it was taken.
    y, x = (np.mgrid[:side, :side] + 0.5) / side * 255
    ramps = np.stack([x, y, x * 0], -1).round().astype(np.uint8)
    aligned = align(photo(ramps), face(side * 0.15, (side / 2, side / 2), degrees), 128)
    back = np.linalg.inv(aligned.to_crop)
    centres = np.stack(np.meshgrid(np.arange(128) + 0.5, np.arange(128) + 0.5), -1)
    expected = moved(back, centres.reshape(-1, 2)).reshape(128, 128, 2) / side * 255
    error = aligned.crop[..., :2] - expected
    assert aligned.valid.all()
    # A crop pixel is 3.6 grey levels wide; rounding to 8 bits twice leaves up to 0.13 on average.
    assert abs(error.mean()) < 0.2 and abs(error).max() < 1.6


def test_shrinking_does_not_alias():
    stripes = np.zeros((3000, 3000, 3), np.uint8)
    stripes[:, ::2] = 255
    for scale in (300.0, 431.0, 700.0):
        crop = align(photo(stripes), face(scale, (1500, 1500), 3), 128).crop
        assert abs(crop.astype(float) - 127.5).max() < 12


def test_round_trip():
    y, x = np.mgrid[:400, :400]
    smooth = np.stack([128 + 100 * np.sin(x / 23), 128 + 100 * np.cos(y / 31), x * 0.6], -1)
    smooth = smooth.astype(np.uint8)
    aligned = align(photo(smooth), face(60, (200, 190), 12), 512)
    # A crop of the crop whose points undo the alignment is a piece of the photo again.
    crop_points = moved(aligned.to_crop, face(60, (200, 190), 0))
    again = align(photo(aligned.crop), crop_points, 128)
    direct = align(photo(smooth), face(60, (200, 190), 0), 128)
    difference = np.abs(again.crop.astype(float) - direct.crop.astype(float))
    assert difference[again.valid & direct.valid].mean() < 1.0


def test_outside_is_mirrored_and_marked():
    rng = np.random.default_rng(1)
    picture = np.repeat(np.repeat(rng.integers(0, 256, (20, 20, 3), np.uint8), 20, 0), 20, 1)
    aligned = align(photo(picture), face(100, (200, 60)), 400)  # one crop pixel a photo pixel
    assert np.isclose(aligned.to_crop[0, 0], 1.0)
    top = round(aligned.to_crop[1, 2])  # rows of the crop above the photo
    assert top > 50
    assert not aligned.valid[: top - 1].any() and aligned.valid[top + 1 :].all()
    above, below = aligned.crop[top - 50 : top][::-1], aligned.crop[top : top + 50]
    assert np.abs(above.astype(float) - below.astype(float)).mean() < 6


def test_crop_beside_the_photo_is_all_invalid():
    picture = np.full((100, 100, 3), 50, np.uint8)
    aligned = align(photo(picture), face(20, (900, -700)), 64)
    assert not aligned.valid.any() and (aligned.crop == 50).all()


@pytest.mark.parametrize("scale", [15.0, 800.0])
def test_alpha_is_carried(scale):
    side = int(scale * 6)
    alpha = np.zeros((side, side), np.uint8)
    alpha[:, : side // 2] = 255
    rgb = np.zeros((side, side, 3), np.uint8)
    aligned = align(photo(rgb, alpha), face(scale, (side / 2, side / 2)), 128)
    middle = round(aligned.to_crop[0, 0] * side / 2 + aligned.to_crop[0, 2])
    assert (aligned.alpha[:, : middle - 4] > 250).all()
    assert (aligned.alpha[:, middle + 4 :] < 5).all()
    assert align(photo(rgb), face(scale, (side / 2, side / 2)), 128).alpha is None

"""Figures of merit against known values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.cameras import intrinsics_from_fov, orbit
from engine.surface.metrics import iou, psnr
from engine.training import metrics
from engine.training.metrics import (
    angle_between,
    depth_normals,
    frechet,
    landmark_error,
    looking_at,
    mask_box,
    normal_error,
    precision_recall,
    similarity,
    spread,
    ssim,
)


def turn(axis: int, degrees: float) -> np.ndarray:
    """Rotation about one axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    out = np.eye(3)
    i, j = [k for k in range(3) if k != axis]
    out[[i, j, i, j], [i, j, j, i]] = c, c, -s, s
    return out


def test_psnr_and_iou_of_known_differences():
    a = np.zeros((4, 4, 3))
    assert psnr(a + 0.1, a) == pytest.approx(20.0)
    mask = np.zeros((4, 4), bool)
    mask[0] = True
    b = a.copy()
    b[0] = 0.01
    b[1:] = 1.0  # outside the mask
    assert psnr(b, a, mask) == pytest.approx(40.0)
    other = np.zeros((4, 4), bool)
    other[:2] = True
    assert iou(mask, other) == pytest.approx(0.5)


def test_ssim_agrees_with_skimage():
    skimage = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    a = rng.random((40, 31, 3))
    for b in (a, 1 - a, a * 0.7 + 0.3 * rng.random(a.shape)):
        expected = skimage.structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            channel_axis=2, data_range=1.0,
        )  # fmt: skip
        assert ssim(a, b) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="compare"):
        ssim(a[:10], a[:10])


def test_mask_box_is_tight_but_not_too_small():
    mask = np.zeros((30, 40), bool)
    mask[3:25, 8:33] = True
    assert mask_box(mask) == (slice(3, 25), slice(8, 33))
    mask[:] = False
    mask[29, 39] = True
    rows, columns = mask_box(mask)
    assert (rows.stop, columns.stop) == (30, 40)
    assert rows.stop - rows.start == columns.stop - columns.start == 11
    with pytest.raises(ValueError, match="empty"):
        mask_box(np.zeros((20, 20), bool))


def test_similarity_is_found_again():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(20, 3))
    true = np.eye(4)
    true[:3, :3] = 1.3 * turn(0, 20) @ turn(1, -50)
    true[:3, 3] = 0.1, -2, 3
    moved = points @ true[:3, :3].T + true[:3, 3]
    assert np.allclose(similarity(points, moved), true)
    # A mirror image is no similarity: the best proper one comes out.
    mirrored = similarity(points, points * [-1, 1, 1])
    assert np.linalg.det(mirrored[:3, :3]) > 0


def test_landmark_error_is_in_percent_of_the_eyes_distance():
    true = np.zeros((84, 3))
    true[36], true[45] = (-0.05, 0, 0), (0.05, 0, 0)
    found = true + [0, 0.003, 0.004]
    found[68:] += 1.0  # not among the usual ones
    assert landmark_error(found, true) == pytest.approx(5.0)


@pytest.mark.parametrize("degrees", [0.001, 3.0, 90.0, 179.0])
def test_angle_of_known_rotations(degrees):
    base = turn(0, 33) @ turn(2, 7)
    assert angle_between(base, base @ turn(1, degrees)) == pytest.approx(degrees, rel=1e-5)


def test_camera_error_ignores_crop_and_focal_length():
    camera = orbit(0.3, 0.1, 1.2, np.radians(20), (0.02, 0.0, 0.03))
    aimed = looking_at(camera, np.zeros(3))
    assert np.allclose(aimed[:, 2], -camera.position / np.linalg.norm(camera.position))
    assert np.allclose(aimed.T @ aimed, np.eye(3))
    # Turned about its own place to another spot, it sees the head from the same side.
    nod = np.eye(4)
    nod[:3, :3] = turn(0, 4)
    other = replace(camera, cam2world=camera.cam2world @ nod)
    assert angle_between(looking_at(other, np.zeros(3)), aimed) < 0.2
    roll = np.eye(4)
    roll[:3, :3] = turn(2, 10)
    rolled = replace(camera, cam2world=camera.cam2world @ roll)
    assert angle_between(looking_at(rolled, np.zeros(3)), aimed) == pytest.approx(10, abs=0.1)
    moved = orbit(0.3 + np.radians(5), 0.1, 1.2, np.radians(20))
    straight = orbit(0.3, 0.1, 1.2, np.radians(20))
    expected = np.degrees(np.arccos(  # between the two directions, at this pitch
        np.sin(0.1) ** 2 + np.cos(0.1) ** 2 * np.cos(np.radians(5))
    ))  # fmt: skip
    got = angle_between(looking_at(moved, np.zeros(3)), looking_at(straight, np.zeros(3)))
    assert got == pytest.approx(expected, abs=0.05)


def test_normals_of_a_tilted_plane():
    size, k = 64, intrinsics_from_fov(np.radians(18))
    x = ((np.arange(size) + 0.5) / size - 0.5) / k[0, 0]
    rays = np.stack([*np.meshgrid(x, x), np.ones((size, size))], -1)
    mask = np.ones((size, size), bool)
    mask[:, :10] = False
    for tilt in (0, 12.5, 40):
        normal = turn(1, tilt) @ [0, 0, -1.0]
        depth = (normal @ [0, 0, 1.5]) / (rays @ normal)  # the plane through (0, 0, 1.5)
        found, good = depth_normals(depth, mask, k)
        assert not good[:, :11].any() and good[1:-1, 11:-1].all()
        assert normal_error(found[good], normal).max() < 1e-4
        towards = normal_error(found[good], np.array([0, 0, -1.0]))
        assert np.allclose(towards, tilt, atol=1e-3)
    depth[:, 40:] += 0.2
    _, good = depth_normals(depth, mask, k, jump=0.05)
    assert not good[:, 39:41].any() and good[30, 20]


def test_frechet_of_known_gaussians():
    rng = np.random.default_rng(2)
    a = rng.normal(size=(4000, 3))
    a = (a - a.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(a.T)).T)  # exactly N(0, 1)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a + [3, 0, 0], a) == pytest.approx(9)
    # Of diagonal ones: the sum of squared differences of the standard deviations.
    assert frechet(a * [2, 1, 1], a * [1, 1, 4]) == pytest.approx(1 + 9)
    # Turned against each other: trace of (Ca Cb)^1/2 for 2 x 2 by hand.
    b = a[:, :2] * [3, 1]
    c = b @ turn(2, 90)[:2, :2].T
    assert frechet(b, c) == pytest.approx(10 + 10 - 2 * (3 + 3))
    with pytest.raises(ValueError, match="two rows"):
        frechet(a[:1], a)


def test_precision_and_recall_of_toy_sets():
    rng = np.random.default_rng(3)
    real = rng.normal(size=(300, 2))
    same = rng.normal(size=(300, 2))
    precision, recall = precision_recall(real, same)
    assert precision > 0.9 and recall > 0.9
    assert precision_recall(real, same + 100) == (0, 0)
    # One spot in the midst: all plausible, little of the variety.
    spot = rng.normal(size=(300, 2)) * 0.1
    precision, recall = precision_recall(real, spot)
    assert precision > 0.95 and recall < 0.1
    # As much again far off: half of what is made is wrong, and nothing is missed.
    wide = np.concatenate([same, same + 100])
    precision, recall = precision_recall(real, wide)
    assert 0.45 < precision < 0.5 and recall > 0.9
    with pytest.raises(ValueError, match="neighbours"):
        precision_recall(real[:3], same)


def test_spread_leaves_out_what_is_no_number():
    found = spread([1.0, 2.0, 3.0, float("nan")])
    assert found == {"mean": 2.0, "median": 2.0, "p10": 1.2, "p90": 2.8}
    assert np.isnan(metrics.spread([])["mean"])

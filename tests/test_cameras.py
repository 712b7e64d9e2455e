"""Cameras: projection, rays, crops, orbits, and Blender's numbers for them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from engine import cameras
from engine.cameras import Camera, look_at, orbit, to_blender

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(-0.1, 0.1, (50, 3))


def crooked(width: int = 640, height: int = 400) -> Camera:
    """A rolled camera with square pixels and its principal point off the middle."""
    base = orbit(0.5, -0.2, 1.3, 0.4, (0.01, 0.02, 0.03), width, height)
    c, s = math.cos(0.3), math.sin(0.3)
    turn = np.eye(4)
    turn[:2, :2] = [[c, -s], [s, c]]
    k = base.intrinsics.copy()
    k[:2, 2] = 0.4, 0.63
    return Camera(base.cam2world @ turn, k, width, height)


def similarity(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]], [0, 0, 1.0]])


def test_rays_and_projection_are_inverse():
    camera = crooked()
    origin, directions = camera.rays()
    assert directions.shape == (400, 640, 3)
    assert np.allclose(np.linalg.norm(directions, axis=-1), 1)
    for row, column in ((0, 0), (399, 639), (17, 300)):
        pixel, z = camera.project((origin + 1.7 * directions[row, column])[None])
        assert np.allclose(pixel, [[column + 0.5, row + 0.5]], atol=1e-8)
        assert 0 < z[0] <= 1.7


def test_depth_is_along_the_axis():
    camera = orbit(0, 0, 2.0, 0.3)
    pixel, z = camera.project(np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.5]]))
    assert np.allclose(z, [2, 2, 2, 1.5])
    assert np.allclose(pixel[[0, 3]], 256)
    assert pixel[1, 0] > 256  # the subject's left is on the picture's right
    assert pixel[2, 1] < 256  # up in the world is up in the picture


@pytest.mark.parametrize(
    ("yaw", "pitch", "position"),
    [
        (0, 0, (0, 0, 2)),
        (90, 0, (2, 0, 0)),
        (180, 0, (0, 0, -2)),
        (-90, 0, (-2, 0, 0)),
        (0, 30, (0, 1, math.sqrt(3))),
    ],
)
def test_orbit(yaw, pitch, position):
    target = np.array([0.1, -0.2, 0.3])
    camera = orbit(math.radians(yaw), math.radians(pitch), 2.0, 0.3, target)
    assert np.allclose(camera.position - target, position, atol=1e-12)
    r = camera.cam2world[:3, :3]
    assert np.allclose(r.T @ r, np.eye(3)) and np.linalg.det(r) == pytest.approx(1)
    assert r[1, 0] == pytest.approx(0, abs=1e-12)  # level
    assert r[1, 1] < 0  # image down is world down
    assert np.allclose(camera.project(target[None])[0], 256)


def test_field_of_view_is_vertical():
    camera = orbit(0, 0, 2.0, 0.3, width=300, height=200)
    top = np.array([[0, 2 * math.tan(0.15), 0]])
    assert np.allclose(camera.project(top)[0], [[150, 0]], atol=1e-9)
    side = np.array([[3 * math.tan(0.15), 0, 0]])
    assert np.allclose(camera.project(side)[0], [[300, 100]], atol=1e-9)


def test_world_to_camera_is_the_inverse():
    camera = crooked()
    assert np.allclose(camera.world2cam @ camera.cam2world, np.eye(4), atol=1e-12)


def test_look_at_honours_up():
    m = look_at([0, 0, 2], [0, 0, 0], up=[1, 0, 0])
    assert np.allclose(m[:3, 1], [-1, 0, 0])  # image down is away from up


@pytest.mark.parametrize("angle", [0.0, 0.4, -2.5])
def test_the_camera_of_a_transformed_image(angle):
    camera = crooked()
    matrix = similarity(angle, 0.37, (120.0, -30.0))
    moved = camera.transformed_image(matrix, 300, 500)
    before, z = camera.project(POINTS)
    after, z_after = moved.project(POINTS)
    expected = np.concatenate([before, np.ones((50, 1))], 1) @ matrix.T
    assert np.allclose(after, expected[:, :2], atol=1e-8)
    assert np.allclose(z, z_after)
    assert np.allclose(moved.position, camera.position)
    assert (moved.width, moved.height) == (300, 500)
    fx, fy = moved.intrinsics[0, 0] * 300, moved.intrinsics[1, 1] * 500
    assert fx == pytest.approx(fy)
    back = moved.transformed_image(np.linalg.inv(matrix), 640, 400)
    assert np.allclose(back.project(POINTS)[0], before, atol=1e-7)


@pytest.mark.parametrize(
    "matrix",
    [np.diag([-1.0, 1, 1]), np.diag([2.0, 1, 1]), np.array([[1, 0.2, 0], [0, 1, 0], [0, 0, 1.0]])],
    ids=["mirror", "stretch", "shear"],
)
def test_only_similarities_are_taken(matrix):
    with pytest.raises(ValueError, match="similarity"):
        crooked().transformed_image(matrix, 10, 10)


def test_pixels_that_are_not_square_are_refused():
    base = orbit(0, 0, 1, 0.3)
    k = base.intrinsics * [[1.2], [1], [1]]
    with pytest.raises(ValueError, match="square"):
        Camera(base.cam2world, k).transformed_image(np.eye(3), 10, 10)


def through_blender(numbers: dict, points: np.ndarray) -> np.ndarray:
    """Pixels of world points, from the manual's meaning of Blender's camera properties: the sensor
    spans the picture's width (fit 'HORIZONTAL'), and shifts move the frame, in widths, to the
    right and up."""
    m = np.linalg.inv(numbers["matrix_world"])
    p = points @ m[:3, :3].T + m[:3, 3]
    on_sensor = numbers["lens"] * p[:, :2] / -p[:, 2:] / numbers["sensor_width"]  # in widths
    width, height = numbers["resolution_x"], numbers["resolution_y"]
    u = (on_sensor[:, 0] - numbers["shift_x"]) * width + width / 2
    v = height / 2 - (on_sensor[:, 1] - numbers["shift_y"]) * width
    return np.stack([u, v], 1)


def test_blender_sees_the_same():
    camera = crooked()
    world = cameras.FIELD_TO_BLENDER @ np.diag([0.3, 0.3, 0.3, 1])
    world[:3, 3] = 0.5, -1, 2
    numbers = to_blender(camera, world)
    placed = POINTS @ world[:3, :3].T + world[:3, 3]
    assert np.allclose(through_blender(numbers, placed), camera.project(POINTS)[0], atol=1e-8)
    r = numbers["matrix_world"][:3, :3]
    assert np.allclose(r.T @ r, np.eye(3))


def test_a_frontal_camera_in_blender():
    """A camera in front of a head (which looks along -y) stands at -y and looks along +y."""
    numbers = to_blender(orbit(0, 0, 2.0, math.radians(40), width=512), cameras.FIELD_TO_BLENDER)
    m = numbers["matrix_world"]
    assert np.allclose(m[:3, 3], [0, -2, 0])
    assert np.allclose(-m[:3, 2], [0, 1, 0])  # Blender's cameras look along their -z
    assert np.allclose(m[:3, 1], [0, 0, 1])
    assert np.allclose(m[:3, 0], [1, 0, 0])
    assert numbers["lens"] == pytest.approx(36 * 0.5 / math.tan(math.radians(20)))
    assert numbers["shift_x"] == numbers["shift_y"] == 0


def test_json_and_eg3d_round_trips():
    camera = crooked()
    again = cameras.from_json(json.loads(json.dumps(camera.to_json())))
    assert np.array_equal(again.cam2world, camera.cam2world)
    assert np.array_equal(again.intrinsics, camera.intrinsics)
    assert (again.width, again.height, again.name) == (640, 400, "camera")
    vector = camera.to_eg3d()
    assert vector.shape == (25,) and vector.dtype == np.float32
    again = cameras.from_eg3d(vector, 640, 400)
    assert np.allclose(again.project(POINTS)[0], camera.project(POINTS)[0], atol=1e-3)
    with pytest.raises(ValueError):
        cameras.from_eg3d(vector[:24])


def test_resizing_keeps_the_view():
    camera = crooked()
    small = camera.resized(320, 200)
    assert np.allclose(small.project(POINTS)[0] * 2, camera.project(POINTS)[0])

"""Rigs, and cameras as other programs write them: exact there and back."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import view_fixtures

from engine import cameras
from engine.cameras import FIELD_TO_BLENDER, Camera
from engine.views import rigs, scenes

STAGE = rigs.Stage((-0.1, -0.16, -0.13), (0.1, 0.15, 0.12), 320, 240)
WORLD = cameras.look_at((0.2, 0.1, -0.4), (1, 2, 3)) @ np.diag([2.5, 2.5, 2.5, 1])
BOX = np.array([[x, y, z] for x in (-0.1, 0.1) for y in (-0.16, 0.15) for z in (-0.13, 0.12)])


def pinholes() -> list[Camera]:
    return [view_fixtures.camera(seed) for seed in (0, 1, 3, 4, 6, 7)]


def same(a: Camera, b: Camera, tolerance: float = 1e-9) -> bool:
    return (
        np.allclose(a.cam2world, b.cam2world, atol=tolerance)
        and np.allclose(a.intrinsics, b.intrinsics, atol=tolerance)
        and (a.width, a.height) == (b.width, b.height)
    )


@pytest.mark.parametrize("words", ["circle:7", "circle:5:40", "sphere:33", "character"])
@pytest.mark.parametrize("orthographic", [False, True])
def test_rigs_show_the_whole_head_and_not_much_else(words, orthographic):
    stage = rigs.Stage(STAGE.low, STAGE.high, 320, 240, orthographic=orthographic)
    made = rigs.from_words(words, stage)
    extents = []
    for camera in made:
        pixels, depth = camera.project(BOX)
        assert (depth > 0).all()
        assert (pixels > 0).all() and (pixels < (320, 240)).all()
        extents.append(np.ptp(pixels, 0).max())
        assert np.linalg.det(camera.cam2world[:3, :3]) == pytest.approx(1)
    assert max(extents) > 0.6 * 240
    scales = [np.linalg.norm(c.position - stage.target) for c in made]
    assert np.ptp(scales) < 1e-9 and len({c.name for c in made}) == len(made)


def test_a_circle_starts_at_the_face_and_goes_to_the_subjects_left():
    made = rigs.circle(STAGE, 4)
    offsets = np.array([c.position - STAGE.target for c in made])
    offsets /= np.linalg.norm(offsets, axis=1, keepdims=True)
    assert np.allclose(offsets, [[0, 0, 1], [1, 0, 0], [0, 0, -1], [-1, 0, 0]], atol=1e-12)
    raised = rigs.circle(STAGE, 3, pitch=30)[0].position - STAGE.target
    assert raised[1] / np.linalg.norm(raised) == pytest.approx(0.5)


def test_a_sphere_is_even():
    """No two cameras are near each other, and no direction is far from all of them."""
    count = 100
    made = np.array([c.position - STAGE.target for c in rigs.sphere(STAGE, count)])
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    cosines = made @ made.T - 2 * np.eye(count)
    ideal = math.sqrt(4 * math.pi / count)
    assert np.degrees(np.arccos(cosines.max(1))).min() > np.degrees(0.75 * ideal)
    anywhere = np.random.default_rng(0).standard_normal((2000, 3))
    anywhere /= np.linalg.norm(anywhere, axis=1, keepdims=True)
    assert np.arccos((anywhere @ made.T).max(1).min()) < 1.2 * ideal
    band = [c.position - STAGE.target for c in rigs.sphere(STAGE, 50, -30, 60)]
    pitches = [math.degrees(math.asin(p[1] / np.linalg.norm(p))) for p in band]
    assert -30 < min(pitches) < -25 and 50 < max(pitches) < 60


def test_straight_from_above_and_below():
    for pitch in (90.0, -90.0):
        camera = STAGE.camera(30.0, pitch)
        assert np.allclose(camera.cam2world[:3, 2], [0, -math.copysign(1, pitch), 0])
        assert np.isfinite(camera.cam2world).all()


def test_eyes_are_equally_high_in_every_picture():
    stage = rigs.Stage(STAGE.low, STAGE.high, 200, 200, level=0.05)
    eyes = np.array([[0.03, 0.05, 0.09], [-0.03, 0.05, 0.09]])
    high = [c.project(eyes)[0][:, 1] for c in rigs.named(stage)]
    assert np.ptp(high) < 1e-9
    plain = [c.project(eyes)[0][:, 1] for c in rigs.named(STAGE)]
    assert np.ptp(plain) > 1
    middle = [c.project(STAGE.target[None])[0] for c in rigs.named(stage)]
    assert np.allclose(middle, 100)


@pytest.mark.parametrize(
    "words", ["circle", "circle:0", "circle:x", "circle:3:95", "sphere:9:10", "sphere:9:60:-30",
              "character:3", "ring:4", "", "sphere:1e9", "circle:999999"],
)  # fmt: skip
def test_words_that_name_no_rig(words):
    with pytest.raises(ValueError):
        rigs.from_words(words, STAGE)


@pytest.mark.parametrize("shared", [True, False])
def test_transforms_there_and_back(tmp_path, shared):
    given = rigs.sphere(STAGE, 12) if shared else pinholes()
    images = [f"images/view_{i:04d}.png" for i in range(len(given))]
    facts = scenes.to_transforms(given, images, WORLD, [{} for _ in given])
    assert ("fl_x" in facts) == shared and len(facts["frames"]) == len(given)
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps(facts))
    again = scenes.from_transforms(path, WORLD)
    assert all(same(a, b) for a, b in zip(given, again, strict=True))
    assert again[3].name == "view_0003"


def nerfstudio(facts: dict) -> list[tuple[np.ndarray, np.ndarray]]:
    """World points' projection matrices [3, 4] of each frame, read as nerfstudio's documentation
    ("Data conventions") says: intrinsics in pixels at the top or in the frame, camera-to-world in
    OpenGL axes (x right, y up, the camera looks along -z)."""
    out = []
    for frame in facts["frames"]:
        got = facts | frame
        k = np.array([[got["fl_x"], 0, got["cx"]], [0, got["fl_y"], got["cy"]], [0, 0, 1]])
        gl = np.linalg.inv(np.array(got["transform_matrix"]))
        out.append(k @ np.diag([1, -1, -1]) @ gl[:3])
    return out


def test_transforms_mean_what_nerfstudio_and_instant_ngp_take_them_for():
    given = pinholes()
    facts = scenes.to_transforms(given, ["x.png"] * len(given), WORLD, [{} for _ in given])
    world = BOX @ WORLD[:3, :3].T + WORLD[:3, 3]
    for camera, matrix, frame in zip(given, nerfstudio(facts), facts["frames"]):
        seen = np.c_[world, np.ones(len(world))] @ matrix.T
        assert np.allclose(seen[:, :2] / seen[:, 2:], camera.project(BOX)[0], atol=1e-6)
        focal = frame["w"] / 2 / math.tan(frame["camera_angle_x"] / 2)
        assert focal == pytest.approx(frame["fl_x"])


def test_transforms_of_the_nerf_papers_data(tmp_path):
    """Only camera_angle_x, no sizes, no endings."""
    (tmp_path / "train").mkdir()
    from PIL import Image

    Image.new("RGBA", (80, 60)).save(tmp_path / "train" / "r_0.png")
    matrix = np.eye(4)
    matrix[:3, 3] = 1, 2, 4
    frames = [{"file_path": "./train/r_0", "transform_matrix": matrix.tolist()}]
    path = tmp_path / "transforms_train.json"
    path.write_text(json.dumps({"camera_angle_x": 0.6, "frames": frames}))
    (camera,) = scenes.from_transforms(path, np.eye(4))
    assert (camera.width, camera.height) == (80, 60)
    assert camera.intrinsics[0, 0] * 80 == pytest.approx(40 / math.tan(0.3))
    assert camera.pixel_aspect == pytest.approx(1)
    assert np.allclose(camera.cam2world[:3, 2], [0, 0, -1])
    assert np.allclose(camera.position, [1, 2, 4])


@pytest.mark.parametrize(
    "change",
    [
        {"k1": 0.1},
        {"camera_model": "OPENCV_FISHEYE"},
        {"transform_matrix": [[1, 0], [0, 1]]},
        {"fl_x": 0, "camera_angle_x": 0},
        {"w": 0},
        {"file_path": None},
    ],
    ids=str,
)
def test_transforms_that_cannot_be_used(tmp_path, change):
    facts = scenes.to_transforms(pinholes()[:1], ["x.png"], WORLD, [{}])
    facts["frames"][0] |= change
    facts |= {key: value for key, value in change.items() if key in facts}
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps(facts))
    with pytest.raises(ValueError):
        scenes.from_transforms(path, WORLD)


def test_colmap_there_and_back(tmp_path):
    given = [*pinholes(), *rigs.sphere(STAGE, 20)]
    images = [f"view {i:04d}.png" for i in range(len(given))]
    for name, text in scenes.to_colmap(given, images, WORLD).items():
        (tmp_path / name).write_text(text)
    again = scenes.from_colmap(tmp_path, WORLD)
    assert all(same(a, b) for a, b in zip(given, again, strict=True))
    assert again[2].name == "view 0002"
    # Twenty cameras of one kind share one model.
    lines = (tmp_path / "cameras.txt").read_text().splitlines()
    assert len(lines) == 1 + len(pinholes()) + 1


def test_colmaps_own_text(tmp_path):
    """A model in COLMAP's words, with comments, points and another order (doc/format.rst)."""
    (tmp_path / "cameras.txt").write_text(
        "# Camera list\n# Number of cameras: 2\n"
        "1 SIMPLE_PINHOLE 3072 2304 2559.81 1536 1152\n2 SIMPLE_RADIAL 640 480 500 320 240 0\n"
    )
    q = np.array([0.851773, 0.0165051, 0.503764, -0.142941])
    q /= np.linalg.norm(q)
    (tmp_path / "images.txt").write_text(
        "# Image list\n2 1 0 0 0 0 0 2 2 B.png\n\n"
        f"1 {' '.join(map(str, q))} -0.737434 1.02973 3.74354 1 P1180141.JPG\n"
        "2362.39 248.498 58396 1784.7 268.254 59027\n"
    )
    first, second = scenes.from_colmap(tmp_path, np.eye(4))
    assert first.name == "P1180141" and (first.width, second.width) == (3072, 640)
    # A rotation by a quaternion, point by point: q p q*.
    p = np.array([0.3, -0.2, 0.9])
    u = q[1:]
    turned = p + 2 * np.cross(u, np.cross(u, p) + q[0] * p) + [-0.737434, 1.02973, 3.74354]
    pixels, depth = first.project(p[None])
    assert depth[0] == pytest.approx(turned[2])
    expected = 2559.81 * turned[:2] / turned[2] + [1536, 1152]
    assert np.allclose(pixels[0], expected)
    assert np.allclose(second.position, [0, 0, -2])


@pytest.mark.parametrize(
    ("models", "images"),
    [
        ("1 SIMPLE_RADIAL 640 480 500 320 240 0.1\n", "1 1 0 0 0 0 0 2 1 B.png\n\n"),
        ("1 OPENCV_FISHEYE 640 480 500 500 320 240 0 0 0 0\n", "1 1 0 0 0 0 0 2 1 B.png\n\n"),
        ("1 PINHOLE 640 480 500\n", "1 1 0 0 0 0 0 2 1 B.png\n\n"),
        ("1 PINHOLE 640 480 500 500 320 240\n", "1 1 0 0 0 0 0 2 7 B.png\n\n"),
        ("1 PINHOLE 640 480 500 500 320 240\n", "1 1 0 0\n\n"),
        ("1 PINHOLE 640 480 500 500 320 240\n", "1 nan 0 0 0 0 0 2 1 B.png\n\n"),
    ],
)
def test_colmap_that_cannot_be_used(tmp_path, models, images):
    (tmp_path / "cameras.txt").write_text(models)
    (tmp_path / "images.txt").write_text(images)
    with pytest.raises(ValueError):
        scenes.from_colmap(tmp_path, np.eye(4))


def test_orthographic_cameras_have_no_such_words():
    camera = view_fixtures.camera(2)
    assert camera.orthographic
    with pytest.raises(ValueError, match="[Oo]rthographic"):
        scenes.to_transforms([camera], ["x.png"], FIELD_TO_BLENDER, [{}])


@pytest.mark.parametrize("seed", range(20))
def test_any_rotation_as_a_quaternion_and_back(seed):
    rng = np.random.default_rng(seed)
    q = rng.standard_normal(4) if seed else np.array([0.0, 1.0, 0.0, 0.0])  # half a turn
    r = scenes._rotation(q)
    assert np.allclose(scenes._rotation(scenes._quaternion(r)), r, atol=1e-12)

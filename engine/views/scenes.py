"""Cameras as other programs write them down: transforms.json (instant-ngp, nerfstudio) and COLMAP's
text files. numpy only, and nothing of the engine but cameras, so that Blender can use it as well.

Both measure pixels with centres at +0.5, as we do. transforms.json holds camera-to-world matrices
with OpenGL's camera axes (+y up, -z forward), COLMAP world-to-camera quaternions with OpenCV's.
The world is the scene's: `field_to_world` leads to it from the field. Only pinholes without
distortion can be written and read. Readers raise ValueError, with a sentence that says why.

Sources: instant-ngp docs/nerf_dataset_tips.md; nerfstudio "Data conventions"; COLMAP
doc/format.rst and src/colmap/sensor/models.h.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np

from ..cameras import OPENCV_TO_BLENDER_CAMERA, Camera

# COLMAP's models without distortion, or with parameters for it after those of the pinhole: how many
# focal lengths they have.
COLMAP_MODELS = {
    "SIMPLE_PINHOLE": 1,
    "PINHOLE": 2,
    "SIMPLE_RADIAL": 1,
    "RADIAL": 1,
    "OPENCV": 2,
    "FULL_OPENCV": 2,
}
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
PLAIN_MODELS = ("", "PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "PERSPECTIVE")


def placed(camera: Camera, field_to_world: np.ndarray) -> np.ndarray:
    """The camera's cam2world [4, 4] in the scene, OpenCV axes; field_to_world: a similarity."""
    world = np.asarray(field_to_world, float).reshape(4, 4)
    matrix = world @ camera.cam2world
    matrix[:3, :3] /= np.cbrt(np.linalg.det(world[:3, :3]))
    return matrix


def _unplaced(matrix: np.ndarray, field_to_world: np.ndarray) -> np.ndarray:
    world = np.asarray(field_to_world, float).reshape(4, 4)
    out = np.linalg.inv(world) @ matrix
    out[:3, :3] *= np.cbrt(np.linalg.det(world[:3, :3]))
    return out


def _pixels(camera: Camera) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy in pixels."""
    if camera.orthographic:
        raise ValueError("Orthographic cameras cannot be written as transforms.json or COLMAP.")
    k, w, h = camera.intrinsics, camera.width, camera.height
    return float(k[0, 0] * w), float(k[1, 1] * h), float(k[0, 2] * w), float(k[1, 2] * h)


def _camera(
    matrix: np.ndarray, fx: float, fy: float, cx: float, cy: float, w: int, h: int, name: str
) -> Camera:
    if not (w > 0 and h > 0 and fx > 0 and fy > 0 and np.isfinite(matrix).all()):
        raise ValueError(f"The camera of {name} makes no sense.")
    k = np.array([[fx / w, 0, cx / w], [0, fy / h, cy / h], [0, 0, 1.0]])
    return Camera(matrix, k, w, h, name)


# --- transforms.json ---


def to_transforms(
    cameras: list[Camera], images: list[str], field_to_world: np.ndarray, extra: list[dict]
) -> dict:
    """The contents of transforms.json: all the keys that instant-ngp and nerfstudio know of.

    images: the pictures' paths, relative to the file; extra: more keys for each frame, such as
    mask_path. Intrinsics stand at the top where all cameras share them, else in each frame.
    """
    sets = []
    for camera in cameras:
        fx, fy, cx, cy = _pixels(camera)
        facts = {"camera_model": "OPENCV", "w": camera.width, "h": camera.height}
        facts |= {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy} | dict.fromkeys(DISTORTION, 0.0)
        facts["camera_angle_x"] = 2 * math.atan(camera.width / (2 * fx))
        facts["camera_angle_y"] = 2 * math.atan(camera.height / (2 * fy))
        sets.append(facts)
    shared = sets[0] if all(s == sets[0] for s in sets) else {}
    frames = []
    for number, (camera, image, own) in enumerate(zip(cameras, images, sets, strict=True), 1):
        matrix = placed(camera, field_to_world) @ OPENCV_TO_BLENDER_CAMERA
        facts = {"file_path": image, "transform_matrix": matrix.tolist(), "colmap_im_id": number}
        frames.append(facts | ({} if shared else own) | extra[number - 1])
    return shared | {"frames": frames}


def from_transforms(path: Path, field_to_world: np.ndarray) -> list[Camera]:
    """The cameras of a transforms.json, in field space, named after their pictures."""
    try:
        facts = json.loads(path.read_text("utf-8"))
        frames = [facts | frame for frame in facts["frames"]]
        return [_from_frame(frame, path.parent, field_to_world) for frame in frames]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name} does not hold frames with cameras: {error}.") from error


def _from_frame(facts: dict, folder: Path, field_to_world: np.ndarray) -> Camera:
    name = Path(facts["file_path"]).stem
    model = str(facts.get("camera_model", ""))
    if model.upper() not in PLAIN_MODELS or any(facts.get(key) for key in DISTORTION):
        raise ValueError(f"{name} was seen through a lens with distortion; undistort it first.")
    w, h = facts.get("w"), facts.get("h")
    if not (w and h):
        w, h = _png_size(folder / facts["file_path"])
    w, h = int(w), int(h)
    fx = facts.get("fl_x") or _focal(facts.get("camera_angle_x"), w)
    fy = facts.get("fl_y") or _focal(facts.get("camera_angle_y"), h) or fx
    matrix = np.array(facts["transform_matrix"], float).reshape(4, 4) @ OPENCV_TO_BLENDER_CAMERA
    cx, cy = facts.get("cx", w / 2), facts.get("cy", h / 2)
    return _camera(
        _unplaced(matrix, field_to_world), float(fx), float(fy), float(cx), float(cy), w, h, name
    )


def _focal(angle: float | None, side: int) -> float | None:
    return side / (2 * math.tan(angle / 2)) if angle else None


def _png_size(path: Path) -> tuple[int, int]:
    """Of the NeRF paper's own data sets, whose transforms leave sizes and endings out."""
    for candidate in (path, path.with_name(path.name + ".png")):
        if candidate.is_file():
            head = candidate.open("rb").read(24)
            if head[:8] == b"\x89PNG\r\n\x1a\n":
                return struct.unpack(">II", head[16:24])
    raise ValueError(f"The size of {path.name} is neither given nor can it be read.")


# --- COLMAP ---


def to_colmap(
    cameras: list[Camera], images: list[str], field_to_world: np.ndarray
) -> dict[str, str]:
    """The contents of cameras.txt and images.txt, by name; images: the pictures' names."""
    models: dict[str, int] = {}
    poses = []
    for number, (camera, image) in enumerate(zip(cameras, images, strict=True), 1):
        numbers = " ".join(repr(x) for x in _pixels(camera))
        model = f"PINHOLE {camera.width} {camera.height} {numbers}"
        model_id = models.setdefault(model, len(models) + 1)
        inverse = np.linalg.inv(placed(camera, field_to_world))
        pose = [*_quaternion(inverse[:3, :3]), *inverse[:3, 3]]
        poses.append(f"{number} {' '.join(repr(float(x)) for x in pose)} {model_id} {image}\n\n")
    return {
        "cameras.txt": "# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]\n"
        + "".join(f"{number} {model}\n" for model, number in models.items()),
        "images.txt": "# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME\n# POINTS2D[]\n"
        + "".join(poses),
    }


def from_colmap(folder: Path, field_to_world: np.ndarray) -> list[Camera]:
    """The cameras of a folder with cameras.txt and images.txt, in field space, by image id."""
    try:
        models = {}
        for line in _lines(folder / "cameras.txt"):
            if line:
                number, model, w, h, *numbers = line.split()
                models[number] = _model(model, int(w), int(h), [float(n) for n in numbers])
        found = []
        for line in _lines(folder / "images.txt")[::2]:  # every other line lists points
            if not line:
                continue
            number, *pose, model_id, name = line.split(maxsplit=9)
            pose = [float(x) for x in pose]
            matrix = np.eye(4)
            matrix[:3, :3] = _rotation(np.array(pose[:4])).T
            matrix[:3, 3] = -matrix[:3, :3] @ pose[4:]
            stem = Path(name).stem
            camera = _camera(_unplaced(matrix, field_to_world), *models[model_id], stem)
            found.append((int(number), camera))
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{folder.name} does not hold COLMAP's cameras: {error}.") from error
    return [camera for _, camera in sorted(found, key=lambda pair: pair[0])]


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    return [line for line in lines if not line.startswith("#")]


def _model(model: str, w: int, h: int, numbers: list[float]) -> tuple:
    """fx, fy, cx, cy, width, height of a line of cameras.txt."""
    focals = COLMAP_MODELS.get(model)
    if focals is None or any(numbers[focals + 2 :]):
        raise ValueError(f"COLMAP's model {model} has distortion; undistort the pictures first.")
    cx, cy = numbers[focals : focals + 2]
    return numbers[0], numbers[focals - 1], cx, cy, w, h


def _rotation(q: np.ndarray) -> np.ndarray:
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _quaternion(r: np.ndarray) -> np.ndarray:
    """w, x, y, z of a rotation [3, 3], w >= 0: the eigenvector of Bar-Itzhack (2000), "New method
    for extracting the quaternion from a rotation matrix", exact for any angle."""
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0],
            [r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
            [r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1], 0],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], np.trace(r)],
        ]
    )
    x, y, z, w = np.linalg.eigh(k / 3)[1][:, -1]  # of the lower triangle
    return np.array([w, x, y, z]) * (1 if w >= 0 else -1)

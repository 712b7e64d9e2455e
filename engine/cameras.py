"""Cameras: the one place where conventions meet. numpy only.

Engine convention (OpenCV): a camera-to-world 4x4 matrix whose columns are +x right, +y down,
+z forward and the position; intrinsics normalised to image size, so pixel u of a width-W image
is at (u + 0.5) / W. Field space: right-handed, +x to the subject's left, +y up, +z out of the
face. Angles are radians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

# Field axes (x left, y up, z front) to Blender's (x, y, z up; a head looks along -y).
FIELD_TO_BLENDER = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
# OpenCV camera axes (+y down, +z forward) to Blender's (+y up, -z forward).
OPENCV_TO_BLENDER_CAMERA = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    cam2world: float64 [4, 4], OpenCV axes, orthonormal rotation, field units.
    intrinsics: float64 [3, 3], normalised: fx = focal / width, fy = focal / height, cx, cy in 0..1
        (may lie outside for a crop); no skew.
    width, height: image size in pixels.
    """

    cam2world: np.ndarray
    intrinsics: np.ndarray
    width: int = 512
    height: int = 512
    name: str = field(default="camera", compare=False)

    @property
    def position(self) -> np.ndarray:
        return self.cam2world[:3, 3]

    @property
    def world2cam(self) -> np.ndarray:
        r, t = self.cam2world[:3, :3], self.cam2world[:3, 3]
        out = np.eye(4)
        out[:3, :3] = r.T
        out[:3, 3] = -r.T @ t
        return out

    def resized(self, width: int, height: int) -> Camera:
        """The same view on an image of another size (normalised intrinsics do not change)."""
        return Camera(self.cam2world, self.intrinsics, width, height, self.name)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points [N, 3] to pixels [N, 2] (u right, v down; pixel centres at +0.5) and depth
        along the camera's z [N]."""
        w = self.world2cam
        p = points @ w[:3, :3].T + w[:3, 3]
        z = p[:, 2]
        k = self.intrinsics
        u = (k[0, 0] * p[:, 0] / z + k[0, 2]) * self.width
        v = (k[1, 1] * p[:, 1] / z + k[1, 2]) * self.height
        return np.stack([u, v], 1), z

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Origins [3] and unit directions [height, width, 3] through the pixel centres."""
        k = self.intrinsics
        u = ((np.arange(self.width) + 0.5) / self.width - k[0, 2]) / k[0, 0]
        v = ((np.arange(self.height) + 0.5) / self.height - k[1, 2]) / k[1, 1]
        d = np.stack([*np.meshgrid(u, v), np.ones((self.height, self.width))], -1)
        d /= np.linalg.norm(d, axis=-1, keepdims=True)
        return self.cam2world[:3, 3].copy(), d @ self.cam2world[:3, :3].T

    def transformed_image(self, matrix: np.ndarray, width: int, height: int) -> Camera:
        """The camera of an image whose pixels are `matrix` @ this camera's pixels.

        matrix: [3, 3] similarity (rotation, uniform scale, translation; no mirror), in pixels with
            centres at +0.5, that maps this image's (u, v, 1) to the new image's.
        The rotation goes into the camera's roll, so that pixels stay square and unsheared; this is
        exact. Raises ValueError for any other matrix.
        """
        a = np.asarray(matrix, float)
        scale = math.hypot(a[0, 0], a[1, 0])
        rot = a[:2, :2] / scale
        if not np.allclose(rot @ rot.T, np.eye(2), atol=1e-6) or np.linalg.det(rot) < 0:
            raise ValueError("the image transform must be a similarity without mirroring")
        fx = self.intrinsics[0, 0] * self.width
        fy = self.intrinsics[1, 1] * self.height
        if not math.isclose(fx, fy, rel_tol=1e-6):
            raise ValueError("the camera must have square pixels")
        centre = np.array(
            [self.intrinsics[0, 2] * self.width, self.intrinsics[1, 2] * self.height, 1]
        )
        new_centre = a @ centre
        roll = np.eye(4)
        roll[:2, :2] = rot  # new camera axes = rot @ old; cam2world columns follow its transpose
        k = np.eye(3)
        k[0, 0] = fx * scale / width
        k[1, 1] = fy * scale / height
        k[0, 2] = new_centre[0] / width
        k[1, 2] = new_centre[1] / height
        return Camera(self.cam2world @ roll.T, k, width, height, self.name)

    def to_eg3d(self) -> np.ndarray:
        """EG3D's 25-vector: cam2world row-major (16) and normalised intrinsics (9), float32."""
        return np.concatenate([self.cam2world.ravel(), self.intrinsics.ravel()]).astype(np.float32)

    def to_json(self) -> dict:
        return {
            "cam2world": [float(x) for x in self.cam2world.ravel()],
            "intrinsics": [float(x) for x in self.intrinsics.ravel()],
            "width": int(self.width),
            "height": int(self.height),
            "name": self.name,
        }


def from_json(data: dict) -> Camera:
    """Inverse of Camera.to_json."""
    return Camera(
        np.array(data["cam2world"], float).reshape(4, 4),
        np.array(data["intrinsics"], float).reshape(3, 3),
        int(data["width"]),
        int(data["height"]),
        data.get("name", "camera"),
    )


def from_eg3d(vector: np.ndarray, width: int = 512, height: int = 512) -> Camera:
    """The camera of an EG3D 25-vector."""
    v = np.asarray(vector, float).reshape(25)
    return Camera(v[:16].reshape(4, 4), v[16:].reshape(3, 3), width, height)


def intrinsics_from_fov(fov: float, aspect: float = 1.0) -> np.ndarray:
    """Normalised intrinsics of a centred pinhole; fov is the vertical angle in radians, aspect is
    width / height."""
    f = 0.5 / math.tan(fov / 2)
    return np.array([[f / aspect, 0, 0.5], [0, f, 0.5], [0, 0, 1.0]])


def look_at(position: np.ndarray, target: np.ndarray, up: np.ndarray | None = None) -> np.ndarray:
    """cam2world [4, 4] of a camera at `position` looking at `target`; `up` defaults to +y."""
    position, target = np.asarray(position, float), np.asarray(target, float)
    up = np.array([0.0, 1.0, 0.0]) if up is None else np.asarray(up, float)
    z = target - position
    z /= np.linalg.norm(z)
    x = np.cross(z, up)
    x /= np.linalg.norm(x)
    out = np.eye(4)
    out[:3] = np.stack([x, np.cross(z, x), z, position], 1)
    return out


def orbit(
    yaw: float,
    pitch: float,
    radius: float,
    fov: float,
    target: np.ndarray | tuple[float, float, float] = (0.0, 0.0, 0.0),
    width: int = 512,
    height: int = 512,
) -> Camera:
    """A camera on a sphere round `target`. yaw 0 is the front (+z), positive moves the camera to
    the subject's left (+x); pitch positive is above. Radians; fov is the vertical angle."""
    target = np.asarray(target, float)
    direction = np.array(
        [math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)]
    )
    return Camera(
        look_at(target + radius * direction, target),
        intrinsics_from_fov(fov, width / height),
        width,
        height,
    )


def to_blender(camera: Camera, field_to_world: np.ndarray) -> dict:
    """Blender's numbers for a camera.

    field_to_world: [4, 4] similarity from field space to Blender's world.
    Returns matrix_world [4, 4], sensor_width (mm), lens (mm), shift_x, shift_y, resolution_x,
    resolution_y, for sensor_fit 'HORIZONTAL' and square pixels. Exact for a pinhole with
    principal point offset: Blender's shifts are in units of the image's width for this fit.
    """
    world = np.asarray(field_to_world, float)
    scale = np.cbrt(np.linalg.det(world[:3, :3]))
    matrix = world @ camera.cam2world @ OPENCV_TO_BLENDER_CAMERA
    matrix[:3, :3] /= scale
    k, sensor = camera.intrinsics, 36.0
    return {
        "matrix_world": matrix,
        "sensor_width": sensor,
        "lens": float(k[0, 0] * sensor),
        "shift_x": float(0.5 - k[0, 2]),
        "shift_y": float((k[1, 2] - 0.5) * camera.height / camera.width),
        "resolution_x": int(camera.width),
        "resolution_y": int(camera.height),
    }

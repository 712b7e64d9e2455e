"""Cameras: the one place where conventions meet. numpy only.

Engine convention (OpenCV): a camera-to-world 4x4 matrix whose columns are +x right, +y down,
+z forward and the position; intrinsics normalised to image size, so pixel u of a width-W image
is at (u + 0.5) / W. Field space: right-handed, +x to the subject's left, +y up, +z out of the
face. Angles are radians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

# Field axes (x left, y up, z front) to Blender's (x, y, z up; a head looks along -y).
FIELD_TO_BLENDER = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
# OpenCV camera axes (+y down, +z forward) to Blender's (+y up, -z forward).
OPENCV_TO_BLENDER_CAMERA = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Camera:
    """A pinhole or an orthographic camera.

    cam2world: float64 [4, 4], OpenCV axes, field units. Its rotation is orthonormal, but for the
        camera of a head that the scene stretches: there it is any invertible matrix, and depths
        are in the scene's units.
    intrinsics: float64 [3, 3], normalised: fx = focal / width, fy = focal / height, cx, cy in 0..1
        (may lie outside for a crop); no skew. Orthographic: fx = 1 / the width of the view and
        fy = 1 / its height, in field units. Pixels need not be square.
    width, height: image size in pixels.
    near, far: depths along the camera's z between which it sees anything.
    """

    cam2world: np.ndarray
    intrinsics: np.ndarray
    width: int = 512
    height: int = 512
    name: str = field(default="camera", compare=False)
    orthographic: bool = False
    near: float = 0.0
    far: float = math.inf

    @property
    def position(self) -> np.ndarray:
        return self.cam2world[:3, 3]

    @property
    def world2cam(self) -> np.ndarray:
        inverse = np.linalg.inv(self.cam2world[:3, :3])
        out = np.eye(4)
        out[:3, :3] = inverse
        out[:3, 3] = -inverse @ self.cam2world[:3, 3]
        return out

    @property
    def pixel_aspect(self) -> float:
        """Width of a pixel over its height."""
        k = self.intrinsics
        return float(k[1, 1] * self.height / (k[0, 0] * self.width))

    def resized(self, width: int, height: int) -> Camera:
        """The same view on an image of another size (normalised intrinsics do not change)."""
        return replace(self, width=width, height=height)

    def rows(self, first: int, last: int) -> Camera:
        """The camera of the rows first .. last - 1 of the image."""
        k, height = self.intrinsics.copy(), last - first
        k[1, 1] *= self.height / height
        k[1, 2] = (k[1, 2] * self.height - first) / height
        return replace(self, intrinsics=k, height=height)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points [N, 3] to pixels [N, 2] (u right, v down; pixel centres at +0.5) and depth
        along the camera's z [N]."""
        w = self.world2cam
        p = points @ w[:3, :3].T + w[:3, 3]
        z = p[:, 2]
        k, divisor = self.intrinsics, 1.0 if self.orthographic else z
        u = (k[0, 0] * p[:, 0] / divisor + k[0, 2]) * self.width
        v = (k[1, 1] * p[:, 1] / divisor + k[1, 2]) * self.height
        return np.stack([u, v], 1), z

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Origins [3] and unit directions [height, width, 3] through the pixel centres. Of an
        orthographic camera each ray has an origin of its own [height, width, 3], at depth 0."""
        k, to_world = self.intrinsics, self.cam2world[:3, :3].T
        u = ((np.arange(self.width) + 0.5) / self.width - k[0, 2]) / k[0, 0]
        v = ((np.arange(self.height) + 0.5) / self.height - k[1, 2]) / k[1, 1]
        d = np.stack([*np.meshgrid(u, v), np.ones((self.height, self.width))], -1)
        origins = self.cam2world[:3, 3].copy()
        if self.orthographic:
            origins = (d * (1, 1, 0)) @ to_world + origins
            d = np.broadcast_to([0.0, 0.0, 1.0], d.shape)
        d = d @ to_world
        return origins, d / np.linalg.norm(d, axis=-1, keepdims=True)

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
        return replace(
            self, cam2world=self.cam2world @ roll.T, intrinsics=k, width=width, height=height
        )

    def to_eg3d(self) -> np.ndarray:
        """EG3D's 25-vector of a pinhole: cam2world row-major (16) and normalised intrinsics (9),
        float32."""
        return np.concatenate([self.cam2world.ravel(), self.intrinsics.ravel()]).astype(np.float32)

    def to_json(self) -> dict:
        """What from_json reads; what is as usual is left out."""
        facts = {
            "cam2world": [float(x) for x in self.cam2world.ravel()],
            "intrinsics": [float(x) for x in self.intrinsics.ravel()],
            "width": int(self.width),
            "height": int(self.height),
            "name": self.name,
        }
        if self.orthographic:
            facts["orthographic"] = True
        if self.near > 0:
            facts["near"] = float(self.near)
        if math.isfinite(self.far):
            facts["far"] = float(self.far)
        return facts


def from_json(data: dict) -> Camera:
    """Inverse of Camera.to_json."""
    return Camera(
        np.array(data["cam2world"], float).reshape(4, 4),
        np.array(data["intrinsics"], float).reshape(3, 3),
        int(data["width"]),
        int(data["height"]),
        data.get("name", "camera"),
        bool(data.get("orthographic", False)),
        float(data.get("near", 0.0)),
        float(data.get("far", math.inf)),
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


def intrinsics_from_extent(width: float, height: float) -> np.ndarray:
    """Normalised intrinsics of a centred orthographic camera that sees width x height units."""
    return np.array([[1 / width, 0, 0.5], [0, 1 / height, 0.5], [0, 0, 1.0]])


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
    """Blender's numbers for a camera, under Blender's own names.

    field_to_world: [4, 4] similarity from field space to Blender's world.
    Returns matrix_world [4, 4], type 'PERSP' or 'ORTHO', sensor_fit 'HORIZONTAL', sensor_width
    (mm), lens (mm) or ortho_scale, shift_x, shift_y, resolution_x, resolution_y, pixel_aspect_x,
    pixel_aspect_y, and clip_start and clip_end where the camera has any. Exact: Blender's shifts
    are in units of the image's width for this fit.
    """
    world = np.asarray(field_to_world, float)
    scale = _uniform_scale(world)
    matrix = world @ camera.cam2world @ OPENCV_TO_BLENDER_CAMERA
    matrix[:3, :3] /= scale
    k, sensor, aspect = camera.intrinsics, 36.0, camera.pixel_aspect
    if math.isclose(aspect, 1.0, rel_tol=1e-9):
        aspect = 1.0
    numbers = {
        "matrix_world": matrix,
        "type": "ORTHO" if camera.orthographic else "PERSP",
        "sensor_fit": "HORIZONTAL",
        "sensor_width": sensor,
        "shift_x": float(0.5 - k[0, 2]),
        "shift_y": float((k[1, 2] - 0.5) * camera.height / (camera.width * aspect)),
        "resolution_x": int(camera.width),
        "resolution_y": int(camera.height),
        # Blender takes aspects from 1 on.
        "pixel_aspect_x": max(aspect, 1.0),
        "pixel_aspect_y": max(1 / aspect, 1.0),
    }
    if camera.orthographic:
        numbers["ortho_scale"] = float(scale / k[0, 0])
    else:
        numbers["lens"] = float(k[0, 0] * sensor)
    if camera.near > 0:
        numbers["clip_start"] = float(camera.near * scale)
    if math.isfinite(camera.far):
        numbers["clip_end"] = float(camera.far * scale)
    return numbers


def from_blender(numbers: dict, field_to_world: np.ndarray, name: str = "camera") -> Camera:
    """The camera of Blender's numbers, as to_blender gives them; any sensor fit and aspect.

    numbers: matrix_world (16 numbers, its scale is ignored, as Blender does), type, sensor_fit
        ('AUTO', 'HORIZONTAL', 'VERTICAL'), sensor_width and, for 'VERTICAL', sensor_height (mm),
        lens (mm) or ortho_scale, shift_x, shift_y, resolution_x and resolution_y (pixels, of the
        picture itself), pixel_aspect_x, pixel_aspect_y, clip_start, clip_end.
    field_to_world: [4, 4], the head's matrix_world with what its mesh was made with: any
        invertible affine matrix. For a similarity the camera is in field units; for any other its
        cam2world holds the stretch, and its depths are in the scene's units.
    Source: Blender's BKE_camera_params_compute_viewplane (source/blender/blenkernel/intern/
    camera.cc). Raises ValueError for a panoramic camera.
    """
    if numbers["type"] not in ("PERSP", "ORTHO"):
        raise ValueError("the camera is neither perspective nor orthographic")
    ortho = numbers["type"] == "ORTHO"
    world = np.asarray(field_to_world, float).reshape(4, 4)
    placed = np.asarray(numbers["matrix_world"], float).reshape(4, 4).copy()
    placed[:3, :3] /= np.linalg.norm(placed[:3, :3], axis=0)
    matrix = np.linalg.inv(world) @ placed @ OPENCV_TO_BLENDER_CAMERA
    width, height = int(numbers["resolution_x"]), int(numbers["resolution_y"])
    across = width * float(numbers["pixel_aspect_x"])
    down = height * float(numbers["pixel_aspect_y"])
    fit = numbers["sensor_fit"]
    if fit == "AUTO":
        fit, sensor = "HORIZONTAL" if across >= down else "VERTICAL", numbers["sensor_width"]
    else:
        sensor = numbers["sensor_width" if fit == "HORIZONTAL" else "sensor_height"]
    fitted = across if fit == "HORIZONTAL" else down
    # How much of the fitted side a slope of 1, or a unit of length, takes.
    share = 1 / numbers["ortho_scale"] if ortho else numbers["lens"] / sensor
    unit = 1.0
    if _is_similarity(world):
        unit = _uniform_scale(world)
        left, _, right = np.linalg.svd(matrix[:3, :3])
        matrix[:3, :3] = left @ right  # Blender's matrices are rounded to float32
        share = share * unit if ortho else share
    k = np.eye(3)
    k[0, 0], k[1, 1] = share * fitted / across, share * fitted / down
    k[0, 2] = 0.5 - numbers["shift_x"] * fitted / across
    k[1, 2] = 0.5 + numbers["shift_y"] * fitted / down
    near, far = numbers.get("clip_start", 0.0) / unit, numbers.get("clip_end", math.inf) / unit
    return Camera(matrix, k, width, height, name, ortho, near, far)


def _uniform_scale(matrix: np.ndarray) -> float:
    return float(np.cbrt(abs(np.linalg.det(matrix[:3, :3]))))


def _is_similarity(matrix: np.ndarray) -> bool:
    """Whether a matrix [4, 4] turns, scales evenly and moves, and does not mirror."""
    turned = matrix[:3, :3] / _uniform_scale(matrix)
    return bool(np.allclose(turned @ turned.T, np.eye(3), atol=1e-5)) and np.linalg.det(turned) > 0

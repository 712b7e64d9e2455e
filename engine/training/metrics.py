"""Figures of merit, as plain functions of arrays: pictures, depths, points, cameras, features.

Peak signal to noise ratio and intersection over union are in engine/surface/metrics.py, which the
jobs' reports use too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import linalg, ndimage
from scipy.spatial.distance import cdist

from engine.cameras import Camera

EYE_CORNERS = 36, 45  # outer ones, of the 68 usual landmarks
USUAL = slice(0, 68)  # of our 84 landmarks


def ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity of two pictures [H, W, C] in 0..1, both sides at least 11 pixels.

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity":
    equation 13 with the authors' constants and Gaussian window (11 x 11, sigma 1.5), the mean over
    pixels whose window lies inside, and over channels.
    """
    return float(ssim_map(image, reference)[5:-5, 5:-5].mean())


def ssim_map(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The same for each pixel and channel [H, W, C]; near the edge, windows see the picture
    mirrored."""
    if image.shape != reference.shape or min(image.shape[:2]) < 11:
        raise ValueError(f"cannot compare pictures of shapes {image.shape} and {reference.shape}")
    a, b = image.astype(np.float64), reference.astype(np.float64)

    def mean(x: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(x, (1.5, 1.5, 0), truncate=5 / 1.5)

    ma, mb = mean(a), mean(b)
    va, vb, both = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * ma * mb + c1) * (2 * both + c2)
    return top / ((ma * ma + mb * mb + c1) * (va + vb + c2))


def mask_box(mask: np.ndarray, least: int = 11) -> tuple[slice, slice]:
    """Rows and columns of the smallest box around a mask [H, W] that is not empty; at least so many
    pixels a side. Raises ValueError for an empty mask."""
    if not mask.any():
        raise ValueError("the mask is empty")
    box = []
    for axis, length in ((1, mask.shape[0]), (0, mask.shape[1])):
        filled = np.flatnonzero(mask.any(axis))
        low, high = filled[0], filled[-1] + 1
        low = max(0, min(low, (low + high - least) // 2, length - least))
        box.append(slice(int(low), int(max(high, low + least))))
    return box[0], box[1]


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The 4x4 similarity that brings points [N, 3] nearest to others (Umeyama 1991)."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    out = np.eye(4)
    out[:3, :3] = (s * sign).sum() / (a**2).sum() * (u * sign) @ vt
    out[:3, 3] = target.mean(0) - out[:3, :3] @ source.mean(0)
    return out


def scale_of(matrix: np.ndarray) -> float:
    """How much larger a similarity [4, 4] makes what it moves."""
    return float(np.cbrt(np.linalg.det(matrix[:3, :3])))


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [N, 3] by a matrix [4, 4]."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def brought(camera: Camera, matrix: np.ndarray) -> Camera:
    """A camera moved by a similarity [4, 4]: it sees what is moved with it as before. Its axes keep
    their length, so depths are in the new world's metres."""
    pose = matrix @ camera.cam2world
    pose[:3, :3] /= scale_of(matrix)
    return replace(camera, cam2world=pose)


def landmark_error(points: np.ndarray, true: np.ndarray) -> float:
    """Mean distance of the 68 usual landmarks [>= 68, 2 or 3], in percent of the distance between
    the true outer corners of the eyes."""
    between = np.linalg.norm(true[EYE_CORNERS[0]] - true[EYE_CORNERS[1]])
    return float(np.linalg.norm(points[USUAL] - true[USUAL], axis=1).mean() / between * 100)


def looking_at(camera: Camera, point: np.ndarray) -> np.ndarray:
    """The camera's axes [3, 3] in the world once it is turned, the short way, to look at a point
    in front of it: direction and roll of a view whatever its focal length and crop."""
    axes = camera.cam2world[:3, :3] / scale_of(camera.cam2world)
    ray = axes.T @ (np.asarray(point, float) - camera.position)
    ray /= np.linalg.norm(ray)
    axis = np.cross([0.0, 0.0, 1.0], ray)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return axes @ (np.eye(3) + cross + cross @ cross / (1 + ray[2]))  # Rodrigues, from z to the ray


def angle_between(a: np.ndarray, b: np.ndarray) -> float:
    """Degrees of the rotation that takes one rotation matrix [3, 3] to the other."""
    # From the chord: the arc cosine of the trace is blind to small angles.
    chord = np.linalg.norm(a - b) / (2 * np.sqrt(2))
    return float(np.degrees(2 * np.arcsin(min(1.0, chord))))


def camera_error(made: Camera, true: Camera, there: np.ndarray) -> float:
    """Degrees between a camera, brought by the similarity [4, 4] from its head to the true one, and
    the true camera, both turned to look at the true head's origin."""
    turned = there[:3, :3] / scale_of(there)
    turned = turned @ looking_at(made, np.linalg.inv(there)[:3, 3])
    return angle_between(turned, looking_at(true, np.zeros(3)))


def depth_normals(
    depth: np.ndarray, mask: np.ndarray, intrinsics: np.ndarray, jump: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Normals [H, W, 3] in camera axes (towards the camera, z negative) of a depth map [H, W]
    (metres along the camera's z), by differences between a pixel's neighbours; and where they are
    good [H, W]: the pixel and its four neighbours in `mask`, neighbours less than `jump` apart."""
    h, w = depth.shape
    x = ((np.arange(w) + 0.5) / w - intrinsics[0, 2]) / intrinsics[0, 0]
    y = ((np.arange(h) + 0.5) / h - intrinsics[1, 2]) / intrinsics[1, 1]
    z = depth.astype(np.float64)
    p = np.stack([x * z, y[:, None] * z, z], -1)
    across, down = np.zeros_like(p), np.zeros_like(p)
    across[:, 1:-1], down[1:-1] = p[:, 2:] - p[:, :-2], p[2:] - p[:-2]
    normal = np.cross(down, across)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    good = np.zeros_like(mask, bool)
    inner = mask[1:-1, 1:-1] & mask[1:-1, 2:] & mask[1:-1, :-2] & mask[2:, 1:-1] & mask[:-2, 1:-1]
    good[1:-1, 1:-1] = inner
    good &= (np.abs(across[..., 2]) < jump) & (np.abs(down[..., 2]) < jump)
    return normal, good


def normal_error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between unit vectors [..., 3]."""
    chord = np.linalg.norm(a - b, axis=-1) / 2
    return np.degrees(2 * np.arcsin(chord.clip(0, 1)))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Frechet distance of the Gaussians fitted to two sets of features [N, D], [M, D]:
    |difference of means|^2 + trace(Ca + Cb - 2 (Ca Cb)^1/2), as in Heusel et al. 2017, "GANs
    trained by a two time-scale update rule" (equation 6), there of Inception's features. Raises
    ValueError for fewer than two rows."""
    if min(len(a), len(b)) < 2:
        raise ValueError("a spread needs two rows or more")
    a, b = a.astype(np.float64), b.astype(np.float64)
    ca, cb = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    # The trace of (Ca Cb)^1/2 by the symmetric form, which needs no complex square root.
    values, vectors = linalg.eigh(ca)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    mixed = np.sqrt(linalg.eigvalsh(root @ cb @ root).clip(0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * mixed)


def precision_recall(real: np.ndarray, made: np.ndarray, nearest: int = 3) -> tuple[float, float]:
    """Share of made features [M, D] that lie among the real [N, D], and of real ones that lie among
    the made: within the distance of some feature there to its `nearest`-th neighbour.
    Kynkaanniemi et al. 2019, "Improved precision and recall metric for assessing generative
    models", equations 1 and 2. Raises ValueError where there are too few rows."""
    if min(len(real), len(made)) <= nearest:
        raise ValueError(f"{nearest} neighbours need more than {nearest} rows")

    def among(points: np.ndarray, others: np.ndarray) -> float:
        within = np.sort(cdist(others, others), 1)[:, nearest]  # the 0th is the feature itself
        return float((cdist(points, others) <= within).any(1).mean())

    return among(made, real), among(real, made)


def spread(values: list[float]) -> dict[str, float]:
    """Mean, median, and the 10th and 90th percentiles of some numbers; those that are not numbers
    are left out. Nothing but nan for none."""
    x = np.array([v for v in values if np.isfinite(v)], float)
    if not len(x):
        return dict.fromkeys(("mean", "median", "p10", "p90"), float("nan"))
    low, middle, high = np.percentile(x, [10, 50, 90])
    named = {"mean": x.mean(), "median": middle, "p10": low, "p90": high}
    return {key: round(float(value), 3) for key, value in named.items()}

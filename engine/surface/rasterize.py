"""A z-buffer rasteriser in numpy, and the few ways in which the engine draws a mesh.

Triangles are cut into pixel rows, rows into pixels, all with array operations. A row's ends come
from the triangle's edges, each computed from its lower vertex to its upper one, so triangles that
share an edge split the pixels along it between them: none twice, none missed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.cameras import Camera

CHUNK = 1 << 21  # pixels handled at once


@dataclass(frozen=True)
class Raster:
    """What lies under each pixel centre.

    face: int32 [H, W], -1 where nothing is. barycentric: float32 [H, W, 3], perspective-correct,
    zero where nothing is. depth: float32 [H, W] along the camera's z, inf where nothing is.
    """

    face: np.ndarray
    barycentric: np.ndarray
    depth: np.ndarray

    def interpolate(self, corners: np.ndarray) -> np.ndarray:
        """Values [F, 3, C] at the faces' corners to an image float32 [H, W, C] (0 outside)."""
        inside = self.face >= 0
        out = np.zeros((*self.face.shape, corners.shape[-1]), np.float32)
        values = corners[self.face[inside]].astype(np.float32)
        out[inside] = np.einsum("nk,nkc->nc", self.barycentric[inside], values)
        return out


def _ragged(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every unit of every count: which count, and which unit of it."""
    owner = np.repeat(np.arange(len(counts)), counts)
    start = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - start[owner]


def _spans(xy: np.ndarray, width: int, height: int) -> tuple[np.ndarray, ...]:
    """Face, row, first and one-past-last column of every row of every triangle [F, 3, 2]."""
    y = xy[:, :, 1]
    order = np.argsort(y, axis=1, kind="stable")
    p = np.take_along_axis(xy, order[:, :, None], 1)
    top = np.maximum(np.ceil(p[:, 0, 1] - 0.5), 0).astype(np.int64)
    bottom = np.minimum(np.ceil(p[:, 2, 1] - 0.5), height).astype(np.int64)
    face, row = _ragged(np.maximum(bottom - top, 0))
    row += top[face]
    a, b, c = (p[face, i] for i in range(3))
    cy = row + 0.5

    def cross(s: np.ndarray, e: np.ndarray) -> np.ndarray:
        rise = e[:, 1] - s[:, 1]
        return s[:, 0] + (cy - s[:, 1]) * (e[:, 0] - s[:, 0]) / np.where(rise == 0, 1.0, rise)

    x0 = cross(a, c)
    x1 = np.where(cy < b[:, 1], cross(a, b), cross(b, c))
    first = np.maximum(np.ceil(np.minimum(x0, x1) - 0.5), 0).astype(np.int64)
    last = np.minimum(np.ceil(np.maximum(x0, x1) - 0.5), width).astype(np.int64)
    keep = last > first
    return face[keep], row[keep], first[keep], last[keep]


def fragments(xy: np.ndarray, width: int, height: int):
    """Yield (face [N], pixel [N] = row * width + column) for all pixels whose centres the
    triangles xy [F, 3, 2] (pixels, centres at +0.5) cover, in pieces."""
    face, row, first, last = _spans(xy.astype(np.float64), width, height)
    counts = last - first
    ends = np.cumsum(counts)
    i = 0
    while i < len(counts):
        done = ends[i - 1] if i else 0
        j = max(int(np.searchsorted(ends, done + CHUNK)), i + 1)
        span, step = _ragged(counts[i:j])
        span += i
        yield face[span], row[span] * width + first[span] + step
        i = j


def _planes(xy: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Coefficients [F, K, 3] of a x + b y + c through values [F, 3, K] at corners xy [F, 3, 2]."""
    e1, e2 = xy[:, 1] - xy[:, 0], xy[:, 2] - xy[:, 0]
    det = e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0]
    det = np.where(det == 0, np.inf, det)[:, None]
    d1, d2 = values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]
    a = (d1 * e2[:, 1:] - d2 * e1[:, 1:]) / det
    b = (d2 * e1[:, :1] - d1 * e2[:, :1]) / det
    c = values[:, 0] - a * xy[:, 0, :1] - b * xy[:, 0, 1:]
    return np.stack([a, b, c], -1)


def rasterize(vertices: np.ndarray, faces: np.ndarray, camera: Camera) -> Raster:
    """The nearest face under each pixel centre of the camera's image.

    vertices [V, 3], faces [F, 3] in the camera's world. Both sides of a face are drawn. Faces
    that reach behind the camera are left out.
    """
    pixels, z = camera.project(np.asarray(vertices, np.float64))
    number = np.flatnonzero((z[faces] > 1e-9).all(1))
    xy, z = pixels[faces[number]], z[faces[number]]
    w, h = camera.width, camera.height
    # What is linear in the picture, and larger where nearer: through a pinhole the inverse of
    # depth, without one depth itself.
    behind = z.max(initial=0.0) + 1.0
    nearness = behind - z if camera.orthographic else 1 / z
    inverse = _planes(xy, nearness[:, :, None])[:, 0]

    best = np.zeros(w * h)
    owner = np.full(w * h, -1, np.int64)
    for face, pixel in fragments(xy, w, h):
        p = inverse[face]
        near = p[:, 0] * (pixel % w + 0.5) + p[:, 1] * (pixel // w + 0.5) + p[:, 2]
        visible = near > best[pixel]
        face, pixel, near = face[visible], pixel[visible], near[visible]
        order = np.argsort(near, kind="stable")  # the nearest is written last, and stays
        owner[pixel[order]] = face[order]
        best[pixel[order]] = near[order]

    hit = np.flatnonzero(owner >= 0)
    face = owner[hit]
    corners = np.broadcast_to(np.eye(3), (len(xy), 3, 3))
    if not camera.orthographic:
        corners = corners / z[:, :, None]
    planes = _planes(xy, corners)[face]
    x, y = hit % w + 0.5, hit // w + 0.5
    weights = planes[:, :, 0] * x[:, None] + planes[:, :, 1] * y[:, None] + planes[:, :, 2]
    weights = np.maximum(weights, 0)
    weights /= np.maximum(weights.sum(1, keepdims=True), 1e-30)
    barycentric = np.zeros((w * h, 3), np.float32)
    barycentric[hit] = weights
    index = np.full(w * h, -1, np.int32)
    index[hit] = number[face]
    depth = np.full(w * h, np.inf, np.float32)
    depth[hit] = behind - best[hit] if camera.orthographic else 1 / best[hit]
    return Raster(index.reshape(h, w), barycentric.reshape(h, w, 3), depth.reshape(h, w))


def rasterize_uvs(
    uvs: np.ndarray, size: int, rows: tuple[int, int] | None = None
) -> tuple[Raster, int]:
    """The face under each texel centre of a size x size texture (row 0 at the top), and the number
    of texels that more than one face covers.

    uvs: [F, 3, 2], v up. rows: first and one past the last row, for a part of the texture. The
    raster's depth is 0 where a face is.
    """
    first, last = rows or (0, size)
    height = last - first
    xy = uvs.astype(np.float64) * (size, -size) + (0, size - first)
    count = np.zeros(height * size, np.uint8)
    owner = np.full(height * size, -1, np.int32)
    for face, pixel in fragments(xy, size, height):
        owner[pixel] = face
        count += np.minimum(np.bincount(pixel, minlength=len(count)), 2).astype(np.uint8)
    hit = np.flatnonzero(owner >= 0)
    face = owner[hit]
    slopes = _planes(xy, np.broadcast_to(np.eye(3), (len(xy), 3, 3)))[:, :, :2].astype(np.float32)
    # The planes are steep and far from the origin: evaluated from each face's first corner.
    offset = np.stack([hit % size + 0.5, hit // size + 0.5], 1) - xy[face, 0]
    weights = np.einsum("nkc,nc->nk", slopes[face], offset.astype(np.float32))
    weights[:, 0] += 1
    np.clip(weights, 0, 1, out=weights)
    weights /= weights.sum(1, keepdims=True)
    barycentric = np.zeros((len(owner), 3), np.float32)
    barycentric[hit] = weights
    depth = np.where(owner >= 0, np.float32(0), np.float32(np.inf))
    shape = (height, size)
    return (
        Raster(owner.reshape(shape), barycentric.reshape(*shape, 3), depth.reshape(shape)),
        int((count > 1).sum()),
    )


def sample(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear lookup, float32 [..., C]. image [H, W, C]; x, y in pixels, centres at +0.5; clamped
    at the border."""
    h, w = image.shape[:2]
    x, y = np.clip(x - 0.5, 0, w - 1), np.clip(y - 0.5, 0, h - 1)
    x0 = np.minimum(x.astype(np.int64), max(w - 2, 0))
    y0 = np.minimum(y.astype(np.int64), max(h - 2, 0))
    fx, fy = (x - x0).astype(np.float32)[..., None], (y - y0).astype(np.float32)[..., None]
    flat = image.reshape(h * w, -1)
    at = y0 * w + x0
    right, down = int(w > 1), w * int(h > 1)
    top = flat[at] * (1 - fx) + flat[at + right] * fx
    bottom = flat[at + down] * (1 - fx) + flat[at + down + right] * fx
    return top * (1 - fy) + bottom * fy

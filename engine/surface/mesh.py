"""A triangle mesh and the few facts about its topology that the surface room needs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Mesh:
    """Triangles in field space.

    vertices: float32 [V, 3], field units.
    faces: int32 [F, 3], counter-clockwise seen from outside.
    uvs: float32 [F, 3, 2] a corner, in 0..1, v up; None before unwrapping.
    texture: uint8 [T, T, 3], row 0 at the top, display sRGB; None before baking.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uvs: np.ndarray | None = None
    texture: np.ndarray | None = None

    def face_normals(self) -> np.ndarray:
        """float64 [F, 3], as long as twice the triangle's area."""
        a, b, c = (self.vertices[self.faces[:, i]].astype(np.float64) for i in range(3))
        return np.cross(b - a, c - a)

    @property
    def vertex_normals(self) -> np.ndarray:
        """Unit float32 [V, 3]: the mean of the faces' normals weighted by area."""
        return vertex_normals(self.vertices, self.faces)

    def with_uvs(self, uvs: np.ndarray) -> Mesh:
        return replace(self, uvs=uvs)

    def with_texture(self, texture: np.ndarray) -> Mesh:
        return replace(self, texture=texture)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit float32 [V, 3]: the mean of the adjacent faces' normals weighted by area."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    n = np.cross(b - a, c - a)
    flat = faces.ravel()
    total = np.stack(
        [np.bincount(flat, np.repeat(n[:, k], 3), minlength=len(vertices)) for k in range(3)], 1
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return (total / np.maximum(length, 1e-30)).astype(np.float32)


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Signed volume of a closed mesh, positive when its faces are wound counter-clockwise."""
    v = vertices.astype(np.float64)
    a, b, c = v[faces[:, 0]], v[faces[:, 1]], v[faces[:, 2]]
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def half_edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tail and head vertex [3F] of half-edge 3 f + i, which runs from corner i to corner i + 1."""
    return faces.ravel(), faces[:, (1, 2, 0)].ravel()


def twins(faces: np.ndarray) -> np.ndarray:
    """The opposite half-edge int64 [3F] of each half-edge of an edge-manifold oriented mesh, or -1
    at a boundary. Where more than two faces meet at an edge the pairing is arbitrary."""
    tail, head = half_edges(faces)
    n = int(faces.max()) + 1 if len(faces) else 1
    forward = tail.astype(np.int64) * n + head
    backward = head.astype(np.int64) * n + tail
    order = np.argsort(forward, kind="stable")
    at = np.searchsorted(forward[order], backward)
    at = np.minimum(at, len(order) - 1)
    found = forward[order[at]] == backward
    return np.where(found, order[at], -1)

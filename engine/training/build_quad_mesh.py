"""Helpers of the quad template's making: nearest points of a surface, curves by length, means of
neighbours in a mesh of quads."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree

TURN = 0.006  # metres that a right angle between normals counts as, to keep to one side of a fold
ROUND = 0.7  # of the way from facets to the curved surface through their corners


class Surface:
    """Nearest points on a triangle mesh that look the same way."""

    def __init__(self, v: np.ndarray, triangles: np.ndarray, spacing: float = 0.0006) -> None:
        corners = v[triangles]
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        area = np.linalg.norm(cross, axis=1) / 2
        normals = np.zeros_like(v)
        for k in range(3):
            np.add.at(normals, triangles[:, k], cross)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        self.vertex_normals = normals
        rng = np.random.default_rng(0)
        self.owner = np.repeat(np.arange(len(triangles)), rng.poisson(area / spacing**2) + 1)
        w = rng.random((len(self.owner), 2))
        w = np.where(w.sum(1, keepdims=True) > 1, 1 - w, w)
        self.weight = np.stack([1 - w.sum(1), w[:, 0], w[:, 1]], 1)
        self.triangles, self.v = triangles, v
        self.points = (corners[self.owner] * self.weight[..., None]).sum(1)
        self.normals = (normals[triangles[self.owner]] * self.weight[..., None]).sum(1)
        self.tree = cKDTree(np.concatenate([self.points, TURN * self.normals], 1))

    def nearest(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Sample numbers [N] for points [N, 3] with unit normals [N, 3]."""
        return self.tree.query(np.concatenate([points, TURN * normals], 1))[1]

    def exact(self, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Triangles [N] and barycentric weights [N, 3] of the nearest points."""
        triangle = self.owner[self.nearest(points, normals)]
        return triangle, self.weights(triangle, points)

    def weights(self, triangle: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Barycentric weights [N, 3] of the places in the triangles [N] nearest to points."""
        a, b, c = (self.v[self.triangles[triangle, k]] for k in range(3))
        n = np.cross(b - a, c - a)
        area = (n * n).sum(1, keepdims=True)
        flat = points - ((points - a) * n).sum(1, keepdims=True) / area * n
        w1 = (np.cross(flat - a, c - a) * n).sum(1) / area[:, 0]
        w2 = (np.cross(b - a, flat - a) * n).sum(1) / area[:, 0]
        w = np.clip(np.stack([1 - w1 - w2, w1, w2], 1), 0, 1)
        return w / w.sum(1, keepdims=True)

    def rounded(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """The nearest points [N, 3] on the surface with its facets rounded (Boubekeur and Alexa
        2008, "Phong tessellation")."""
        triangle, w = self.exact(points, normals)
        corners, n = self.v[self.triangles[triangle]], self.vertex_normals[self.triangles[triangle]]
        flat = (corners * w[..., None]).sum(1)
        off = ((flat[:, None] - corners) * n).sum(-1, keepdims=True) * n
        return flat - ROUND * (off * w[..., None]).sum(1)


def fill(count: int, quads: np.ndarray, known: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Places [count, C] of all vertices of quads: the mean of their neighbours where not `known`
    [K], NaN where no quad has them."""
    ring = neighbours(count, quads)
    used = np.unique(quads)
    free = np.setdiff1d(used, known)
    out = np.full((count, places.shape[1]), np.nan)
    out[known] = places
    system = sparse.diags(np.asarray(ring.sum(1)).ravel()[free]) - ring[free][:, free]
    right = ring[free][:, known] @ places
    out[free] = np.stack([spsolve(system.tocsc(), right[:, k]) for k in range(right.shape[1])], 1)
    return out


def neighbours(count: int, quads: np.ndarray) -> sparse.csr_matrix:
    """Which vertices share an edge [count, count], 1 or 0."""
    e = np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2)
    e = np.concatenate([e, e[:, ::-1]])
    out = sparse.coo_matrix((np.ones(len(e)), (e[:, 0], e[:, 1])), (count, count)).tocsr()
    out.data[:] = 1
    return out


def normals(v: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """Unit vertex normals [V, 3] of quads."""
    cross = np.cross(v[quads[:, 2]] - v[quads[:, 0]], v[quads[:, 3]] - v[quads[:, 1]])
    out = np.zeros_like(v)
    for k in range(4):
        np.add.at(out, quads[:, k], cross)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


class Curve:
    """A polyline [N, 3] by length."""

    def __init__(self, points: np.ndarray, closed: bool = False) -> None:
        self.points = np.concatenate([points, points[:1]]) if closed else points
        steps = np.linalg.norm(np.diff(self.points, axis=0), axis=1)
        self.along = np.concatenate([[0], np.cumsum(steps)])

    def at(self, along: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """Points (or values given at its vertices) at lengths [K]."""
        values = self.points if values is None else values
        columns = [np.interp(along, self.along, values[:, k]) for k in range(values.shape[1])]
        return np.stack(columns, 1)

    def find(self, points: np.ndarray) -> np.ndarray:
        """Lengths [K] of the places nearest to points [K, 3]."""
        fine = np.linspace(0, self.along[-1], 4000)
        return fine[cKDTree(self.at(fine)).query(points)[1]]

    def between(self, points: np.ndarray, counts: list[int]) -> np.ndarray:
        """Lengths of nodes: counts[i] steps, even in length, from points[i] to points[i + 1]."""
        ends = self.find(points)
        parts = [np.linspace(a, b, n, endpoint=False)
                 for a, b, n in zip(ends[:-1], ends[1:], counts, strict=True)]  # fmt: skip
        return np.concatenate([*parts, ends[-1:]])

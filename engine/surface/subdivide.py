"""Catmull-Clark subdivision of quad meshes as a linear map, and of their UVs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True)
class Step:
    """One subdivision: matrix float64 [V', V] takes values at the old vertices to the new ones,
    which are the old vertices, then one for each edge [E, 2], then one for each face; quads
    int32 [4 F, 4], four for each old one, its corners first."""

    matrix: sparse.csr_matrix
    edges: np.ndarray
    quads: np.ndarray


def subdivide(quads: np.ndarray, count: int) -> Step:
    """quads int [F, 4] on `count` vertices, an orientable manifold that may have a border (Catmull
    and Clark 1978, "Recursively generated B-spline surfaces on arbitrary topological meshes"; the
    border is a cubic B-spline of its own)."""
    q = np.asarray(quads, np.int64)
    faces = len(q)
    sides = np.stack([q, np.roll(q, -1, 1)], -1).reshape(-1, 2)
    ordered = np.sort(sides, 1)
    edges, owner = np.unique(ordered, axis=0, return_inverse=True)
    owner = owner.reshape(faces, 4)
    shared = np.bincount(owner.ravel(), minlength=len(edges))
    inner = shared == 2
    number = np.arange(faces)
    face_of = _table(np.repeat(number, 4), q.ravel(), 1 / 4, (faces, count))
    ends = _table(np.repeat(np.arange(len(edges)), 2), edges.ravel(), 1 / 2, (len(edges), count))
    beside = _table(owner.ravel(), np.repeat(number, 4), 1 / 2, (len(edges), faces))
    smooth = 0.5 * ends + 0.5 * (beside @ face_of)
    edge = sparse.diags(inner.astype(float)) @ smooth + sparse.diags((~inner).astype(float)) @ ends

    border = np.zeros(count, bool)
    border[edges[~inner].ravel()] = True
    valence = np.maximum(np.bincount(q.ravel(), minlength=count), 1).astype(float)
    around_faces = _table(q.ravel(), np.repeat(number, 4), 1.0, (count, faces)) @ face_of
    hub = sparse.diags(1 / valence)
    incident = _table(edges.ravel(), np.repeat(np.arange(len(edges)), 2), 1.0, (count, len(edges)))
    # Inside every vertex has as many edges as faces: (F + 2 R + (n - 3) P) / n.
    free = hub @ (hub @ around_faces + 2 * hub @ (incident @ ends))
    free = free + sparse.diags((valence - 3) / valence)
    rim = incident @ sparse.diags((~inner).astype(float)) @ ends
    rim = 0.25 * rim + 0.5 * sparse.identity(count)
    vertex = sparse.diags((~border).astype(float)) @ free + sparse.diags(border.astype(float)) @ rim
    e, c = count + owner, count + len(edges) + number
    new = np.stack([np.stack([q[:, k], e[:, k], c, e[:, k - 1]], 1) for k in range(4)], 1).reshape(
        -1, 4
    )
    matrix = sparse.vstack([vertex, edge, face_of]).tocsr()
    return Step(matrix, edges, new.astype(np.int32))


def subdivide_corners(uvs: np.ndarray) -> np.ndarray:
    """Values at corners [F, 4, C] -> [4 F, 4, C], halfway; the faces as in Step.quads."""
    ahead = 0.5 * (uvs + np.roll(uvs, -1, 1))
    centre = np.repeat(uvs.mean(1, keepdims=True), 4, 1)
    parts = np.stack([uvs, ahead, centre, np.roll(ahead, 1, 1)], 2)
    return parts.reshape(-1, 4, uvs.shape[-1]).astype(uvs.dtype)


def _table(rows, columns, value: float, shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.coo_matrix((np.full(len(rows), value), (rows, columns)), shape).tocsr()

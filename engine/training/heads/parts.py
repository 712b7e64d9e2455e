"""Quad meshes with UVs, and small operations on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

BACKGROUND, SKIN, HAIR, GARMENT, GLASSES = range(5)  # classes of the label pictures


@dataclass(frozen=True)
class Part:
    """One textured mesh.

    vertices float32 [V, 3]; faces and face_uv int [F, 4] (quads; a triangle repeats its last
    corner; split as 0-1-2, 0-2-3); uv float32 [M, 2] (v up).
    texture: file below the pack's textures, or None for a plain colour.
    key: equal keys promise equal faces, face_uv and uv (for caches); None: no promise.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    face_uv: np.ndarray
    texture: str | None = None
    key: str | None = None

    def moved(self, vertices: np.ndarray) -> Part:
        """The same mesh with other vertices [V, 3]."""
        return replace(self, vertices=np.ascontiguousarray(vertices, dtype=np.float32))


def split_quads(quads: np.ndarray) -> np.ndarray:
    """Triangles [T, 3] of quads [F, 4], without the empty ones."""
    t = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return t[(t[:, 0] != t[:, 1]) & (t[:, 1] != t[:, 2]) & (t[:, 0] != t[:, 2])]


def quad_normals(v: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """Area-weighted unit vertex normals float32 [V, 3]."""
    a = np.cross(v[quads[:, 2]] - v[quads[:, 0]], v[quads[:, 3]] - v[quads[:, 1]])
    corners, n = quads.ravel(), np.empty((len(v), 3))
    for c in range(3):
        n[:, c] = np.bincount(corners, np.repeat(a[:, c], 4), len(v))
    return (n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def clip_below(part: Part, values: np.ndarray, limit: float) -> Part:
    """The piece of a part where the per-vertex values [V] are below `limit`; new vertices lie on
    the cut. The result has triangles only."""
    t, tu = split_quads(part.faces), split_quads(part.face_uv)
    verts, uvs = [part.vertices], [part.uv]
    count_v, count_u = len(part.vertices), len(part.uv)
    inside = values[t] < limit
    k = inside.sum(1)
    faces, face_uvs = [t[k == 3]], [tu[k == 3]]
    for kept in (1, 2):
        m = k == kept
        odd = np.argmax(inside[m] if kept == 1 else ~inside[m], 1)  # the corner on its own side
        order = (odd[:, None] + np.arange(3)) % 3
        a = np.take_along_axis(t[m], order, 1)
        au = np.take_along_axis(tu[m], order, 1)
        n = len(a)
        for c in (1, 2):
            w = (limit - values[a[:, 0]]) / (values[a[:, c]] - values[a[:, 0]])
            w = w[:, None]
            verts.append(part.vertices[a[:, 0]] * (1 - w) + part.vertices[a[:, c]] * w)
            uvs.append(part.uv[au[:, 0]] * (1 - w) + part.uv[au[:, c]] * w)
        e1, f1 = count_v + np.arange(n), count_u + np.arange(n)
        e2, f2 = e1 + n, f1 + n
        count_v, count_u = count_v + 2 * n, count_u + 2 * n
        if kept == 1:
            faces.append(np.stack([a[:, 0], e1, e2], 1))
            face_uvs.append(np.stack([au[:, 0], f1, f2], 1))
        else:
            faces += [np.stack([e1, a[:, 1], a[:, 2]], 1), np.stack([e1, a[:, 2], e2], 1)]
            face_uvs += [np.stack([f1, au[:, 1], au[:, 2]], 1), np.stack([f1, au[:, 2], f2], 1)]
    quad = [0, 1, 2, 2]
    return replace(
        part,
        vertices=np.concatenate(verts).astype(np.float32),
        uv=np.concatenate(uvs).astype(np.float32),
        faces=np.concatenate(faces)[:, quad],
        face_uv=np.concatenate(face_uvs)[:, quad],
        key=None,
    )


def sweep(path: np.ndarray, radius: float, closed: bool, sides: int = 6):
    """A tube along a polyline [N, 3]: vertices [N * sides, 3] and quads."""
    p = np.asarray(path, float)
    n = len(p)
    t = np.roll(p, -1, 0) - np.roll(p, 1, 0)
    if not closed:
        t[0], t[-1] = p[1] - p[0], p[-1] - p[-2]
    t /= np.linalg.norm(t, axis=1, keepdims=True)
    a = np.cross(t, [0, 0, 1.0] if closed else [0, 1.0, 0])
    a /= np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-6)
    b = np.cross(a, t)
    angle = np.arange(sides) / sides * 2 * np.pi
    ring = np.cos(angle)[:, None] * a[:, None] + np.sin(angle)[:, None] * b[:, None]
    i = np.arange(n if closed else n - 1)[:, None]
    j = np.arange(sides)[None]
    k, m = (i + 1) % n, (j + 1) % sides
    quads = np.stack([i * sides + j, i * sides + m, k * sides + m, k * sides + j], -1)
    return (p[:, None] + radius * ring).reshape(-1, 3), quads.reshape(-1, 4)


def joined(pieces: list[tuple[np.ndarray, np.ndarray]]) -> Part:
    """One plain part of several (vertices, quads)."""
    offsets = np.cumsum([0] + [len(v) for v, _ in pieces[:-1]])
    faces = np.concatenate([f + o for (_, f), o in zip(pieces, offsets, strict=True)])
    vertices = np.concatenate([v for v, _ in pieces]).astype(np.float32)
    return Part(vertices, faces, np.zeros((1, 2), np.float32), np.zeros_like(faces))

"""Cloth-like parts made from grids of points."""

from __future__ import annotations

import numpy as np

from engine.training.heads.parts import Part, quad_normals


def sheet(grid: np.ndarray, uv: np.ndarray, wrap: bool) -> Part:
    """A part from points [A, B, 3] and UVs [A, B, 2]; wrap: the first axis closes on itself."""
    a, b = grid.shape[:2]
    i = np.arange(a if wrap else a - 1)[:, None]
    j = np.arange(b - 1)[None]
    k = (i + 1) % a
    faces = np.stack(np.broadcast_arrays(i * b + j, k * b + j, k * b + j + 1, i * b + j + 1), -1)
    faces = faces.reshape(-1, 4)
    # the seam needs UVs of its own: one more column
    uvs = np.concatenate([uv, uv[:1] + np.array([uv[1, 0, 0] * a, 0.0])]) if wrap else uv
    m = np.arange(len(uvs) * b).reshape(len(uvs), b)
    face_uv = np.stack([m[:-1, :-1], m[1:, :-1], m[1:, 1:], m[:-1, 1:]], -1).reshape(-1, 4)
    return Part(
        grid.reshape(-1, 3).astype(np.float32),
        faces,
        uvs.reshape(-1, 2).astype(np.float32),
        face_uv,
    )


def facing(part: Part, towards: np.ndarray) -> Part:
    """The part wound so that its normals agree with vectors [V, 3] or [3]."""
    n = quad_normals(part.vertices, part.faces)
    if (n * towards).sum() >= 0:
        return part
    return Part(part.vertices, part.faces[:, ::-1], part.uv, part.face_uv[:, ::-1], part.texture)


def two_sided(part: Part, up: np.ndarray, thickness: float) -> list[Part]:
    """A brim's upper and lower side."""
    upper = facing(part, up)
    lower = Part(part.vertices - thickness * up, upper.faces[:, ::-1], part.uv,
                 upper.face_uv[:, ::-1])  # fmt: skip
    return [upper, lower.moved(lower.vertices)]


def merged(parts: list[Part], texture: str | None) -> Part:
    """One part of several with one texture."""
    v = np.cumsum([0] + [len(p.vertices) for p in parts])
    u = np.cumsum([0] + [len(p.uv) for p in parts])
    return Part(
        np.concatenate([p.vertices for p in parts]).astype(np.float32),
        np.concatenate([p.faces + a for p, a in zip(parts, v, strict=False)]),
        np.concatenate([p.uv for p in parts]).astype(np.float32),
        np.concatenate([p.face_uv + a for p, a in zip(parts, u, strict=False)]),
        texture,
    )

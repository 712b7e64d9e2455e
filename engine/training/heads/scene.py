"""A lit head ready to be seen from any camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from engine.cameras import Camera
from engine.training.heads import raster, shading
from engine.training.heads.build import Head
from engine.training.heads.lighting import Light
from engine.training.heads.parts import (
    GARMENT,
    GLASSES,
    HAIR,
    SKIN,
    Part,
    quad_normals,
    split_quads,
)
from engine.training.heads.textures import LEVELS, Atlas

SUPERSAMPLING = 2
SHADOW_DIRECTIONS, SHADOW_SIZE, SHADOW_RADIUS = 32, 96, 0.3
SHADOW_CASTERS = ("skin", "cap", "hair")


@dataclass(frozen=True)
class Material:
    """cover: raster's OPAQUE.., kind: shading's SURFACE.., cull: draw fronts only, label: class,
    wrap: light bends round, bias: shadow bias in metres."""

    cover: int
    kind: int
    cull: bool
    label: int
    wrap: bool = False
    bias: float = 0.0012


_O, _S = raster.OPAQUE, shading.SURFACE
MATERIALS = {  # opaque ones first: the rasteriser relies on it
    "skin": Material(_O, _S, True, SKIN),
    "cap": Material(_O, _S, True, SKIN),
    "tongue": Material(_O, _S, False, SKIN),
    "teeth": Material(_O, _S, True, SKIN),
    "eyes": Material(_O, _S, True, SKIN),
    "shirt": Material(_O, _S, True, GARMENT),
    "frame": Material(_O, _S, False, GLASSES),
    "cornea": Material(raster.GLASS, shading.CLEAR, False, SKIN, bias=0.005),
    "lens": Material(raster.GLASS, shading.CLEAR, False, GLASSES),
    "brow": Material(raster.DECAL, shading.STRAND, False, SKIN, bias=0.005),
    "lash": Material(raster.DECAL, shading.STRAND, False, SKIN, bias=0.005),
    "beard": Material(raster.STRANDS, shading.STRAND, False, HAIR, True, 0.005),
    "hair": Material(raster.STRANDS, shading.STRAND, False, HAIR, True, 0.005),
}
DRESS = ("shirt", "frame", "lens")


@dataclass(frozen=True)
class View:
    """rgba uint8 [H, W, 4] straight alpha, display sRGB; labels uint8 [H, W] (parts.SKIN..);
    depth float32 [H, W] metres along the camera's z, 0 where nothing covers half the pixel."""

    rgba: np.ndarray
    labels: np.ndarray
    depth: np.ndarray


def _fibonacci(n: int) -> np.ndarray:
    i = np.arange(n) + 0.5
    polar, turn = np.arccos(1 - 2 * i / n), np.pi * (1 + 5**0.5) * i
    return np.stack(
        [np.sin(polar) * np.sin(turn), np.cos(polar), np.sin(polar) * np.cos(turn)], 1
    ).astype(np.float32)


def _smoother(quads: np.ndarray, n: int) -> sparse.csr_matrix:
    """The mean over each vertex's neighbours as a matrix [n, n]."""
    a = quads.ravel()
    b = quads[:, [1, 2, 3, 0]].ravel()
    m = sparse.coo_matrix((np.ones(2 * len(a), np.float32), (np.r_[a, b], np.r_[b, a])), (n, n))
    m = m.tocsr()
    m.setdiag(0)
    m.eliminate_zeros()
    m.data[:] = 1
    degree = np.maximum(np.asarray(m.sum(1)).ravel(), 1)
    return (sparse.diags((1 / degree).astype(np.float32)) @ m).tocsr()


class Studio:
    """What all heads share: textures, caches of topology, buffers. One per process."""

    def __init__(self, atlas: Atlas):
        self.atlas = atlas
        self._topology: dict[str, tuple] = {}
        self._smoothers: dict[str, sparse.csr_matrix] = {}
        self._buffers: dict[int, tuple] = {}

    def topology(self, part: Part) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertex and UV index of every distinct corner, and triangles of corners int32 [T, 3]."""
        if part.key in self._topology:
            return self._topology[part.key]
        m = len(part.uv)
        pairs = part.faces.astype(np.int64) * m + part.face_uv
        unique, corners = np.unique(pairs, return_inverse=True)
        tri = split_quads(corners.reshape(-1, 4)).astype(np.int32)
        out = unique // m, unique % m, tri
        if part.key:
            self._topology[part.key] = out
        return out

    def smoother(self, part: Part) -> sparse.csr_matrix:
        """Neighbour averaging on a keyed part's vertices."""
        if part.key not in self._smoothers:
            self._smoothers[part.key] = _smoother(part.faces, len(part.vertices))
        return self._smoothers[part.key]

    def buffers(self, size: int) -> tuple:
        """Sample buffers of a view `size` samples wide."""
        if size not in self._buffers:
            flat, deep = (size, size), (size, size, raster.LAYERS)
            self._buffers[size] = (
                np.empty(flat, np.float32),
                np.empty(flat, np.int32),
                np.empty(flat, np.float32),
                np.empty(flat, np.float32),
                np.empty(flat, np.int32),
                np.empty(deep, np.float32),
                np.empty(deep, np.int32),
                np.empty(deep, np.float32),
                np.empty(deep, np.float32),
                np.empty(deep, np.float32),
            )
        return self._buffers[size]


class Scene:
    """A head under a light. Valid until the studio makes its next scene (shared textures)."""

    def __init__(self, studio: Studio, head: Head, light: Light):
        self._studio, self._light = studio, light
        self._names = [k for k in MATERIALS if k in head.parts]
        parts = [head.parts[k] for k in self._names]
        normals = [quad_normals(p.vertices, p.faces) for p in parts]
        topo = [studio.topology(p) for p in parts]
        starts = np.cumsum([0] + [len(t[0]) for t in topo])
        self._v = np.concatenate([p.vertices[t[0]] for p, t in zip(parts, topo, strict=True)])
        self._n = np.concatenate([n[t[0]] for n, t in zip(normals, topo, strict=True)])
        self._uv = np.concatenate([p.uv[t[1]] for p, t in zip(parts, topo, strict=True)])
        self._uv = self._uv.astype(np.float32)
        self._tri = np.concatenate([t[2] + s for t, s in zip(topo, starts, strict=False)])
        self._tri = self._tri.astype(np.int32)
        counts = [len(t[2]) for t in topo]
        self._mat = np.repeat(np.arange(len(parts), dtype=np.int32), counts)
        self._look = self._materials(head)
        self._e = self._lit(parts, normals, topo)
        self._tangent = self._strand_directions()

    def view(self, camera: Camera, dressed: bool) -> View:
        """What a camera (square image) sees, with or without garment and glasses."""
        size = camera.height * SUPERSAMPLING
        p = np.empty((len(self._v), 3), np.float32)
        k = camera.intrinsics * size
        raster.project(self._v, camera.world2cam[:3].copy(), k[0, 0], k[1, 1], k[0, 2], k[1, 2], p)
        buffers = self._studio.buffers(size)
        _, _, _, _, tex, offset, width, height, levels = self._look
        draw = np.array([dressed or name not in DRESS for name in self._names])
        raster.rasterise(
            p, self._uv, self._tri, self._mat, draw, self._cull, self._cover,
            tex, offset, width, height, levels, *buffers,
        )  # fmt: skip
        shape = (camera.height, camera.width)
        out = View(
            rgba=np.empty((*shape, 4), np.uint8),
            labels=np.empty(shape, np.uint8),
            depth=np.empty(shape, np.float32),
        )
        shading.resolve(
            SUPERSAMPLING,
            buffers,
            p,
            (self._v, self._n, self._uv, self._e, self._tri, self._mat, self._tangent),
            self._look,
            (self._light.env, self._light.sh, self._light.key),
            self._classes,
            camera.position,
            out.rgba,
            out.labels,
            out.depth,
        )
        return out

    def _materials(self, head: Head) -> tuple:
        p, atlas = head.params, self._studio.atlas
        mats = [MATERIALS[k] for k in self._names]
        self._cull = np.array([m.cull for m in mats])
        self._cover = np.array([m.cover for m in mats])
        self._classes = np.array([m.label for m in mats])
        n = len(mats)
        offset = np.zeros((n, LEVELS), np.int64)
        width, height = np.ones((n, LEVELS), np.int64), np.ones((n, LEVELS), np.int64)
        levels = np.zeros(n, np.int64)
        for i, name in enumerate(self._names):
            texture = head.parts[name].texture
            if not texture:
                continue
            if name == "skin":
                slot = atlas.paint_skin(texture, p["beard"]["stubble"], p["hair_colour"], p["lips"])
            elif name == "eyes":
                slot = atlas.paint_eye(texture, p["iris_gain"])
            else:
                slot = atlas.slot(texture)
            offset[i], width[i], height[i] = slot.offset, slot.width, slot.height
            levels[i] = slot.levels
        hair = np.array(p.get("hair_colour", (0.1, 0.1, 0.1)))
        frame = p["glasses"]["colour"] if p.get("glasses") else (0, 0, 0)
        looks = {  # tint, specular strength, roughness
            "skin": (p.get("skin_gain", (0.5, 0.5, 0.5)), 1.0, p.get("skin_rough", 0.6)),
            "cap": (p.get("skin_gain", (0.5, 0.5, 0.5)), 1.0, 0.9),
            "tongue": ((0.45, 0.12, 0.11), 1.0, 0.4),
            "teeth": ((0.7, 0.66, 0.57), 1.0, 0.3),
            "eyes": ((0.85, 0.85, 0.85), 0.5, 0.3),
            "shirt": (p.get("shirt_colour", (0.5, 0.5, 0.5)), 0.4, 0.9),
            "frame": (frame, 1.0, 0.3),
            "cornea": ((1, 1, 1), 1.0, 0.05),
            "lens": ((1, 1, 1), 1.0, 0.05),
            "brow": (hair * 0.7, 0.3, 0.5),
            "lash": (hair * 0.3, 0.3, 0.5),
            "beard": (hair * 0.75, 0.4, 0.5),
            "hair": (hair, 1.0, 0.45),
        }
        tint = np.array([looks[k][0] for k in self._names], np.float32)
        spec = np.array([looks[k][1] for k in self._names], np.float32)
        rough = np.array([looks[k][2] for k in self._names], np.float32)
        kind = np.array([m.kind for m in mats])
        return kind, tint, spec, rough, atlas.buffer, offset, width, height, levels

    def _casters(self, hair: Part | None) -> np.ndarray:
        """Triangles that cast shadows; hair only where its texture covers."""
        names = np.array(self._names)[self._mat]
        keep = np.isin(names, SHADOW_CASTERS)
        if hair is not None:
            rows = np.nonzero(names == "hair")[0]
            alpha = self._studio.atlas.alpha(hair.texture)
            h, w = alpha.shape
            c = self._uv[self._tri[rows]].mean(1)
            i = np.clip(((1 - c[:, 1]) * h).astype(int), 0, h - 1)
            j = np.clip((c[:, 0] * w).astype(int), 0, w - 1)
            keep[rows[alpha[i, j] < 0.4]] = False
        return np.ascontiguousarray(self._tri[keep])

    def _lit(self, parts: list[Part], normals: list[np.ndarray], topo: list[tuple]) -> np.ndarray:
        """Irradiance float32 [N, 3] at every corner."""
        mats = [MATERIALS[k] for k in self._names]
        counts = [len(p.vertices) for p in parts]
        lift = np.array([0.0 if k == "hair" else 0.002 for k in self._names], np.float32)
        points = np.concatenate(
            [p.vertices + s * n for p, s, n in zip(parts, lift, normals, strict=True)]
        )
        directions = _fibonacci(SHADOW_DIRECTIONS)
        e = np.empty((len(points), 3), np.float32)
        hair = parts[self._names.index("hair")] if "hair" in self._names else None
        raster.irradiance(
            self._v,
            self._casters(hair),
            points,
            np.concatenate(normals),
            np.repeat([m.wrap for m in mats], counts),
            np.repeat(np.array([m.bias for m in mats], np.float32), counts),
            directions,
            self._light.towards(directions),
            SHADOW_RADIUS,
            SHADOW_SIZE,
            e,
        )
        ends = np.cumsum([0, *counts])
        for name, part, a, b in zip(self._names, parts, ends, ends[1:], strict=False):
            if name not in ("skin", "hair"):
                continue
            mean, x = self._studio.smoother(part), e[a:b]
            if name == "hair":
                for _ in range(3):
                    x = 0.5 * (x + mean @ x)
                e[a:b] = x
            else:  # a stand-in for scattering under the skin: red light spreads furthest
                x = 0.5 * (x + mean @ x)
                x[:, :2] = 0.5 * (x[:, :2] + mean @ x[:, :2])
                for _ in range(2):
                    x[:, 0] = 0.5 * (x[:, 0] + mean @ x[:, 0])
                e[a:b] = x
        corners = np.concatenate([t[0] + a for t, a in zip(topo, ends, strict=False)])
        return np.ascontiguousarray(e[corners])

    def _strand_directions(self) -> np.ndarray:
        """Unit vectors along the texture's v for strand materials, float32 [T, 3]."""
        out = np.zeros((len(self._tri), 3), np.float32)
        rows = np.nonzero(self._look[0][self._mat] == shading.STRAND)[0]
        a, b, c = self._tri[rows].T
        d1, d2 = self._uv[b] - self._uv[a], self._uv[c] - self._uv[a]
        t = (self._v[c] - self._v[a]) * d1[:, :1] - (self._v[b] - self._v[a]) * d2[:, :1]
        out[rows] = t / np.maximum(np.linalg.norm(t, axis=1, keepdims=True), 1e-9)
        return out

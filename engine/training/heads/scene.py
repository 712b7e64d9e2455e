"""A lit head ready to be seen from any camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from engine.cameras import Camera
from engine.training.heads import raster, shading
from engine.training.heads.build import Head
from engine.training.heads.lighting import Light
from engine.training.heads.materials import CASTERS, COVERS, HAIRS, MATERIALS, drawn, looks
from engine.training.heads.parts import Part, quad_normals, split_quads
from engine.training.heads.textures import LEVELS, Atlas

SUPERSAMPLING = 2
SHADOW_DIRECTIONS, SHADOW_SIZE, SHADOW_RADIUS = 32, 96, 0.3
SUN_RAYS = 8


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
        self._tangent = self._strand_directions()
        self._u_slope, self._v_slope, self._gloss = self._relief(head, topo)
        # a hat shades the face: dressed and bare heads are then lit apart
        apart = any(k in self._names for k in COVERS)
        bare = self._lit(parts, normals, topo, False)
        self._e = (bare, self._lit(parts, normals, topo, True) if apart else bare)

    def view(self, camera: Camera, dressed: bool) -> View:
        """What a camera (square image) sees, with or without garment and glasses."""
        size = camera.height * SUPERSAMPLING
        p = np.empty((len(self._v), 3), np.float32)
        k = camera.intrinsics * size
        raster.project(self._v, camera.world2cam[:3].copy(), k[0, 0], k[1, 1], k[0, 2], k[1, 2], p)
        buffers = self._studio.buffers(size)
        _, _, _, _, tex, offset, width, height, levels = self._look
        draw = drawn(self._names, dressed)
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
            (
                self._v,
                self._n,
                self._uv,
                self._e[bool(dressed)],
                self._tri,
                self._mat,
                self._tangent,
                self._u_slope,
                self._v_slope,
                self._gloss,
            ),
            (*self._look, self._bump),
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
            if name == "skin" and p.get("material", 1) == 2:
                slot = atlas.paint_person(p)
            elif name == "cap" and p.get("material", 1) == 2:
                slot = atlas.slot("painted person")
            elif name == "skin":
                slot = atlas.paint_skin(texture, p["beard"]["stubble"], p["hair_colour"], p["lips"])
            elif name == "brow" and "brow_density" in p:
                slot = atlas.paint_brow(texture, p["brow_density"])
            elif name in HAIRS and "hair_salt" in p:
                slot = atlas.paint_hair(
                    texture, p["hair_salt"], p["hair_tips"], p["surface"]["seed"]
                )
            elif name == "eyes":
                slot = atlas.paint_eye(texture, p["iris_gain"])
            else:
                slot = atlas.slot(texture)
            offset[i], width[i], height[i] = slot.offset, slot.width, slot.height
            levels[i] = slot.levels
        look = looks(p)
        tint = np.array([look[k][0] for k in self._names], np.float32)
        spec = np.array([look[k][1] for k in self._names], np.float32)
        rough = np.array([look[k][2] for k in self._names], np.float32)
        second = p.get("material", 1) == 2
        # heights are in decimetres, the scene in metres
        self._bump = np.array([0.1 * (second and k == "skin") for k in self._names], np.float32)
        kind = np.array([m.kind for m in mats])
        return kind, tint, spec, rough, atlas.buffer, offset, width, height, levels

    def _casters(self, parts: list[Part], dressed: bool) -> np.ndarray:
        """Triangles that cast shadows; hair only where its texture covers."""
        keep = np.isin(self._names, CASTERS) & drawn(self._names, dressed)
        keep = keep[self._mat]
        for i, name in enumerate(self._names):
            if name not in HAIRS:
                continue
            rows = np.nonzero(self._mat == i)[0]
            alpha = self._studio.atlas.alpha(parts[i].texture)
            h, w = alpha.shape
            c = self._uv[self._tri[rows]].mean(1)
            y = np.clip(((1 - c[:, 1]) * h).astype(int), 0, h - 1)
            x = np.clip((c[:, 0] * w).astype(int), 0, w - 1)
            keep[rows[alpha[y, x] < 0.4]] = False
        return np.ascontiguousarray(self._tri[keep])

    def _lit(
        self, parts: list[Part], normals: list[np.ndarray], topo: list[tuple], dressed: bool
    ) -> np.ndarray:
        """Irradiance float32 [N, 3] at every corner of the dressed or the bare head."""
        mats = [MATERIALS[k] for k in self._names]
        counts = [len(p.vertices) for p in parts]
        lift = np.array([0.0 if k in HAIRS else 0.002 for k in self._names], np.float32)
        points = np.concatenate(
            [p.vertices + s * n for p, s, n in zip(parts, lift, normals, strict=True)]
        )
        directions = _fibonacci(SHADOW_DIRECTIONS)
        radiance = self._light.towards(directions)
        if self._light.sun is not None:
            rays, brought = self._light.sun_rays(SUN_RAYS)
            total = SHADOW_DIRECTIONS + SUN_RAYS  # the kernel takes 4 / total of the sum
            radiance = np.concatenate([radiance * (total / SHADOW_DIRECTIONS), brought * total / 4])
            directions = np.concatenate([directions, rays])
        e = np.empty((len(points), 3), np.float32)
        raster.irradiance(
            self._v,
            self._casters(parts, dressed),
            points,
            np.concatenate(normals),
            np.repeat([m.wrap for m in mats], counts),
            np.repeat(np.array([m.bias for m in mats], np.float32), counts),
            directions,
            radiance.astype(np.float32),
            SHADOW_RADIUS,
            SHADOW_SIZE,
            e,
        )
        ends = np.cumsum([0, *counts])
        for name, part, a, b in zip(self._names, parts, ends, ends[1:], strict=False):
            if name != "skin" and name not in HAIRS:
                continue
            mean, x = self._studio.smoother(part), e[a:b]
            if name in HAIRS:
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

    def _relief(self, head: Head, topo: list[tuple]) -> tuple:
        """For bump mapping of the skin: gradients of u and v along the surface, per metre,
        float32 [T, 3] each, and how much each corner shines, float32 [N]."""
        count = len(self._tri)
        if not self._bump.any():
            empty = np.zeros((1, 3), np.float32)
            return empty, empty, np.ones(1, np.float32)
        grad = np.zeros((2, count, 3), np.float32)
        rows = np.nonzero(self._bump[self._mat] > 0)[0]
        a, b, c = self._tri[rows].T
        e1, e2 = self._v[b] - self._v[a], self._v[c] - self._v[a]
        n = np.cross(e1, e2)
        size = np.maximum((n * n).sum(1, keepdims=True), 1e-16)
        dual1, dual2 = np.cross(e2, n) / size, np.cross(n, e1) / size
        d1, d2 = self._uv[b] - self._uv[a], self._uv[c] - self._uv[a]
        for k in range(2):
            grad[k, rows] = d1[:, k : k + 1] * dual1 + d2[:, k : k + 1] * dual2
        gloss = np.ones(len(self._v), np.float32)
        start = 0
        for name, t in zip(self._names, topo, strict=True):
            if name == "skin":
                gloss[start : start + len(t[0])] = head.gloss[t[0]]
            start += len(t[0])
        return grad[0], grad[1], gloss

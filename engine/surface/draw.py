"""Pictures of a mesh: textured, grey and lit, or its normals."""

from __future__ import annotations

import numpy as np

from engine.cameras import Camera
from engine.surface.mesh import Mesh
from engine.surface.rasterize import Raster, rasterize, sample


def _shrunk(image: np.ndarray, factor: int) -> np.ndarray:
    """Mean over factor x factor blocks, float32 [H / factor, W / factor, C]."""
    h, w, c = image.shape
    if factor == 1:
        return image.astype(np.float32)
    return image.reshape(h // factor, factor, w // factor, factor, c).mean((1, 3), np.float32)


def _drawn(mesh: Mesh, camera: Camera, supersample: int, shade) -> np.ndarray:
    """shade(raster, camera) -> float [H, W, 3] in 0..1; returns uint8 [H, W, 4], straight alpha."""
    big = camera.resized(camera.width * supersample, camera.height * supersample)
    raster = rasterize(mesh.vertices, mesh.faces, big)
    alpha = (raster.face >= 0)[..., None].astype(np.float32)
    image = np.concatenate([shade(raster, big) * alpha, alpha], -1)
    image = _shrunk(image, supersample)
    image[..., :3] /= np.maximum(image[..., 3:], 1e-6)
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def draw_textured(mesh: Mesh, camera: Camera, supersample: int = 2) -> np.ndarray:
    """The mesh with its texture, unlit: uint8 [H, W, 4], straight alpha. The mesh needs uvs and a
    texture."""

    def shade(raster: Raster, big: Camera) -> np.ndarray:
        uv = raster.interpolate(mesh.uvs)
        size = mesh.texture.shape[0]
        # One level of detail for the whole picture: texels per pixel in the median face.
        seen = np.unique(raster.face[raster.face >= 0])
        if not len(seen):
            return np.zeros((*raster.face.shape, 3), np.float32)
        u = mesh.uvs[seen].astype(np.float64)
        e, g = u[:, 1] - u[:, 0], u[:, 2] - u[:, 0]
        texels = np.abs(e[:, 0] * g[:, 1] - e[:, 1] * g[:, 0]).sum() / 2 * size**2
        factor = max((texels / (raster.face >= 0).sum()) ** 0.5, 1.0)
        factor = min(1 << int(np.log2(factor)), size & -size)
        texture = _shrunk(mesh.texture, factor)
        side = size // factor
        return sample(texture, uv[..., 0] * side, (1 - uv[..., 1]) * side) / 255

    return _drawn(mesh, camera, supersample, shade)


def _normals(mesh: Mesh, raster: Raster, flat: bool) -> np.ndarray:
    if flat:
        n = mesh.face_normals()
        n = (n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-30)).astype(np.float32)
        return n[np.maximum(raster.face, 0)]
    n = raster.interpolate(mesh.vertex_normals[mesh.faces])
    return n / np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-6)


def draw_grey(mesh: Mesh, camera: Camera, supersample: int = 2, flat: bool = True) -> np.ndarray:
    """The mesh in plain grey, lit from the upper left, with a headlight and a weak light from
    the right, so that relief is readable: uint8 [H, W, 4], straight alpha. flat: one normal a face,
    else smooth."""

    def shade(raster: Raster, big: Camera) -> np.ndarray:
        n = _normals(mesh, raster, flat) @ big.cam2world[:3, :3].astype(np.float32)
        lights = ((-0.55, -0.7, -0.6, 0.7), (0.0, 0.0, -1.0, 0.22), (0.9, 0.2, -0.25, 0.16))
        light = np.full(n.shape[:2], 0.04, np.float32)
        for x, y, z, strength in lights:
            d = np.array([x, y, z], np.float32) / np.sqrt(x * x + y * y + z * z)
            light += np.float32(strength) * np.maximum(n @ d, 0)
        return np.repeat((0.9 * light.clip(0, 1) ** (1 / 1.15))[..., None], 3, -1)

    return _drawn(mesh, camera, supersample, shade)


def draw_normals(mesh: Mesh, camera: Camera, supersample: int = 1) -> np.ndarray:
    """Smooth normals in field axes as colours (x red, y green, z blue; 0.5 is zero): uint8
    [H, W, 4]."""
    return _drawn(mesh, camera, supersample, lambda r, _: _normals(mesh, r, False) * 0.5 + 0.5)


def silhouette(mesh: Mesh, camera: Camera) -> np.ndarray:
    """bool [H, W]: pixels whose centres the mesh covers."""
    return rasterize(mesh.vertices, mesh.faces, camera).face >= 0


def over(image: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """uint8 [H, W, 4] with straight alpha on a plain colour: uint8 [H, W, 3]."""
    a = image[..., 3:].astype(np.float32) / 255
    mixed = image[..., :3] * a + np.array(background, np.float32) * (1 - a)
    return (mixed + 0.5).astype(np.uint8)

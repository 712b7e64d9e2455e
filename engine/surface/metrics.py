"""Figures of merit of pictures, silhouettes and meshes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.cameras import Camera, orbit
from engine.surface.draw import draw_textured, silhouette
from engine.surface.mesh import Mesh, volume
from engine.surface.topology import examine
from engine.surface.unwrap import measure

if TYPE_CHECKING:
    from engine.fields.base import Field


def psnr(image: np.ndarray, reference: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal to noise ratio in dB of two images [H, W, C] of one type (uint8 of peak 255, or
    floats of peak 1), over the pixels of mask [H, W] (all without one). inf for equal images, nan
    for an empty mask."""
    peak = 255.0 if image.dtype == np.uint8 else 1.0
    error = (image.astype(np.float64) - reference.astype(np.float64)) ** 2
    if mask is not None:
        error = error[mask.astype(bool)]
    if not error.size:
        return float("nan")
    mse = error.mean()
    return float("inf") if mse == 0 else float(10 * np.log10(peak**2 / mse))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks [H, W] (bool); 1 for two empty ones."""
    a, b = a.astype(bool), b.astype(bool)
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def ring(mesh: Mesh, yaws: Sequence[float], size: int, fov: float = 0.35) -> list[Camera]:
    """Cameras round the mesh at its middle's height, one a yaw (degrees), from which all of it is
    in view; size x size pixels, fov vertical in radians."""
    low, high = mesh.vertices.min(0).astype(float), mesh.vertices.max(0).astype(float)
    radius = np.linalg.norm(high - low) / 2
    distance = 0.92 * radius / np.sin(fov / 2)
    return [orbit(np.radians(y), 0.0, distance, fov, (low + high) / 2, size, size) for y in yaws]


def silhouette_agreement(
    mesh: Mesh,
    field: Field,
    yaws: Sequence[float] = (-60, -30, 0, 30, 60),
    size: int = 256,
    check: Callable[[], None] = lambda: None,
) -> list[float]:
    """IoU of the mesh's and the field's own silhouette (alpha above one half), one a yaw."""
    out = []
    for camera in ring(mesh, yaws, size):
        check()
        with torch.no_grad():
            alpha = field.render(camera, check).alpha.float().cpu().numpy()
        out.append(iou(silhouette(mesh, camera), alpha.reshape(size, size) > 0.5))
    return out


def photo_agreement(mesh: Mesh, camera: Camera, rgb: np.ndarray, alpha: np.ndarray) -> dict:
    """How the textured mesh, seen through the photo's camera, matches the photo.

    rgb: uint8 [H, W, 3], alpha: the matte [H, W] in 0..1, both of the camera's size.
    Returns psnr (dB over the matte, the mesh's own gaps shown in mid grey), psnr_common (over
    pixels in both), iou (of silhouettes).
    """
    drawn = draw_textured(mesh, camera, 2)
    covered, matte = drawn[..., 3] > 127, alpha > 0.5
    image = np.where(covered[..., None], drawn[..., :3], 128).astype(np.uint8)
    return {
        "psnr": psnr(image, rgb, matte),
        "psnr_common": psnr(image, rgb, matte & covered),
        "iou": iou(silhouette(mesh, camera), matte),
    }


def mesh_report(mesh: Mesh, metres_per_unit: float = 1.0) -> dict:
    """Topology, size and, when it has UVs, the figures of those: numbers ready for JSON."""
    size = np.ptp(mesh.vertices, 0) * metres_per_unit
    report = {
        **examine(mesh).to_json(),
        "size_m": [round(float(x), 4) for x in size],
        "volume_l": round(volume(mesh.vertices, mesh.faces) * metres_per_unit**3 * 1000, 3),
    }
    if mesh.uvs is not None:
        report["uv"] = measure(mesh).to_json()
    return report

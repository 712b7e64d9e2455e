"""What the results of several jobs say and hold. Imports torch: only from inside a job's run."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from engine import __version__
from engine.cameras import FIELD_TO_BLENDER, Camera
from engine.fields.base import Field
from engine.fields.io import field_to_bytes
from engine.jobs import quad_stages
from engine.jobs.base import Context
from engine.jobs.reconstruct import PHOTO_LIMIT
from engine.portrait.align import Aligned
from engine.surface import metrics
from engine.surface.draw import draw_textured, over
from engine.surface.mesh import Mesh
from engine.surface.quad import QuadHead

if TYPE_CHECKING:
    from engine.inversion.eg3d.methods import Inverted
    from engine.inversion.reconstruct import Reconstruction

PREVIEW = 160
BACKDROP = (56, 56, 56)  # behind small pictures


def versions() -> dict[str, str]:
    """What made a result."""
    return {
        "triplane": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def placed(mesh: Mesh | None, field: Field) -> dict[str, Any]:
    """What every result with a mesh says: its size, where it stands, what made it."""
    return {
        "metres_per_unit": field.metres_per_unit,
        "field_to_world": standing(mesh, field).ravel().tolist(),
        "versions": versions(),
    }


def standing(mesh: Mesh | None, field: Field) -> np.ndarray:
    """Field space to Blender's world: metres, z up, looking along -y, lowest point on z = 0: of the
    surface's mesh, or where there is none (a mesh of quads ends higher) of the head's field."""
    scale = field.metres_per_unit
    matrix = FIELD_TO_BLENDER @ np.diag([scale, scale, scale, 1.0])
    low = quad_stages.lowest(field) if mesh is None else float(mesh.vertices[:, 1].min())
    matrix[2, 3] = -low * scale
    return matrix


def mesh_arrays(mesh: Mesh | None) -> dict[str, np.ndarray]:
    """vertices float32 [V, 3] in field space, faces int32 [F, 3], uvs float32 [F, 3, 2], texture
    uint8 [S, S, 3]."""
    if mesh is None:
        return {}
    return {
        "vertices": mesh.vertices.astype(np.float32),
        "faces": mesh.faces.astype(np.int32),
        "uvs": mesh.uvs.astype(np.float32),
        "texture": mesh.texture,
    }


def head_arrays(
    mesh: Mesh | None,
    quads: QuadHead | None,
    field: Field,
    photo: np.ndarray,
    preview: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Of a head or an object: its meshes, its field's file, its photo uint8 [H, W, C], and a small
    picture uint8 [256, 256, 3], by default of its mesh."""
    return {
        **mesh_arrays(mesh),
        **quad_stages.arrays(quads),
        "photo": photo,
        "field": np.frombuffer(field_to_bytes(field), np.uint8),
        "preview": drawn(mesh or quads.triangles()) if preview is None else preview,
    }


def drawn(mesh: Mesh) -> np.ndarray:
    """A small picture of a textured mesh: uint8 [256, 256, 3]."""
    return over(draw_textured(mesh, portrait_camera(mesh, 256), 2), BACKDROP)


def portrait_camera(mesh: Mesh, size: int) -> Camera:
    """One that sees the whole mesh, a little from its side."""
    return metrics.ring(mesh, [20.0], size)[0]


def portrait_figures(
    mesh: Mesh,
    made: Reconstruction | Inverted,
    aligned: Aligned,
    context: Context,
    size: int = 256,
) -> dict[str, Any]:
    """Figures of merit of a head from a photo, see docs/figures.md. size: pixels of the views in
    which the outlines of mesh and field are compared."""
    alpha = made.matte.alpha
    # What clothes hide, or lies beyond the photo, cannot be compared.
    known = aligned.valid & ~made.matte.clothes
    outline = metrics.silhouette(mesh, made.camera)
    seen = metrics.photo_agreement(mesh, made.camera, aligned.crop, alpha * aligned.valid)
    context.check()
    agreement = metrics.silhouette_agreement(mesh, made.field, size=size, check=context.check)
    return {
        "photo_psnr_db": decibels(seen["psnr"]),
        "photo_psnr_common_db": decibels(seen["psnr_common"]),
        "silhouette_iou": round(float(metrics.iou(outline & known, (alpha > 0.5) & known)), 4),
        "mesh_field_iou": [round(float(x), 4) for x in agreement],
        "mesh": metrics.mesh_report(mesh, made.field.metres_per_unit),
    }


def decibels(value: float) -> float | None:
    """As reports have it: None where the mesh is not in the picture at all, or equals it (JSON
    knows neither)."""
    return round(float(value), 2) if np.isfinite(value) else None


def shrunk(picture: np.ndarray) -> np.ndarray:
    """A picture uint8 [H, W, C] with a longer side of PHOTO_LIMIT pixels at most: what is handed
    back of photos."""
    scale = PHOTO_LIMIT / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def thumbnail(crop: np.ndarray) -> np.ndarray:
    """A square picture at the previews' size."""
    return np.asarray(Image.fromarray(crop).resize((PREVIEW, PREVIEW)))


def on_grey(image: torch.Tensor, alpha: torch.Tensor) -> np.ndarray:
    """A field's view (image premultiplied, see Render) as a small picture uint8 [H, W, 3]."""
    mixed = image + (1 - alpha[..., None]) * 0.22
    return (mixed.clamp(0, 1) * 255 + 0.5).byte().cpu().numpy()

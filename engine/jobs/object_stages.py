"""What the job `object` does. Imports torch: only ever imported from inside the job's run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from engine.cameras import Camera
from engine.checkpoints import registry
from engine.cutout.cutout import Cutout, cut_out
from engine.cutout.square import Square, recentre
from engine.errors import ReconstructionError
from engine.fields.base import Field
from engine.fields.io import field_to_bytes
from engine.jobs import at_release, stages
from engine.jobs.base import Context, Result
from engine.portrait.image import Photo, load_photo
from engine.surface import bake as baking
from engine.surface import cleanup, isosurface, metrics, unwrap
from engine.surface.draw import draw_textured, over
from engine.surface.mesh import Mesh
from engine.systems.lrm.open import close_lrm, open_lrm

VOXELS = 256  # along the field's box: as the originals extract theirs

at_release(close_lrm)


def reconstruct_object(params: dict[str, Any], context: Context) -> Result:
    """The job `object`."""
    compute = stages.choose_compute(context, large=True)
    chosen = registry.object_model(params["models"], params["model"])
    context.progress(0.0, "reading the picture")
    photo = load_photo(params["photo"])
    context.progress(0.01, "cutting the object out")
    cut = cut_out(photo, params["mask"], context.check)
    context.preview(_thumbnail(cut))
    context.progress(0.08, "loading the model")
    model = open_lrm(chosen.path, compute)
    context.progress(0.2, "making the field")
    square = recentre(cut, model.config.foreground_ratio, model.config.background)
    picture = torch.from_numpy(square.rgb.astype(np.float32) / 255).permute(2, 0, 1)
    with torch.no_grad():
        field = model.field(picture, context.check)
    context.progress(0.5, "looking at it")
    camera = field.input_camera(len(square.rgb))
    seen = field.render(camera.resized(stages.PREVIEW, stages.PREVIEW), context.check)
    context.preview(stages.on_grey(seen.image, seen.alpha))
    mesh = _surface(field, params, context)
    field.metres_per_unit = params["size"] / float(np.ptp(mesh.vertices, 0).max())
    context.progress(0.96, "measuring")
    figures = _figures(mesh, field, camera, square)
    context.progress(0.98, "packing the results")
    meta = {
        "kind": "object",
        "name": Path(params["photo"]).stem,
        "model": chosen.name,
        "licence": chosen.licence,
        "noncommercial": chosen.noncommercial,
        "metres_per_unit": field.metres_per_unit,
        "field_to_world": stages.standing(mesh, field).ravel().tolist(),
        "camera": stages.full_camera(camera, square.to_square, photo).to_json(),
        "crop_camera": camera.to_json(),
        "cutout": cut.source,
        "warnings": list(cut.warnings),
        "figures": figures,
        "versions": stages.versions(),
        "device": compute.device.type,
    }
    drawn = draw_textured(mesh, stages.portrait_camera(mesh, 256), 2)
    arrays = stages.mesh_arrays(mesh) | {
        "photo": _shown(photo),
        "field": np.frombuffer(field_to_bytes(field), np.uint8),
        "crop": square.rgb,
        "cutout": _with_alpha(cut),
        "preview": over(drawn, stages.BACKDROP),
    }
    return stages.finished(meta, arrays, context)


def _surface(field: Field, params: dict[str, Any], context: Context) -> Mesh:
    """Iso-surface, its largest part, UVs, and a texture of the field's colours."""
    context.progress(0.52, "extracting the surface")
    try:
        mesh = isosurface.extract(field, VOXELS, context.check)
        context.progress(0.66, "cleaning the mesh")
        mesh = cleanup.clean(mesh, params["faces"], check=context.check)
    except ReconstructionError as error:
        raise ReconstructionError(
            "The model sees no solid object in this picture.",
            "Try another picture or model, or a mask that follows the object more closely.",
        ) from error
    context.progress(0.74, "unwrapping")
    mesh = unwrap.unwrap(mesh, params["texture_size"], context.check)
    context.progress(0.84, "baking the texture")
    return mesh.with_texture(baking.bake(mesh, field, [], params["texture_size"], context.check))


def _figures(mesh: Mesh, field: Field, camera: Camera, square: Square) -> dict[str, Any]:
    """How the mesh, seen as the picture was taken, agrees with the cut-out."""
    seen = metrics.photo_agreement(mesh, camera, square.rgb, square.alpha)
    psnr, iou = float(seen["psnr"]), float(seen["iou"])
    return {
        "photo_psnr_db": round(psnr, 2) if np.isfinite(psnr) else None,
        "silhouette_iou": round(iou, 4),
        "mesh": metrics.mesh_report(mesh, field.metres_per_unit),
    }


def _with_alpha(cut: Cutout) -> np.ndarray:
    """The cut-out as a picture uint8 [h, w, 4], no larger than what is handed back of photos."""
    alpha = (cut.alpha * 255 + 0.5).astype(np.uint8)
    return stages.shrunk(np.dstack([cut.rgb, alpha]))


def _shown(photo: Photo) -> np.ndarray:
    return stages.shrunk(photo.rgb if photo.alpha is None else np.dstack([photo.rgb, photo.alpha]))


def _thumbnail(cut: Cutout) -> np.ndarray:
    """The cut-out on grey, small: whether the right thing was found is seen before the work."""
    small = Image.fromarray(np.dstack([cut.rgb, (cut.alpha * 255 + 0.5).astype(np.uint8)]))
    small.thumbnail((2 * stages.PREVIEW, 2 * stages.PREVIEW))
    return over(np.asarray(small), stages.BACKDROP)

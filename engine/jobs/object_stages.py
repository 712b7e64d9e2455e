"""What the job `object` does. Imports torch: only ever imported from inside the job's run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from engine import device
from engine.cameras import Camera
from engine.checkpoints import registry
from engine.checkpoints.default import load_default
from engine.checkpoints.instant import load_instant
from engine.cutout.cutout import Cutout, cut_out
from engine.cutout.square import Square, recentre
from engine.errors import ReconstructionError
from engine.fields.base import Field
from engine.inversion.instant import reconstruct_instant
from engine.inversion.reconstruct import CROP
from engine.jobs import at_release, mesh_stages, result_stages, stages
from engine.jobs.base import Context, Result
from engine.jobs.object import HEADS
from engine.portrait.align import align
from engine.portrait.detect import find_points
from engine.portrait.image import Photo, load_photo
from engine.surface import metrics
from engine.surface.draw import over
from engine.surface.mesh import Mesh
from engine.systems.lrm.open import close_lrm, open_lrm

LICENCE = "GPL-3.0-or-later"  # of the extension's own model

at_release(close_lrm)


def reconstruct_object(params: dict[str, Any], context: Context) -> Result:
    """The job `object`."""
    compute = stages.choose_compute(context, large=True)
    own = params["model"] == HEADS
    chosen = None if own else registry.object_model(params["models"], params["model"])
    context.progress(0.0, "reading the picture")
    photo = load_photo(params["photo"])
    context.progress(0.01, "cutting the object out")
    cut = cut_out(photo, params["mask"], context.check)
    context.preview(_thumbnail(cut))
    context.progress(0.08, "loading the model")
    field, camera, square = _head(cut, context) if own else _thing(cut, chosen, compute, context)
    context.progress(0.5, "looking at it")
    seen = field.render(camera.resized(result_stages.PREVIEW, result_stages.PREVIEW), context.check)
    context.preview(result_stages.on_grey(seen.image, seen.alpha))
    mesh = _surface(field, params, context)
    field.metres_per_unit = params["size"] / float(np.ptp(mesh.vertices, 0).max())
    context.progress(0.96, "measuring")
    figures = _figures(mesh, field, camera, square)
    context.progress(0.98, "packing the results")
    meta = {
        "kind": "object",
        "name": Path(params["photo"]).stem,
        "model": HEADS if own else chosen.name,
        "licence": LICENCE if own else chosen.licence,
        "noncommercial": False if own else chosen.noncommercial,
        **result_stages.placed(mesh, field),
        "camera": stages.full_camera(camera, square.to_square, photo).to_json(),
        "crop_camera": camera.to_json(),
        "cutout": cut.source,
        "warnings": list(cut.warnings),
        "figures": figures,
        "device": compute.device.type,
    }
    arrays = result_stages.head_arrays(mesh, None, field, _shown(photo))
    return context.result(meta, arrays | {"crop": square.rgb, "cutout": _with_alpha(cut)})


def _thing(
    cut: Cutout, chosen: registry.ModelInfo, compute: device.Compute, context: Context
) -> tuple[Field, Camera, Square]:
    """Field, camera and square of a cut-out, by a model for objects."""
    model = open_lrm(chosen.path, compute)
    context.progress(0.2, "making the field")
    square = recentre(cut, model.config.foreground_ratio, model.config.background)
    picture = torch.from_numpy(square.rgb.astype(np.float32) / 255).permute(2, 0, 1)
    with torch.no_grad():
        field = model.field(picture, context.check)
    return field, field.input_camera(len(square.rgb)), square


def _head(cut: Cutout, context: Context) -> tuple[Field, Camera, Square]:
    """Field, camera and square of a head that is cut out, by the extension's own small model."""
    compute = stages.choose_compute(context)
    model, lrm = load_default(), load_instant()
    context.progress(0.2, "finding the face")
    points, _ = find_points(cut.rgb, check=context.check)
    photo = Photo(cut.rgb, (cut.alpha * 255 + 0.5).astype(np.uint8), "")
    aligned = align(photo, points, size=CROP, widen=model.config["widen"])
    made = reconstruct_instant(
        model, lrm, aligned, compute,
        lambda f, step: context.progress(0.24 + 0.26 * f, step), check=context.check,
    )  # fmt: skip
    return made.field, made.camera, Square(aligned.crop, made.matte.alpha, aligned.to_crop)


def _surface(field: Field, params: dict[str, Any], context: Context) -> Mesh:
    """Iso-surface, its largest part, UVs, and a texture of the field's colours."""
    try:
        mesh = mesh_stages.unwrapped(field, params, context, (0.52, 0.66, 0.74))
    except ReconstructionError as error:
        raise ReconstructionError(
            "The model sees no solid object in this picture.",
            "Try another picture or model, or a mask that follows the object more closely.",
        ) from error
    context.progress(0.84, "baking the texture")
    return mesh_stages.textured(mesh, field, [], params, context)


def _figures(mesh: Mesh, field: Field, camera: Camera, square: Square) -> dict[str, Any]:
    """How the mesh, seen as the picture was taken, agrees with the cut-out."""
    seen = metrics.photo_agreement(mesh, camera, square.rgb, square.alpha)
    return {
        "photo_psnr_db": result_stages.decibels(seen["psnr"]),
        "silhouette_iou": round(float(seen["iou"]), 4),
        "mesh": metrics.mesh_report(mesh, field.metres_per_unit),
    }


def _with_alpha(cut: Cutout) -> np.ndarray:
    """The cut-out as a picture uint8 [h, w, 4], no larger than what is handed back of photos."""
    alpha = (cut.alpha * 255 + 0.5).astype(np.uint8)
    return result_stages.shrunk(np.dstack([cut.rgb, alpha]))


def _shown(photo: Photo) -> np.ndarray:
    alone = photo.alpha is None
    return result_stages.shrunk(photo.rgb if alone else np.dstack([photo.rgb, photo.alpha]))


def _thumbnail(cut: Cutout) -> np.ndarray:
    """The cut-out on grey, small: whether the right thing was found is seen before the work."""
    small = Image.fromarray(np.dstack([cut.rgb, (cut.alpha * 255 + 0.5).astype(np.uint8)]))
    small.thumbnail((2 * result_stages.PREVIEW, 2 * result_stages.PREVIEW))
    return over(np.asarray(small), result_stages.BACKDROP)

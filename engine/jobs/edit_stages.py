"""What the jobs edit and edit_preview do. Imports torch: only from inside a job's run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine import jobs
from engine.cameras import Camera
from engine.editing.head import HeadEditor
from engine.editing.open import close_heads, open_head
from engine.editing.photo import edited_photo
from engine.fields.io import field_to_bytes
from engine.jobs import quad_stages, stages
from engine.jobs.base import Context, Result
from engine.jobs.sampling_stages import shown_picture, textured
from engine.portrait.image import load_photo
from engine.sampling.base import Sampler
from engine.sampling.edits import parse_edits
from engine.surface import metrics
from engine.surface.bake import PhotoView
from engine.surface.draw import draw_textured, over
from engine.surface.mesh import Mesh

jobs.at_release(close_heads)


def preview_edit(params: dict[str, Any], context: Context) -> Result:
    """The job `edit_preview`: array image uint8 [H, W, 4], straight alpha."""
    compute = stages.choose_compute(context, large=True)
    context.progress(0.0, "opening the head")
    editor, sampler = open_head(params["field"], params["model"], params["models"], compute)
    context.progress(0.3, "changing the head")
    field = editor.edited(parse_edits(params["edits"]), quick=True, check=context.check).field
    context.progress(0.6, "rendering")
    camera = _camera(params, sampler)
    seen = field.render(camera, context.check)
    alpha = seen.alpha[..., None]
    straight = seen.image / alpha.clamp_min(1e-4) * (alpha > 1e-4)
    image = (torch.cat([straight, alpha], -1).clamp(0, 1) * 255 + 0.5).byte().cpu().numpy()
    return stages.finished({"camera": camera.to_json()}, {"image": image}, context)


def _camera(params: dict[str, Any], sampler: Sampler) -> Camera:
    size = params["size"]
    if not params["camera"]:
        return sampler.camera(0.0, 0.0, size)
    camera = stages.read_camera(params["camera"])
    scale = size / max(camera.width, camera.height)
    return camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))


def edit_head(params: dict[str, Any], context: Context) -> Result:
    """The job `edit`."""
    compute = stages.choose_compute(context, large=True)
    context.progress(0.0, "opening the head")
    amounts = parse_edits(params["edits"])
    editor, sampler = open_head(params["field"], params["model"], params["models"], compute)
    quad_stages.check(editor.base, params)
    context.progress(0.05, "changing the head")
    edited = editor.edited(amounts, check=context.check)
    field, code = edited.field, edited.field.origin.code
    picture = sampler.picture(code, sampler.front(), context.check, field)
    context.preview(stages.thumbnail(shown_picture(picture)))
    photo = _photo(params)

    def views(mesh: Mesh) -> list[PhotoView]:
        return [edited_photo(editor.base, edited, mesh, *photo, context.check)] if photo else []

    if isinstance(editor, HeadEditor):
        mesh, quads = stages.meshes(field, views, params, context, 0.15)
    else:  # its own pictures show more than its field does
        mesh, quads = textured(sampler, code, field, picture, params, context), None
    shown = mesh or quads.triangles()
    context.progress(0.95, "packing the results")
    meta = {
        "name": params["name"] or Path(params["field"]).stem,
        "model": sampler.name,
        "metres_per_unit": field.metres_per_unit,
        "field_to_world": stages.standing(mesh, field).ravel().tolist(),
        "camera": sampler.front().to_json(),
        "edits": amounts,
        "recipe": field.origin.recipe,
        "figures": {"mesh": metrics.mesh_report(shown, field.metres_per_unit)},
        "versions": stages.versions(),
        "device": next(iter(field.tensors().values())).device.type,
    } | quad_stages.meta(quads, field)
    drawn = draw_textured(shown, stages.portrait_camera(shown, 256), 2)
    arrays = (
        stages.mesh_arrays(mesh)
        | quad_stages.arrays(quads)
        | {
            "photo": shown_picture(picture),
            "field": np.frombuffer(field_to_bytes(field), np.uint8),
            "preview": over(drawn, stages.BACKDROP),
        }
    )
    return stages.finished(meta, arrays, context)


def _photo(params: dict[str, Any]) -> tuple[Camera, np.ndarray] | None:
    """The photo's camera, and its pixels."""
    if not (params["photo"] and params["camera"]):
        return None
    photo = load_photo(params["photo"])
    return stages.read_camera(params["camera"]).resized(photo.width, photo.height), photo.rgb

"""What the jobs edit and edit_preview do. Imports torch: only from inside a job's run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine import jobs
from engine.cameras import Camera
from engine.editing.head import HeadEditor
from engine.editing.open import close_heads, open_head
from engine.editing.photo import edited_photo
from engine.jobs import mesh_stages, quad_stages, result_stages, stages
from engine.jobs.base import Context, Result
from engine.jobs.sampling_stages import shown_picture, textured
from engine.portrait.image import load_photo
from engine.sampling.base import Sampler
from engine.sampling.edits import parse_edits
from engine.surface import metrics
from engine.surface.bake import PhotoView
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
    image = field.render(camera, context.check).rgba()
    return context.result({"camera": camera.to_json()}, {"image": image})


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
    context.preview(result_stages.thumbnail(shown_picture(picture)))
    photo = _photo(params)

    def views(mesh: Mesh) -> list[PhotoView]:
        return [edited_photo(editor.base, edited, mesh, *photo, context.check)] if photo else []

    if isinstance(editor, HeadEditor):
        mesh, quads = mesh_stages.meshes(field, views, params, context, 0.15)
    else:  # its own pictures show more than its field does
        mesh, quads = textured(sampler, code, field, picture, params, context), None
    shown = mesh or quads.triangles()
    context.progress(0.95, "packing the results")
    meta = {
        "name": params["name"] or Path(params["field"]).stem,
        "model": sampler.name,
        **result_stages.placed(mesh, field),
        "camera": sampler.front().to_json(),
        "edits": amounts,
        "recipe": field.origin.recipe,
        "figures": {"mesh": metrics.mesh_report(shown, field.metres_per_unit)},
        "device": next(iter(field.tensors().values())).device.type,
    } | quad_stages.meta(quads, field)
    arrays = result_stages.head_arrays(mesh, quads, field, shown_picture(picture))
    return context.result(meta, arrays)


def _photo(params: dict[str, Any]) -> tuple[Camera, np.ndarray] | None:
    """The photo's camera, and its pixels."""
    if not (params["photo"] and params["camera"]):
        return None
    photo = load_photo(params["photo"])
    return stages.read_camera(params["camera"]).resized(photo.width, photo.height), photo.rgb

"""What the jobs do, stage by stage. Imports torch: only ever imported from inside a job's run."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from engine import __version__, cameras, device, jobs
from engine.cameras import FIELD_TO_BLENDER, Camera
from engine.checkpoints.default import DefaultModel, load_default
from engine.checkpoints.instant import load_instant
from engine.editing.origin import remember
from engine.errors import ParameterError
from engine.fields.base import Field
from engine.fields.head import HeadField
from engine.fields.io import field_to_bytes, load_field
from engine.inversion.evidence import measure
from engine.inversion.instant import reconstruct_instant
from engine.inversion.methods import invert
from engine.inversion.pseudo import RENDERED, PseudoView
from engine.inversion.quality import judge
from engine.inversion.reconstruct import CROP, PRESETS, Reconstruction
from engine.jobs import quad_stages
from engine.jobs.base import Context, Result
from engine.jobs.reconstruct import INSTANT, PHOTO_LIMIT
from engine.portrait.align import Aligned, align
from engine.portrait.detect import find_points
from engine.portrait.image import Photo, load_photo
from engine.surface import bake as baking
from engine.surface import cleanup, isosurface, metrics, unwrap
from engine.surface.draw import silhouette
from engine.surface.mesh import Mesh
from engine.surface.quad import QuadHead
from engine.systems.warpgan.inpaint import load_svinet

PREVIEW = 160
BACKDROP = (56, 56, 56)  # behind small pictures
GRID = 176  # voxels along the box: the head field's own grid, so that no facets arise
TRIPLANE_GRID = 256  # the same for tri-planes, which have no grid of their own
MEMORY_LIMIT = "TRIPLANE_MEMORY_LIMIT_MB"  # environment: the preference, in MiB, 0 for none

jobs.at_release(load_default.cache_clear)
jobs.at_release(load_instant.cache_clear)
jobs.at_release(load_svinet.cache_clear)


def choose_compute(context: Context, large: bool = False) -> device.Compute:
    """Sets up this process as the job's context and the memory limit say.

    large: whether the job's networks are worth a GPU. The head model is so small that a job spends
    its time between many little steps, so it computes on the processor whatever the device; a
    device that this machine lacks is refused all the same. Raises ParameterError.
    """
    chosen = device.choose_device(context.device)
    text = os.environ.get(MEMORY_LIMIT) or "0"
    if not text.isdecimal():
        raise ParameterError(f"{MEMORY_LIMIT} must be a whole number of MiB, not {text[:40]}.")
    used = chosen.type if large else "cpu"
    return device.choose(used, context.precision, memory_limit_mb=int(text))


def reconstruct_photo(params: dict[str, Any], context: Context) -> Result:
    """The job `reconstruct`."""
    compute = choose_compute(context)
    context.progress(0.0, "loading the model")
    model = load_default()
    context.progress(0.02, "reading the photo")
    photo = load_photo(params["photo"])
    context.progress(0.03, "finding the face")
    points, faces = find_points(
        photo.rgb, points=params["points"], face_index=params["face_index"], check=context.check
    )
    aligned = align(photo, points, size=CROP, widen=model.config["widen"])
    context.preview(thumbnail(aligned.crop))
    made = _head(model, aligned, params, compute, context)
    remember(made.field, made.shape, made.ws, model)
    views = [baking.PhotoView(made.camera, aligned.crop, made.trust), *map(painted, made.views)]
    mesh, quads = meshes(made.field, lambda _: views, params, context, 0.58)
    shown = mesh or quads.triangles()
    context.progress(0.96, "measuring")
    context.check()
    if mesh is not None:
        figures = _figures(mesh, made, aligned, context)
    else:  # without its hair a head is no picture of the photo
        figures = {"mesh": metrics.mesh_report(shown, made.field.metres_per_unit)}
    figures["faces_found"] = len(faces)
    found = measure(model, aligned, made, compute, points, len(faces), context.check)
    figures["quality"] = judge(found).to_json()
    full = full_camera(made.camera, aligned.to_crop, photo)
    context.progress(0.99, "packing the results")
    result = _result(mesh, shown, made.field, full, photo, params, figures)
    result.meta |= quad_stages.meta(quads, made.field)
    result.arrays |= mesh_arrays(mesh) | quad_stages.arrays(quads)
    result.arrays["crop"] = aligned.crop
    result.meta["crop_camera"] = made.camera.to_json()
    result.meta["device"] = compute.device.type
    return finished(result.meta, result.arrays, context)


def _head(
    model: DefaultModel,
    aligned: Aligned,
    params: dict[str, Any],
    compute: device.Compute,
    context: Context,
) -> Reconstruction:
    """The field of a crop, by the job's preset and method."""

    def show(field: HeadField, camera: Camera) -> None:
        seen = field.render(camera.resized(PREVIEW, PREVIEW), context.check)
        context.preview(on_grey(seen.image, seen.alpha))

    def report(fraction: float, step: str) -> None:
        context.progress(0.06 + 0.5 * fraction, step)

    if params["preset"] == INSTANT:
        if params["method"] != "auto":
            raise ParameterError(
                f"The quality {INSTANT} has a way of its own, not the method {params['method']}.",
                "Set the method to auto, or choose another quality.",
            )
        lrm = load_instant()
        return reconstruct_instant(model, lrm, aligned, compute, report, show, context.check)
    steps = PRESETS[params["preset"]]
    if params["refine_steps"] >= 0:
        steps = replace(steps, tuning=params["refine_steps"])
    seed, check = params["seed"], context.check
    method = params["method"]
    return invert(method, model, aligned, steps, compute, report, show, seed, check)


def painted(view: PseudoView) -> baking.PhotoView:
    """A pseudo-view as the bake takes it: what it shows beyond the photo and the field."""
    alpha = view.alpha[..., None].clamp_min(1e-3)
    rgb = ((view.picture / alpha).clamp(0, 1) * 255 + 0.5).byte().numpy()
    sure = view.confidence * (view.confidence > RENDERED) * (1 - view.visible)
    return baking.PhotoView(view.camera, rgb, view.alpha.numpy(), sure=sure.numpy())


def extract_field(params: dict[str, Any], context: Context) -> Result:
    """The job `extract`."""
    choose_compute(context)
    context.progress(0.0, "loading the field")
    field = load_field(params["field"])

    def views(mesh: Mesh) -> list[baking.PhotoView]:
        if not (params["photo"] and params["camera"]):
            return []
        photo = load_photo(params["photo"])
        camera = read_camera(params["camera"]).resized(photo.width, photo.height)
        return [baking.PhotoView(camera, photo.rgb, silhouette(mesh, camera).astype(np.float32))]

    quad_stages.check(field, params)
    mesh, quads = meshes(field, views, params, context, 0.1)
    shown = mesh or quads.triangles()
    context.finish()
    meta = {
        "metres_per_unit": field.metres_per_unit,
        "timings": dict(context.timings),
        "field_to_world": standing(mesh, field).ravel().tolist(),
        "figures": {"mesh": metrics.mesh_report(shown, field.metres_per_unit)},
        "versions": versions(),
    }
    meta |= quad_stages.meta(quads, field)
    return Result(meta, mesh_arrays(mesh) | quad_stages.arrays(quads))


def render_field(params: dict[str, Any], context: Context) -> Result:
    """The job `render`: arrays image uint8 [H, W, 4] (straight alpha), depth float32 [H, W]."""
    choose_compute(context)
    context.progress(0.0, "loading the field")
    field = load_field(params["field"])
    camera = read_camera(params["camera"])
    context.progress(0.1, "rendering")
    seen = field.render(camera, context.check)
    context.finish()
    alpha = seen.alpha[..., None]
    colour = torch.where(alpha > 1e-4, seen.image / alpha.clamp_min(1e-4), torch.zeros(()))
    image = (torch.cat([colour, alpha], -1).clamp(0, 1) * 255 + 0.5).byte().cpu().numpy()
    return Result(
        {"camera": camera.to_json(), "timings": dict(context.timings)},
        {"image": image, "depth": seen.depth.float().cpu().numpy()},
    )


def versions() -> dict[str, str]:
    """What made a result."""
    return {
        "triplane": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def read_camera(text: str) -> Camera:
    """A camera from its JSON. Raises ParameterError."""
    try:
        camera = cameras.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise ParameterError("The camera is not valid JSON of a camera.") from error
    if not (0 < camera.width <= 16384 and 0 < camera.height <= 16384):
        raise ParameterError("The camera's picture must have 1 to 16384 pixels a side.")
    return camera


def voxels(field: Field) -> int:
    """Voxels along the field's box at which to take its surface."""
    return GRID if isinstance(field, HeadField) else TRIPLANE_GRID


def meshes(
    field: Field,
    views: quad_stages.Views,
    params: dict[str, Any],
    context: Context,
    start: float,
) -> tuple[Mesh | None, QuadHead | None]:
    """The meshes that are wanted, one at least; `start` is the fraction of the job done before."""
    end = 0.95
    middle = {"SURFACE": end, "QUAD": start, "BOTH": (start + end) / 2}[params["topology"]]
    mesh = None if middle == start else _surface(field, views, params, context, start, middle)
    return mesh, quad_stages.make(field, views, params, context, middle, end)


def _surface(
    field: Field,
    views: quad_stages.Views,
    params: dict[str, Any],
    context: Context,
    start: float,
    end: float,
) -> Mesh:
    """Iso-surface, clean-up, UVs, texture, from `start` to `end` of the job."""
    part = (end - start) / 4
    context.progress(start, "extracting the surface")
    mesh = isosurface.extract(field, voxels(field), context.check)
    context.progress(start + 0.6 * part, "cleaning the mesh")
    mesh = cleanup.clean(mesh, params["faces"], check=context.check)
    context.progress(start + 1.2 * part, "unwrapping")
    mesh = unwrap.unwrap(mesh, params["texture_size"], context.check)
    context.progress(start + 2.2 * part, "baking the texture")
    size = params["texture_size"]
    return mesh.with_texture(baking.bake(mesh, field, views(mesh), size, context.check))


def full_camera(camera: Camera, to_crop: np.ndarray, photo: Photo) -> Camera:
    """The camera of the whole photo, from that of a crop; to_crop [3, 3]: the photo's pixels to the
    crop's."""
    full = camera.transformed_image(np.linalg.inv(to_crop), photo.width, photo.height)
    return Camera(full.cam2world, full.intrinsics, photo.width, photo.height, "photo")


def standing(mesh: Mesh | None, field: Field) -> np.ndarray:
    """Field space to Blender's world: metres, z up, looking along -y, lowest point on z = 0: of the
    surface's mesh, or where there is none (a mesh of quads ends higher) of the head's field."""
    scale = field.metres_per_unit
    matrix = FIELD_TO_BLENDER @ np.diag([scale, scale, scale, 1.0])
    low = quad_stages.lowest(field) if mesh is None else float(mesh.vertices[:, 1].min())
    matrix[2, 3] = -low * scale
    return matrix


def _figures(mesh: Mesh, made: Reconstruction, aligned: Aligned, context: Context) -> dict:
    """Figures of merit, see docs/figures.md."""
    head = made.matte.alpha > 0.5
    # What clothes hide, or lies beyond the photo, cannot be compared.
    unknown = ~aligned.valid | made.matte.clothes
    drawn = metrics.silhouette(mesh, made.camera)
    figures = metrics.photo_agreement(
        mesh, made.camera, aligned.crop, made.matte.alpha * aligned.valid
    )
    figures["iou"] = metrics.iou(drawn & ~unknown, head & ~unknown)
    context.check()
    agreement = metrics.silhouette_agreement(mesh, made.field, check=context.check)
    return {
        "photo_psnr_db": round(float(figures["psnr"]), 2),
        "photo_psnr_common_db": round(float(figures["psnr_common"]), 2),
        "silhouette_iou": round(float(figures["iou"]), 4),
        "mesh_field_iou": [round(float(x), 4) for x in agreement],
        "mesh": metrics.mesh_report(mesh, made.field.metres_per_unit),
    }


def mesh_arrays(mesh: Mesh | None) -> dict[str, np.ndarray]:
    if mesh is None:
        return {}
    return {
        "vertices": mesh.vertices.astype(np.float32),
        "faces": mesh.faces.astype(np.int32),
        "uvs": mesh.uvs.astype(np.float32),
        "texture": mesh.texture,
    }


def _result(
    mesh: Mesh | None,
    seen_mesh: Mesh,
    field: HeadField,
    camera: Camera,
    photo: Photo,
    params: dict[str, Any],
    figures: dict,
) -> Result:
    meta = {
        "name": Path(params["photo"]).stem,
        "metres_per_unit": field.metres_per_unit,
        "field_to_world": standing(mesh, field).ravel().tolist(),
        "camera": camera.to_json(),
        "preset": params["preset"],
        "method": params["method"],
        "seed": params["seed"],
        "figures": figures,
        "versions": versions(),
    }
    packed = np.frombuffer(field_to_bytes(field), np.uint8)
    seen = field.render(portrait_camera(seen_mesh, 256))
    arrays = {
        "photo": shrunk(photo.rgb),
        "field": packed,
        "preview": on_grey(seen.image, seen.alpha),
    }
    return Result(meta, arrays)


def shrunk(picture: np.ndarray) -> np.ndarray:
    """A picture uint8 [H, W, C] with a longer side of PHOTO_LIMIT pixels at most: what is handed
    back of photos."""
    scale = PHOTO_LIMIT / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def finished(meta: dict[str, Any], arrays: dict[str, np.ndarray], context: Context) -> Result:
    """A job's result, with how long its steps took."""
    context.finish()
    meta["timings"] = {k: round(v, 3) for k, v in context.timings.items()}
    return Result(meta, arrays)


def portrait_camera(mesh: Mesh, size: int) -> Camera:
    return metrics.ring(mesh, [20.0], size)[0]


def thumbnail(crop: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(crop).resize((PREVIEW, PREVIEW)))


def on_grey(image: torch.Tensor, alpha: torch.Tensor) -> np.ndarray:
    mixed = image + (1 - alpha[..., None]) * 0.22
    return (mixed.clamp(0, 1) * 255 + 0.5).byte().cpu().numpy()

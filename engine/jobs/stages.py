"""What the jobs do, stage by stage. Imports torch: only ever imported from inside a job's run."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine import cameras, device, jobs
from engine.cameras import Camera
from engine.checkpoints.default import DefaultModel, load_default
from engine.checkpoints.instant import load_instant
from engine.editing.origin import remember
from engine.errors import ParameterError
from engine.fields.head import HeadField
from engine.fields.io import load_field
from engine.inversion.evidence import measure
from engine.inversion.instant import reconstruct_instant
from engine.inversion.methods import invert
from engine.inversion.pseudo import RENDERED, PseudoView
from engine.inversion.quality import judge
from engine.inversion.reconstruct import CROP, PRESETS, Reconstruction
from engine.inversion.relight import load_relight
from engine.jobs import quad_stages
from engine.jobs.base import Context, Result
from engine.jobs.mesh_stages import meshes
from engine.jobs.reconstruct import INSTANT
from engine.jobs.result_stages import (
    PREVIEW,
    head_arrays,
    mesh_arrays,
    on_grey,
    placed,
    portrait_camera,
    portrait_figures,
    shrunk,
    thumbnail,
)
from engine.portrait.align import Aligned, align
from engine.portrait.detect import find_points
from engine.portrait.image import Photo, load_photo
from engine.surface import bake as baking
from engine.surface import metrics
from engine.surface.draw import silhouette
from engine.surface.mesh import Mesh
from engine.systems.warpgan.inpaint import load_svinet

MEMORY_LIMIT = "TRIPLANE_MEMORY_LIMIT_MB"  # environment: the preference, in MiB, 0 for none

jobs.at_release(load_default.cache_clear)
jobs.at_release(load_instant.cache_clear)
jobs.at_release(load_svinet.cache_clear)
jobs.at_release(load_relight.cache_clear)


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
        figures = portrait_figures(mesh, made, aligned, context)
    else:  # without its hair a head is no picture of the photo
        figures = {"mesh": metrics.mesh_report(shown, made.field.metres_per_unit)}
    figures["faces_found"] = len(faces)
    found = measure(model, aligned, made, compute, points, len(faces), context.check)
    figures["quality"] = judge(found).to_json()
    context.progress(0.99, "packing the results")
    meta = {
        "name": Path(params["photo"]).stem,
        **placed(mesh, made.field),
        "camera": full_camera(made.camera, aligned.to_crop, photo).to_json(),
        "crop_camera": made.camera.to_json(),
        "preset": params["preset"],
        "method": params["method"],
        "seed": params["seed"],
        "figures": figures,
        "device": compute.device.type,
    } | quad_stages.meta(quads, made.field)
    seen = made.field.render(portrait_camera(shown, 256))
    preview = on_grey(seen.image, seen.alpha)
    arrays = head_arrays(mesh, quads, made.field, shrunk(photo.rgb), preview)
    return context.result(meta, arrays | {"crop": aligned.crop})


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
    meta = placed(mesh, field) | quad_stages.meta(quads, field)
    meta["figures"] = {"mesh": metrics.mesh_report(shown, field.metres_per_unit)}
    return context.result(meta, mesh_arrays(mesh) | quad_stages.arrays(quads))


def render_field(params: dict[str, Any], context: Context) -> Result:
    """The job `render`: arrays image uint8 [H, W, 4] (straight alpha), depth float32 [H, W]."""
    choose_compute(context)
    context.progress(0.0, "loading the field")
    field = load_field(params["field"])
    camera = read_camera(params["camera"])
    context.progress(0.1, "rendering")
    seen = field.render(camera, context.check)
    arrays = {"image": seen.rgba(), "depth": seen.depth.float().cpu().numpy()}
    return context.result({"camera": camera.to_json()}, arrays)


def read_camera(text: str) -> Camera:
    """A camera from its JSON. Raises ParameterError."""
    try:
        camera = cameras.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise ParameterError("The camera is not valid JSON of a camera.") from error
    if not (0 < camera.width <= 16384 and 0 < camera.height <= 16384):
        raise ParameterError("The camera's picture must have 1 to 16384 pixels a side.")
    return camera


def full_camera(camera: Camera, to_crop: np.ndarray, photo: Photo) -> Camera:
    """The camera of the whole photo, from that of a crop; to_crop [3, 3]: the photo's pixels to the
    crop's."""
    full = camera.transformed_image(np.linalg.inv(to_crop), photo.width, photo.height)
    return Camera(full.cam2world, full.intrinsics, photo.width, photo.height, "photo")

"""What the jobs sample, gallery and interpolate do. Imports torch: only from inside a job's run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine import jobs
from engine.cameras import Camera
from engine.checkpoints.open import close_models
from engine.errors import ParameterError, ReconstructionError
from engine.fields.base import Field
from engine.jobs import mesh_stages, quad_stages, result_stages, stages
from engine.jobs.base import Context, Result
from engine.sampling import recipe as recipes
from engine.sampling.base import Picture, Sampler
from engine.sampling.open import open_sampler
from engine.sampling.recipe import Recipe, parse_heads
from engine.surface import bake as baking
from engine.surface import metrics
from engine.surface.draw import over, silhouette
from engine.surface.export import encode_png, write_whole
from engine.surface.mesh import Mesh
from engine.surface.rasterize import rasterize

SOLID = 0.9, 0.98  # opacity of a picture from which on it shows the surface, and nothing else
FACING = 0.5, 0.75  # cosine to the front camera from which on it sees a surface best
MOST_PIXELS = 1 << 28  # of all pictures that are handed back at once

jobs.at_release(close_models)


def sample_head(params: dict[str, Any], context: Context) -> Result:
    """The job `sample`."""
    recipe = _recipe(params, params["at"])
    sampler = _open(params, context)
    context.progress(0.06, "making the head")
    code = recipes.code(sampler, recipe)
    field = recipes.field_of(sampler, recipe, code)
    quad_stages.check(field, params)
    front = sampler.front()
    context.progress(0.12, "taking its picture")
    picture = sampler.picture(code, front, context.check, field)
    context.preview(result_stages.thumbnail(shown_picture(picture)))
    mesh = quads = None
    if params["topology"] != "QUAD":
        mesh = textured(sampler, code, field, picture, params, context)
    quads = quad_stages.make(field, lambda _: [], params, context, 0.85 if mesh else 0.2, 0.95)
    shown = mesh or quads.triangles()
    context.progress(0.95, "packing the results")
    psnr = np.nan
    if mesh is not None:  # without its hair a head is no picture of itself
        covered = silhouette(mesh, front).astype(np.float32)
        psnr = metrics.photo_agreement(mesh, front, picture.image, covered)["psnr"]
    seeds = [head for head in recipe.heads if isinstance(head, int)]
    meta = {
        "name": params["name"] or _name(recipe),
        "model": sampler.name,
        **result_stages.placed(mesh, field),
        "camera": front.to_json(),
        "seed": seeds[0] if seeds else -1,
        "recipe": field.origin.recipe,
        "figures": {
            "photo_psnr_db": result_stages.decibels(psnr),
            "mesh": metrics.mesh_report(shown, field.metres_per_unit),
        },
        "device": next(iter(field.tensors().values())).device.type,
    } | quad_stages.meta(quads, field)
    arrays = result_stages.head_arrays(mesh, quads, field, shown_picture(picture))
    return context.result(meta, arrays)


def textured(
    sampler: Sampler,
    code: torch.Tensor,
    field: Field,
    picture: Picture,
    params: dict[str, Any],
    context: Context,
) -> Mesh:
    """The field's surface with the model's own pictures of it for a texture."""
    front = sampler.front()
    try:
        mesh = mesh_stages.unwrapped(field, params, context, (0.2, 0.4, 0.48))
    except ReconstructionError as error:
        raise ReconstructionError(
            "The model gives no surface for this head.",
            "Try another seed, or a truncation nearer to 0.",
        ) from error
    context.progress(0.6, "looking at it from all sides")
    views = [picture_view(mesh, front, picture)] if sampler.photo_cameras() else []
    for camera in sampler.photo_cameras()[1:]:
        seen = sampler.picture(code, camera, context.check, field)
        views.append(picture_view(mesh, camera, seen, front))
    context.progress(0.78, "baking the texture")
    return mesh_stages.textured(mesh, field, views, params, context)


def sample_gallery(params: dict[str, Any], context: Context) -> Result:
    """The job `gallery`: arrays images uint8 [N, size, size, 3]; meta seeds."""
    first, count, size = params["first"], params["count"], params["size"]
    _check_pixels(count, size)
    seeds = list(range(first, first + count))
    sampler = _open(params, context)
    images = []
    for index, seed in enumerate(seeds):
        context.progress(0.06 + 0.94 * index / count, f"making head {index + 1} of {count}")
        recipe = _recipe(params | {"heads": str(seed)})
        code = recipes.code(sampler, recipe)
        picture = sampler.picture(code, sampler.camera(0.0, 0.0, size), context.check)
        images.append(shown_picture(picture))
        context.item({"seed": seed, "index": index}, images[-1])
    meta = {
        "model": sampler.name,
        "seeds": seeds,
        "psi": params["psi"],
        "cutoff": params["cutoff"],
        "yaw": params["yaw"],
        "pitch": params["pitch"],
        "versions": result_stages.versions(),
    }
    return context.result(meta, {"images": np.stack(images)})


def interpolate_heads(params: dict[str, Any], context: Context) -> Result:
    """The job `interpolate`. Pictures go to the folder one by one, each whole or not at all; those
    written stay if the job is cancelled. Without a folder: array frames uint8 [N, S, S, 3]."""
    whole = _recipe(params)
    pairs = len(whole.heads) - 1
    if pairs < 1:
        raise ParameterError("Two heads at least are needed.", "Give two seeds, such as 3,9.")
    count = pairs * (params["steps"] - 1) + 1
    if count > 100_000:
        raise ParameterError("These are more than 100000 pictures.", "Take fewer steps.")
    folder = Path(params["folder"]) if params["folder"] else None
    sampler = _open(params, context)
    size = params["size"] or sampler.picture_size
    if folder is None:
        _check_pixels(count, size)
    name = re.sub(r"[^\w.-]+", "_", params["name"]) or "heads"
    frames, images, known = [], [], {}
    for frame in range(count):
        context.progress(0.06 + 0.94 * frame / count, f"making picture {frame + 1} of {count}")
        at = frame / (params["steps"] - 1)
        recipe = _recipe(params, at)
        code = recipes.code(sampler, recipe, known)
        yaw = params["view_yaw"] + params["orbit"] * frame / (count - 1)
        camera = sampler.camera(yaw, params["view_pitch"], size)
        image = shown_picture(sampler.picture(code, camera, context.check))
        path = ""
        if folder is None:
            images.append(image)
        else:
            path = str(folder / f"{name}_{frame + 1:04d}.png")
            write_whole({Path(path): encode_png(image)})
        frames.append({"path": path, "at": at})
        context.item({"frame": frame, "path": path, "at": at}, result_stages.thumbnail(image))
    meta = {
        "name": name,
        "model": sampler.name,
        "frames": frames,
        "recipe": whole.to_json(),
        "versions": result_stages.versions(),
    }
    return context.result(meta, {"frames": np.stack(images)} if images else {})


def _open(params: dict[str, Any], context: Context) -> Sampler:
    compute = stages.choose_compute(context, large=True)
    context.progress(0.0, "loading the model")
    return open_sampler(params["model"], params["models"], compute)


def _recipe(params: dict[str, Any], at: float = 0.0) -> Recipe:
    given = {k: params[k] for k in Recipe.__dataclass_fields__ if k in params}
    return Recipe(**given | {"heads": parse_heads(params["heads"]), "at": at})


def picture_view(
    mesh: Mesh, camera: Camera, picture: Picture, front: Camera | None = None
) -> baking.PhotoView:
    """A picture as a photo of the mesh, believed where the mesh is and nothing shines through.

    front: a camera whose photo comes first: what faces that one is left to it. Two pictures that
    were painted each by itself do not agree in every hair; their mean would be a blur.
    """
    raster = rasterize(mesh.vertices, mesh.faces, camera)
    alpha = (raster.face >= 0).astype(np.float32)
    if picture.alpha is not None:
        alpha *= ((picture.alpha.astype(np.float32) / 255 - SOLID[0]) / np.ptp(SOLID)).clip(0, 1)
    if front is not None:
        normals = raster.interpolate(mesh.vertex_normals[mesh.faces])
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
        facing = normals @ -front.cam2world[:3, 2].astype(np.float32)
        alpha *= ((FACING[1] - facing) / np.ptp(FACING)).clip(0, 1)
    return baking.PhotoView(camera, picture.image, alpha)


def shown_picture(picture: Picture) -> np.ndarray:
    """A picture for the eye: uint8 [S, S, 3], on grey where nothing is."""
    if picture.painted or picture.alpha is None:
        return picture.image
    return over(np.dstack([picture.image, picture.alpha]), result_stages.BACKDROP)


def _name(recipe: Recipe) -> str:
    names = [str(h) if isinstance(h, int) else Path(h).stem for h in recipe.heads]
    if len(names) == 1:
        return f"head {names[0]}"
    first = min(int(recipe.at), len(names) - 2)
    return f"head {names[first]} to {names[first + 1]}, {recipe.at - first:.2f}"


def _check_pixels(count: int, size: int) -> None:
    if count * size * size > MOST_PIXELS:
        raise ParameterError(
            f"{count} pictures of {size} pixels a side are too many at once.",
            "Take fewer or smaller ones, or write them into a folder.",
        )

"""The job `reconstruct` with an EG3D model that the user has added. Imports torch: only from inside
a job's run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.checkpoints import registry
from engine.checkpoints.default import load_default
from engine.errors import ParameterError, ReconstructionError, WeightsError
from engine.inversion.eg3d.align import Portrait, align_portrait
from engine.inversion.eg3d.methods import PRESETS, Inverted, check_method, invert
from engine.inversion.evidence import measure_photo
from engine.inversion.quality import DOUBTFUL, UNLIKELY, Quality, judge
from engine.inversion.reconstruct import Report
from engine.jobs import mesh_stages, result_stages, stages
from engine.jobs.base import Context, Result
from engine.jobs.sampling_stages import picture_view
from engine.portrait.detect import find_points
from engine.portrait.image import load_photo
from engine.sampling.eg3d import EG3DSampler
from engine.sampling.open import open_sampler
from engine.surface import bake as baking
from engine.surface import metrics
from engine.surface.mesh import Mesh

ASIDE = 30.0  # degrees between the photo's camera and those of the model's own pictures
FARTHEST = 45.0  # degrees from the front: beyond, such models' pictures fall apart
SIDE = 128  # pixels of the views in which outlines of mesh and field are compared


def open_head_model(params: dict[str, Any], context: Context) -> EG3DSampler:
    """The added model that a job's parameters name. Raises WeightsError where there is none, or it
    is of another kind."""
    compute = stages.choose_compute(context, large=True)
    path = registry.model_path(params["models"], params["model"])
    found = registry.describe(path)
    if found.makes_objects:
        raise WeightsError(
            f"{found.name} is a model for objects, not for heads.",
            "Choose an EG3D model of faces, or the built-in model.",
        )
    sampler = open_sampler(str(path), params["models"], compute)
    assert isinstance(sampler, EG3DSampler)
    return sampler


def reconstruct_with_model(params: dict[str, Any], context: Context) -> Result:
    """The job `reconstruct` where `model` names an added one: what it hands back is the same."""
    check_method(params["method"])
    if params["topology"] != "SURFACE":
        raise ParameterError(
            "A mesh of quads follows the built-in model's head, which other models do not make.",
            "Choose Surface, or the built-in model.",
        )
    ways = ModelWays(params, context)
    context.preview(result_stages.thumbnail(ways.aligned.crop))
    made = ways.make(
        params["method"],
        lambda f, step: context.progress(0.06 + 0.64 * f, step),
        lambda image: context.preview(_enlarged(image)),
    )
    try:
        mesh, _ = mesh_stages.meshes(
            made.field, lambda mesh: _pictures(ways.sampler, made, ways.portrait, mesh, context),
            params, context, 0.7,
        )  # fmt: skip
    except ReconstructionError as error:
        raise ReconstructionError(
            f"The model {ways.sampler.name} gives no surface for this photo.",
            "Choose another model, or the built-in one.",
        ) from error
    context.progress(0.96, "measuring")
    figures = result_stages.portrait_figures(mesh, made, ways.aligned, context, SIDE)
    figures["faces_found"] = ways.faces
    figures["quality"] = ways.judge(made).to_json()
    context.progress(0.99, "packing the results")
    return _result(ways, made, mesh, figures)


class ModelWays:
    """A photo, ready to be inverted with an added model."""

    def __init__(self, params: dict[str, Any], context: Context) -> None:
        """Raises WeightsError and ParameterError for what cannot be done with the model, and what
        reading the photo raises."""
        if params["preset"] not in PRESETS:
            raise ParameterError(
                f"The quality {params['preset']} is the built-in model's alone.",
                f"Choose one of {', '.join(PRESETS)}, or the built-in model.",
            )
        self.params, self.context = params, context
        context.progress(0.0, "loading the model")
        self.sampler, self.head = open_head_model(params, context), load_default()
        context.progress(0.02, "reading the photo")
        self.photo = load_photo(params["photo"])
        context.progress(0.03, "finding the face")
        self.points, faces = find_points(
            self.photo.rgb, points=params["points"], face_index=params["face_index"],
            check=context.check,
        )  # fmt: skip
        self.faces = len(faces)
        context.progress(0.04, "cutting out the head")
        self.portrait = align_portrait(
            self.head, self.sampler, self.photo, self.points, context.check
        )
        self.aligned = self.portrait.aligned
        self.steps = PRESETS[params["preset"]]
        if params["refine_steps"] >= 0:
            self.steps = replace(self.steps, tuning=params["refine_steps"])

    def make(
        self,
        method: str,
        report: Report,
        preview: Callable[[np.ndarray], None] = lambda image: None,
    ) -> Inverted:
        """The head by a method."""
        return invert(
            method, self.sampler, self.head, self.portrait, self.steps, report, preview,
            self.params["seed"], self.context.check,
        )  # fmt: skip

    def judge(self, made: Inverted) -> Quality:
        """How far to trust it: what the photo says, and whether the field has its outline. The
        score is learned on the built-in model's heads, which are never far from a head's outline;
        others can be, so it is at most what the outlines share."""
        check = self.context.check
        found = measure_photo(
            self.head, self.photo, self.sampler.compute, self.points, self.faces, check
        )
        seen = made.field.render(made.camera.resized(SIDE, SIDE), check).alpha.cpu().numpy() > 0.5
        known = _smaller(self.aligned.valid & ~made.matte.clothes)
        shared = metrics.iou(seen & known, _smaller(made.matte.alpha) & known)
        made_of = judge(replace(found, outline=1 - shared))
        warnings = made_of.warnings
        if shared < DOUBTFUL <= made_of.score:
            warnings = [UNLIKELY, *warnings]
        return Quality(min(made_of.score, shared), warnings)


def _pictures(
    sampler: EG3DSampler, made: Inverted, portrait: Portrait, mesh: Mesh, context: Context
) -> list[baking.PhotoView]:
    """What the texture is baked from, before the field: the photo, and for what turns away from it
    the model's own pictures from either side."""
    views = [baking.PhotoView(made.camera, portrait.aligned.crop, made.trust)]
    place = made.camera.position
    yaw = math.degrees(math.atan2(place[0], place[2]))
    for aside in (-ASIDE, ASIDE):
        turned = max(-FARTHEST, min(FARTHEST, yaw + aside))
        camera = sampler.camera(turned, 0.0)
        picture = sampler.picture(made.ws[0].cpu(), camera, context.check, made.field)
        views.append(picture_view(mesh, camera, picture, made.camera))
    return views


def _result(ways: ModelWays, made: Inverted, mesh: Mesh, figures: dict[str, Any]) -> Result:
    field, photo, params = made.field.to("cpu"), ways.photo, ways.params
    sampler, aligned = ways.sampler, ways.aligned
    meta = {
        "name": Path(params["photo"]).stem,
        "model": sampler.name,
        **result_stages.placed(mesh, field),
        "camera": stages.full_camera(made.camera, aligned.to_crop, photo).to_json(),
        "crop_camera": made.camera.to_json(),
        "preset": params["preset"],
        "method": params["method"],
        "seed": params["seed"],
        "figures": figures,
        "device": sampler.compute.device.type,
    }
    arrays = result_stages.head_arrays(mesh, None, field, result_stages.shrunk(photo.rgb))
    return ways.context.result(meta, arrays | {"crop": aligned.crop})


def _smaller(mask: np.ndarray) -> np.ndarray:
    """bool [SIDE, SIDE] of a mask or an alpha [S, S]."""
    whole = Image.fromarray(mask.astype(np.float32))
    return np.asarray(whole.resize((SIDE, SIDE), Image.Resampling.BOX)) > 0.5


def _enlarged(image: np.ndarray) -> np.ndarray:
    """A small view uint8 [R, R, 3] at the previews' size."""
    size = result_stages.PREVIEW
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))

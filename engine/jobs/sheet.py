"""The sheet of a head that is already there: the photo, the mesh and the field from all round."""

from __future__ import annotations

import json
from typing import Any

from .base import Context, Job, Param, Result

PARAMS = (
    Param("mesh", str, "", ".npz with vertices (field space), faces, uvs and texture"),
    Param("field", str, "", "the field's .safetensors file"),
    Param("photo", str, "", "the photo, upright"),
    Param("camera", str, "", "the photo's camera in field space, as JSON"),
)
MARGIN = 0.12  # of the head's larger side, left around it in the photo's crop


def run(params: dict[str, Any], context: Context) -> Result:
    """arrays["sheet"]: uint8 [h, w, 3]."""
    import numpy as np
    from PIL import Image

    from engine import cameras
    from engine.fields.io import load_field
    from engine.surface.mesh import Mesh
    from engine.surface.sheet import head_sheet

    context.progress(0.0, "drawing the sheet")
    with np.load(params["mesh"], allow_pickle=False) as file:
        mesh = Mesh(file["vertices"], file["faces"], file["uvs"], file["texture"])
    field = load_field(params["field"])
    with Image.open(params["photo"]) as image:
        photo = image.convert("RGB")
    camera = cameras.from_json(json.loads(params["camera"])).resized(*photo.size)
    # A square round the head: the sheet's tiles are squares, the photo need not be one.
    pixels, _ = camera.project(mesh.vertices.astype(np.float64))
    low, high = pixels.min(0), pixels.max(0)
    side = float((high - low).max() * (1 + 2 * MARGIN))
    left, top = (low + high) / 2 - side / 2
    size = 512
    scale = size / side
    move = np.array([[scale, 0, -left * scale], [0, scale, -top * scale], [0, 0, 1]])
    crop = photo.transform(
        (size, size),
        Image.Transform.AFFINE,
        (1 / scale, 0, left, 0, 1 / scale, top),
        Image.Resampling.BICUBIC,
    )
    front = camera.transformed_image(move, size, size)
    sheet = head_sheet(np.asarray(crop), mesh, field, front, check=context.check)
    return Result({}, {"sheet": sheet})


JOB = Job("sheet", "Draw the sheet of a head.", PARAMS, run)

"""Stand-in of engine/jobs/edit_stages.py for tests of the Blender side: a ball that edits stretch,
no networks, no torch. The jobs' definitions, the worker and the wire are the real ones.

Environment: FAKE_SECONDS (how long an edit takes), FAKE_BAD (edits that fail).
"""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path

import numpy as np

from engine.errors import ReconstructionError
from engine.jobs import shapes
from engine.jobs.base import Context, Result


def field_bytes(edits: str = "", model: str = "built-in") -> bytes:
    """A field file's head with a code's recipe, and no field."""
    recipe = {"model": model, "sha256": "0" * 64, "heads": [3], "edited": edits}
    details = json.dumps({"kind": "fake", "origin": recipe})
    header = json.dumps({"__metadata__": {"format": "triplane-field", "field": details}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(1000)


def recipe_of(path: str) -> dict:
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["field"])["origin"]


def amounts(text: str) -> dict[str, float]:
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    return {name.strip(): float(value) for name, _, value in pairs}


def edit_head(params: dict, context: Context) -> Result:
    assert recipe_of(params["field"])["edited"] == "", "an edit of an edited field"
    seconds = float(os.environ.get("FAKE_SECONDS", "0.1"))
    for tick in range(10):
        context.progress(tick / 10, "changing the head")
        time.sleep(seconds / 10)
    if params["edits"] == os.environ.get("FAKE_BAD"):
        raise ReconstructionError("The head came apart.", "Take less.")
    # As in real life: a surface of another number of triangles.
    arrays, facts = shapes.meshes(params | {"faces": params["faces"] * 3 // 2})
    width = 1 + 0.1 * amounts(params["edits"]).get("age", 0.0)
    for name in ("vertices", "quad_vertices"):
        if name in arrays:
            arrays[name] = arrays[name] * np.array([width, 1, 1], np.float32)
    field = np.frombuffer(field_bytes(params["edits"]), np.uint8)
    return Result(
        {"field_to_world": shapes.FIELD_TO_WORLD.ravel().tolist()} | facts,
        arrays | {"field": field},
    )


def preview_edit(params: dict, context: Context) -> Result:
    context.progress(0.0, "rendering")
    time.sleep(0.05)
    if params["edits"] == os.environ.get("FAKE_BAD"):
        raise ReconstructionError("The head came apart.", "Take less.")
    size = params["size"]
    image = np.full((size, size, 4), 255, np.uint8)
    image[..., 0] = round(20 * amounts(params["edits"]).get("age", 0.0)) + 100
    return Result({}, {"image": image})

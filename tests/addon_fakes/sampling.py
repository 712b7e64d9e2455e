"""Stand-in of engine/jobs/sampling_stages.py for tests of the Blender side: balls of many widths,
no networks, no torch. The jobs' definitions, the worker and the wire are the real ones.

Environment: FAKE_SECONDS (how long one head takes), FAKE_BAD (seeds and names of heads that fail,
with semicolons).
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

from engine import cameras
from engine.errors import ReconstructionError
from engine.jobs import shapes
from engine.jobs.base import Context, Result

SIDE = 64


def sample_head(params: dict, context: Context) -> Result:
    heads = _heads(params)
    at = params["at"]
    _work(context, [*heads, params["name"]])
    first = min(int(at), max(len(heads) - 2, 0))
    width = _width(heads[first])
    if len(heads) > 1:
        width += (at - first) * (_width(heads[first + 1]) - width)
    mesh = shapes.ball(params["faces"])
    mesh["vertices"][:, 0] *= width
    mesh["vertices"][:, 1] *= 1 + 0.1 * width  # each has another lowest point
    matrix = shapes.FIELD_TO_WORLD.copy()
    matrix[2, 3] = 0.11 * (1 + 0.1 * width)
    recipe = {
        key: params[key] for key in "at space psi cutoff yaw pitch mix_seed mix_from mix_to".split()
    }
    recipe |= {"heads": [h if isinstance(h, int) else Path(h).name for h in heads]}
    recipe |= {"model": params["model"] or "built-in", "sha256": "0" * 64}
    field = np.frombuffer(json.dumps(recipe | {"width": width}).encode(), np.uint8)
    seeds = [h for h in heads if isinstance(h, int)]
    meta = {
        "name": params["name"],
        "model": recipe["model"],
        "metres_per_unit": 1.0,
        "field_to_world": [float(v) for v in matrix.ravel()],
        "camera": cameras.orbit(0.0, 0.0, 1.1, 0.35, width=SIDE, height=SIDE).to_json(),
        "seed": seeds[0] if seeds else -1,
        "recipe": recipe,
        "timings": {"extracting": 2.5},
        "figures": {"photo_psnr_db": 20.0},
        "versions": {"triplane": "0.1.0"},
    }
    arrays = {"texture": shapes.texture(params["texture_size"]), "photo": _picture(width)}
    return Result(meta, mesh | arrays | {"field": field})


def sample_gallery(params: dict, context: Context) -> Result:
    images, seeds = [], list(range(params["first"], params["first"] + params["count"]))
    for index, seed in enumerate(seeds):
        _work(context, [seed], index / len(seeds))
        images.append(_picture(_width(seed), params["size"]))
        context.item({"seed": seed, "index": index}, images[-1])
    return Result({"seeds": seeds}, {"images": np.stack(images)})


def interpolate_heads(params: dict, context: Context) -> Result:
    heads = _heads(params)
    frames, count = [], (len(heads) - 1) * (params["steps"] - 1) + 1
    os.makedirs(params["folder"], exist_ok=True)
    for frame in range(count):
        at = frame / (params["steps"] - 1)
        _work(context, heads, frame / count)
        image = np.full((SIDE, SIDE, 3), 40 + 200 * frame // count, np.uint8)
        name = params["name"].replace(" ", "_")
        path = os.path.join(params["folder"], f"{name}_{frame + 1:04d}.png")
        Image.fromarray(image).save(path)
        frames.append({"path": path, "at": at})
        context.item({"frame": frame, "path": path, "at": at}, image[:8, :8])
    meta = {"name": params["name"], "model": params["model"] or "built-in", "frames": frames}
    return Result(meta | {"recipe": {"heads": [str(h) for h in heads]}, "versions": {}})


def _heads(params: dict) -> list:
    text = params["heads"]
    return json.loads(text) if text.startswith("[") else [int(p) for p in text.split(",")]


def _width(head: int | str) -> float:
    """Of a seed's ball; of a saved one: what the field file says."""
    if isinstance(head, int):
        return 0.6 + 0.1 * (head % 8)
    return json.loads(Path(head).read_bytes())["width"]


def _picture(width: float, side: int = SIDE) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    inside = (x / width) ** 2 + y**2 < 0.12
    return np.where(inside[..., None], (210, 160, 130), (56, 56, 56)).astype(np.uint8)


def _work(context: Context, heads: list, fraction: float = 0.0) -> None:
    bad = (os.environ.get("FAKE_BAD") or "").split(";")
    for head in heads:
        if str(head) in bad:
            raise ReconstructionError("The model gives no surface for this head.", "Take another.")
    seconds = float(os.environ.get("FAKE_SECONDS", "0.1"))
    for tick in range(3):
        context.progress(max(fraction, tick / 3), "making the head")
        time.sleep(seconds / 3)

"""Stand-ins of the three jobs, for tests of the Blender side: a ball with a nose, no networks.

They are copied over engine/jobs/ in a test's own copy of the extension; the worker, the wire and
all else is the real thing. Environment: FAKE_SECONDS (how long a job takes), FAKE_FAIL (a photo's
name: what goes wrong).
"""

from __future__ import annotations

import json
import os
import signal
import time

import numpy as np
from PIL import Image

from .. import cameras
from ..errors import NoFaceError, PhotoError
from .base import Context, Job, Param, Result
from .mesh import QUADS

FIELD_TO_WORLD = cameras.FIELD_TO_BLENDER.copy()
FIELD_TO_WORLD[2, 3] = 0.12


def camera() -> cameras.Camera:
    """Off-centre, rolled a little, on an image that is not square: nothing may be left out."""
    result = cameras.orbit(0.3, 0.1, 1.1, 0.35, width=480, height=640)
    intrinsics = result.intrinsics.copy()
    intrinsics[0, 2], intrinsics[1, 2] = 0.46, 0.55
    roll = np.eye(4)
    roll[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    return cameras.Camera(result.cam2world @ roll, intrinsics, 480, 640, "photo")


def ball(faces: int) -> dict[str, np.ndarray]:
    """A closed ball of about that many triangles, 0.22 high, with a nose towards +z."""
    rows = max(4, int(np.sqrt(faces / 4)))
    columns = 2 * rows
    theta = np.linspace(0, np.pi, rows + 1)[1:-1]
    phi = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    t, p = np.meshgrid(theta, phi, indexing="ij")
    ring = np.stack([np.sin(t) * np.sin(p), np.cos(t), np.sin(t) * np.cos(p)], -1).reshape(-1, 3)
    points = np.concatenate([[[0, 1, 0]], ring, [[0, -1, 0]]])
    nose = np.exp(-np.sum((points - [0, -0.1, 1]) ** 2, 1) / 0.03)
    points = points * (1 + 0.25 * nose[:, None]) * [0.08, 0.11, 0.095]
    index = 1 + np.arange(len(ring)).reshape(-1, columns)
    right = np.roll(index, -1, 1)
    a, b, c, d = index[:-1], index[1:], right[1:], right[:-1]
    last = len(points) - 1
    triangles = np.concatenate(
        [
            np.stack([np.zeros(columns, int), index[0], right[0]], 1),
            np.stack([a, b, c], -1).reshape(-1, 3),
            np.stack([a, c, d], -1).reshape(-1, 3),
            np.stack([np.full(columns, last), right[-1], index[-1]], 1),
        ]
    )
    u = np.arctan2(points[:, 0], points[:, 2]) / (2 * np.pi) + 0.5
    v = 0.5 + 0.5 * points[:, 1] / 0.11
    uvs = np.stack([u, v], 1)[triangles]
    wrap = np.ptp(uvs[..., 0], axis=1) > 0.5
    uvs[wrap, :, 0] = np.where(uvs[wrap, :, 0] < 0.5, 1, uvs[wrap, :, 0])
    return {
        "vertices": points.astype(np.float32),
        "faces": triangles.astype(np.int32),
        "uvs": np.clip(uvs, 0, 1).astype(np.float32),
    }


def meshes(params: dict) -> tuple[dict, dict]:
    """The arrays and the facts that a result has for its topology: the ball, the template of quads
    on the mean head, or both."""
    wanted = params.get("topology", "SURFACE")
    arrays = ball(params["faces"]) | {"texture": texture(params["texture_size"])}
    if wanted == "SURFACE":
        return arrays, {}
    from ..headspace.quad import load_quads
    from ..surface.eyeball import ball as globe

    space = load_quads()
    unit, faces, uvs = globe()
    eyes = np.stack([centre + radius * unit for *centre, radius in space.eye_mean])
    quads = {
        "quad_vertices": space.mean,
        "quad_faces": space.quads,
        "quad_uvs": space.uvs,
        "quad_texture": texture(params["texture_size"]),
        "quad_shapes": space.shapes,
        "eye_vertices": eyes.astype(np.float32),
        "eye_faces": faces,
        "eye_uvs": uvs,
        "eye_texture": texture(64),
    }
    facts = {"shapes": list(space.names), "eyes": space.eye_mean.tolist()}
    return (quads if wanted == "QUAD" else arrays | quads), {"quad": facts}


def texture(size: int) -> np.ndarray:
    """Skin with two eyes, smooth noise so that it does not compress to nothing."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    noise = np.random.default_rng(0).normal(0, 4, (size, size, 1)).astype(np.float32)
    skin = np.stack([200 - 30 * y, 150 - 30 * y, 125 - 25 * y], -1) + noise
    for side in (-0.06, 0.06):
        skin[((x - 0.5 - side) ** 2 + (y - 0.42) ** 2) < 0.02**2] = (40, 40, 60)
    skin[((x - 0.5) ** 2 / 4 + (y - 0.7) ** 2) < 0.015**2] = (160, 70, 70)
    return np.clip(skin, 0, 255).astype(np.uint8)


def _work(context: Context, image: np.ndarray, steps: tuple[str, ...]) -> None:
    seconds = float(os.environ.get("FAKE_SECONDS", "0.3"))
    ticks = max(len(steps), int(seconds / 0.1))
    for tick in range(ticks):
        context.progress(
            tick / ticks, steps[tick * len(steps) // ticks], seconds * (1 - tick / ticks)
        )
        if tick % 3 == 0:
            context.preview(image[:: 64 // (1 + 63 * tick // ticks)][:256, :256])
        time.sleep(seconds / ticks)


def _reconstruct(params: dict, context: Context) -> Result:
    name = os.path.splitext(os.path.basename(params["photo"]))[0]
    if not os.path.isfile(params["photo"]):
        raise PhotoError(f"The photo {params['photo']} does not exist.", "Pick another one.")
    if name == "nobody" and not params["points"]:
        raise NoFaceError("No face was found in the photo.", "Place the points by hand.")
    _work(context, texture(256), ("reading the photo", "finding the face", "fitting", "baking"))
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    mesh, facts = meshes(params)
    if name == "broken":
        mesh["faces"][0, 0] = 10**7
    y, x = np.mgrid[0:640, 0:480]
    photo = np.stack([x * 255 // 480, y * 255 // 640, (x + y) % 256], -1).astype(np.uint8)
    field = np.random.default_rng(params["seed"]).integers(0, 256, 3_000_001, np.uint8)
    meta = {
        "name": name,
        "metres_per_unit": 1.0,
        "field_to_world": [float(v) for v in FIELD_TO_WORLD.ravel()],
        "camera": camera().to_json(),
        "preset": params["preset"],
        "seed": params["seed"],
        "timings": {"fitting": 12.5},
        "figures": {"photo_psnr_db": 24.3, "silhouette_iou": 0.94},
        "versions": {"triplane": "0.1.0"},
    } | facts
    return Result(meta, mesh | {"photo": photo, "field": field})


def _object(params: dict, context: Context) -> Result:
    """The ball, scaled; what the mask's file holds is told in the meta's warnings."""
    if not os.path.isfile(params["photo"]):
        raise PhotoError(f"{params['photo']} does not exist.", "Choose a picture file.")
    _work(context, texture(256), ("cutting the object out", "making the field", "baking"))
    warnings = []
    if params["mask"]:
        with Image.open(params["mask"]) as mask:
            values = np.asarray(mask.convert("L"))
            rows, columns = np.nonzero(values > 127)
            box = [int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())]
            warnings.append(f"mask {mask.size[0]} x {mask.size[1]}, white {box}")
    mesh = ball(params["faces"])
    scale = params["size"] / float(np.ptp(mesh["vertices"], 0).max())
    matrix = cameras.FIELD_TO_BLENDER @ np.diag([scale, scale, scale, 1.0])
    matrix[2, 3] = -float(mesh["vertices"][:, 1].min()) * scale
    meta = {
        "kind": "object",
        "name": os.path.splitext(os.path.basename(params["photo"]))[0],
        "model": params["model"] or "first",
        "noncommercial": True,
        "metres_per_unit": scale,
        "field_to_world": [float(v) for v in matrix.ravel()],
        "camera": camera().to_json(),
        "warnings": warnings,
        "timings": {"baking": 1.5},
        "figures": {"photo_psnr_db": 21.0, "silhouette_iou": 0.9},
        "versions": {"triplane": "0.1.0"},
    }
    photo = np.dstack([texture(640)[:, :480], np.full((640, 480), 200, np.uint8)])
    arrays = {"texture": texture(params["texture_size"]), "photo": photo}
    return Result(meta, mesh | arrays | {"field": np.arange(100_000).astype(np.uint8)})


def _extract(params: dict, context: Context) -> Result:
    size = os.path.getsize(params["field"])
    if params["photo"]:
        view = cameras.from_json(json.loads(params["camera"]))
        with Image.open(params["photo"]) as photo:
            assert photo.size == (view.width, view.height)
    _work(context, texture(64), ("extracting",))
    arrays, facts = meshes(params)
    return Result({"field_size": size} | facts, arrays)


def _render(params: dict, context: Context) -> Result:
    view = cameras.from_json(json.loads(params["camera"]))
    _work(context, texture(64), ("rendering",))
    pixels, _ = view.project(np.zeros((1, 3)))
    image = np.zeros((view.height, view.width, 4), np.uint8)
    outline, _ = view.project(ball(400000)["vertices"].astype(float))
    columns, rows = np.clip(outline, 0, [view.width - 1, view.height - 1]).astype(int).T
    for row in np.unique(rows):  # the outline has no dents sideways
        inside = columns[rows == row]
        image[row, inside.min() : inside.max() + 1, 3] = 255
    u, v = pixels[0].astype(int)  # a white spot where the field's origin is seen
    image[max(0, v - 1) : v + 2, max(0, u - 1) : u + 2] = 255
    return Result({}, {"image": image})


_MESH = (
    Param("faces", int, 40000, "triangles", "", 1000, 500000),
    Param("texture_size", int, 2048, "texture", "pixels", 256, 8192),
    *QUADS,
)
RECONSTRUCT = Job(
    "reconstruct",
    "A ball instead of a head.",
    (
        Param("photo", str, "", "photo"),
        Param("preset", str, "balanced", "preset"),
        Param("method", str, "auto", "method"),
        Param("model", str, "built-in", "model"),
        Param("models", str, "", "folder"),
        Param("face_index", int, 0, "face", "", 0, 99),
        Param("points", float, (), "points", "pixels", size=10),
        *_MESH,
        Param("seed", int, 0, "seed", "", 0),
        Param("refine_steps", int, -1, "steps", "", -1, 10000),
    ),
    _reconstruct,
)
OBJECT = Job(
    "object",
    "A ball instead of a thing.",
    (
        Param("photo", str, "", "photo"),
        Param("mask", str, "", "mask"),
        Param("model", str, "", "model"),
        Param("models", str, "", "folder"),
        Param("size", float, 0.3, "size", "m", 0.001, 1000.0),
        *_MESH,
    ),
    _object,
)
EXTRACT = Job(
    "extract",
    "The ball again.",
    (
        Param("field", str, "", "field file"),
        Param("photo", str, "", "photo file"),
        Param("camera", str, "", "the photo's camera as JSON"),
        *_MESH,
    ),
    _extract,
)
RENDER = Job(
    "render",
    "The ball's outline in alpha, and a spot.",
    (Param("field", str, "", "field file"), Param("camera", str, "", "camera as JSON")),
    _render,
)

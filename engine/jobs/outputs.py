"""A result as files in a folder, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engine import cameras
from engine.errors import OutputError
from engine.fields.io import load_field
from engine.jobs.base import Result
from engine.surface.export import (
    encode_png,
    glb_bytes,
    obj_files,
    quad_obj_files,
    write_whole,
)
from engine.surface.mesh import Mesh
from engine.surface.sheet import contact_sheet, head_sheet


def write_outputs(result: Result, folder: Path) -> dict[str, Path]:
    """Writes what the result holds into `folder` (made if it is missing) and returns the paths:
    head.glb, head.obj (+ .mtl, .png), quads.obj (+ .mtl, .png; a clean mesh of quads, the eyeballs
    with it, and without its shape keys), head.safetensors (the field), sheet.png, front.png (a
    sampled head's picture), cutout.png (an object's; its other files are named object.*),
    image.png, seed_0003.png (a gallery's), heads_0001.png (a path's), report.json.
    Raises OutputError; then nothing new is left, no folder either."""
    arrays, meta = result.arrays, result.meta
    files: dict[str, tuple[Path, bytes]] = {}
    name = re.sub(r"[^\w.-]+", "_", str(meta.get("name", "head"))) or "head"
    kind = "object" if meta.get("kind") == "object" else "head"
    if "vertices" in arrays:
        mesh = Mesh(arrays["vertices"], arrays["faces"], arrays["uvs"], arrays["texture"])
        world = np.array(meta["field_to_world"]).reshape(4, 4)
        files["glb"] = folder / f"{kind}.glb", glb_bytes(mesh, world, name)
        for path, data in obj_files(mesh, folder / f"{kind}.obj", world).items():
            files[path.suffix[1:]] = path, data
        if "crop" in arrays:
            # A sheet of the fields of added models takes minutes on a processor.
            own = kind == "head" and "model" not in meta
            field = load_field(arrays["field"].tobytes()) if own else None
            sheet = head_sheet(arrays["crop"], mesh, field, cameras.from_json(meta["crop_camera"]))
            files["sheet"] = folder / "sheet.png", encode_png(sheet)
        elif "recipe" in meta:
            sheet = head_sheet(arrays["photo"], mesh, None, cameras.from_json(meta["camera"]))
            files["sheet"] = folder / "sheet.png", encode_png(sheet)
            files["front"] = folder / "front.png", encode_png(arrays["photo"])
    if "quad_vertices" in arrays:
        files |= _quads(arrays, np.array(meta["field_to_world"]).reshape(4, 4), folder)
    if "images" in arrays:
        names = [f"seed {seed}" for seed in meta["seeds"]]
        sheet = contact_sheet(arrays["images"], names)
        files["sheet"] = folder / "sheet.png", encode_png(sheet)
        for seed, image in zip(meta["seeds"], arrays["images"]):
            files[f"seed_{seed:04d}"] = folder / f"seed_{seed:04d}.png", encode_png(image)
    for frame, image in enumerate(arrays.get("frames", ()), 1):
        files[f"frame_{frame:04d}"] = folder / f"{name}_{frame:04d}.png", encode_png(image)
    if "field" in arrays:
        files["field"] = folder / f"{kind}.safetensors", arrays["field"].tobytes()
    if "cutout" in arrays:
        files["cutout"] = folder / "cutout.png", encode_png(arrays["cutout"])
    if "image" in arrays:
        files["image"] = folder / "image.png", encode_png(arrays["image"])
    report = json.dumps(meta, indent=1, sort_keys=True).encode()
    files["report"] = folder / "report.json", report
    with _made(folder):
        write_whole(dict(files.values()))
    return {key: path for key, (path, _) in files.items()}


def _quads(
    arrays: dict[str, np.ndarray], world: np.ndarray, folder: Path
) -> dict[str, tuple[Path, bytes]]:
    parts = [(arrays["quad_vertices"], arrays["quad_faces"], arrays["quad_uvs"], "head")]
    for vertices, name in zip(arrays["eye_vertices"], ("eye_left", "eye_right"), strict=True):
        parts.append((vertices, arrays["eye_faces"], arrays["eye_uvs"], name))
    pictures = {"head": arrays["quad_texture"], "eye": arrays["eye_texture"]}
    made = quad_obj_files(parts, pictures, folder / "quads.obj", world)
    return {path.name: (path, data) for path, data in made.items()}


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder, made with its parents if it is missing; those made go again after an error."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]  # deepest first
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"The folder {folder.name} cannot be made: {error.strerror}.",
                "Choose a folder that can be written to.",
            ) from error
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):  # never made, or somebody put something into it
                path.rmdir()
        raise

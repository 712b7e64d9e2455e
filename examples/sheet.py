"""Draws sheet.png of a head that lies in files: what examples/demo.py calls, in a process of its
own, because Blender's process shall load no torch.

    python examples/sheet.py FOLDER SHEET.png

FOLDER holds mesh.npz (vertices in field space, faces, uvs, texture), field.safetensors, photo.png
(upright) and camera.json (the photo's camera in field space).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from engine import cameras
from engine.cameras import Camera
from engine.fields.io import load_field
from engine.surface.export import encode_png, write_whole
from engine.surface.mesh import Mesh
from engine.surface.sheet import TILE, head_sheet

MARGIN = 0.12  # of the head's larger side, left around it in the photo's crop
SIZE = 512  # side of the crop, pixels


def crop_around(
    photo: Image.Image, camera: Camera, points: np.ndarray
) -> tuple[np.ndarray, Camera]:
    """A square of the photo around what `points` [N, 3] (field space) cover in it, and its camera.

    The sheet's pictures are squares, the photo need not be one. The square keeps inside the photo
    where it can; what lies beyond is paper. Returns uint8 [SIZE, SIZE, 3] and the camera.
    """
    pixels, _ = camera.project(points.astype(np.float64))
    low, high = pixels.min(0), pixels.max(0)
    side = float((high - low).max() * (1 + 2 * MARGIN))
    room = np.array(photo.size) - side
    corner = (low + high) / 2 - side / 2
    left, top = np.where(room >= 0, corner.clip(0, room.clip(0)), corner)
    scale = SIZE / side
    crop = photo.transform(
        (SIZE, SIZE),
        Image.Transform.AFFINE,
        (1 / scale, 0, left, 0, 1 / scale, top),
        Image.Resampling.BICUBIC,
        fillcolor=TILE,
    )
    move = np.array([[scale, 0, -left * scale], [0, scale, -top * scale], [0, 0, 1]])
    return np.asarray(crop), camera.transformed_image(move, SIZE, SIZE)


def main(folder: Path, target: Path) -> None:
    """Read the head in `folder`, write the sheet to `target`."""
    with np.load(folder / "mesh.npz", allow_pickle=False) as file:
        mesh = Mesh(file["vertices"], file["faces"], file["uvs"], file["texture"])
    field = load_field(folder / "field.safetensors")
    with Image.open(folder / "photo.png") as image:
        photo = image.convert("RGB")
    camera = cameras.from_json(json.loads((folder / "camera.json").read_text()))
    crop, front = crop_around(photo, camera.resized(*photo.size), mesh.vertices)
    write_whole({target: encode_png(head_sheet(crop, mesh, field, front))})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

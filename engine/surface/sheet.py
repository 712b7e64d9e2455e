"""The sheet: the photo beside the head from all round, in three rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from engine.cameras import Camera
from engine.surface.draw import draw_grey, draw_textured, over
from engine.surface.mesh import Mesh
from engine.surface.metrics import ring

if TYPE_CHECKING:
    from engine.fields.base import Field

PAPER, TILE, INK = (236, 236, 234), (212, 213, 214), (70, 72, 76)
GAP, LABEL = 8, 24


def _field_picture(field: Field, camera: Camera, check: Callable[[], None]) -> np.ndarray:
    with torch.no_grad():
        render = field.render(camera, check)
    shape = (camera.height, camera.width)
    image = render.image.float().cpu().numpy().reshape(*shape, 3)
    alpha = render.alpha.float().cpu().numpy().reshape(*shape, 1)
    mixed = image + (1 - alpha) * np.array(TILE, np.float32) / 255
    return (mixed.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def head_sheet(
    photo: np.ndarray,
    mesh: Mesh,
    field: Field | None,
    camera_front: Camera,
    yaws: Sequence[float] = (-60, -30, 0, 30, 60, 180),
    tile: int = 384,
    check: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """The sheet as uint8 [h, w, 3].

    photo: uint8 [H, W, 3], the crop that camera_front sees. mesh: with uvs and texture. Left, the
    photo and the head through the photo's camera; then a column a yaw (degrees; 0 is the face,
    positive sees the subject's left side). Rows: the textured mesh, the mesh in flat grey, the
    field's own renders (left out without a field). tile: pixels a picture. check: called between
    pictures.
    """
    front = camera_front.resized(tile, tile)
    crop = Image.fromarray(photo).resize((tile, tile), Image.Resampling.LANCZOS)
    columns: list[tuple[str, list[np.ndarray]]] = []
    views = [("photo", front), *zip((f"{y:g}°" for y in yaws),
                                    ring(mesh, yaws, tile), strict=True)]  # fmt: skip
    for name, camera in views:
        check()
        first = np.asarray(crop) if camera is front else over(draw_textured(mesh, camera), TILE)
        check()
        grey = over(draw_grey(mesh, camera), TILE)
        rendered = [_field_picture(field, camera, check)] if field is not None else []
        columns.append((name, [first, grey, *rendered]))
    rows = ("mesh, textured", "mesh, untextured", "field")[: len(columns[0][1])]

    width = LABEL + len(columns) * (tile + GAP) + 2 * GAP
    height = LABEL + len(rows) * (tile + GAP) + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for c, (name, pictures) in enumerate(columns):
        # The photo's column stands a little apart from the turntable.
        x = LABEL + c * (tile + GAP) + (GAP if c else 0)
        draw.text((x + tile / 2, LABEL / 2 + 2), name, INK, font, anchor="mm")
        for r, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (x, LABEL + r * (tile + GAP)))
    for r, name in enumerate(rows):
        strip = Image.new("RGB", (tile, LABEL), PAPER)
        ImageDraw.Draw(strip).text((tile / 2, LABEL / 2), name, INK, font, anchor="mm")
        sheet.paste(strip.rotate(90, expand=True), (0, LABEL + r * (tile + GAP)))
    return np.asarray(sheet)


def contact_sheet(
    pictures: Sequence[np.ndarray], names: Sequence[str], columns: int = 0
) -> np.ndarray:
    """Pictures uint8 [H, W, 3] of one size in rows, each over its name, as uint8 [h, w, 3].
    columns: how many beside each other; 0: about as many as there are rows."""
    tall, wide = pictures[0].shape[:2]
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    size = GAP + columns * (wide + GAP), GAP + rows * (tall + LABEL + GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for i, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        x, y = GAP + i % columns * (wide + GAP), GAP + i // columns * (tall + LABEL + GAP)
        sheet.paste(Image.fromarray(picture), (x, y))
        draw.text((x + wide / 2, y + tall + LABEL / 2), name, INK, font, anchor="mm")
    return np.asarray(sheet)

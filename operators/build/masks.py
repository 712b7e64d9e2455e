"""Masks as pictures: an image of the .blend, or splines of Blender's mask editor."""

from __future__ import annotations

import bpy
import numpy as np

STEPS = 24  # straight pieces for each piece of a curve
FINER = 2  # rows and columns for each pixel's, along both sides


def image_pixels(image: bpy.types.Image) -> np.ndarray:
    """uint8 [H, W, 4], row 0 at the top, as painted. Raises ValueError if it holds no pixels."""
    width, height = image.size
    if not width or not height or image.channels not in (1, 3, 4):
        raise ValueError("no pixels")
    flat = np.empty(width * height * image.channels, np.float32)
    image.pixels.foreach_get(flat)
    pixels = flat.reshape(height, width, image.channels)[::-1]
    if image.channels == 1:
        pixels = np.repeat(pixels, 3, 2)
    if pixels.shape[2] == 3:
        pixels = np.concatenate([pixels, np.ones_like(pixels[..., :1])], 2)
    return (np.nan_to_num(pixels).clip(0, 1) * 255 + 0.5).astype(np.uint8)


def mask_pixels(mask: bpy.types.Mask, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3], row 0 at the top: white inside the mask's splines as they are
    drawn over a picture of this size, without feather. Raises ValueError if it has none."""
    out, found = np.zeros((height, width), np.float32), False
    for layer in mask.layers:
        outlines = [_outline(spline) for spline in layer.splines if len(spline.points) > 1]
        if layer.hide or not outlines:
            continue
        found = True
        covers = [_filled(_to_pixels(o, width, height), width, height) for o in outlines]
        covered = covers[0]
        for cover in covers[1:]:  # by this option a spline inside another is a hole
            both = covered * cover
            covered = covered + cover - (2 * both if layer.use_fill_holes else both)
        if layer.invert:
            covered = 1 - covered
        covered = covered * layer.alpha
        if layer.blend in {"SUBTRACT", "MERGE_SUBTRACT"}:
            out = out * (1 - covered)
        else:
            out = np.maximum(out, covered)
    if not found:
        raise ValueError("no splines")
    return np.repeat((out * 255 + 0.5).astype(np.uint8)[..., None], 3, 2)


def _outline(spline) -> np.ndarray:
    """The closed curve's points [N, 2] in the mask's own coordinates."""
    points = list(spline.points)
    t = np.linspace(0, 1, STEPS, endpoint=False)[:, None]
    pieces = []
    for a, b in zip(points, points[1:] + points[:1]):
        p0, p1, p2, p3 = (
            np.array(p[:2], float) for p in (a.co, a.handle_right, b.handle_left, b.co)
        )
        pieces.append(
            (1 - t) ** 3 * p0 + 3 * (1 - t) ** 2 * t * p1 + 3 * (1 - t) * t**2 * p2 + t**3 * p3
        )
    return np.concatenate(pieces)


def _to_pixels(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Mask coordinates (0..1 along the picture's longer side, the shorter one in the middle, y up)
    to pixels (u, v)."""
    longer = max(width, height)
    u = (points[:, 0] - 0.5) * longer + width / 2
    v = height / 2 - (points[:, 1] - 0.5) * longer
    return np.stack([u, v], 1)


def _filled(outline: np.ndarray, width: int, height: int) -> np.ndarray:
    """How much of each pixel lies inside a closed polygon [N, 2]: float32 [height, width] 0..1."""
    rows, columns = height * FINER, width * FINER
    start = outline * FINER
    end = np.roll(start, -1, 0)
    flips = np.zeros((rows, columns + 1), np.int32)
    for (x0, y0), (x1, y1) in zip(start, end):
        if y0 == y1:
            continue
        (x0, y0), (x1, y1) = ((x0, y0), (x1, y1)) if y0 < y1 else ((x1, y1), (x0, y0))
        first, last = max(int(np.ceil(y0 - 0.5)), 0), min(int(np.ceil(y1 - 0.5)), rows)
        crossed = np.arange(first, last)
        x = x0 + (crossed + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        np.add.at(flips, (crossed, np.clip(np.ceil(x - 0.5), 0, columns).astype(int)), 1)
    inside = np.cumsum(flips[:, :-1], 1) & 1
    shape = (height, FINER, width, FINER)
    return inside.reshape(shape).mean((1, 3)).astype(np.float32)

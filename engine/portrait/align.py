"""The square crop around a head that the networks are fed: FFHQ's rule, from five points.

FFHQ (Karras et al. 2019) places an oriented square by the eyes and the mouth: its axis follows
both the line between the eyes and the line from the eyes to the mouth, its size the larger of the
two distances, its centre lies a tenth of the way from the eyes to the mouth. EG3D's own
preprocessing starts from the same five points but crops to its face tracker's mean, which cuts off
hair and chin of many heads; here the whole head is reconstructed, so the wider FFHQ square is the
rule, and the training pictures follow it too (alignment_matrix is shared).

Pixel coordinates are continuous, centres at +0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from engine.portrait.image import Photo

OUTER = 1.4  # side of the wider square that is looked at where hair does not fit in the crop


@dataclass(frozen=True)
class Aligned:
    """A head crop.

    crop: uint8 [size, size, 3] sRGB; beyond the photo's edge its mirror image.
    valid: bool [size, size], true where the photo itself is seen.
    alpha: uint8 [size, size], the photo's own alpha (0 outside it), or None when it has none.
    to_crop: float64 [3, 3], a similarity: photo pixels (u, v, 1) -> crop pixels.
    outer: the square OUTER times as wide about the same middle, half as many pixels a side; None
        for crops that were not made by align().
    """

    crop: np.ndarray
    valid: np.ndarray
    alpha: np.ndarray | None
    to_crop: np.ndarray
    outer: Aligned | None = None


def alignment_matrix(points: np.ndarray, size: int = 512, widen: float = 1.0) -> np.ndarray:
    """FFHQ's alignment: the similarity from picture pixels to pixels of a size x size crop.

    points: [..., 5, 2] pixels: image-left eye, image-right eye, nose, image-left and image-right
        mouth corner. Only the eyes' and the mouth's means and the line of the eyes are used.
    widen: side of the square in FFHQ's. At 1 full hair is cut off at the top; 1.3 holds nearly all.
    Returns float64 [..., 3, 3]: rotation, uniform scale and shift; never a mirror.
    """
    p = np.asarray(points, dtype=np.float64)
    eyes = (p[..., 0, :] + p[..., 1, :]) / 2
    across = p[..., 1, :] - p[..., 0, :]
    down = (p[..., 3, :] + p[..., 4, :]) / 2 - eyes
    # `down` turned by a quarter points across the face: the two agree but for noise and yaw.
    x = across + np.stack([down[..., 1], -down[..., 0]], -1)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    half = widen * np.maximum(  # half the side of the square
        2.0 * np.linalg.norm(across, axis=-1), 1.8 * np.linalg.norm(down, axis=-1)
    )
    centre = eyes + 0.1 * down
    scale = size / (2.0 * half)
    out = np.zeros((*p.shape[:-2], 3, 3))
    out[..., 0, 0] = out[..., 1, 1] = scale * x[..., 0]
    out[..., 0, 1] = scale * x[..., 1]
    out[..., 1, 0] = -scale * x[..., 1]
    moved = (out[..., :2, :2] @ centre[..., None])[..., 0]
    out[..., :2, 2] = size / 2.0 - moved
    out[..., 2, 2] = 1.0
    return out


def align(photo: Photo, points: np.ndarray, size: int = 512, widen: float = 1.0) -> Aligned:
    """Crop a photo to the aligned square around a head.

    points: [5, 2] pixels of the photo; they, size and widen as in alignment_matrix.
    Shrinking is antialiased, enlarging is bicubic.
    """
    to_crop = alignment_matrix(points, size, widen)
    middle = np.array([[1, 0, size / 4], [0, 1, size / 4], [0, 0, 1.0]])
    shrink = np.diag([0.5 / OUTER, 0.5 / OUTER, 1.0])
    back = np.array([[1, 0, -size / 2], [0, 1, -size / 2], [0, 0, 1.0]])
    outer = cut(photo, middle @ shrink @ back @ to_crop, size // 2)
    return replace(cut(photo, to_crop, size), outer=outer)


def cut(photo: Photo, to_crop: np.ndarray, size: int) -> Aligned:
    """The square of a photo that a similarity [3, 3] takes to a crop's size x size pixels."""
    crop = _resample(photo.rgb, to_crop, size, mirror=True)
    alpha = None
    if photo.alpha is not None:
        alpha = _resample(photo.alpha[..., None], to_crop, size, mirror=False)[..., 0]
    u, v = _photo_positions(to_crop, size, 1)
    valid = (u >= 0) & (u <= photo.width) & (v >= 0) & (v <= photo.height)
    return Aligned(crop, valid, alpha, to_crop)


def _photo_positions(to_crop: np.ndarray, size: int, over: int) -> tuple[np.ndarray, np.ndarray]:
    """Where in the photo the centres of a crop's pixels lie, each divided into over x over."""
    back = np.linalg.inv(to_crop)
    centres = (np.arange(size * over) + 0.5) / over
    x, y = np.meshgrid(centres, centres)
    u = back[0, 0] * x + back[0, 1] * y + back[0, 2]
    v = back[1, 0] * x + back[1, 1] * y + back[1, 2]
    return u, v


def _resample(image: np.ndarray, to_crop: np.ndarray, size: int, mirror: bool) -> np.ndarray:
    """uint8 [size, size, C] of a uint8 [H, W, C] picture; outside it its mirror image or zeros.

    Only the part under the crop is read. It is averaged over blocks until at most two of its pixels
    fall on one of the crop's, then sampled at 2 x 2 places a pixel and averaged: no aliasing at any
    scale, and no copy of a large photo in floating point.
    """
    height, width, channels = image.shape
    shrink = 1.0 / math.hypot(to_crop[0, 0], to_crop[0, 1])  # photo pixels per crop pixel
    block = max(1, math.floor(shrink))
    over = 2 if shrink > 1.0 else 1
    u, v = _photo_positions(to_crop, size, over)

    margin = 4 * block
    x0, x1 = _part(float(u.min()), float(u.max()), width, margin, block)
    y0, y1 = _part(float(v.min()), float(v.max()), height, margin, block)
    part = image[y0:y1, x0:x1]
    if block > 1:
        planes = [Image.fromarray(np.ascontiguousarray(part[..., c])) for c in range(channels)]
        part = np.stack([np.array(plane.reduce(block)) for plane in planes], -1)
    source = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1)[None].float()

    rows, columns = part.shape[0] * block, part.shape[1] * block  # the last block may be incomplete
    grid = np.stack([(u - x0) / columns, (v - y0) / rows], -1) * 2 - 1
    out = F.grid_sample(
        source,
        torch.from_numpy(grid[None].astype(np.float32)),
        mode="bicubic",
        padding_mode="reflection" if mirror else "zeros",
        align_corners=False,
    )
    out = F.avg_pool2d(out, over)[0].permute(1, 2, 0)
    return out.clamp(0, 255).round().to(torch.uint8).numpy()


def _part(low: float, high: float, length: int, margin: int, block: int) -> tuple[int, int]:
    """The range of a photo's columns or rows to read: whole blocks around low..high, inside the
    photo and never empty (a crop beside the photo mirrors its nearest edge)."""
    start = min(max(math.floor(low) - margin, 0), max(length - 2 * margin, 0)) // block * block
    end = max(min(math.ceil(high) + margin, length), min(start + 2 * margin, length))
    return start, end

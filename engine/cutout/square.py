"""The cut-out as a model for objects wants it: in the middle of a square, on one grey."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from engine.cutout.cutout import Cutout

LARGEST = 1024  # pixels a side: more than any model looks at


@dataclass(frozen=True)
class Square:
    """rgb: uint8 [S, S, 3], composited; alpha: float32 [S, S]; to_square: [3, 3], pixels of the
    photo (u, v, 1) to pixels of the square, both with centres at + 0.5."""

    rgb: np.ndarray
    alpha: np.ndarray
    to_square: np.ndarray


def recentre(cut: Cutout, ratio: float, background: float, largest: int = LARGEST) -> Square:
    """The object's box in the middle of a square whose side is its longer side / ratio, before a
    grey of level `background` 0..1: as TripoSR's script does (ratio 0.85, level 0.5; there the
    last row and column of the box are lost, here they are kept) and OpenLRM's (white). Like
    TripoSR's, the composited picture is truncated, not rounded, to 8 bits.

    Squares of more than `largest` pixels a side are scaled down."""
    left, top, right, bottom = cut.box
    width, height = right - left, bottom - top
    side = max(int(max(width, height) / ratio), max(width, height))
    scale = min(1.0, largest / side)
    size = max(int(side * scale + 0.5), 1)
    scale = size / side
    x, y = left - (side - width) // 2, top - (side - height) // 2

    alpha = cut.alpha[top:bottom, left:right, None]
    level = np.float32(background)
    placed = np.empty((side, side, 4), np.float32)
    placed[..., :3], placed[..., 3] = level, 0
    inside = placed[top - y : bottom - y, left - x : right - x]
    colour = cut.rgb[top:bottom, left:right].astype(np.float32) / 255
    inside[..., :3] = colour * alpha + level * (1 - alpha)
    inside[..., 3:] = alpha
    if size != side:
        box = (Image.fromarray(placed[..., c]) for c in range(4))
        small = [np.asarray(c.resize((size, size), Image.Resampling.BOX)) for c in box]
        placed = np.stack(small, -1)
    to_square = np.array([[scale, 0, -x * scale], [0, scale, -y * scale], [0, 0, 1.0]])
    rgb = (placed[..., :3].clip(0, 1) * 255 + 1e-3).astype(np.uint8)
    return Square(rgb, placed[..., 3].clip(0, 1), to_square)

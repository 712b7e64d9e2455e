"""The object of a photo, apart from its background: by the photo's alpha, by a mask, or found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image
from scipy import ndimage

from engine.cutout.find import find_object
from engine.errors import PhotoError
from engine.portrait.image import Photo, load_photo

TRANSPARENT = 0.01  # part of a photo from which on its alpha is taken for a cut-out
SAME_SHAPE = 0.02  # how far the mask's aspect may be off the photo's
LEAST_SIDE = 32  # pixels of the object's longer side
FAINT = 13 / 255  # alpha up to which a pixel is haze
TOUCHES = 0.02  # part of a side's pixels with object on them, from which on it is cut off there
REACH = 0.01  # how far colours are carried outwards under soft edges, part of the longer side

Source = Literal["alpha", "mask", "found"]


@dataclass(frozen=True)
class Cutout:
    """rgb: uint8 [H, W, 3], straight, the background's light taken out of soft edges; alpha:
    float32 [H, W] 0..1; source: what told them apart; warnings: sentences for the artist."""

    rgb: np.ndarray
    alpha: np.ndarray
    source: Source
    warnings: tuple[str, ...] = ()

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of what is more than haze, in pixels; right and bottom are
        the first outside."""
        rows = np.flatnonzero((self.alpha > FAINT).any(1))
        columns = np.flatnonzero((self.alpha > FAINT).any(0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def cut_out(photo: Photo, mask: str = "", check: Callable[[], None] = lambda: None) -> Cutout:
    """The object of a photo.

    mask: path of a picture that is white, or opaque, where the object is; it rules over all else.
    Without one the photo's own alpha decides where it has any, else find_object.
    check: called between steps, may raise to cancel.
    Raises PhotoError where there is no object, several, or one that is too small.
    """
    if mask:
        cut = Cutout(photo.rgb, read_mask(mask, photo.width, photo.height), "mask")
        if cut.alpha.max() <= 0.5:
            raise PhotoError("The mask is empty.", "Paint the object white in it.")
    elif photo.alpha is not None and (photo.alpha < 128).mean() >= TRANSPARENT:
        cut = Cutout(photo.rgb, photo.alpha.astype(np.float32) / 255, "alpha")
        if cut.alpha.max() <= 0.5:
            raise PhotoError("The picture is transparent all over.", "Choose another picture.")
    else:
        alpha = find_object(photo.rgb, check).alpha
        cut = Cutout(_without_background(photo.rgb, alpha), alpha, "found")
    left, top, right, bottom = cut.box
    if max(right - left, bottom - top) < LEAST_SIDE:
        raise PhotoError(
            f"The object is only {right - left} x {bottom - top} pixels large.",
            "Choose a larger picture, or crop it to the object.",
        )
    if (cut.alpha > 0.5).mean() > 0.995:
        raise PhotoError(
            "The mask covers the whole picture."
            if cut.source == "mask"
            else "The object fills the whole picture: there is no outline.",
            "Leave out what is not the object, or choose a picture with space around it.",
        )
    return replace(cut, warnings=tuple(_warnings(cut)))


def read_mask(path: str, width: int, height: int) -> np.ndarray:
    """Alpha float32 [height, width] 0..1 of a mask picture: its own alpha where it has any, else
    its brightness; resized to the photo's pixels. Raises PhotoError."""
    mask = load_photo(path)
    aspect = mask.width / mask.height * height / width
    if abs(aspect - 1) > SAME_SHAPE:
        raise PhotoError(
            f"The mask has another shape ({mask.width} x {mask.height} pixels) than the photo"
            f" ({width} x {height}).",
            "Paint it over the same picture.",
        )
    values = mask.alpha
    if values is None:
        values = np.asarray(Image.fromarray(mask.rgb).convert("L"))
    shrunk = mask.width >= width
    way = Image.Resampling.BOX if shrunk else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(values).resize((width, height), way)).astype(np.float32) / 255


def _warnings(cut: Cutout) -> list[str]:
    solid = cut.alpha > 0.5
    sides = {"left": solid[:, 0], "right": solid[:, -1], "top": solid[0], "bottom": solid[-1]}
    cut_off = [name for name, line in sides.items() if line.mean() > TOUCHES]
    out = []
    if cut_off:
        where = " and ".join(cut_off)
        out.append(f"The object reaches beyond the photo ({where}): what is not seen is guessed.")
    pieces, count = ndimage.label(solid)
    areas = np.sort(np.bincount(pieces.ravel())[1:])[::-1] if count else []
    if cut.source != "found" and len(areas) > 1 and areas[1] > 0.3 * areas[0]:
        out.append("The cut-out has several parts: only the largest part of the shape is kept.")
    return out


def _without_background(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """rgb [H, W, 3] with the object's own colours, from further inside, under its soft edge: what
    the photo shows there is half background, and would be a rim on any other."""
    reach = max(REACH * max(alpha.shape), 2.0)
    soft = (alpha > 0) & (alpha < 0.98)
    if not soft.any():
        return rgb
    rows, columns = np.nonzero(alpha > 0)
    margin = int(3 * reach) + 1
    y, x = max(rows.min() - margin, 0), max(columns.min() - margin, 0)
    window = np.s_[y : rows.max() + margin + 1, x : columns.max() + margin + 1]
    part = rgb[window].astype(np.float32)
    sure = (alpha[window] >= 0.98).astype(np.float32)
    weight = ndimage.gaussian_filter(sure, reach) + 1e-6
    inner = np.stack([ndimage.gaussian_filter(part[..., c] * sure, reach) for c in range(3)], -1)
    share = alpha[window][..., None] ** 2 * (weight[..., None] > 1e-3)
    share = np.where(weight[..., None] > 1e-3, share, 1.0)  # nothing sure is near: as it is
    mixed = part * share + inner / weight[..., None] * (1 - share)
    out = rgb.copy()
    region = soft[window]
    out[window][region] = (mixed[region] + 0.5).clip(0, 255).astype(np.uint8)
    return out

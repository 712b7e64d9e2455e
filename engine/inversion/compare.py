"""Ways to invert one photo side by side: what each makes of it, how far off, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from engine.cameras import Camera, orbit
from engine.fields.base import Field
from engine.inversion.quality import Quality
from engine.portrait.align import Aligned
from engine.portrait.matte import Matte
from engine.surface.metrics import psnr

YAWS = (-60, -30, 30, 60, 180)  # degrees; positive sees the subject's left side
DISTANCE, FOV = 4.6, 0.35  # of the views' cameras, in half the field's box, and their angle
PAPER, TILE, INK = (236, 236, 234), (212, 213, 214), (70, 72, 76)
GAP, LABEL = 8, 24
WORST = 0.35  # the error that is drawn brightest
HEAT = np.array([[0, 0, 0], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]])


@dataclass(frozen=True)
class Entry:
    """One method's row: source view, error map and the views at YAWS, uint8 [S, S, 3] each; psnr:
    dB of the field through the photo's camera over the matte; seconds: of the clock, from the
    aligned crop to the field."""

    method: str
    seconds: float
    quality: Quality
    psnr: float
    source: np.ndarray
    error: np.ndarray
    views: list[np.ndarray]


def timed(make: Callable[[], object]) -> tuple[object, float]:
    """What `make` returns, and the seconds that it took."""
    begun = time.perf_counter()
    made = make()
    return made, time.perf_counter() - begun


@torch.no_grad()
def entry(
    method: str,
    field: Field,
    camera: Camera,
    matte: Matte,
    aligned: Aligned,
    quality: Quality,
    seconds: float,
    size: int = 256,
    check: Callable[[], None] = lambda: None,
) -> Entry:
    """The row of a field that was made of an aligned crop, which `camera` sees. Where clothes or
    the photo's edge hide the head there is no error."""
    source, alpha = picture(field, camera.resized(size, size), check)
    photo = np.asarray(_resized(aligned.crop, size))
    mask = np.asarray(_resized(matte.alpha, size)) > 0.5
    known = np.asarray(_resized((aligned.valid & ~matte.clothes).astype(np.float32), size)) > 0.5
    views = [picture(field, around(field, yaw, size), check)[0] for yaw in YAWS]
    off = np.abs(source.astype(float) - photo).mean(-1) / 255
    return Entry(
        method,
        seconds,
        quality,
        psnr(source, photo, mask),
        source,
        heat(np.where((mask | (alpha > 0.5)) & known, off, 0) / WORST),
        views,
    )


def around(field: Field, yaw: float, size: int) -> Camera:
    """A camera on a circle about the field's middle, `yaw` degrees from the front."""
    low, high = field.bounds.cpu().numpy().astype(float)
    middle, half = (low + high) / 2, float((high - low).max() / 2)
    return orbit(np.radians(yaw), 0.0, DISTANCE * half, FOV, middle, size, size)


def heat(value: np.ndarray) -> np.ndarray:
    """Numbers [H, W] in 0..1 as colours uint8 [H, W, 3], from black over red to yellow."""
    at = np.linspace(0, 1, len(HEAT))
    value = value.clip(0, 1)
    return np.stack([np.interp(value, at, HEAT[:, c]) for c in range(3)], -1).astype(np.uint8)


def draw(photo: np.ndarray, entries: Sequence[Entry], title: str = "photo") -> np.ndarray:
    """The sheet, uint8 [H, W, 3]: the photo's crop uint8 [S, S, 3] on the left, and a row a method:
    its name, seconds and score; the source view; the error map; the views at YAWS."""
    tile = entries[0].source.shape[0]
    heads = ["source view", "error", *(f"{yaw:+d}°" if abs(yaw) < 180 else "180°" for yaw in YAWS)]
    side = max(146, tile // 2)
    width = GAP + tile + GAP + side + len(heads) * (tile + GAP)
    sheet = Image.new("RGB", (width, LABEL + len(entries) * (tile + GAP) + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    small, large = ImageFont.load_default(13), ImageFont.load_default(17)
    sheet.paste(Image.fromarray(photo).resize((tile, tile), Image.Resampling.LANCZOS), (GAP, LABEL))
    pen.text((GAP + tile / 2, LABEL / 2), title, INK, small, anchor="mm")
    left = GAP + tile + GAP + side
    for c, head in enumerate(heads):
        pen.text((left + c * (tile + GAP) + tile / 2, LABEL / 2), head, INK, small, anchor="mm")
    for r, row in enumerate(entries):
        y = LABEL + r * (tile + GAP)
        x = left - side
        pen.text((x, y + 6), row.method, INK, large)
        facts = f"{row.seconds:.1f} s", f"{row.psnr:.1f} dB", f"quality {row.quality.score:.0%}"
        for k, fact in enumerate(facts):
            pen.text((x, y + 32 + 18 * k), fact, INK, small)
        for c, picture in enumerate((row.source, row.error, *row.views)):
            sheet.paste(Image.fromarray(picture), (left + c * (tile + GAP), y))
    return np.asarray(sheet)


def _resized(picture: np.ndarray, size: int) -> Image.Image:
    return Image.fromarray(picture).resize((size, size), Image.Resampling.BOX)


@torch.no_grad()
def picture(
    field: Field, camera: Camera, check: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray]:
    """What a camera sees, over TILE uint8 [H, W, 3], and its alpha float [H, W]."""
    seen = field.render(camera, check)
    shape = camera.height, camera.width
    alpha = seen.alpha.float().cpu().numpy().reshape(shape)
    image = seen.image.float().cpu().numpy().reshape(*shape, 3)
    image = image + (1 - alpha[..., None]) * np.array(TILE) / 255
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8), alpha

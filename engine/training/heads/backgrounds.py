"""What stands behind a portrait: plain walls, gradients, noise, rooms, foliage, shelves, lights.

`backgrounds` is the one place that training takes them from. Everything is made of simple shapes;
nothing comes from a photo, and nothing looks like a person.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

KINDS = {
    "plain": 0.14, "studio": 0.22, "noise": 0.08, "room": 0.16, "foliage": 0.12, "shapes": 0.1,
    "lights": 0.08, "wall": 0.1,
}  # fmt: skip
CANVAS = 128  # shapes are drawn at this size and enlarged: what is behind is out of focus


def backgrounds(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Display colours float32 [count, size, size, 3] in 0..1, each of a random kind."""
    names = list(KINDS)
    p = np.array(list(KINDS.values())) / sum(KINDS.values())
    return np.stack([background(rng, str(rng.choice(names, p=p)), size) for _ in range(count)])


def background(rng: np.random.Generator, kind: str, size: int) -> np.ndarray:
    """One of a kind (a key of `KINDS`), float32 [size, size, 3] in 0..1. KeyError otherwise."""
    out = _MAKERS[kind](rng)
    if out.shape[0] != size:
        picture = Image.fromarray((out.clip(0, 1) * 255).astype(np.uint8))
        out = np.asarray(picture.resize((size, size), Image.BILINEAR), np.float32) / 255
    # grain of the film, and darker corners
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    corner = 1 - rng.uniform(0, 0.12) * (ramp[:, None] ** 2 + ramp**2)
    return (out * corner[..., None]).clip(0, 1).astype(np.float32)


def _muted(rng: np.random.Generator) -> np.ndarray:
    """A colour as walls and clothes have it: mostly near grey, now and then strong."""
    value = rng.uniform(0.05, 0.95)
    return np.clip(
        value * (1 + rng.normal(size=3) * rng.choice([0.04, 0.12, 0.4], p=[0.5, 0.35, 0.15])), 0, 1
    )


def _tuple(colour: np.ndarray) -> tuple[int, int, int]:
    r, g, b = (int(v) for v in (np.clip(colour, 0, 1) * 255))
    return r, g, b


def _array(picture: Image.Image, blur: float) -> np.ndarray:
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(blur)), np.float32) / 255


def _plain(rng: np.random.Generator) -> np.ndarray:
    return np.broadcast_to(_muted(rng).astype(np.float32), (CANVAS, CANVAS, 3)).copy()


def _studio(rng: np.random.Generator) -> np.ndarray:
    """A paper roll with a pool of light on it, or a gradient."""
    a, b = _muted(rng), _muted(rng) if rng.random() < 0.3 else None
    y, x = np.mgrid[0:CANVAS, 0:CANVAS] / CANVAS
    if b is None:
        b = a * rng.uniform(0.2, 0.8)
    if rng.random() < 0.5:
        r = np.hypot(x - rng.uniform(0.2, 0.8), y - rng.uniform(0.2, 0.8)) / rng.uniform(0.5, 1.1)
    else:
        turn = rng.uniform(0, 2 * np.pi)
        r = (x - 0.5) * np.cos(turn) + (y - 0.5) * np.sin(turn) + 0.5
    t = np.clip(r, 0, 1)[..., None]
    return a * (1 - t) + b * t


def _noise(rng: np.random.Generator) -> np.ndarray:
    out = np.broadcast_to(rng.random(3), (CANVAS, CANVAS, 3)).copy()
    for cells in (2, 4, 9, 22):
        if rng.random() < 0.6:
            small = rng.normal(size=(cells, cells, 3)) * rng.random() * 0.5
            how = Image.BICUBIC if rng.random() < 0.6 else Image.NEAREST
            picture = Image.fromarray(((small / 4 + 0.5).clip(0, 1) * 255).astype(np.uint8))
            big = np.asarray(picture.resize((CANVAS, CANVAS), how), np.float32) / 255
            out = out + (big - 0.5) * 4
    return out


def _room(rng: np.random.Generator) -> np.ndarray:
    """Walls that meet in a corner, a window or a door, frames, a shelf, a lamp."""
    wall = _muted(rng)
    picture = Image.new("RGB", (CANVAS, CANVAS), _tuple(wall))
    draw, n = ImageDraw.Draw(picture), CANVAS
    corner = rng.uniform(-0.3, 1.3) * n
    slant = rng.uniform(-0.1, 0.1) * n
    side = _tuple(wall * rng.uniform(0.6, 0.9))
    draw.polygon([(corner, 0), (n * 2, 0), (n * 2, n), (corner + slant, n)], side)
    if rng.random() < 0.7:
        x, y, w, h = rng.uniform(-0.2, 0.7), rng.uniform(-0.1, 0.3), *rng.uniform(0.25, 0.6, 2)
        bright = np.clip(np.array([0.9, 0.95, 1.0]) * rng.uniform(0.8, 1.15), 0, 1)
        box = [x * n, y * n, (x + w) * n, (y + h) * n]
        draw.rectangle(box, _tuple(bright), _tuple(_muted(rng)), 3)
        middle = (box[0] + box[2]) / 2
        draw.line([(middle, box[1]), (middle, box[3])], _tuple(_muted(rng)), 3)
    for _ in range(rng.integers(0, 6)):
        x, y, w, h = *rng.uniform(-0.1, 0.9, 2), *rng.uniform(0.08, 0.3, 2)
        box = [x * n, y * n, (x + w) * n, (y + h) * n]
        draw.rectangle(box, _tuple(_muted(rng)), _tuple(_muted(rng)), 2)
    if rng.random() < 0.5:  # a shelf with books
        y, x = rng.uniform(0.2, 0.7) * n, 0.0
        tall = rng.uniform(0.1, 0.2) * n
        while x < n:
            w = rng.uniform(2, 7)
            draw.rectangle([x, y - tall * rng.uniform(0.7, 1), x + w, y], _tuple(_muted(rng)))
            x += w
        draw.rectangle([0, y, n, y + 3], _tuple(_muted(rng)))
    return _array(picture, float(rng.choice([0.6, 2, 5])))


def _foliage(rng: np.random.Generator) -> np.ndarray:
    """Leaves in three layers, darker ones behind; grass, hedge or autumn."""
    hue = np.array([[0.25, 0.4, 0.12], [0.3, 0.42, 0.2], [0.55, 0.38, 0.12]][rng.integers(3)])
    picture = Image.new("RGB", (CANVAS, CANVAS), _tuple(hue * rng.uniform(0.2, 1.6)))
    draw = ImageDraw.Draw(picture)
    if rng.random() < 0.5:
        sky = _tuple(np.array([0.7, 0.8, 0.95]) * rng.uniform(0.7, 1.1))
        draw.rectangle([0, 0, CANVAS, rng.uniform(0, 0.6) * CANVAS], sky)
    for layer in (0.4, 0.8, 1.3):
        for _ in range(70):
            x, y = rng.uniform(-5, CANVAS + 5, 2)
            turn, long = rng.uniform(0, 2 * np.pi), rng.uniform(2, 9)
            d = np.array([math.cos(turn), math.sin(turn)]) * long
            side = np.array([-d[1], d[0]]) * 0.35
            at = np.array([x, y])
            colour = hue * layer * (1 + rng.normal() * 0.25) * (1 + rng.normal(size=3) * 0.08)
            points = [tuple(p) for p in (at - d, at + side, at + d, at - side)]
            draw.polygon(points, _tuple(colour))
    return _array(picture, float(rng.choice([0.7, 2, 4])))


def _shapes(rng: np.random.Generator) -> np.ndarray:
    """Anything: rectangles, discs and triangles of all sizes."""
    picture = Image.new("RGB", (CANVAS, CANVAS), _tuple(_muted(rng)))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(8, 45)):
        x, y = rng.uniform(-0.2, 1.1, 2) * CANVAS
        w, h = rng.uniform(3, 60, 2) * rng.random()
        fill = _tuple(_muted(rng))
        kind = rng.integers(3)
        if kind == 0:
            draw.rectangle([x, y, x + w, y + h], fill)
        elif kind == 1:
            draw.ellipse([x, y, x + w, y + h], fill)
        else:
            draw.polygon([(x, y), (x + w, y + h / 3), (x + w / 3, y + h)], fill)
    return _array(picture, float(rng.choice([0.5, 1.5, 4])))


def _lights(rng: np.random.Generator) -> np.ndarray:
    """A street at night, out of focus: discs of light on the dark."""
    dark = _muted(rng) * 0.2
    out = np.broadcast_to(dark, (CANVAS, CANVAS, 3)).copy()
    radius = rng.uniform(2, 9)
    picture = Image.new("RGB", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(10, 50)):
        x, y = rng.uniform(0, CANVAS, 2)
        r = radius * rng.uniform(0.7, 1.2)
        colour = np.array([1, rng.uniform(0.4, 1), rng.uniform(0.1, 0.9)]) * rng.uniform(0.3, 1)
        draw.ellipse([x - r, y - r, x + r, y + r], _tuple(colour))
    return out + _array(picture, 0.8)


def _wall(rng: np.random.Generator) -> np.ndarray:
    """Bricks, tiles, planks or a curtain, seen a little askew."""
    y, x = np.mgrid[0:CANVAS, 0:CANVAS] / CANVAS
    turn = rng.normal() * 0.08
    u, v = x + turn * y, y - turn * x
    cells = rng.uniform(4, 14)
    kind = rng.integers(3)
    if kind == 0:  # rows that are shifted, joints between
        row = np.floor(v * cells)
        column = u * cells * rng.uniform(0.3, 1) + 0.5 * (row % 2)
        joint = (((v * cells) % 1) < 0.1) | ((column % 1) < 0.05)
        tone = np.sin(row * 12.9898 + np.floor(column) * 78.233) * 43758.5453 % 1
        shade = np.where(joint, 0.5, 0.9 + 0.25 * tone)
    elif kind == 1:
        tone = np.sin(np.floor(u * cells) * 91.7) * 4375.85 % 1
        shade = 0.8 + 0.3 * tone - 0.3 * (((u * cells) % 1) < 0.04)
    else:
        shade = 0.85 + 0.25 * np.sin(u * cells * 4 + np.sin(v * 3))
    out = _muted(rng) * shade[..., None]
    return out + rng.normal(size=(CANVAS, CANVAS, 1)) * 0.02


_MAKERS = {
    "plain": _plain, "studio": _studio, "noise": _noise, "room": _room, "foliage": _foliage,
    "shapes": _shapes, "lights": _lights, "wall": _wall,
}  # fmt: skip

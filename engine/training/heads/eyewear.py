"""Glasses of six styles, earrings and collars, made from the posed head (decimetres)."""

from __future__ import annotations

import numpy as np

from engine.training.heads.outfit import Bridge
from engine.training.heads.parts import Part, joined, sweep
from engine.training.heads.sheets import facing, merged, sheet

POINTS = 40  # of a lens's outline


def _outline(style: str, width: float, height: float, side: int) -> np.ndarray:
    """A lens's outline [POINTS, 2] about its middle; side +1: the subject's left."""
    t = np.arange(POINTS) / POINTS * 2 * np.pi
    power = {"round": 2.0, "box": 3.6, "aviator": 2.5, "cat": 2.6, "brow": 2.7, "rimless": 3.0}
    e = 2 / power[style]
    if style == "round":
        height = width = 0.5 * (width + height)
    x = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** e * width / 2
    y = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** e * height / 2
    out = side * x / (width / 2)  # -1 at the nose, 1 at the temple
    low = np.clip(-y / (height / 2), 0, 1)
    if style == "aviator":  # a drop that hangs outwards
        y = np.where(y < 0, y * 1.2, y * 0.9)
        x = x + side * 0.06 * width * low - side * 0.10 * width * low * np.clip(-out, 0, 1)
    if style == "cat":
        y = y + 0.16 * height * np.clip(out, 0, 1) ** 2 * (1 - low)
    if style in ("box", "brow"):
        x = x * (1 - 0.07 * low)
    return np.stack([x, y], 1)


def eyewear(skin: np.ndarray, marks: dict[str, np.ndarray], params: dict) -> tuple[Part, Part]:
    """Frame and lenses that sit on the nose and behind the ears, in front of brows and cheeks.

    skin [S, 3]: the face they must not cut; marks: landmarks by name; params: see `extras`.
    """
    nose = Bridge(marks, params["gap"])
    centre, ax, ay, az, pd = nose.centre, nose.ax, nose.ay, nose.az, nose.pd
    bridge, front, place = nose.bridge, nose.front, nose.place
    style, rim = params["style"], params["rim"]
    width, height = params["width"] * pd, params["height"] * pd
    near = (skin - centre) @ np.stack([ax, ay, az], 1)
    near = near[(np.abs(near[:, :2]) < [1.1 * pd, 0.7 * pd]).all(1) & (near[:, 2] > -0.3)]
    for side in (-1, 1):
        flat = _outline(style, width, height, side) + [side * pd * 0.52, -0.03 * pd]
        close = np.linalg.norm(near[None, :, :2] - flat[:, None], axis=2) < 0.06
        deep = np.where(close, near[None, :, 2], -1).max(1) + 0.10 * (flat[:, 0] / pd) ** 2
        front = max(front, min(deep.max() + rim + 0.01, front + 0.15))

    def curved(u):
        return front - 0.10 * (np.asarray(u) / pd) ** 2

    frame, lenses = [], []
    m = np.arange(POINTS)
    fan = np.stack([np.full(POINTS, POINTS), m, (m + 1) % POINTS, (m + 1) % POINTS], 1)
    for side in (-1, 1):
        flat = _outline(style, width, height, side)
        u = side * pd * 0.52 + flat[:, 0]
        outline = place(u, flat[:, 1] - 0.03 * pd, curved(u))
        lenses.append((np.concatenate([outline, outline.mean(0)[None]]), fan))
        if style == "brow":
            frame.append(sweep(outline, rim * 0.35, True))
            top = np.roll(outline, POINTS // 4, 0)[POINTS // 4 - 2 : 3 * POINTS // 4 + 3]
            frame.append(sweep(top + 0.3 * rim * ay, rim * 1.25, False))
        elif style != "rimless":
            frame.append(sweep(outline, rim, True))
        temple = int(np.argmax(side * flat[:, 0]))
        high = 0.3 * height * (style in ("brow", "cat"))
        hinge = outline[temple] + high * ay
        frame.append(sweep(nose.arm(hinge, side), min(rim, 0.02) * 0.9, False))
    t = np.linspace(-1, 1, 9)
    arch = 1 - t * t
    depth = front + arch * max(0.0, bridge - front + 0.02)
    gap = t * (pd * 0.52 - 0.97 * width / 2)
    frame.append(sweep(place(gap, (arch * 0.06 + 0.05) * pd, depth), min(rim, 0.02), False))
    if style == "aviator":
        bar = place(gap * 1.25, np.full(9, 0.36 * height - 0.02 * pd), front + 0 * t)
        frame.append(sweep(bar, rim, False))
    return joined(frame), joined(lenses)


def earrings(marks: dict[str, np.ndarray], params: dict) -> Part:
    """A stud or a hoop at each lobe. params: `radius` in decimetres, `hoop`."""
    pieces = []
    for side, name in ((-1, "r"), (1, "l")):
        lobe = marks[f"ear_lobe_{name}"] + np.array([side * 0.04, 0.03, 0.0])
        t = np.arange(20) / 20 * 2 * np.pi
        r = params["radius"]
        ring = np.stack([0 * t, np.cos(t) * r - r, np.sin(t) * r], 1)
        thick = 0.012 if params["hoop"] else 0.022
        pieces.append(sweep(lobe + (ring if params["hoop"] else ring * 0.3), thick, True))
    return joined(pieces)


def _ring(points: np.ndarray, around: int) -> np.ndarray:
    """The outline [around, 3] of a slab of points round its middle, seen from above."""
    middle = 0.5 * (points.min(0) + points.max(0))
    rel = points - middle
    angle, r = np.arctan2(rel[:, 0], rel[:, 2]), np.hypot(rel[:, 0], rel[:, 2])
    at = np.arange(around) / around * 2 * np.pi
    # the furthest point near each direction, then smooth
    near = np.cos(angle[None] - at[:, None]) > np.cos(2 * np.pi / around * 1.6)
    reach = np.where(near, r[None], 0).max(1)
    spectrum = np.fft.rfft(reach)
    spectrum[6:] = 0
    reach = np.fft.irfft(spectrum, around)
    height = np.array([rel[row, 1].mean() if row.any() else 0.0 for row in near])
    return middle + np.stack([np.sin(at) * reach, height, np.cos(at) * reach], 1)


def collar(
    neckline: np.ndarray, rest: np.ndarray, skin: np.ndarray, params: dict, cloth: str, scale: float
) -> Part:
    """A shirt's collar or a polo neck that stands on a garment's neckline.

    neckline [N, 3]: points of the cut; rest, skin [S, 3]: the same vertices on the rest shape and
    posed; params: `kind` 'shirt' or 'turtle', `height` in decimetres.
    """
    around = 36
    slim = np.hypot(rest[:, 0], rest[:, 2] - 0.25) < 0.85
    base = _ring(neckline, around)
    top = _ring(skin[slim & (np.abs(rest[:, 1] - 5.72 - 0.5 * params["height"]) < 0.07)], around)
    middle = 0.5 * (base.mean(0) + top.mean(0))
    out = top - middle
    out[:, 1] = 0
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    along = np.arange(around) / around * 2 * np.pi
    front = np.exp(-((np.minimum(along, 2 * np.pi - along) / 0.5) ** 2))[:, None]
    drop = np.minimum(base - top, [[9, -0.12, 9]])  # a neckline may be as high as the collar
    if params["kind"] == "turtle":
        stand = [base + 0.02 * out, base - 0.5 * drop + 0.06 * out, top + 0.05 * out]
        fold = [top + 0.05 * out, top + 0.085 * out, top + 0.11 * out + 0.15 * drop,
                top + 0.12 * out + 0.5 * drop, top + 0.10 * out + 0.9 * drop]  # fmt: skip
        rows = slice(0, around)
    else:  # open in front, the fold's points longest there
        dip = front * [0, 0.12, -0.02]
        stand = [base + 0.02 * out, top + 0.05 * out - dip]
        fold = [top + 0.05 * out - dip, top + 0.075 * out - dip,
                top + 0.11 * out + 0.5 * drop - front * [0, 0.04, -0.05],
                top + drop + 0.10 * out + [0, 0.03, 0] + front * [0, -0.12, 0.04]]  # fmt: skip
        rows = slice(1, around)
    parts = []
    for rings in (stand, fold):  # the fold turns the cloth's outside in: each faces out by itself
        grid = np.stack(rings, 1)[rows]
        steps = np.linspace(0, 1, len(rings))
        uv = np.stack(np.broadcast_arrays(along[rows, None] * 0.9, steps[None]), -1) * scale
        part = sheet(grid, uv, params["kind"] == "turtle")
        away = part.vertices - middle
        away[:, 1] = 0
        parts.append(facing(part, away))
    return merged(parts, f"cloth/{cloth}")

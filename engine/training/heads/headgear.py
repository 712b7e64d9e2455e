"""Caps, beanies, brimmed hats and headscarves round the posed head, and hair under them (dm).

A hat lives in a frame of its own: a plane through the skull (its band), tilted with the hat, and
above it the skull's radius by direction, measured from the plane's middle. The head is upright in
posed space (the torso turns), so the frame needs nothing but the landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from engine.training.heads.morph import rotation
from engine.training.heads.parts import Part, clip_below
from engine.training.heads.sheets import facing, merged, sheet, two_sided

AROUND, UP = 48, 14  # cells of a hat's dome
CLOTH_TILES = 5.0  # of the pattern round a hat
HAIR_GAP = 0.02  # hair keeps this far inside the hat


@dataclass(frozen=True)
class Dome:
    """The skull by direction: origin [3], axes [3, 3] (columns: side, up, front of the hat) and
    radius [AROUND, UP + 1] by azimuth (0 = front, towards +side) and elevation 0..90 degrees."""

    origin: np.ndarray
    axes: np.ndarray
    radius: np.ndarray

    def points(self, radius: np.ndarray) -> np.ndarray:
        """Points [AROUND, UP + 1, 3] at other radii."""
        turn, rise = _angles()
        d = np.stack([np.cos(rise) * np.sin(turn), np.sin(rise), np.cos(rise) * np.cos(turn)], -1)
        return self.origin + (d * radius[..., None]) @ self.axes.T

    def at(self, turn: np.ndarray, rise: np.ndarray) -> np.ndarray:
        """The radius in directions (radians), interpolated."""
        i = (turn / (2 * np.pi) * AROUND) % AROUND
        j = np.clip(rise / (np.pi / 2) * UP, 0, UP)
        padded = np.concatenate([self.radius, self.radius[:1]])
        return ndimage.map_coordinates(padded, [i, j], order=1, mode="nearest")


def _angles() -> tuple[np.ndarray, np.ndarray]:
    return np.meshgrid(
        np.arange(AROUND) / AROUND * 2 * np.pi, np.arange(UP + 1) / UP * np.pi / 2, indexing="ij"
    )


def dome(skin: np.ndarray, marks: dict[str, np.ndarray], gear: dict) -> Dome:
    """The skull above the band of a hat. skin [S, 3]; gear: `height` 0..1, `tilt` and `turn`."""
    brow = 0.5 * (marks["ibug19"] + marks["ibug24"])
    top, ear = marks["head_top"], 0.5 * (marks["ear_top_l"] + marks["ear_top_r"])
    size = top[1] - brow[1]
    low = 0.0 if gear["kind"] == "beanie" else 0.06
    front = np.array([brow[0], brow[1] + (0.2 + low + 0.22 * gear["height"]) * size, brow[2]])
    # just over the ears (a beanie half covers them), so that the back sits lower than the front
    over = ear[1] + (-0.02 if gear["kind"] == "beanie" else 0.04) * size
    middle = np.array([brow[0], 0, 0.5 * (top[2] + ear[2]) + 0.1])
    slope = (front[1] - over) / (front[2] - ear[2])
    middle[1] = front[1] - slope * (front[2] - middle[2])
    axes = rotation("x", -np.degrees(np.arctan(slope))) @ rotation("z", gear.get("tilt", 0.0))
    local = (skin - middle) @ axes
    r = np.linalg.norm(local, axis=1)
    rise = np.arcsin(np.clip(local[:, 1] / np.maximum(r, 1e-6), -1, 1))
    # ears, which stand out, are no part of the skull
    from_ear = np.min(
        [
            np.linalg.norm(skin - marks[f"ear_{n}_{s}"], axis=1)
            for n in ("top", "back")
            for s in "lr"
        ],
        0,
    )
    keep = (rise > -0.35) & (r < 2.0) & (from_ear > 0.16)
    turn, up = _angles()
    d = np.stack([np.cos(up) * np.sin(turn), np.sin(up), np.cos(up) * np.cos(turn)], -1)
    _, near = cKDTree(local[keep] / r[keep, None]).query(d.reshape(-1, 3), k=6)
    radius = r[keep][near].max(1).reshape(turn.shape)
    radius[:, -1] = radius[:, -1].mean()
    radius = ndimage.gaussian_filter(radius, (1.5, 1.0), mode=("wrap", "nearest"))
    return Dome(middle, axes, radius)


def hat(skull: Dome, gear: dict) -> Part:
    """A cap, a beanie or a brimmed hat on the skull. gear: as `extras` samples it."""
    turn, rise = _angles()
    s = rise / (np.pi / 2)
    r = skull.radius
    uv = np.stack([turn / (2 * np.pi) * CLOTH_TILES, s * 1.6], -1) * gear["scale"]
    if gear["kind"] == "beanie":
        fold = 1 / (1 + np.exp((s - 0.24) / 0.015))
        r = r + 0.045 + 0.03 * fold + 0.10 * s**3
    elif gear["kind"] == "cap":
        front = np.clip(np.cos(turn), 0, 1) ** 2
        r = r + 0.035 + 0.07 * front * np.sin(np.pi * np.clip(s * 1.2, 0, 1))
    else:
        r = r + 0.035 + 0.24 * np.clip(s * 1.5, 0, 1) ** 2
    up = skull.axes[:, 1]
    crown = sheet(skull.points(r), uv, True)
    parts = [facing(crown, crown.vertices - skull.origin)]
    rim = skull.points(r)[:, 0]
    inside = np.stack([skull.points(r - 0.05)[:, 0], rim], 1)  # the band's lower edge
    edge = sheet(inside, np.repeat(uv[:, :1], 2, 1), True)
    parts.append(facing(edge, -up))
    if gear["kind"] == "cap":
        parts += _visor(skull, r[:, 0], gear, up)
    if gear["kind"] == "brim":
        f = np.linspace(0, 1, 5)
        out = rim - skull.origin
        out = out / np.linalg.norm(out, axis=1, keepdims=True)
        bend = 0.10 * np.cos(2 * turn[:, 0]) - 0.02
        grid = rim[:, None] + out[:, None] * (f * gear["brim"])[:, None]
        grid = grid - (f**2 * bend[:, None])[..., None] * up
        brim_uv = np.stack(np.broadcast_arrays(turn[:, :1] / np.pi * 3, f[None]), -1)
        parts += two_sided(sheet(grid, brim_uv * gear["scale"], True), up, 0.012)
    turned = merged(parts, f"cloth/{gear['cloth']}")
    if gear.get("turn"):  # a cap worn askew or backwards turns about its own axis
        spin = skull.axes @ rotation("y", gear["turn"]) @ skull.axes.T
        turned = turned.moved((turned.vertices - skull.origin) @ spin.T + skull.origin)
    return turned


def _visor(skull: Dome, rim: np.ndarray, gear: dict, up: np.ndarray) -> list[Part]:
    a = np.linspace(-1.15, 1.15, 25)
    r = np.interp(a % (2 * np.pi), np.arange(AROUND + 1) / AROUND * 2 * np.pi, np.r_[rim, rim[0]])
    f = np.linspace(0, 1, 6)
    base = np.stack([np.sin(a) * r, 0 * a, np.cos(a) * r], -1)
    reach = gear["brim"] * np.sqrt(np.clip(1 - (a / 1.15) ** 2, 0, 1))
    grid = np.repeat(base[:, None], len(f), 1)
    grid[..., 2] += f * reach[:, None]
    width = np.abs(base[:, 0]).max()
    # the plate bends down towards its sides, and dips forward
    grid[..., 1] -= (0.16 * (base[:, :1] / width) ** 2 + 0.16 * f) * f * reach[:, None] / 0.6
    grid = skull.origin + grid @ skull.axes.T
    uv = np.stack(np.broadcast_arrays(a[:, None], f[None]), -1) * gear["scale"]
    return two_sided(sheet(grid, uv, False), up, 0.02)


def under_hat(skull: Dome, hair: np.ndarray) -> np.ndarray:
    """Hair vertices [P, 3] pressed under a hat: inside its crown above the band, and below it not
    further out than hair can spread again."""
    local = (hair - skull.origin) @ skull.axes
    turn = np.arctan2(local[:, 0], local[:, 2])
    flat = np.hypot(local[:, 0], local[:, 2])
    r = np.linalg.norm(local, axis=1)
    rise = np.arctan2(local[:, 1], flat)
    limit = skull.at(turn, np.clip(rise, 0, None)) + HAIR_GAP
    above = np.minimum(1, limit / np.maximum(r, 1e-6))
    spread = skull.at(turn, np.zeros_like(turn)) + HAIR_GAP - 0.8 * np.minimum(local[:, 1], 0)
    below = np.minimum(1, spread / np.maximum(flat, 1e-6))
    out = local.copy()
    high = local[:, 1] > 0
    out[high] *= above[high, None]
    out[~high, 0] *= below[~high]
    out[~high, 2] *= below[~high]
    return (skull.origin + out @ skull.axes.T).astype(np.float32)


def scarf(skin: np.ndarray, marks: dict[str, np.ndarray], gear: dict) -> Part:
    """A headscarf: a smooth cover of head, neck and collarbones with an opening for the face."""
    centre = 0.5 * (marks["head_top"] + marks["chin"])
    centre[2] = 0.5 * (marks["ear_top_l"] + marks["ear_top_r"])[2] + 0.05
    turn, t = np.meshgrid(np.arange(64) / 64 * 2 * np.pi, np.linspace(1, -0.93, 40), indexing="ij")
    rise = t * np.pi / 2
    d = np.stack([np.cos(rise) * np.sin(turn), np.sin(rise), np.cos(rise) * np.cos(turn)], -1)
    rel = skin - centre
    r = np.linalg.norm(rel, axis=1)
    keep = (r > 0.5) & (r < 2.3)
    _, near = cKDTree(rel[keep] / r[keep, None]).query(d.reshape(-1, 3), k=8)
    radius = r[keep][near].max(1).reshape(turn.shape)
    # cloth spans hollows: the throat and the nape
    radius = ndimage.grey_closing(radius, (9, 9), mode="wrap")
    radius[:, 0] = radius[:, 0].mean()
    radius = ndimage.gaussian_filter(radius, (1.6, 1.3), mode=("wrap", "nearest"))
    folds = np.sin(turn * 7 + 2.0 * np.sin(t * 5)) * np.clip(-t, 0, 1)
    radius = radius + 0.08 + 0.03 * folds
    uv = np.stack([turn / (2 * np.pi) * 6, t * 3], -1) * gear["scale"]
    part = sheet(centre + d * radius[..., None], uv, True)
    part = facing(part, part.vertices - centre)
    rel = part.vertices - np.array([marks["nose_tip"][0], marks["nose_tip"][1], 0])
    half = 0.47 * np.linalg.norm(marks["ibug16"] - marks["ibug00"])
    high = 0.78 * (marks["head_top"][1] - marks["nose_tip"][1]) * (0.72 + 0.2 * gear["height"])
    low = 1.1 * (marks["nose_tip"][1] - marks["chin"][1])
    oval = (rel[:, 0] / half) ** 2 + (rel[:, 1] / np.where(rel[:, 1] > 0, high, low)) ** 2
    value = np.where(part.vertices[:, 2] > centre[2] + 0.1, 1 - oval, -1.0)
    cut = clip_below(part, value, 0.0)
    return Part(cut.vertices, cut.faces, cut.uv, cut.face_uv, f"cloth/{gear['cloth']}")

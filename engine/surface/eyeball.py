"""An eyeball: a sphere of quads with rings round the pupil, its UVs, and its picture."""

from __future__ import annotations

import numpy as np

from engine.surface.bake import smoothstep

AROUND = 16  # quads round the pupil
RINGS = 7  # from the cap in front to the cap behind
CAP = np.radians(16)  # how far a cap reaches from the pole
IRIS = 0.0061  # metres: radius of an iris; people's hardly differ
PUPIL = 0.36  # of the iris
FRONT, BACK = (0.5, 0.5, 0.42), (0.93, 0.07, 0.055)  # UV discs: centre and radius of a half
WHITE = np.array([0.86, 0.83, 0.80])
VEIN = np.array([0.80, 0.62, 0.58])
SIZE = 512  # pixels of the picture


def ball(times: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vertices [V, 3] of a sphere that looks along +z, quads int32 [F, 4] counter-clockwise
    from outside, UVs float32 [F, 4, 2]: the front half in one disc, the back in another.

    times: how much finer than 16 quads round, 1 or 2.
    """
    around, rings, side = AROUND * times, RINGS * times + (times - 1), AROUND * times // 4
    angle = np.linspace(CAP, np.pi - CAP, rings + 1)
    # A ring starts where the cap's grid has its corner.
    turn = 2 * np.pi * (np.arange(around) / around) + np.pi / 4
    places = [_polar(a, turn) for a in angle]
    quads = []
    for r in range(rings):
        for i in range(around):
            k = (i + 1) % around
            quads.append(
                (r * around + i, (r + 1) * around + i, (r + 1) * around + k, r * around + k)
            )
    count = (rings + 1) * around
    for pole, ring in ((0.0, 0), (np.pi, rings)):
        grid = np.full((side + 1, side + 1), -1)
        path = [(side - i, side) for i in range(side)] + [(0, side - i) for i in range(side)]
        path += [(i, 0) for i in range(side)] + [(side, i) for i in range(side)]
        for (i, j), node in zip(path, range(ring * around, (ring + 1) * around), strict=True):
            grid[i, j] = node
        for i, j in np.argwhere(grid < 0):
            x, y = 2 * i / side - 1, 2 * j / side - 1
            # The square's rings become the circle's.
            reach = max(abs(x), abs(y))
            flat = np.hypot(x, y)
            radius = reach * CAP if flat else 0.0
            tilt = abs(pole - radius)
            places.append(_polar(tilt, np.array([np.arctan2(y, x)])))
            grid[i, j] = count
            count += 1
        for i in range(side):
            for j in range(side):
                quad = (grid[i, j], grid[i + 1, j], grid[i + 1, j + 1], grid[i, j + 1])
                quads.append(quad if pole == 0 else quad[::-1])
    vertices = np.concatenate(places)
    faces = np.array(quads, np.int32)
    return vertices.astype(np.float32), faces, _uvs(vertices, faces)


def _polar(tilt: float, turn: np.ndarray) -> np.ndarray:
    s = np.sin(tilt)
    return np.stack([s * np.cos(turn), s * np.sin(turn), np.full_like(turn, np.cos(tilt))], 1)


def _uvs(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    tilt = np.arccos(np.clip(vertices[:, 2], -1, 1))
    flat = vertices[:, :2] / np.maximum(
        np.linalg.norm(vertices[:, :2], axis=1, keepdims=True), 1e-9
    )
    middle = tilt[faces].mean(1) < np.pi / 2
    out = np.empty((*faces.shape, 2))
    for front, (u, v, radius) in ((True, FRONT), (False, BACK)):
        angle = tilt if front else np.pi - tilt
        mirror = [1, 1] if front else [-1, 1]  # seen from outside
        # A ring that straddles the middle reaches a little beyond the half.
        place = np.array([u, v]) + radius * (angle / (np.pi / 2))[:, None] * flat * mirror
        out[middle == front] = place[faces[middle == front]]
    return out.astype(np.float32)


def picture(iris: np.ndarray, white: float, radius: float, size: int = SIZE) -> np.ndarray:
    """The eyeballs' texture uint8 [size, size, 3] (row 0 at the top, display sRGB).

    iris: its mean colour [3] in 0..1; white: brightness of the white in 0..1; radius: the
    eyeball's, metres.
    """
    y, x = np.mgrid[0:size, 0:size] + 0.5
    u, v = x / size - FRONT[0], 1 - y / size - FRONT[1]
    tilt = np.hypot(u, v) / FRONT[2] * (np.pi / 2)
    turn = np.arctan2(v, u)
    edge = np.arcsin(min(IRIS / radius, 0.9))
    r = tilt / edge
    rng = np.random.default_rng(0)
    fibre = np.zeros_like(r)
    for wave in (11, 23, 37, 61):
        phase, bend = rng.random(2) * 2 * np.pi
        fibre += np.sin(wave * turn + phase + 2 * np.sin(3 * r + bend)) / wave**0.5
    ring = smoothstep(r, 1.06, 0.90)  # soft limbus
    tone = 1 + 0.16 * fibre * smoothstep(r, PUPIL, 0.6)
    tone = tone * (0.55 + 0.45 * smoothstep(r, 1.0, 0.78))
    tone = tone * (1.12 - 0.25 * smoothstep(r, 0.75, PUPIL))
    colour = np.clip(np.asarray(iris)[None, None] * tone[..., None], 0, 1)
    colour *= (smoothstep(r, PUPIL - 0.04, PUPIL + 0.05) * 0.95 + 0.05)[..., None]
    reach = smoothstep(tilt, 0.9, 2.2)[..., None]
    ball_colour = (WHITE * (1 - reach) + VEIN * reach) * white / WHITE.mean()
    mixed = ball_colour + (colour - ball_colour) * ring[..., None]
    return (mixed.clip(0, 1) * 255 + 0.5).astype(np.uint8)

"""Light of material 2: studios, windows, rooms and skies, made from a few numbers (linear RGB).

Procedural rather than from pictures: Blender's studio lights are EXR files that only Blender reads,
and the engine never imports it. What counts on a face is where the large lamps stand, how large
they are and what colour they have.
"""

from __future__ import annotations

import numpy as np

from engine.training.heads.lighting import (
    DIRECTIONS,
    HEIGHT,
    SOLID_ANGLE,
    WIDTH,
    Light,
    _key,
    _spherical_harmonics,
    random_light,
)

SCENES = {
    "soft": 0.16, "softbox": 0.18, "window": 0.14, "overcast": 0.12, "sun": 0.11, "room": 0.1,
    "ring": 0.06, "rim": 0.06, "sunset": 0.05, "two colours": 0.02,
}  # fmt: skip
KELVIN = {  # linear RGB of black bodies, green 1 (CIE 1931, sRGB primaries)
    2700: (1.98, 1.0, 0.26), 3200: (1.70, 1.0, 0.38), 4300: (1.33, 1.0, 0.65),
    5500: (1.10, 1.0, 0.90), 6500: (1.0, 1.0, 1.06), 9000: (0.86, 1.0, 1.33),
}  # fmt: skip


def _towards(yaw: float, pitch: float) -> np.ndarray:
    y, p = np.radians([yaw, pitch])
    return np.array([np.sin(y) * np.cos(p), np.sin(p), np.cos(y) * np.cos(p)])


def _panel(yaw: float, pitch: float, width: float, height: float) -> np.ndarray:
    """Coverage [16, 32] of a rectangular lamp, degrees, with edges a cell soft."""
    row = np.degrees(np.arcsin(DIRECTIONS[..., 1]))
    column = np.degrees(np.arctan2(DIRECTIONS[..., 0], DIRECTIONS[..., 2]))
    off = (column - yaw + 180) % 360 - 180
    # a lamp high up is as wide as one at the horizon
    off = off * np.cos(np.radians(row))
    edge = 180 / HEIGHT
    a = np.clip((width / 2 - np.abs(off)) / edge + 0.5, 0, 1)
    return a * np.clip((height / 2 - np.abs(row - pitch)) / edge + 0.5, 0, 1)


def _white(rng: np.random.Generator, low: int, high: int) -> np.ndarray:
    choices = [k for k in KELVIN if low <= k <= high]
    c = np.array(KELVIN[choices[rng.integers(len(choices))]])
    return c / c.mean() * (1 + rng.normal(size=3) * 0.02)


def _gradient(sky: np.ndarray, ground: np.ndarray) -> np.ndarray:
    up = DIRECTIONS[..., 1:2] * 0.5 + 0.5
    return ground + (sky - ground) * up


def studio_light(rng: np.random.Generator) -> Light:
    """A random photographer's light. The exposure holds for a face that looks forward; part of
    the cast of colour is balanced away, as cameras do."""
    names = list(SCENES)
    name = str(rng.choice(names, p=np.array(list(SCENES.values())) / sum(SCENES.values())))
    if name == "soft":
        return random_light(rng)
    side = float(rng.choice([-1, 1]))
    env = np.zeros((HEIGHT, WIDTH, 3))
    sun: tuple[np.ndarray, np.ndarray, float] | None = None
    grey = np.ones(3)
    if name == "softbox":
        env += _gradient(grey * rng.uniform(0.12, 0.35), grey * rng.uniform(0.08, 0.25))
        key = _panel(side * rng.uniform(15, 60), rng.uniform(10, 45), *rng.uniform(30, 70, 2))
        env += key[..., None] * _white(rng, 4300, 6500) * rng.uniform(3, 7)
        fill = _panel(-side * rng.uniform(30, 80), rng.uniform(-5, 25), 60, 60)
        env += fill[..., None] * grey * rng.uniform(0.2, 1.6)
        if rng.random() < 0.5:
            env += _panel(-side * rng.uniform(120, 165), 30, 30, 50)[..., None] * rng.uniform(2, 7)
    elif name == "window":
        env += _gradient(_white(rng, 2700, 4300), grey * 0.6) * rng.uniform(0.12, 0.35)
        panel = _panel(side * rng.uniform(35, 95), rng.uniform(5, 20), rng.uniform(50, 90), 70)
        env += panel[..., None] * _white(rng, 5500, 9000) * rng.uniform(2, 4)
    elif name == "overcast":
        env += _gradient(_white(rng, 6500, 9000) * 1.2, grey * rng.uniform(0.15, 0.5))
        env *= (1 + 0.5 * np.clip(DIRECTIONS @ _towards(rng.uniform(-180, 180), 40), 0, 1))[
            ..., None
        ]
    elif name == "sun":
        env += _gradient(np.array([0.45, 0.6, 0.95]) * rng.uniform(0.4, 0.7), grey * 0.3)
        at = _towards(rng.uniform(-100, 100), rng.uniform(25, 60))
        sun = at, _white(rng, 5500, 5500) * rng.uniform(0.5, 1.6), float(rng.uniform(1, 6))
    elif name == "sunset":
        env += _gradient(np.array([0.35, 0.42, 0.65]), np.array([0.4, 0.3, 0.25])) * 0.6
        yaw = rng.uniform(-120, 120)
        low = np.exp(-((np.degrees(np.arcsin(DIRECTIONS[..., 1])) / 14) ** 2))
        glow = low * np.exp(2 * (DIRECTIONS @ _towards(yaw, 5) - 1))
        env += glow[..., None] * np.array([1.5, 0.7, 0.3])
        sun = _towards(yaw, 8), np.array([1.5, 0.8, 0.35]) * rng.uniform(0.4, 1.0), 4.0
    elif name == "room":
        env += _gradient(grey * 0.45, grey * 0.3) * _white(rng, 2700, 5500)
        for _ in range(rng.integers(1, 4)):
            lamp = _panel(rng.uniform(-90, 90), rng.uniform(40, 75), 25, 25)
            env += lamp[..., None] * _white(rng, 2700, 5500) * rng.uniform(2, 6)
        if rng.random() < 0.4:
            env += _panel(side * 80, 5, 40, 50)[..., None] * _white(rng, 6500, 9000)
    elif name == "ring":
        angle = np.degrees(np.arccos(np.clip(DIRECTIONS @ _towards(0, rng.uniform(0, 12)), -1, 1)))
        ring = np.exp(-(((angle - rng.uniform(14, 24)) / 9) ** 2))
        env += 0.2 + ring[..., None] * _white(rng, 4300, 6500) * 3
    elif name == "rim":
        env += _gradient(grey * 0.35, grey * 0.2) * rng.uniform(0.8, 1.4)
        for s in (-1, 1):
            lamp = _panel(s * rng.uniform(115, 160), rng.uniform(10, 40), 30, 60)
            env += lamp[..., None] * _white(rng, 4300, 9000) * rng.uniform(2, 8)
    else:
        for s in (-1, 1):
            hue = np.exp(rng.normal(size=3) * 0.45)
            lamp = _panel(s * rng.uniform(40, 90), rng.uniform(0, 30), 60, 60)
            env += 0.12 + lamp[..., None] * hue / hue.mean() * rng.uniform(1, 2.5)
    return _exposed(env, sun, rng)


def _exposed(env: np.ndarray, sun: tuple | None, rng: np.random.Generator) -> Light:
    ahead = np.array([0.0, 0.4, 0.8])
    w = np.clip(DIRECTIONS @ ahead + 0.3, 0, None) * SOLID_ANGLE
    level = (env * w[..., None]).sum((0, 1)) / w.sum()
    if sun is not None:
        level = level + sun[1] * max(0.0, float(sun[0] @ ahead)) * 0.9
    cast = level / level.mean()
    gain = cast ** -rng.uniform(0.5, 1.0) / level.mean() * 1.3 * np.exp(rng.normal() * 0.18)
    env = np.clip(env * gain, 0, None).astype(np.float32)
    if sun is None:
        return Light(env, _spherical_harmonics(env), _key(env))
    colour = (sun[1] * gain).astype(np.float32)
    direction = sun[0].astype(np.float32)
    # for shine on skin and eyes the sun stands in the environment too, as a wide blurred spot
    spot = np.exp(12 * (DIRECTIONS @ direction - 1))[..., None] * colour
    light = Light(env, _spherical_harmonics(env + spot.astype(np.float32)),
                  np.r_[direction, 1.6 * colour].astype(np.float32))  # fmt: skip
    return Light(
        light.env, light.sh, light.key, np.r_[direction, colour, sun[2]].astype(np.float32)
    )

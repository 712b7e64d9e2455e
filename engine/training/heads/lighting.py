"""Soft random environments and their spherical harmonics (linear RGB)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HEIGHT, WIDTH = 16, 32  # of an environment; row 0 is up, the middle column is the front (+z)
SH_SCALE = np.array(
    [0.282095, 0.488603, 0.488603, 0.488603, 1.092548, 1.092548, 0.315392, 1.092548, 0.546274]
)
SH_WINDOW = np.array([1, 0.9, 0.9, 0.9, 0.65, 0.65, 0.65, 0.65, 0.65])  # against ringing


def _directions() -> tuple[np.ndarray, np.ndarray]:
    t = (np.arange(HEIGHT) + 0.5) / HEIGHT * np.pi
    f = ((np.arange(WIDTH) + 0.5) / WIDTH - 0.5) * 2 * np.pi
    s = np.sin(t)[:, None]
    d = np.stack(np.broadcast_arrays(s * np.sin(f), np.cos(t)[:, None] + 0 * f, s * np.cos(f)), -1)
    return d, np.broadcast_to(s, (HEIGHT, WIDTH))


DIRECTIONS, SOLID_ANGLE = _directions()


@dataclass(frozen=True)
class Light:
    """env float32 [16, 32, 3] radiance; sh float32 [9, 3] its smooth part for `sh9`; key float32
    [6]: direction and colour of the brightest light. sun: direction, colour and angular radius
    (degrees) of a small lamp that is not in env, float32 [7], or None."""

    env: np.ndarray
    sh: np.ndarray
    key: np.ndarray
    sun: np.ndarray | None = None

    def towards(self, directions: np.ndarray) -> np.ndarray:
        """Radiance [N, 3] from unit directions [N, 3], blurred to their spacing."""
        w = np.exp(28 * (directions @ DIRECTIONS.reshape(-1, 3).T - 1)) * SOLID_ANGLE.ravel()
        w /= w.sum(1, keepdims=True)
        return (w @ self.env.reshape(-1, 3)).astype(np.float32)

    def sun_rays(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Directions [count, 3] over the sun's disc, and what each brings [count, 3]: a surface
        that faces the sun gets the sun's colour in all."""
        assert self.sun is not None
        d, colour, radius = self.sun[:3], self.sun[3:6], np.radians(self.sun[6])
        side = np.cross(d, [0.0, 1.0, 0.001])
        side /= np.linalg.norm(side)
        up = np.cross(side, d)
        k = np.arange(count)
        r, a = radius * np.sqrt((k + 0.5) / count), k * np.pi * (3 - 5**0.5)
        rays = d + (r * np.cos(a))[:, None] * side + (r * np.sin(a))[:, None] * up
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        return rays.astype(np.float32), np.tile(colour / count, (count, 1)).astype(np.float32)


def random_light(rng: np.random.Generator) -> Light:
    """Mostly ambient light, one to three soft lamps of moderate strength."""
    d = DIRECTIONS
    sky = rng.uniform(0.5, 0.9) * (1 + rng.normal(size=3) * 0.05)
    ground = rng.uniform(0.25, 0.55) * (1 + rng.normal(size=3) * 0.07)
    env = ground + (sky - ground) * (d[..., 1:2] * 0.5 + 0.5)
    for _ in range(rng.integers(1, 4)):
        yaw, pitch = np.radians([rng.normal() * 60, rng.uniform(-5, 60)])
        lamp = [np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)]
        width = rng.uniform(2, 12)
        colour = rng.uniform(0.3, 1.3) * (1 + rng.normal(size=3) * 0.06)
        env = env + np.exp(width * (d @ np.array(lamp) - 1))[..., None] * colour
    env = np.clip(env, 0, None)
    # exposure: what falls on a surface that looks forward and a little up
    w = np.clip(d[..., 2] * 0.8 + d[..., 1] * 0.4 + 0.3, 0, None) * SOLID_ANGLE
    level = (env * w[..., None]).sum((0, 1)) / w.sum()
    env = (env / level.mean() * rng.uniform(0.8, 1.15)).astype(np.float32)
    return Light(env, _spherical_harmonics(env), _key(env))


def _spherical_harmonics(env: np.ndarray) -> np.ndarray:
    x, y, z = DIRECTIONS.reshape(-1, 3).T
    w = SOLID_ANGLE.ravel() * (4 * np.pi / SOLID_ANGLE.sum())
    basis = np.stack([np.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y])
    c = (basis * SH_SCALE[:, None] * w) @ env.reshape(-1, 3)
    return (c * (SH_SCALE * SH_WINDOW)[:, None]).astype(np.float32)


def _key(env: np.ndarray) -> np.ndarray:
    d, flat = DIRECTIONS.reshape(-1, 3), env.reshape(-1, 3)
    bright = flat.sum(1) * np.clip(d[:, 2] * 2, 0, 1)
    top = bright > 0.8 * bright.max()
    direction = (d * np.where(top, bright, 0)[:, None]).sum(0)
    direction /= np.linalg.norm(direction) + 1e-9
    return np.r_[direction, flat[top].mean(0)].astype(np.float32)

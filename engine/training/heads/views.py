"""Which pictures are taken of a head: random input photos, target views round it."""

from __future__ import annotations

import math

import numpy as np

from engine.cameras import Camera, orbit

INPUTS, INPUT_SIZE = 3, 176
TARGETS, FRONTAL_TARGETS, TARGET_SIZE = 8, 2, 128
TARGET_FOV = math.radians(18)
TARGET_EXTENT = 0.44  # metres that fit the picture vertically at the origin
INPUT_TARGET = np.array([0.0, -0.005, 0.03])


def distance(extent: float, fov: float) -> float:
    """From how far `extent` metres fill the vertical angle `fov` (radians)."""
    return 0.5 * extent / math.tan(fov / 2)


def input_camera(rng: np.random.Generator, material: int = 1) -> Camera:
    """A photographer's view: near frontal, a little rolled, of random angle and framing.

    material 2: now and then up to a profile, from further above or below, with wider lenses.
    """
    if material == 2:
        yaw, pitch, roll, fov = _wide_view(rng)
    else:
        yaw = float(np.clip(rng.normal() * 20, -50, 50))
        pitch, roll = rng.normal() * 8, rng.normal() * 5
        fov = math.radians(rng.uniform(12, 28))
    target = INPUT_TARGET + rng.normal(size=3) * [0.008, 0.008, 0.004]
    yaw, pitch, roll = np.radians([yaw, pitch, roll])
    extent = rng.uniform(0.36, 0.44)
    back = [math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)]
    # the extent holds at the origin, which is not what the camera looks at
    radius = distance(extent, fov) - float(target @ np.array(back))
    camera = orbit(yaw, pitch, radius, fov, target, INPUT_SIZE, INPUT_SIZE)
    c, s = math.cos(roll), math.sin(roll)
    turn = np.eye(4)
    turn[:2, :2] = [[c, -s], [s, c]]
    return Camera(camera.cam2world @ turn, camera.intrinsics, INPUT_SIZE, INPUT_SIZE)


def _wide_view(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Yaw, pitch, roll in degrees and the angle of view in radians."""
    x = rng.random()
    if x < 0.62:
        yaw = float(np.clip(rng.normal() * 16, -45, 45))
    elif x < 0.9:
        yaw = rng.choice([-1, 1]) * rng.uniform(10, 60)
    else:  # beyond it a detector finds no face
        yaw = rng.choice([-1, 1]) * rng.uniform(60, 88)
    pitch = float(np.clip(rng.normal() * 9, -30, 30))
    roll = float(np.clip(rng.normal() * 6, -25, 25))
    fov = math.radians(float(rng.triangular(9, 18, 42)))
    return yaw, pitch, roll, fov


def target_camera(rng: np.random.Generator, frontal: bool) -> Camera:
    """A view of the origin from near the front or from anywhere round the head."""
    yaw = float(np.clip(rng.normal() * 12, -30, 30)) if frontal else rng.uniform(-180, 180)
    pitch = float(np.clip(rng.normal() * (6 if frontal else 15), -45, 45))
    radius = distance(TARGET_EXTENT, TARGET_FOV)
    yaw, pitch = np.radians([yaw, pitch])
    return orbit(yaw, pitch, radius, TARGET_FOV, width=TARGET_SIZE, height=TARGET_SIZE)

"""Cameras round a head: on a circle, on a sphere, a character sheet's set. numpy only, and nothing
of the engine but cameras, so that Blender can use it as well.

Angles in names and arguments are degrees, as people see them; yaw 0 is the face, positive yaw sees
the subject's left side, positive pitch looks from above.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..cameras import Camera, intrinsics_from_extent, look_at, orbit

FOV = math.radians(18.0)
AIR = 1.04  # how much more than the head is in view
GOLDEN = math.pi * (3 - math.sqrt(5))
# A character sheet's set, and the classic turnaround: name, yaw.
CHARACTER = (
    ("front", 0.0),
    ("three-quarter left", 45.0),
    ("left", 90.0),
    ("back three-quarter left", 135.0),
    ("back", 180.0),
    ("back three-quarter right", -135.0),
    ("right", -90.0),
    ("three-quarter right", -45.0),
)
TURNAROUND = tuple(CHARACTER[i] for i in (0, 1, 2, 3, 4))


@dataclass(frozen=True)
class Stage:
    """What cameras look at, and how.

    low, high: the head's box, field units; width, height: pixels; fov: the smaller side's angle in
    radians; orthographic: parallel rays, showing as much as the pinhole does at the middle; level:
    height (field y) at which cameras at pitch 0 stand, instead of the middle's: what is at that
    height, such as the eyes, is then equally high in every picture; the lens is shifted, so that
    the head stays in the middle.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    width: int = 512
    height: int = 512
    fov: float = FOV
    orthographic: bool = False
    level: float | None = None

    @property
    def target(self) -> np.ndarray:
        return (np.array(self.low, float) + np.array(self.high, float)) / 2

    def distance(self, pitch: float | None = None) -> float:
        """From the target to cameras at a pitch (degrees), or at any, in field units: near enough
        to see the whole head, however it is turned about its upright axis, and little more."""
        x, y, z = (np.array(self.high, float) - np.array(self.low, float)) / 2
        radius = math.hypot(x, z)
        steep = math.atan2(radius, y) if pitch is None else abs(math.radians(pitch))
        half = max(y * math.cos(steep) + radius * math.sin(steep), radius)
        return AIR * half / math.tan(self.fov / 2) + half

    def camera(
        self, yaw: float, pitch: float, name: str = "camera", distance: float = 0.0
    ) -> Camera:
        """The camera at yaw and pitch (degrees) that looks at the target from a distance (0: as
        distance(pitch) has it). Straight from above or below, the picture's top is where the back
        or the face is."""
        distance = distance or self.distance(pitch)
        smaller = min(self.width, self.height)
        fov = 2 * math.atan(math.tan(self.fov / 2) * self.height / smaller)
        yaw, pitch = math.radians(yaw), math.radians(pitch)
        size = self.width, self.height
        camera = orbit(yaw, min(max(pitch, -1.57), 1.57), distance, fov, self.target, *size)
        if abs(pitch) > 1.57:
            up = (-math.sin(yaw), 0.0, -math.cos(yaw)) if pitch > 0 else (math.sin(yaw), 0.0, 1.0)
            away = np.array([0.0, math.copysign(distance, pitch), 0.0])
            camera = replace(camera, cam2world=look_at(self.target + away, self.target, up))
        if self.level is not None and not pitch and not self.orthographic:
            up = self.level - self.target[1]
            matrix, k = camera.cam2world.copy(), camera.intrinsics.copy()
            matrix[1, 3] += up
            k[1, 2] -= k[1, 1] * up / distance
            camera = replace(camera, cam2world=matrix, intrinsics=k)
        if self.orthographic:
            seen = 2 * distance * math.tan(self.fov / 2) / smaller
            k = intrinsics_from_extent(seen * self.width, seen * self.height)
            camera = replace(camera, intrinsics=k, orthographic=True)
        return replace(camera, name=name)


def circle(stage: Stage, count: int, pitch: float = 0.0, first: float = 0.0) -> list[Camera]:
    """`count` cameras evenly round the head, from yaw `first` on towards the subject's left."""
    step = 360.0 / count
    return [stage.camera(first + i * step, pitch, f"turn {i + 1:03d}") for i in range(count)]


def sphere(stage: Stage, count: int, lowest: float = -90.0, highest: float = 90.0) -> list[Camera]:
    """`count` cameras spread evenly over a sphere, or its band between two pitches (degrees), on a
    Fibonacci spiral from the top down (Swinbank and Purser 2006, "Fibonacci grids")."""
    top, bottom = math.sin(math.radians(highest)), math.sin(math.radians(lowest))
    out = []
    for i in range(count):
        height = top + (bottom - top) * (i + 0.5) / count
        yaw = math.degrees((i * GOLDEN + math.pi) % (2 * math.pi)) - 180
        pitch = math.degrees(math.asin(min(max(height, -1.0), 1.0)))
        out.append(stage.camera(yaw, pitch, f"sphere {i + 1:03d}", stage.distance()))
    return out


def named(stage: Stage, views: tuple[tuple[str, float], ...] = CHARACTER) -> list[Camera]:
    """Cameras at head height, one a (name, yaw in degrees)."""
    return [stage.camera(yaw, 0.0, name) for name, yaw in views]


def from_words(words: str, stage: Stage) -> list[Camera]:
    """The rig of a short text: circle:48, circle:48:15 (pitch), sphere:100, sphere:100:-30:60
    (lowest and highest pitch), character, turnaround. Raises ValueError for anything else."""
    kind, *numbers = words.split(":")
    if kind in ("character", "turnaround") and not numbers:
        return named(stage, CHARACTER if kind == "character" else TURNAROUND)
    most = {"circle": 2, "sphere": 3}.get(kind, 0)
    if not 1 <= len(numbers) <= most:
        raise ValueError(f"there is no rig {words[:40]}")
    count, angles = int(numbers[0]), [float(n) for n in numbers[1:]]
    if not 1 <= count <= 100_000 or not all(-90 <= a <= 90 for a in angles):
        raise ValueError("a rig has 1 to 100000 cameras, at pitches from -90 to 90 degrees")
    if kind == "circle":
        return circle(stage, count, *angles)
    if angles and (len(angles) != 2 or angles[0] >= angles[1]):
        raise ValueError("a sphere's band goes from a lower to a higher pitch")
    return sphere(stage, count, *angles)

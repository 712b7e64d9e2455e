"""Where beards grow, in canonical space (metres, on the mean head)."""

from __future__ import annotations

import numpy as np

# Below the nose, above the throat, before the ears, and off the line between the mouth's corners:
# from where on, and over how much it sets in.
NOSE, THROAT, EARS, LIPS = (0.030, 0.008), (-0.114, 0.014), (0.0, 0.015), (0.011, 0.010)
# The same for what it reaches over.
REACH = (0.022, 0.006), (-0.135, 0.02), (-0.03, 0.02)
CORNER, MOUTH = 0.022, -0.048  # half the mouth's width, its height
CHIN_SIDE, CHIN_TOP, CHIN_FRONT = 0.03, -0.066, 0.06
COVERED_CHIN = 0.35  # share of it


def beard_region(points: np.ndarray) -> np.ndarray:
    """How far a beard grows at points [N, 3] of the mean head's skin [N]: 0 to 1. The lips are
    bare by a margin that a coarse lattice needs to keep the mouth open."""
    x, y, _ = points.T
    away = np.hypot(np.maximum(np.abs(x) - CORNER, 0), y - MOUTH)
    return _ramp(away, *LIPS) * _lower_face(points, NOSE, THROAT, EARS)


def reach_region(points: np.ndarray) -> np.ndarray:
    """Where hair of a beard lies over the skin at points [N, 3] of the mean head [N], 0 to 1: lips
    too, and beyond where it grows."""
    return _lower_face(points, *REACH)


def _lower_face(points: np.ndarray, *limits: tuple[float, float]) -> np.ndarray:
    _, y, z = points.T
    each = [_ramp(value, *limit) for value, limit in zip((-y, y, z), limits, strict=True)]
    return np.prod(each, 0).astype(np.float32)


def _ramp(value: np.ndarray, start: float, reach: float) -> np.ndarray:
    return np.clip((value - start) / reach, 0, 1).astype(np.float32)


def chin_region(points: np.ndarray) -> np.ndarray:
    """The part of it [N] that is bare unless there is a beard: long hair hangs at its sides."""
    x, y, z = points.T
    middle = (np.abs(x) < CHIN_SIDE) & (y < CHIN_TOP) & (z > CHIN_FRONT)
    return beard_region(points) * middle


def bearded(chin: np.ndarray, covered: np.ndarray) -> bool:
    """Whether there is a beard: chin [N]: of chin_region(), and of how well it is seen; covered
    [N]: by hair, 0 to 1. Shadow, stubble or a lock of hair is less."""
    return float((chin * covered).sum()) > COVERED_CHIN * float(chin.sum())

"""Smooth random changes of a fitted hair style, which keep it outside the skin (decimetres)."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

REACH = 0.6  # beyond this distance from the skin, hair swells no further
CLEARANCE = 0.03
EAR_CLEARANCE = 0.06


def _smooth(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _noise(points: np.ndarray, seed: int, waves: int = 5) -> np.ndarray:
    """Smooth vector noise [N, 3] of about unit size; wavelengths 0.7..2 decimetres."""
    rng = np.random.default_rng(seed)
    out = np.zeros_like(points)
    for _ in range(waves):
        k = rng.normal(size=3)
        k *= 2 * np.pi / (np.linalg.norm(k) * rng.uniform(0.7, 2.0))
        phase = np.sin(points @ k + rng.uniform(0, 2 * np.pi))
        out += phase[:, None] * rng.normal(size=3)
    return out * (2 / (3 * waves)) ** 0.5


def warp_hair(
    hair: np.ndarray,
    skin: np.ndarray,
    normals: np.ndarray,
    ear: np.ndarray,
    marks: dict[str, np.ndarray],
    warp: dict,
) -> np.ndarray:
    """Changed hair vertices [P, 3].

    hair [P, 3] fitted to the unposed skin [S, 3] with its unit normals; ear bool [S] marks the
    skin of the ears; marks: landmarks by name; warp: `inflate` (factor on the distance to the
    skin), `length` (factor on what hangs below the ears), `mirror`, `noise` (size), `seed`.
    """
    tree = cKDTree(skin)
    before, near = tree.query(hair)
    # how far each vertex is outside now: roots that start inside may stay there
    floor = ((hair - skin[near]) * normals[near]).sum(1)
    floor = np.clip(floor, -0.03, np.where(ear[near], EAR_CLEARANCE, CLEARANCE))
    centre = 0.5 * (marks["ear_top_l"] + marks["ear_top_r"])
    away = hair - centre
    away[:, 1] = np.maximum(away[:, 1], 0)  # hanging hair swells sideways
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6)
    swell = (warp["inflate"] - 1) * np.minimum(before, REACH)
    out = hair + swell[:, None] * away
    top = 0.5 * (marks["ear_lobe_l"][1] + marks["ear_lobe_r"][1])
    hang = np.maximum(top - out[:, 1], 0)
    out[:, 1] += hang * (1 - warp["length"]) * _smooth(hang / 0.5)
    if warp["mirror"]:
        out[:, 0] = marks["eye_l"][0] + marks["eye_r"][0] - out[:, 0]
    loose = _smooth((before - 0.02) / 0.25)
    out += (warp["noise"] * loose)[:, None] * _noise(out, warp["seed"])
    for _ in range(2):  # the second pass repairs what the first pushed into a neighbour
        _, near = tree.query(out, k=3)
        depth = ((out[:, None] - skin[near]) * normals[near]).sum(2).min(1)
        n = normals[near].mean(1)
        n /= np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-6)
        limit = np.where(ear[near[:, 0]], np.minimum(floor + 0.02, EAR_CLEARANCE), floor)
        close = np.linalg.norm(out - skin[near[:, 0]], axis=1) < 0.6
        push = np.where(close, np.clip(limit - depth, 0, 0.4), 0)
        out += push[:, None] * n
    return out.astype(np.float32)

"""From parameters to vertices: morph targets, gaze, fitted parts, bent neck (decimetres)."""

from __future__ import annotations

import numpy as np

from engine.training.heads.pack import Pack, Proxy

NECK_PIVOTS = ("neck", "neck02", "neck03", "head")


def age_weights(years: float) -> dict[str, float]:
    """MakeHuman's age families (sum 1) of an age in years."""
    a = (years - 1) / 48 if years < 25 else 0.5 + (years - 25) / 130
    if a < 0.5:
        baby, young = max(0.0, 1 - 5.333 * a), max(0.0, 3.2 * (a - 0.1875))
        return {"baby": baby, "child": max(0.0, min(1.0, 5.333 * a) - young), "young": young}
    return {"young": 2 - 2 * a, "old": 2 * a - 1}


def _three(x: float, name: str) -> dict[str, float]:
    low, high = max(0.0, 1 - 2 * x), max(0.0, 2 * x - 1)
    return {f"min{name}": low, f"average{name}": 1 - low - high, f"max{name}": high}


def rotation(axis: str, degrees: float) -> np.ndarray:
    """Right-handed rotation matrix [3, 3] about 'x', 'y' or 'z'."""
    t = np.radians(degrees)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    out = np.eye(3)
    out[i, i] = out[j, j] = np.cos(t)
    out[i, j], out[j, i] = -np.sin(t), np.sin(t)
    return out


def morph_pair(pack: Pack, params: dict) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [V, 3] of a head with its expression and of the same head without."""
    out = pack.rest.copy()
    gender = {"male": params["gender"], "female": 1 - params["gender"]}
    muscle, weight = _three(params["muscle"], "muscle"), _three(params["weight"], "weight")
    for g, wg in gender.items():
        for a, wa in age_weights(params["years"]).items():
            for e, we in params["ethnicity"].items():
                pack.add_target(out, f"macro/{e}-{g}-{a}", wg * wa * we)
            for m, wm in muscle.items():
                for w, ww in weight.items():
                    pack.add_target(out, f"macro/universal-{g}-{a}-{m}-{w}", wg * wa * wm * ww)
    for key, x in params["sliders"].items():
        low, high = pack.sliders[key]
        name = low if x < 0 else high
        if name:
            pack.add_target(out, name, abs(x))
    neutral = out.copy()
    for unit, x in params["expression"].items():
        for e, we in params["ethnicity"].items():
            pack.add_target(out, f"expression/{e}/{unit}", x * we)
    yaw, pitch = params["gaze"]
    turn = (rotation("y", yaw) @ rotation("x", -pitch)).astype(np.float32)
    for v in (out, neutral):
        for side in ("eye_l", "eye_r"):
            c, i = pack.joint(v, side), pack.group_vertices[side]
            v[i] = (v[i] - c) @ turn.T + c
    return out, neutral


def fit(proxy: Proxy, vertices: np.ndarray) -> np.ndarray:
    """Vertices [P, 3] of a part on morphed skin vertices [V, 3]."""
    ends = proxy.scale_ref
    scale = np.array([abs(vertices[ends[k, 0], k] - vertices[ends[k, 1], k]) for k in range(3)])
    scale = (scale / proxy.scale_div).astype(np.float32)
    return (vertices[proxy.ref] * proxy.weight[..., None]).sum(1) + proxy.offset * scale


class Neck:
    """A bent neck: the torso turns against the head, which stays upright.

    vertices: morphed, unposed [V, 3]; degrees: yaw, pitch, roll of the head against the torso.
    """

    def __init__(self, pack: Pack, vertices: np.ndarray, degrees: list[float]):
        yaw, pitch, roll = (x / len(NECK_PIVOTS) for x in degrees)
        r = rotation("y", yaw) @ rotation("x", pitch) @ rotation("z", roll)
        chain = [np.eye(4)]
        for name in NECK_PIVOTS:
            c = pack.joint(vertices, name)
            step = np.eye(4)
            step[:3, :3], step[:3, 3] = r, c - r @ c
            chain.append(chain[-1] @ step)
        back = np.linalg.inv(chain[-1])
        self._matrices = np.stack([back @ m for m in chain]).astype(np.float32)
        self._weights = pack.bone_weights

    def skin(self, vertices: np.ndarray) -> np.ndarray:
        """Posed skin vertices [V, 3]."""
        return self._apply(vertices, self._weights)

    def part(self, points: np.ndarray, proxy: Proxy) -> np.ndarray:
        """Posed vertices [P, 3] of a fitted part."""
        w = (self._weights[proxy.ref] * proxy.weight[..., None]).sum(1)
        total = np.maximum(1e-6, proxy.weight.sum(1))[:, None]
        return self._apply(points, (w / total).astype(np.float32))

    def _apply(self, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
        m = (weights @ self._matrices.reshape(5, 16)).reshape(-1, 4, 4)
        return np.einsum("nij,nj->ni", m[:, :3, :3], points) + m[:, :3, 3]

"""Garment, beard and glasses made from the posed head (decimetres)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.training.heads.pack import Pack
from engine.training.heads.parts import Part, clip_below, joined, quad_normals, sweep

BEARD_SHELLS = 7
FUR = "fur"  # the procedural texture of the beard's shells


def garment(pack: Pack, tights: Part, index: np.ndarray, style: str, height: float) -> Part:
    """A shirt: the tights helper pushed out and cut at a neckline.

    index: the pack's vertex indices of the part; style: 'crew', 'scoop', 'v' or 'high'.
    """
    x, y, z = pack.rest[index].T  # an oval round the neck seen from above, in rest coordinates
    z0 = z - 0.12
    # in front, height stands for depth: the hollow between the breasts must not dent the cut
    ahead = np.clip(z0 / 0.4, 0, 1)
    depth = np.where(z0 > 0, z0 / 0.82, z0 / 0.64)
    depth = depth * (1 - ahead) + (0.97 + 0.55 * (5.35 - y)) * ahead
    r = np.hypot(x / 0.72, depth)
    value = -np.where(z0 < 0, np.maximum(r, 0.75 + 1.3 * (5.9 - y)), r)
    front = np.clip((z - 0.25) * 3, 0, 1)
    if style == "v":
        value = value + 0.4 * np.clip(1 - np.abs(x) / 0.6, 0, None) * front
    if style == "scoop":
        value = value + 0.2 * front
    out = tights.moved(tights.vertices + 0.035 * quad_normals(tights.vertices, tights.faces))
    return clip_below(out, value, height)


def beard(pack: Pack, skin: Part, index: np.ndarray, params: dict) -> Part:
    """Shells over the beard's area; a noise texture thins them. params: style, length (mm)."""
    x, y, z = pack.rest[index].T
    w = pack.beard_mask[index].copy()
    if params["style"] == "goatee":
        w *= np.clip((0.34 - np.abs(x)) / 0.08, 0, 1) * np.clip((z - 1.0) / 0.15, 0, 1)
    if params["style"] == "moustache":
        w *= np.clip((0.36 - np.abs(x)) / 0.08, 0, 1) * np.clip((y - 6.56) / 0.04, 0, 1)
        w *= np.clip((z - 1.0) / 0.1, 0, 1)
    n = quad_normals(skin.vertices, skin.faces) + np.array([0, -0.5, 0], np.float32)
    n /= np.linalg.norm(n, axis=1, keepdims=True)
    reach = n * (params["length"] * 0.01 * w)[:, None]
    least = w[skin.faces].min(1)
    verts, uvs, faces, face_uvs = [], [], [], []
    for k in range(1, BEARD_SHELLS + 1):
        kept = least > 0.12 + 0.5 * (k - 1) / BEARD_SHELLS
        verts.append(skin.vertices + reach * (k / BEARD_SHELLS))
        uvs.append(skin.uv * 22 + np.array([k * 0.009, k * 0.012]))
        faces.append(skin.faces[kept] + (k - 1) * len(skin.vertices))
        face_uvs.append(skin.face_uv[kept] + (k - 1) * len(skin.uv))
    return replace(
        skin,
        vertices=np.concatenate(verts).astype(np.float32),
        uv=np.concatenate(uvs).astype(np.float32),
        faces=np.concatenate(faces),
        face_uv=np.concatenate(face_uvs),
        texture=FUR,
        key=None,
    )


class Bridge:
    """Where spectacles sit: `centre` between the eyes [3], axes to the left, up and forward, the
    eyes' distance `pd`, and how far in front of the centre the nose and the lenses are. marks:
    landmarks by name; gap: of the lenses before the pupils."""

    def __init__(self, marks: dict[str, np.ndarray], gap: float) -> None:
        centre = (marks["eye_l"] + marks["eye_r"]) / 2
        ax = marks["eye_l"] - marks["eye_r"]
        pd = np.linalg.norm(ax)
        ax = ax / pd
        az = np.array([0, 0, 1.0])
        az -= ax * (az @ ax)
        az /= np.linalg.norm(az)
        self.centre, self.ax, self.ay, self.az, self.pd = centre, ax, np.cross(az, ax), az, pd
        self.bridge = max((marks[n] - centre) @ az for n in ("ibug27", "ibug28")) + 0.03
        front = max((marks[n] - centre) @ az for n in ("pupil_l", "pupil_r")) + gap
        self.front = max(front, self.bridge - 0.10)
        self.marks = marks

    def place(self, u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Points [..., 3] at places along the axes."""
        u, v, depth = np.broadcast_arrays(u, v, depth)
        u, v, depth = u[..., None], v[..., None], depth[..., None]
        return self.centre + u * self.ax + v * self.ay + depth * self.az

    def arm(self, hinge: np.ndarray, side: int) -> np.ndarray:
        """From the hinge [3] to behind the ear of a side (1: left, -1: right): [12, 3]."""
        name = "l" if side > 0 else "r"
        ear, back = self.marks[f"ear_top_{name}"], self.marks[f"ear_back_{name}"]
        bend = ear - 0.06 * self.ay + self.ax * (side * 0.03)
        tip = 0.5 * (back + ear) - 0.28 * self.ay - 0.10 * self.az
        start = hinge - 0.06 * self.az + self.ax * (side * 0.03)
        arm = [hinge[None], start + (bend - start) * np.linspace(0, 1, 7)[:, None]]
        arm.append(bend + (tip - bend) * np.linspace(0.3, 1, 4)[:, None])
        return np.concatenate(arm)


def glasses(marks: dict[str, np.ndarray], params: dict) -> tuple[Part, Part]:
    """Frame and lenses that sit on the nose and behind the ears. marks: landmarks by name."""
    nose = Bridge(marks, params["gap"])
    pd, bridge, front, place = nose.pd, nose.bridge, nose.front, nose.place
    width, height, rim = params["width"] * pd, params["height"] * pd, params["radius"]
    t = np.arange(36) / 36 * 2 * np.pi
    e = 2 / params["power"]
    x = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** e * width / 2
    y = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** e * height / 2

    def curved(u):
        return front - 0.10 * (np.asarray(u) / pd) ** 2

    frame, lenses = [], []
    m = np.arange(len(t))
    for side in (-1, 1):
        u = side * pd * 0.52 + x
        outline = place(u, y - 0.03 * pd, curved(u))
        frame.append(sweep(outline, rim, True))
        fan = np.stack([np.full(len(m), len(m)), m, (m + 1) % len(m), (m + 1) % len(m)], 1)
        lenses.append((np.concatenate([outline, outline.mean(0)[None]]), fan))
        u = side * (pd * 0.52 + width / 2)
        hinge = place(u, 0.06 * height / pd * pd, curved(u))
        frame.append(sweep(nose.arm(hinge, side), rim * 0.9, False))
    t = np.linspace(-1, 1, 9)
    arch = 1 - t * t
    depth = front + arch * max(0.0, bridge - front + 0.02)
    frame.append(
        sweep(place(t * (pd * 0.52 - width / 2), (arch * 0.06 + 0.05) * pd, depth), rim, False)
    )
    return joined(frame), joined(lenses)

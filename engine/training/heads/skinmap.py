"""Where things lie on the skin picture: rest positions of its texels, regions, creases.

Everything is a function of the texel's place on the pack's rest shape (decimetres, see the pack's
README), so that what is painted follows the face and not the layout of the UVs.
"""

from __future__ import annotations

from functools import cached_property

import numba as nb
import numpy as np
from scipy import ndimage

from engine.training.heads.pack import Pack
from engine.training.heads.parts import split_quads

SIZE = 1024  # of the painted skin picture
BOX = (slice(120, 940), slice(600, 1024))  # of the head in it
FACE = (slice(210, 600), slice(130, 424))  # of face and neck in the box
FAR = np.float32(-9.0)  # the place of a texel that no skin uses

# Creases of the left half of a face, polylines of (x, y) on the rest shape: name -> list of lines.
# The right half has the mirrored ones. Placed by eye on the landmarks (nasolabial fold from the
# wing of the nose round the corner of the mouth, crow's feet from the outer corner of the eye).
CREASES: dict[str, list[list[tuple[float, float]]]] = {
    "forehead": [
        [(0.0, 7.62), (0.16, 7.65), (0.34, 7.63), (0.46, 7.57)],
        [(0.0, 7.73), (0.18, 7.765), (0.36, 7.74), (0.5, 7.67)],
        [(0.0, 7.84), (0.16, 7.87), (0.34, 7.855), (0.46, 7.80)],
        [(0.02, 7.945), (0.2, 7.965), (0.38, 7.93)],
    ],
    "frown": [[(0.055, 7.37), (0.06, 7.46), (0.075, 7.55)]],
    "crow": [
        [(0.475, 7.31), (0.54, 7.35), (0.60, 7.37)],
        [(0.48, 7.285), (0.55, 7.29), (0.63, 7.285)],
        [(0.475, 7.26), (0.54, 7.225), (0.60, 7.18)],
        [(0.46, 7.235), (0.51, 7.175), (0.55, 7.11)],
    ],
    "bags": [
        [(0.17, 7.22), (0.25, 7.165), (0.34, 7.15), (0.43, 7.185)],
        [(0.15, 7.19), (0.24, 7.11), (0.35, 7.085), (0.46, 7.12)],
    ],
    "nasolabial": [[(0.165, 6.905), (0.24, 6.82), (0.31, 6.71), (0.345, 6.60), (0.34, 6.53)]],
    "marionette": [[(0.265, 6.585), (0.295, 6.50), (0.30, 6.40)]],
    "chin": [[(0.0, 6.405), (0.1, 6.40), (0.17, 6.37)]],
}
CREASE_WIDTH = {"nasolabial": 0.035, "bags": 0.028, "marionette": 0.028}  # decimetres; else 0.018


@nb.njit(cache=True)
def _texel_places(uv, tri, tri_uv, v, out):
    """Interpolated rest positions in every texel whose centre a UV triangle covers."""
    n = out.shape[0]
    for t in range(len(tri)):
        x = uv[tri_uv[t], 0] * n
        y = (1 - uv[tri_uv[t], 1]) * n
        area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
        if abs(area) < 1e-9:
            continue
        for i in range(max(0, int(y.min())), min(n, int(y.max()) + 2)):
            for j in range(max(0, int(x.min())), min(n, int(x.max()) + 2)):
                b = ((j + 0.5 - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (i + 0.5 - y[0])) / area
                c = ((x[1] - x[0]) * (i + 0.5 - y[0]) - (j + 0.5 - x[0]) * (y[1] - y[0])) / area
                a = 1 - b - c
                if min(a, b, c) < -0.02:
                    continue
                for k in range(3):
                    out[i, j, k] = a * v[tri[t, 0], k] + b * v[tri[t, 1], k] + c * v[tri[t, 2], k]


def soft(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below low, 1 above high (or the other way round), smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def to_lines(x: np.ndarray, y: np.ndarray, line: list[tuple[float, float]]) -> tuple:
    """Distance of points to a polyline, and how far along it (0..1) the nearest point lies."""
    best, along = np.full(x.shape, 9.0, np.float32), np.zeros(x.shape, np.float32)
    points = np.array(line, np.float32)
    for k, (a, b) in enumerate(zip(points, points[1:], strict=False)):
        d = b - a
        t = np.clip(((x - a[0]) * d[0] + (y - a[1]) * d[1]) / (d @ d), 0, 1)
        r = np.hypot(x - a[0] - t * d[0], y - a[1] - t * d[1])
        along = np.where(r < best, (k + t) / (len(points) - 1), along)
        best = np.minimum(best, r)
    return best, along


class SkinMap:
    """Maps float32 [h, w] over the head's box `BOX` of the skin picture, made once a process.

    x, y, z: the rest position of a texel. Fields named after regions are weights in 0..1.
    """

    def __init__(self, pack: Pack, scalp_picture: np.ndarray) -> None:
        """scalp_picture: linear RGB [1024, 1024, 3] of a skin with dark hair on its scalp."""
        skin = pack.face_group == pack.group_names.index("skin")
        place = np.full((SIZE, SIZE, 3), FAR, np.float32)
        tri = np.ascontiguousarray(split_quads(pack.faces[skin]), np.int64)
        tri_uv = np.ascontiguousarray(split_quads(pack.face_uv[skin]), np.int64)
        _texel_places(pack.uv.astype(np.float64), tri, tri_uv, pack.rest.astype(np.float64), place)
        self.x, self.y, self.z = np.moveaxis(place[BOX], -1, 0)
        self.used = self.y > 0
        self.side = np.abs(self.x)
        self._marks = dict(zip(pack.landmark_names, pack.landmarks(pack.rest), strict=True))
        self.scalp = self._scalp(scalp_picture[BOX].mean(2))

    def _scalp(self, brightness: np.ndarray) -> np.ndarray:
        """The hairy part of the head: dark in the picture, above and behind the face."""
        face = brightness[self._spot(0, 7.2, 1.35, 0.5) > 0.5].mean()
        dark = soft(brightness, 0.65 * face, 0.3 * face)
        dark = ndimage.gaussian_filter(dark, 5.0)
        behind = soft(self.y, 7.05, 7.25) * np.maximum(
            soft(self.z, 1.0, 0.8), soft(self.y, 7.65, 7.8)
        )
        return (soft(dark, 0.05, 0.4) * behind * self.used).astype(np.float32)

    def _spot(self, x: float, y: float, z: float, size: float) -> np.ndarray:
        """A soft round spot on both sides."""
        d = (self.side - x) ** 2 + (self.y - y) ** 2 + (self.z - z) ** 2
        return np.exp(-d / (2 * size * size)).astype(np.float32)

    @cached_property
    def front(self) -> np.ndarray:
        """The face without ears, scalp and neck."""
        return (soft(self.z, 0.75, 1.05) * soft(self.y, 6.15, 6.35) * (1 - self.scalp)).astype(
            np.float32
        )

    @cached_property
    def cheeks(self) -> np.ndarray:
        return self._spot(0.42, 6.97, 1.3, 0.16)

    @cached_property
    def nose(self) -> np.ndarray:
        return self._spot(0.0, 7.0, 1.62, 0.13)

    @cached_property
    def forehead(self) -> np.ndarray:
        return (soft(self.y, 7.45, 7.6) * self.front).astype(np.float32)

    @cached_property
    def sockets(self) -> np.ndarray:
        """Below the eyes, where tired people are dark."""
        return self._spot(0.27, 7.15, 1.39, 0.085)

    @cached_property
    def lids(self) -> np.ndarray:
        """The upper lids up to the brows."""
        a = ((self.side - 0.32) / 0.19) ** 2 + ((self.y - 7.345) / 0.055) ** 2
        return (np.exp(-a * a) * (self.y > 7.275) * (self.z > 0.9)).astype(np.float32)

    @cached_property
    def lashes(self) -> np.ndarray:
        """A thin line along the edges of the lids, and a little beyond the outer corner."""
        m, out = self._marks, np.zeros(self.x.shape, np.float32)
        upper = [tuple(m[f"ibug{i}"][:2]) for i in (42, 43, 44, 45)]
        upper.append((upper[-1][0] + 0.05, upper[-1][1] + 0.02))
        lower = [tuple(m[f"ibug{i}"][:2]) for i in (45, 46, 47)]
        for line, strength in ((upper, 1.0), (lower, 0.55)):
            d, _ = to_lines(self.side, self.y, line)
            out = np.maximum(out, strength * np.exp(-((d / 0.017) ** 2)))
        return (out * (self.z > 1.0)).astype(np.float32)

    @cached_property
    def freckled(self) -> np.ndarray:
        """Where freckles like to be: over nose and cheeks, less on the forehead."""
        w = self.cheeks + 0.9 * self._spot(0.0, 7.05, 1.55, 0.2) + 0.3 * self.forehead
        w = w * self.front * (1 - np.exp(-((self._lip_distance() / 0.12) ** 2)))
        return np.clip(w * self.used, 0, 1).astype(np.float32)

    def _lip_distance(self) -> np.ndarray:
        return np.hypot(np.maximum(self.side - 0.2, 0), self.y - 6.6)

    @cached_property
    def creases(self) -> tuple[list[str], np.ndarray]:
        """The group of every line, and its profile float32 [lines, h, w] over `FACE`: 1 at the
        bottom of the crease, 0 beside it."""
        x, y, z = self.side[FACE], self.y[FACE], self.z[FACE]
        front = (z > 0.8) & (y > 6.2) & (y < 8.2)
        names, out = [], []
        for name, lines in CREASES.items():
            for line in lines:
                d, along = to_lines(x, y, line)
                taper = soft(along, 1.0, 0.7)
                if name in ("crow", "bags"):
                    taper = taper * soft(along, 0.0, 0.25)
                width = CREASE_WIDTH.get(name, 0.018)
                names.append(name)
                out.append(front * taper * np.exp(-((d / width) ** 2)))
        for level in (5.98, 5.82):
            d = y - level + 0.1 * (1 - z)
            ring = np.exp(-((d / 0.03) ** 2)) * soft(z, 0.5, 0.8) * (y < 6.25) * (y > 0)
            names.append("neck")
            out.append(ring)
        return names, np.stack(out).astype(np.float32)

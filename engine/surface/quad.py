"""A fitted head as a clean mesh of quads: the template's vertices for the field's coefficients, on
the field's own skin, with eyeballs and shape keys of its own. Its texture: quad_bake.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from engine.errors import WeightsError
from engine.fields.head import HeadField
from engine.headspace.beard import bearded, chin_region, reach_region
from engine.headspace.quad import QuadSpace, load_quads
from engine.surface import eyeball
from engine.surface.bake import smoothstep
from engine.surface.mesh import Mesh
from engine.surface.subdivide import subdivide, subdivide_corners

DENSITIES = ("LOW", "MEDIUM", "HIGH")  # 3,288 quads, and 4 and 16 times as many
OUTER, INNER = (0.0024, 0.0010), (0.006, 0.0035)  # metres: a surface farther outside or inside
# than the first is not the skin, one nearer than the second is; hair lies outside, so less there
HAIR = 0.0012, 0.0035  # metres: skin so deep under the surface is covered by hair
# Where hair grows: least height y (metres, on the mean head) for each z from behind to in front.
HAIRLINE = (
    (-0.09, -0.06, -0.03, -0.01, 0.02, 0.045, 0.07, 0.10),
    (-0.055, -0.05, -0.02, 0.03, 0.05, 0.05, 0.07, 0.085),
)
CLEAR = 1.006  # of an eyeball's radius: lids stay outside it

Check = Callable[[], None]


@dataclass(frozen=True)
class QuadHead:
    """vertices float32 [V, 3] in field units (metres); quads int32 [F, 4], counter-clockwise from
    outside; uvs float32 [F, 4, 2], v up; part int32 [F], see QuadSpace; texture uint8 [T, T, 3] or
    None before baking; shapes: the displacements float32 [K, V, 3] of the shape keys `names`;
    covered float32 [V] in 0..1: under hair; scalp float32 [V]: where hair grows; follows float32
    [V]: how far each vertex could follow the field's surface; eyes: the left and the right eyeball,
    eye_texture uint8 [T, T, 3] or None; beard float32 [V] in 0..1: where what covers the skin is a
    beard, which is painted on it."""

    vertices: np.ndarray
    quads: np.ndarray
    uvs: np.ndarray
    part: np.ndarray
    covered: np.ndarray
    scalp: np.ndarray
    follows: np.ndarray
    names: tuple[str, ...]
    shapes: np.ndarray
    eyes: tuple[Eye, Eye]
    beard: np.ndarray
    texture: np.ndarray | None = None
    eye_texture: np.ndarray | None = None

    @property
    def hidden(self) -> np.ndarray:
        """float32 [V] in 0..1: skin under hair that is not on this mesh."""
        return self.covered * (1 - self.beard)

    def triangles(self) -> Mesh:
        """The same surface in triangles, with UVs a corner."""
        return Mesh(self.vertices, split(self.quads), split_corners(self.uvs), self.texture)


@dataclass(frozen=True)
class Eye:
    """centre [3] and radius in metres; gaze [3], unit; vertices float32 [V, 3] in field space,
    quads int32 [F, 4], uvs float32 [F, 4, 2]."""

    centre: np.ndarray
    radius: float
    gaze: np.ndarray
    vertices: np.ndarray
    quads: np.ndarray
    uvs: np.ndarray


def coefficients(field: object) -> tuple[np.ndarray, np.ndarray]:
    """Identity and expression coefficients of a head's field. Raises WeightsError where it has
    none: fields of other models, and those saved before fields kept them."""
    info = getattr(field, "info", {}) if isinstance(field, HeadField) else {}
    found = info.get("coefficients") or {}
    try:
        identity, expression = (
            np.array(found[name], np.float64) for name in ("identity", "expression")
        )
        space = load_quads()
        fits = identity.shape == space.identity.shape[:1]
        fits = fits and expression.shape == space.expression.shape[:1]
        if not fits or not np.isfinite(np.concatenate([identity, expression])).all():
            raise ValueError("coefficients of another head space")
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            "This head's field does not say how to make a mesh of quads.",
            "Only heads of the built-in model, made by this version or a later one, have it: make "
            "the head once more, or take the surface mesh.",
        ) from error
    return identity, expression


def shape(field: HeadField, density: str = "MEDIUM", check: Check = lambda: None) -> QuadHead:
    """The head's quads, without texture. Raises WeightsError (see coefficients)."""
    given = coefficients(field)
    space = load_quads()
    cage, eyes = space.vertices(*given), space.eyes(*given)
    quads, uvs, part, follows = space.quads, space.uvs, space.part, space.follows
    matrix = sparse.identity(len(cage)).tocsr()
    level = DENSITIES.index(density)
    for _ in range(level):
        check()
        step = subdivide(quads, matrix.shape[0])
        matrix, quads, uvs = step.matrix @ matrix, step.quads, subdivide_corners(uvs)
        part = np.repeat(part, 4)
    vertices = matrix @ cage.astype(np.float64)
    if level:
        vertices = vertices + (space.detail_1, space.detail_2)[level - 1]
    follows = np.clip(matrix @ follows, 0, 1)
    # A field is closed at lids and lips: what lies inside there is not under hair.
    outer = np.clip(4 * follows, 0, 1)
    outer[quads[part == space.parts.index("ear")]] = 1
    vertices, covered = _snapped(field, vertices, quads, follows, outer, check)
    skin = np.zeros(len(vertices), bool)
    skin[quads[part <= space.parts.index("lid")]] = True
    vertices = _outside(vertices, skin, eyes)
    line = space.mean[:, 1] - np.interp(space.mean[:, 2], *HAIRLINE)
    scalp = np.clip(matrix @ smoothstep(line, -0.006, 0.006), 0, 1) * (follows > 0)
    beard = np.zeros(len(vertices))
    if bearded(matrix @ chin_region(space.mean), covered):
        beard = matrix @ reach_region(space.mean)
    base = vertices[: len(cage)]  # subdivision keeps the old vertices first
    moves = _scaled(space, base, eyes)
    flat = moves.transpose(1, 0, 2).reshape(len(cage), -1)
    shapes = (matrix @ flat).reshape(len(vertices), len(moves), 3).transpose(1, 0, 2)
    unit, faces, corners = eyeball.ball(1 if level == 0 else 2)
    made = []
    for (*centre, radius), gaze in zip(eyes, space.eye_gaze, strict=True):
        turned = unit @ looking(gaze).T
        at = np.array(centre)
        made.append(
            Eye(at, float(radius), gaze, (at + radius * turned).astype(np.float32), faces, corners)
        )
    return QuadHead(
        vertices.astype(np.float32),
        quads,
        uvs,
        part,
        covered.astype(np.float32),
        scalp.astype(np.float32),
        follows.astype(np.float32),
        space.names,
        shapes.astype(np.float32),
        (made[0], made[1]),
        beard.astype(np.float32),
    )


def skin_distance(head: QuadHead, field: HeadField) -> float:
    """Mean distance in metres of the head's visible skin (ears, lids and lips included) to the
    field's surface: over vertices, each by the area round it."""
    v, q = head.vertices.astype(np.float64), head.quads
    area = np.linalg.norm(np.cross(v[q[:, 2]] - v[q[:, 0]], v[q[:, 3]] - v[q[:, 1]]), axis=1) / 8
    outer = head.part <= load_quads().parts.index("ear")
    weight = np.bincount(q[outer].ravel(), np.repeat(area[outer], 4), len(v))
    weight *= head.covered < 0.05
    return float((np.abs(distance(field, v)) * weight).sum() / max(weight.sum(), 1e-12))


def lowest(field: HeadField) -> float:
    """y of the lowest point of the field's surface, metres."""
    inside = (field.distance < 0).any(2).any(0)  # over x, then z: what is left is y
    row = int(inside.nonzero()[0])
    step = float(field.bounds[1, 1] - field.bounds[0, 1]) / (len(inside) - 1)
    d = field.distance[:, row, :]
    below = field.distance[:, max(row - 1, 0), :]
    share = (d / (d - below)).where(d < 0, torch.zeros(())).amax().clamp(0, 1)
    return float(field.bounds[0, 1]) + step * (row - float(share))


def split(quads: np.ndarray) -> np.ndarray:
    """Quads [F, 4] as triangles int32 [2 F, 3], two for each in turn."""
    return np.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], 1).reshape(-1, 3).astype(np.int32)


def split_corners(uvs: np.ndarray) -> np.ndarray:
    """Values at quads' corners [F, 4, C] at the triangles' [2 F, 3, C], see split."""
    return np.stack([uvs[:, [0, 1, 2]], uvs[:, [0, 2, 3]]], 1).reshape(-1, 3, 2)


def distance(field: HeadField, points: np.ndarray) -> np.ndarray:
    """Positive outside, metres."""
    with torch.no_grad():
        return -field.value(torch.from_numpy(points.astype(np.float32))).numpy().astype(np.float64)


def gradient(field: HeadField, points: np.ndarray, step: float = 0.0015) -> np.ndarray:
    """Unit [N, 3], outwards."""
    out = np.empty_like(points)
    for k in range(3):
        offset = np.zeros(3)
        offset[k] = step
        out[:, k] = distance(field, points + offset) - distance(field, points - offset)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)


def _ring(quads: np.ndarray, count: int) -> sparse.csr_matrix:
    """Mean of each vertex's neighbours [V, V]."""
    e = np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2)
    e = np.concatenate([e, e[:, ::-1]])
    table = sparse.coo_matrix((np.ones(len(e)), (e[:, 0], e[:, 1])), (count, count)).tocsr()
    return sparse.diags(1 / np.maximum(np.asarray(table.sum(1)).ravel(), 1)) @ table


def _snapped(
    field: HeadField,
    vertices: np.ndarray,
    quads: np.ndarray,
    follows: np.ndarray,
    outer: np.ndarray,
    check: Check,
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [V, 3] moved to the field's surface where that is the skin, and how far each is
    covered by hair [V]."""
    first = distance(field, vertices)
    check()
    covered = smoothstep(-first, *HAIR) * outer
    weight = follows * np.where(first < 0, smoothstep(-first, *OUTER), smoothstep(first, *INNER))
    moved = np.zeros_like(vertices)
    for _ in range(3):
        at = vertices + moved
        moved -= distance(field, at)[:, None] * gradient(field, at)
        check()
    moved *= (weight * (np.linalg.norm(moved, axis=1) < 1.5 * INNER[0]))[:, None]
    ring = _ring(quads, len(vertices))
    # As far on the head whatever the density.
    for _ in range(max(2, round(2 * (len(quads) / 3288)))):
        moved = 0.5 * moved + 0.5 * (ring @ moved)
        covered = 0.5 * covered + 0.5 * (ring @ covered)
    return vertices + moved, covered


def _outside(vertices: np.ndarray, skin: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """Lids that cut into an eyeball, laid on it."""
    out = vertices.copy()
    for *centre, radius in eyes:
        away = out - centre
        length = np.linalg.norm(away, axis=1)
        near = skin & (length < CLEAR * radius) & (away[:, 2] > 0)
        out[near] = centre + away[near] / length[near, None] * CLEAR * radius
    return out


def _scaled(space: QuadSpace, base: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """The shape keys' displacements [K, V, 3] at this head's size; blinks so that lids meet."""
    wide = np.linalg.norm(eyes[0, :3] - eyes[1, :3])
    size = wide / np.linalg.norm(space.eye_mean[0, :3] - space.eye_mean[1, :3])
    moves = space.shapes * size
    for k, name in enumerate(space.names):
        if name.startswith("eyeBlink"):
            ring = space.lids[0 if name.endswith("Left") else 1]
            half = len(ring) // 2
            upper, lower = ring[1:half], ring[:half:-1]
            gap = (base[upper] - base[lower])[2:-2, 1]
            closing = (moves[k, lower] - moves[k, upper])[2:-2, 1]
            factor = np.median(gap / np.maximum(closing, 1e-4))
            moves[k] *= np.clip(factor, 0.0, 1.6)
    return moves


def looking(gaze: np.ndarray) -> np.ndarray:
    """The rotation [3, 3] that turns +z to a unit direction, +y staying up."""
    z = gaze / np.linalg.norm(gaze)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], 1)

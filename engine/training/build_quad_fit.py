"""The quad template's left half laid on the mean head's skin: first through the plane, then evened
out on the surface, with lids, lips, midline and rim held on their curves."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from engine.training.build_quad_layout import (
    EYE,
    FRONT,
    LID,
    LIP,
    MOUTH,
    ROWS,
    SIDE,
    VERMILION,
    Layout,
)
from engine.training.build_quad_mesh import Curve, Surface, fill, neighbours, normals
from engine.training.build_quad_surface import HalfSkin

ROUNDS = 240  # of evening out
SOCKET_GAP = 1.03  # the socket's radius, in eyeballs'
BAG = (0.021, 0.009, 0.014)  # metres: half width, half height, depth of the bag behind the lips


def fit(skin: HalfSkin, layout: Layout, eye: tuple[np.ndarray, float]) -> np.ndarray:
    """Positions [N, 3] of the layout's nodes. eye: centre [3] and radius of the left eyeball."""
    index = {key: i for i, key in enumerate(layout.nodes)}
    rings, count = layout.rings, len(layout.nodes)
    inside = {n for r in rings["eye"][LID + 1 :] + rings["mouth"][LIP + 1 :] for n in r}
    inside |= {i for i, k in enumerate(layout.nodes) if k[0] in ("eye", "mouth") and k[1] == "cap"}
    outer = layout.quads[~np.isin(layout.quads, list(inside)).any(1)]

    held: dict[str, tuple[list[int], Curve, list[bool]]] = {}  # nodes, curve, which must not slide
    places: dict[int, np.ndarray] = {}
    line = Curve(skin.v[skin.midline])
    nodes, along, firm = _midline(skin, line, index, rings)
    held["midline"] = nodes, line, firm
    uv = line.at(along, skin.uv[skin.midline])
    uv /= np.linalg.norm(uv, axis=1, keepdims=True)
    places |= dict(zip(nodes, uv, strict=True))

    rim, brim = Curve(skin.v[skin.rim]), Curve(skin.brim)
    below = [index["box", x, 0, 0] for x in range(FRONT)]
    below += [index["box", FRONT, 0, z] for z in range(SIDE)]
    below += [index["box", x, 0, SIDE] for x in range(FRONT, -1, -1)]
    along = np.linspace(0, rim.along[-1], len(below))
    held["rim"] = below, brim, [True] + [False] * (len(below) - 2) + [True]
    uv = rim.at(along, skin.uv[skin.rim])
    places |= dict(zip(below, uv / np.linalg.norm(uv, axis=1, keepdims=True), strict=True))

    lids, along = lids_curve(skin, len(rings["eye"][0]))
    half = len(along) // 2
    held["lids"] = rings["eye"][LID], lids, [i % half == 0 for i in range(len(along))]
    loop_uv = skin.uv[_turned(skin)]
    places |= dict(
        zip(rings["eye"][LID], lids.at(along, np.concatenate([loop_uv, loop_uv[:1]])), strict=True)
    )
    places |= _ear_root(skin, layout)

    known = np.array(list(places))
    flat = fill(count, outer, known, np.array(list(places.values())))
    used = np.unique(outer)
    v = np.full((count, 3), np.nan)
    v[used] = _lift(skin, flat[used])
    # Curves are exact in space, not only in the plane.
    v[held["midline"][0]] = line.at(line.between(*_stations(skin)))
    v[below] = brim.at(np.linspace(0, brim.along[-1], len(below)))
    v[rings["eye"][LID]] = lids.at(along)
    v = _even_out(skin, v, outer, held, rings)
    v[[n for n in held["midline"][0] if n not in rings["mouth"][LIP][1:-1]], 0] = 0
    return _bags(v, layout, skin, eye)


def _stations(skin: HalfSkin) -> tuple[np.ndarray, list[int]]:
    """Where on the midline which rows of the layout are, and the steps from one to the next."""
    m = skin.marks * [0, 1, 1]
    corner = skin.v[skin.lips[np.argmax(skin.v[skin.lips, 0])]]
    low, high = MOUTH[2], MOUTH[3]
    top, under, back = skin.marks[82] * [0, 1, 1], skin.brim[-1], skin.brim[0]
    brow = 0.5 * (skin.marks[21] + skin.marks[22]) * [0, 1, 1]
    hairline = brow + 0.62 * (top - brow) + [0, 0, 0.02]
    behind = top + [0, -0.012, -0.065]
    points = [
        (under, 5),  # the rim; 5 rows to the chin
        (m[8], low - 5),
        (0.45 * m[57] + 0.55 * m[8] + [0, 0, 0.003], VERMILION),
        (m[57], LIP - VERMILION),
        (skin.v[skin.lips[0]], (MOUTH[3] - MOUTH[2]) // 2 + MOUTH[1]),
        (corner, (MOUTH[3] - MOUTH[2]) // 2 + MOUTH[1]),
        (skin.v[skin.lips[-1]], LIP - VERMILION),
        (m[51], VERMILION),
        (0.4 * m[51] + 0.6 * m[33], 1),
        (m[33], 2),
        (m[30], EYE[2] - high - 3),
        (m[28], (EYE[3] - EYE[2]) // 2),
        (m[27], (EYE[3] - EYE[2]) // 2),
        (brow, ROWS - EYE[3]),
        (hairline, SIDE),
        (behind, ROWS),
        (back, 0),
    ]
    return np.array([p for p, _ in points]), [n for _, n in points[:-1]]


def _midline(skin, line, index, rings) -> tuple[list[int], np.ndarray, list[bool]]:
    low, high = MOUTH[2], MOUTH[3]
    nodes = [index["box", 0, y, SIDE] for y in range(low)]
    nodes += [ring[0] for ring in rings["mouth"][:LIP]]
    nodes += rings["mouth"][LIP]
    nodes += [ring[-1] for ring in rings["mouth"][:LIP]][::-1]
    nodes += [index["box", 0, y, SIDE] for y in range(high + 1, ROWS)]
    nodes += [index["box", 0, ROWS, z] for z in range(SIDE, -1, -1)]
    nodes += [index["box", 0, y, 0] for y in range(ROWS - 1, -1, -1)]
    points, counts = _stations(skin)
    along = line.between(points, counts)
    assert len(along) == len(nodes), (len(along), len(nodes))
    # Chin, lips and nose stay; what lies between may slide.
    starts = np.cumsum([0, *counts])
    firm = [False] * len(nodes)
    for k in (0, 1, 4, 5, 6, 9, 10, len(starts) - 1):
        firm[starts[k]] = True
    return nodes, along, firm


def _turned(skin: HalfSkin) -> list[int]:
    """The lids' loop from the inner corner over the upper lid."""
    loop = skin.lids
    start = int(np.argmin(skin.v[loop, 0]))
    loop = loop[start:] + loop[:start]
    if skin.v[loop[len(loop) // 4], 1] < skin.v[loop[-len(loop) // 4], 1]:
        loop = loop[:1] + loop[:0:-1]
    return loop


def lids_curve(skin: HalfSkin, count: int) -> tuple[Curve, np.ndarray]:
    loop = _turned(skin)
    curve = Curve(skin.v[loop], closed=True)
    outer = curve.along[int(np.argmax(skin.v[loop, 0]))]
    half = count // 2
    upper = np.linspace(0, outer, half, endpoint=False)
    lower = np.linspace(outer, curve.along[-1], half, endpoint=False)
    return curve, np.concatenate([upper, lower])


def _ear_root(skin: HalfSkin, layout: Layout) -> dict[int, np.ndarray]:
    """Places of the ear's ring 0: by direction, as seen from the side."""
    loop = np.array(skin.ear)
    points, ring = skin.v[loop], layout.rings["ear"][0]
    keys = np.array([layout.nodes[n][2:] for n in ring], float)  # row, column from the back
    keys = keys - 0.5 * (keys.max(0) + keys.min(0))
    # As high as the loop is, and as wide.
    span = np.ptp(points, 0)
    keys *= span[1:] / np.ptp(keys, 0)
    wanted = np.arctan2(keys[:, 0], keys[:, 1])
    offset = points - 0.5 * (points.max(0) + points.min(0))
    have = np.arctan2(offset[:, 1], offset[:, 2])
    order = np.argsort(have)
    have = np.concatenate([have[order] - 2 * np.pi, have[order], have[order] + 2 * np.pi])
    uv = np.tile(skin.uv[loop[order]], (3, 1))
    found = np.stack([np.interp(wanted, have, uv[:, k]) for k in range(2)], 1)
    return dict(zip(ring, found, strict=True))


def _lift(skin: HalfSkin, uv: np.ndarray) -> np.ndarray:
    """Points on the skin [N, 3] at places [N, 2] of the disc."""
    t = skin.disc
    corners = skin.uv[t]
    near = cKDTree(corners.mean(1)).query(uv, k=60)[1]
    a, b, c = (corners[near, k] for k in range(3))

    def cross(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]

    area = cross(b - a, c - a)
    p = uv[:, None]
    w1, w2 = cross(p - a, c - a) / area, cross(b - a, p - a) / area
    w = np.stack([1 - w1 - w2, w1, w2], -1)
    best = w.min(-1).argmax(1)
    rows = np.arange(len(uv))
    w = np.clip(w[rows, best], 0, 1)
    w /= w.sum(1, keepdims=True)
    return (skin.v[t[near[rows, best]]] * w[..., None]).sum(1)


def _even_out(skin, v, outer, held, rings) -> np.ndarray:
    surface = Surface(skin.v, skin.triangles)
    ring = neighbours(len(v), outer)
    degree = np.maximum(np.asarray(ring.sum(1)).ravel(), 1)[:, None]
    used = np.unique(outer)
    bound = {n for nodes, _, _ in held.values() for n in nodes}
    free = np.array([n for n in used if n not in bound])
    lip = _vermilion(skin, len(rings["mouth"][0]))
    v = np.nan_to_num(v)
    for _ in range(ROUNDS):
        mean = ring @ v / degree
        target = v.copy()
        target[used] += 0.5 * (mean - v)[used]
        pulled = rings["mouth"][VERMILION][1:-1]
        target[pulled] += 0.5 * (lip[1:-1] - target[pulled])
        n = normals(v, outer)
        fixed = [
            m for nodes, _, f in held.values() for m, stays in zip(nodes, f, strict=True) if stays
        ]
        target[fixed] = v[fixed]
        target[free] = surface.points[surface.nearest(target[free], n[free])]
        for nodes, curve, firm in held.values():
            slide = np.array([m for m, f in zip(nodes, firm, strict=True) if not f])
            target[slide] = curve.at(_ordered(curve, target, nodes, firm))
        v = target
    n = normals(v, outer)
    triangle, w = surface.exact(v[free], n[free])
    v[free] = (skin.v[skin.triangles[triangle]] * w[..., None]).sum(1)
    return v


def _ordered(curve: Curve, v: np.ndarray, nodes: list[int], firm: list[bool]) -> np.ndarray:
    """Lengths of the sliding nodes: each the middle of its neighbours', in order."""
    along = curve.find(v[nodes])
    stay = np.array(firm)
    if not stay.any():
        return along
    closed = bool(np.allclose(curve.points[0], curve.points[-1]))
    ends = np.concatenate([along, [curve.along[-1]]]) if closed else along
    if closed:
        ends[0] = 0.0
    for _ in range(3):
        middle = 0.5 * (ends[2:] + ends[:-2])
        inner = ~np.concatenate([stay, [True]])[1:-1] if closed else ~stay[1:-1]
        ends[1:-1] = np.where(inner, middle, ends[1:-1])
    return ends[: len(nodes)][~stay]


def _vermilion(skin: HalfSkin, count: int) -> np.ndarray:
    """Where red begins, from the middle below over the corner to the middle above."""
    m = skin.marks.copy()
    corner = m[54] + [0.0035, 0, -0.0015]
    low, high = (
        Curve(np.array([m[57], m[56], m[55], corner])),
        Curve(np.array([corner, m[53], m[52], m[51]])),
    )
    half = count // 2
    return np.concatenate([
        low.at(np.linspace(0, low.along[-1], half + 1)),
        high.at(np.linspace(0, high.along[-1], count - half))[1:],
    ])  # fmt: skip


def _bags(
    v: np.ndarray, layout: Layout, skin: HalfSkin, eye: tuple[np.ndarray, float]
) -> np.ndarray:
    """Lids' inner sides and sockets round the eyeball, and the bag behind the lips."""
    rings, (centre, radius) = layout.rings, eye
    edge = v[rings["eye"][LID]] - centre
    around = np.arctan2(edge[:, 1], edge[:, 0])
    tilt = np.arctan2(np.hypot(edge[:, 0], edge[:, 1]), edge[:, 2])
    last = len(rings["eye"]) - 1
    for k in range(LID + 1, last + 1):
        t = (k - LID - 1) / (last - LID - 1)
        angle = tilt * (1 - t) + np.radians(150) * t
        size = radius * (1.008 + (SOCKET_GAP - 1.008) * min(1.0, 3 * t))
        v[rings["eye"][k]] = centre + size * np.stack(
            [np.sin(angle) * np.cos(around), np.sin(angle) * np.sin(around), np.cos(angle)], 1
        )
    slit = v[rings["mouth"][LIP]]
    count = len(slit)
    turn = np.linspace(-np.pi / 2, np.pi / 2, count)
    y0, z0 = slit[:, 1].mean(), slit[:, 2].min()
    last = len(rings["mouth"]) - 1
    for k in range(LIP + 1, last + 1):
        t = (k - LIP) / (last - LIP)
        depth = z0 - 0.004 - (t - 1 / (last - LIP)) * BAG[2]
        oval = np.stack([BAG[0] * np.cos(turn), y0 + BAG[1] * np.sin(turn), depth + 0 * turn], 1)
        shut = slit - [0, 0, 0.005]  # lips have a thickness of their own before the bag opens
        v[rings["mouth"][k]] = shut if k == LIP + 1 else oval
        v[rings["mouth"][k][0], 0] = v[rings["mouth"][k][-1], 0] = 0
    caps = [i for i, key in enumerate(layout.nodes) if key[1] == "cap" and key[0] != "ear"]
    known = np.setdiff1d(np.arange(len(v)), caps)
    middle = [i for i in caps if layout.nodes[i][0] == "mouth" and layout.nodes[i][2] == 0]
    v = fill(len(v), layout.quads, known, v[known])
    v[middle, 0] = 0
    for i in caps:  # the socket's end is round
        if layout.nodes[i][0] == "eye":
            d = v[i] - centre
            v[i] = centre + SOCKET_GAP * radius * d / np.linalg.norm(d)
    return v

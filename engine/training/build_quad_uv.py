"""UVs of the quad template: head, ears, sockets and the mouth's bag, each one island, symmetric."""

from __future__ import annotations

import numpy as np

from engine.surface.charts import Chart
from engine.surface.parametrise import ellipse, fixed, relax, rest_frames
from engine.training.build_quad_layout import PARTS, Layout
from engine.training.build_quad_surface import boundary

SEAM_TOP = 4  # rows of the top that the seam at the back of the head cuts into
MARGIN = 0.006  # between islands
FACE = 1.9  # how much larger the face is than the back of the head, in length


def unwrap(
    v: np.ndarray, quads: np.ndarray, part: np.ndarray, mirror: np.ndarray, layout: Layout
) -> np.ndarray:
    """UVs float32 [F, 4, 2] of the whole template's quads [F, 4], whose first half is the left.

    v [V, 3]; part [F]: of PARTS; mirror [V]: each vertex's other side.
    """
    half = len(quads) // 2
    left = np.arange(len(quads)) < half
    skin, ear, lid, socket, mouth = (part == i for i in range(len(PARTS)))
    head = np.flatnonzero(skin | lid)
    # The right side has vertices of its own along the seam.
    seam = [n for n, k in enumerate(layout.nodes) if k[0] == "box" and k[1] == 0
            and (k[3] == 0 or (k[2] == max(layout_rows(layout)) and k[3] < SEAM_TOP))]  # fmt: skip
    cut = quads.copy()
    twin = {n: len(v) + i for i, n in enumerate(seam)}
    for n, m in twin.items():
        cut[half:][cut[half:] == n] = m
    points = np.concatenate([v, v[seam]])
    other = np.concatenate([mirror, np.array(seam)])
    other[seam] = list(twin.values())
    size = 1 + (FACE - 1) * _ramp(points[:, 2], -0.02, 0.06) * _ramp(points[:, 1], -0.12, -0.07)
    flat = _island(points, cut[head], size)
    flat = 0.5 * (flat + flat[other] * [-1, 1])
    out = np.zeros((len(quads), 4, 2))
    out[head] = flat[cut[head]]
    boxes = [(head, _place(out[head]))]
    for faces in (ear & left, socket & left):
        number = np.flatnonzero(faces)
        flat = _island(v, quads[number], np.ones(len(v)))
        out[number] = flat[quads[number]]
        # A mirrored quad has its corners the other way round.
        out[number + half] = (out[number] * [-1, 1])[:, ::-1]
        boxes += [(number, _place(out[number])), (number + half, _place(out[number + half]))]
    number = np.flatnonzero(mouth)
    flat = _island(v, quads[number], np.full(len(v), 0.8))
    flat = 0.5 * (flat + flat[mirror] * [-1, 1])
    out[number] = flat[quads[number]]
    boxes.append((number, _place(out[number])))
    return _packed(out, boxes).astype(np.float32)


def layout_rows(layout: Layout) -> list[int]:
    return [k[2] for k in layout.nodes if k[0] == "box"]


def _ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _island(v: np.ndarray, quads: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Places [V, 2] of one island's vertices, holes filled while it is laid out; in metres times
    `size` [V]."""
    loops = boundary(quads)
    length = [np.linalg.norm(v[a] - v[np.roll(a, 1)], axis=1).sum() for a in loops]
    rim = loops[int(np.argmax(length))]
    points, fans = [v], []
    for loop in loops:
        if loop is rim:
            continue
        hub = sum(len(p) for p in points)
        points.append(v[loop].mean(0, keepdims=True))
        fans += [(hub, b, a) for a, b in zip(loop, np.roll(loop, -1), strict=True)]
    p = np.concatenate(points)
    s = np.concatenate([size, np.ones(len(p) - len(v))])
    faces = np.concatenate(
        [quads[:, [0, 1, 2]], quads[:, [0, 2, 3]], np.array(fans, int).reshape(-1, 3)]
    )
    used, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    number = {n: i for i, n in enumerate(used)}
    chart = Chart(0, np.arange(len(faces)), p[used], faces, np.array([number[n] for n in rim]))
    normal = np.cross(
        p[used][faces[:, 1]] - p[used][faces[:, 0]], p[used][faces[:, 2]] - p[used][faces[:, 0]]
    ).sum(0)
    up = np.array([0.0, 1, 0])
    right = np.cross(up, normal / np.linalg.norm(normal))
    right /= np.linalg.norm(right)
    rest = rest_frames(p[used], faces, s[used][faces].mean(1))
    start = fixed(chart, rest, ellipse(chart, right, up))
    flat = relax(chart, rest, start, 120, lambda: None)[-1]
    out = np.zeros((len(v), 2))
    inside = used < len(v)
    flat -= flat[inside].mean(0)
    out[used[inside]] = flat[inside]
    return out


def _place(uv: np.ndarray) -> np.ndarray:
    """Low corner and size of an island's box: [2, 2]."""
    low = uv.reshape(-1, 2).min(0)
    return np.stack([low, uv.reshape(-1, 2).max(0) - low])


def _packed(uv: np.ndarray, boxes: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The first island as wide as the square, the others in rows below it; all smaller together
    where they would not fit."""
    order = [0] + sorted(range(1, len(boxes)), key=lambda i: -boxes[i][1][1, 1])
    for scale in np.linspace(1, 0.3, 141):
        places, x, y, row = {}, 0.0, 0.0, 0.0
        unit = scale / boxes[0][1][1, 0] * (1 - 2 * MARGIN)
        for i in order:
            w, h = boxes[i][1][1] * unit + 2 * MARGIN
            if x + w > 1.0001:
                x, y, row = 0.0, y + row, 0.0
            places[i] = (x + MARGIN, y + h - MARGIN)
            x, row = x + w, max(row, h)
        if y + row <= 1:
            break
    out = uv.copy()
    for i, (faces, (low, _)) in enumerate(boxes):
        at = np.array([places[i][0], 1 - places[i][1]])
        out[faces] = (uv[faces] - low) * unit + at
    left = 0.5 * (1 - boxes[0][1][1, 0] * unit)  # the head stands in the middle
    out[boxes[0][0], :, 0] += left - places[0][0]
    return out

"""UVs for a head: a front, a back and a neck cap, flattened without folds and packed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from engine.surface.charts import BACK, CAP, FRONT, Chart, disks, parts_across, segment
from engine.surface.mesh import Mesh, twins
from engine.surface.parametrise import ellipse, fixed, relax, rest_frames
from engine.surface.rasterize import rasterize_uvs

GUTTER = 4  # texels round every island
ROUNDS = 15  # of relaxation
# How each kind of chart is seen: its right and its up in field axes.
VIEWS = {
    FRONT: (np.array([1.0, 0, 0]), np.array([0, 1.0, 0])),
    BACK: (np.array([-1.0, 0, 0]), np.array([0, 1.0, 0])),
    CAP: (np.array([1.0, 0, 0]), np.array([0, 0, 1.0])),
}


@dataclass(frozen=True)
class UvReport:
    """Figures of a mesh's UVs.

    overlap: the part of the covered texels that more than one face covers. coverage: the part of
    the texture that is covered. stretch: area-weighted mean over faces of the larger of singular
    value and inverse singular value, each island at its own best scale (1 is an isometry);
    stretch_95: its 95th percentile. folded: faces turned over or without area. inside: all 0..1.
    """

    islands: int
    overlap: float
    coverage: float
    stretch: float
    stretch_95: float
    folded: int
    inside: bool

    def to_json(self) -> dict:
        return asdict(self)


def unwrap(mesh: Mesh, size: int = 2048, check: Callable[[], None] = lambda: None) -> Mesh:
    """The mesh with UVs inside 0..1, one island a chart, none overlapping.

    mesh: one closed manifold, upright in field space (y up, face to +z). size: texels along the
    texture's side, for the gutters. The face, at the front of the box, gets the most texels.
    """
    charts = disks(mesh, segment(mesh))
    flat = []
    for chart in charts:
        check()
        flat.append(_flatten(mesh, chart, check))
    scales, places = _pack(charts, flat, GUTTER / size)
    uvs = np.zeros((len(mesh.faces), 3, 2), np.float32)
    for chart, uv, scale, place in zip(charts, flat, scales, places, strict=True):
        uvs[chart.source] = ((uv - uv.min(0)) * scale + place)[chart.faces]
    return mesh.with_uvs(np.clip(uvs, 0, 1))


def _flatten(mesh: Mesh, chart: Chart, check: Callable[[], None]) -> np.ndarray:
    """UVs [v, 2] of a chart in field units, upright, free of overlaps."""
    right, up = VIEWS[chart.kind]
    rest = rest_frames(chart.vertices, chart.faces, _detail(mesh, chart))
    start = fixed(chart, rest, ellipse(chart, right, up))
    path = relax(chart, rest, start, ROUNDS, check)
    good, bad = 0, len(path)  # the first map, onto a convex shape, cannot overlap
    at = bad - 1
    while bad - good > 1:
        check()
        if _overlaps(path[at][chart.faces]):
            bad = at
        else:
            good = at
        at = (good + bad) // 2
    uv = path[good]
    seen = np.stack([chart.vertices @ right, chart.vertices @ up], 1)
    seen, uv = seen - seen.mean(0), uv - uv.mean(0)
    a, b = (uv * seen).sum(), (uv[:, 0] * seen[:, 1] - uv[:, 1] * seen[:, 0]).sum()
    c, s = np.array([a, b]) / max(np.hypot(a, b), 1e-30)
    return uv @ np.array([[c, s], [-s, c]])


def _detail(mesh: Mesh, chart: Chart) -> np.ndarray:
    """Length scale of each face: 1 at the face, falling to 0.6 away from it. A field's origin is
    the middle of the head, its z points out of the face."""
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    focus = np.array([0.0, min(max(0.0, low[1]), high[1]), high[2]])
    reach = 0.3 * float((high - low).max())
    distance = np.linalg.norm(chart.vertices[chart.faces].mean(1) - focus, axis=1)
    return 0.6 + 0.4 * np.exp(-((distance / reach) ** 2))


def _overlaps(corners: np.ndarray) -> bool:
    low, high = corners.min((0, 1)), corners.max((0, 1))
    raster, double = rasterize_uvs((corners - low) / (high - low).max(), 1024)
    return double > 1e-4 * (raster.face >= 0).sum()


def _pack(
    charts: list[Chart], flat: list[np.ndarray], gutter: float
) -> tuple[list[float], list[np.ndarray]]:
    """Scale and lower left corner of every chart in the unit square.

    The back and the cap may be scaled down against the front, as far as it helps the front to
    grow; what counts is the front's texels plus half of the others'.
    """
    sizes = np.array([np.ptp(uv, 0) for uv in flat])
    kinds = np.array([c.kind for c in charts])
    areas = np.array([np.linalg.norm(_cross(c), axis=1).sum() for c in charts])
    best = (-1.0, None, None)
    for back, cap in itertools.product((1.0, 0.85, 0.7, 0.6, 0.5), (0.6, 0.4, 0.3)):
        relative = np.array([1.0, back, cap])[kinds]
        boxes = sizes * relative[:, None]
        low, high, places = 0.0, 1 / boxes.max(), None
        for k in range(16):
            scale = (low + high) / 2 if k else high
            found = _fit(boxes * scale + 2 * gutter)
            if found is None:
                high = scale
            else:
                low, places = scale, found
        if places is None:
            continue
        value = low**2 * (areas * relative**2 * np.array([1.0, 0.5, 0.2])[kinds]).sum()
        if value > best[0]:
            best = (value, relative * low, places + gutter)
        if len(charts) > 12:
            break
    if best[1] is None:
        raise ValueError("the charts do not fit the texture")
    return list(best[1]), list(best[2])


def _cross(chart: Chart) -> np.ndarray:
    a, b, c = (chart.vertices[chart.faces[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def _fit(boxes: np.ndarray) -> np.ndarray | None:
    """Lower left corners [n, 2] of boxes [n, 2] in the unit square, or None. Each box, the tallest
    first, goes to the lowest, then leftmost corner that others leave free."""
    order = np.argsort(-boxes[:, 1], kind="stable")
    places = np.zeros_like(boxes)
    done: list[int] = []
    for i in order:
        xs = np.concatenate([[0.0], places[done, 0] + boxes[done, 0]])
        ys = np.concatenate([[0.0], places[done, 1] + boxes[done, 1]])
        spots = np.stack([g.ravel() for g in np.meshgrid(xs, ys)], 1)
        spots = spots[((spots + boxes[i]) <= 1 + 1e-12).all(1)]
        if done and len(spots):
            low, high = places[done], places[done] + boxes[done]
            clash = (spots[:, None] < high - 1e-12) & (spots[:, None] + boxes[i] > low + 1e-12)
            spots = spots[~clash.all(2).any(1)]
        if not len(spots):
            return None
        places[i] = spots[np.lexsort((spots[:, 0], spots[:, 1]))[0]]
        done.append(i)
    return places


def islands(mesh: Mesh) -> np.ndarray:
    """The UV island [F] of each face: faces hang together across edges whose UVs agree."""
    twin = twins(mesh.faces)
    uv = mesh.uvs.reshape(-1, 2)
    following = np.arange(len(twin)) + np.where(np.arange(len(twin)) % 3 == 2, -2, 1)
    same = (twin >= 0) & (uv == uv[following[twin]]).all(1) & (uv[following] == uv[twin]).all(1)
    return parts_across(np.where(same, twin // 3, -1).reshape(-1, 3))


def measure(mesh: Mesh, size: int = 1024) -> UvReport:
    """Figures of the mesh's UVs, overlaps measured on a raster of size x size texels."""
    raster, double = rasterize_uvs(mesh.uvs, size)
    covered = int((raster.face >= 0).sum())
    label = islands(mesh)
    u = mesh.uvs.astype(np.float64)
    rest = rest_frames(mesh.vertices.astype(np.float64), mesh.faces, np.ones(len(mesh.faces)))
    d = np.stack([u[:, 1] - u[:, 0], u[:, 2] - u[:, 0]], 2)
    j = d @ np.linalg.inv(np.stack([rest[:, 1], rest[:, 2]], 2))
    s = np.linalg.svd(j, compute_uv=False)
    det = np.linalg.det(d)
    area = np.linalg.det(np.stack([rest[:, 1], rest[:, 2]], 2))
    scale = np.sqrt(np.bincount(label, np.abs(det)) / np.bincount(label, area))[label]
    s = np.maximum(s / scale[:, None], 1e-9)
    worst = np.maximum(s[:, 0], 1 / s[:, 1])
    order = np.argsort(worst)
    share = np.cumsum(area[order]) / area.sum()
    return UvReport(
        islands=int(label.max()) + 1,
        overlap=double / max(covered, 1),
        coverage=covered / size**2,
        stretch=float(np.average(worst, weights=area)),
        stretch_95=float(worst[order][np.searchsorted(share, 0.95)]),
        folded=int((det <= 0).sum()),
        inside=bool((u >= 0).all() and (u <= 1).all()),
    )

"""The mean head's outer skin as one half in a plane, for the quad template to be laid on.

The skin is cut at the lids' edges, between the lips and at the bust's rim; its left half is then a
disc with one hole, and is mapped onto the unit disc by harmonic coordinates (Tutte 1963, "How to
draw a graph", with mean value weights: Floater 2003), the hole filled.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree

from engine.training.build_headspace import bust_cut, smooth_max
from engine.training.heads.pack import Pack
from engine.training.heads.parts import split_quads


def rim_level(points: np.ndarray) -> np.ndarray:
    """Distance-like, positive below the template's rim: inside the bust's own cut (metres), and
    flatter, lower behind than in front."""
    plane = -0.1197 + 0.19 * points[..., 2] - points[..., 1]
    return smooth_max(bust_cut(points) + 0.003, plane, 0.01)


def symmetric(pack: Pack, mean: np.ndarray) -> np.ndarray:
    """The mean head's vertices [V, 3] with left and right made equal."""
    distance, other = cKDTree(pack.rest).query(pack.rest * [-1, 1, 1])
    paired = distance < 1e-5
    mirrored = mean[other] * [-1, 1, 1]
    return np.where(paired[:, None], 0.5 * (mean + mirrored), mean)


class HalfSkin:
    """The left half of the mean head's skin.

    v [V, 3]: all the pack's vertices, symmetric; triangles [T, 3]: the outer skin's left half,
    with the neck to its end; lids, lips, ear: vertex loops (lips: from the middle of the lower lip
    over the corner to the upper), midline: vertices from the rim in front over the crown to the
    rim behind, with the lips' loop in it; rim: from the back to the front; uv [V, 2]: places on
    the unit disc, NaN where the half has no vertex.
    """

    def __init__(self, pack: Pack, mean: np.ndarray) -> None:
        self.v = v = symmetric(pack, mean)
        quads = pack.faces[pack.face_group == pack.group_names.index("skin")]
        self.marks = marks = pack.landmarks(v)
        lids = _loop_near(v, quads, marks[42:48])
        lips = _loop_near(v, quads, marks[60:68])
        cuts = {
            _key(a, b)
            for loop in (lids, lips)
            for a, b in zip(loop, np.roll(loop, -1), strict=True)
        }
        mirror = cKDTree(v).query(v[lids] * [-1, 1, 1])[1]
        cuts |= {_key(a, b) for a, b in zip(mirror, np.roll(mirror, -1), strict=True)}
        outer = _component(quads, cuts, cKDTree(v).query(marks[27])[1])
        half = outer[(v[outer].mean(1)[:, 0] > 0)]
        self.quads = half
        self.triangles = split_quads(half)
        bust = half[(rim_level(v[half]) < 0).all(1)]
        bust = _component(bust, set(), cKDTree(v).query(marks[44])[1])
        moved = np.zeros(len(v))
        index = pack._target_index["ears/l-ear-trans-down"]
        a, b = pack._ptr[index], pack._ptr[index + 1]
        moved[pack._vert[a:b]] = np.linalg.norm(pack._delta[a:b], axis=1)
        # An ear's faces: those that the target moves by more than half.
        ear = bust[(moved[bust] > 0.55 * moved.max()).all(1)]
        self.ear = boundary(
            _component(ear, set(), int(np.argmax(np.where(moved > 0, v[:, 0], -1))))
        )[0]
        loops = boundary(bust)
        outside = max(loops, key=len)
        self.lids = next(loop for loop in loops if set(loop) & set(lids))
        self._sort_border(outside, set(lips))
        self.disc = split_quads(bust)
        self.uv = self._flatten(self.disc)
        self.brim = self._smooth_rim()

    def _sort_border(self, border: list[int], lips: set[int]) -> None:
        """Split the half's border into midline and rim."""
        v = self.v
        centre = np.abs(v[border, 0]) < 1e-7
        middle = [i for i, vertex in enumerate(border) if centre[i] or vertex in lips]
        inside = np.zeros(len(border), bool)
        inside[middle] = True
        # The rim is the longest run that is not on the middle.
        start = next(i for i in range(len(border)) if inside[i] and not inside[i - 1])
        order = np.roll(np.arange(len(border)), -start)
        line = [border[i] for i in order if inside[i]]
        rim = [border[i] for i in order if not inside[i]]
        if v[line[0], 2] < v[line[-1], 2]:
            line.reverse()
            rim.reverse()
        self.midline, self.rim = line, [line[-1], *rim, line[0]]
        self.lips = [vertex for vertex in line if vertex in lips]

    def _smooth_rim(self) -> np.ndarray:
        """The bust's cut through the half as a smooth line [N, 3] from the back to the front."""
        t = self.triangles[(self.v[self.triangles][..., 1] < -0.08).all(1)]
        level = rim_level(self.v)
        found = []
        for k in range(3):
            a, b = t[:, k], t[:, (k + 1) % 3]
            cut = level[a] * level[b] < 0
            w = (level[a] / np.where(cut, level[a] - level[b], 1))[cut, None]
            found.append(self.v[a[cut]] * (1 - w) + self.v[b[cut]] * w)
        points = np.concatenate(found)
        middle = np.array([0, 0, points[:, 2].mean()])
        angle = np.arctan2(points[:, 0], -(points - middle)[:, 2])
        order = np.argsort(angle)
        fine = np.linspace(angle.min(), angle.max(), 60)
        line = np.stack([np.interp(fine, angle[order], points[order, k]) for k in range(3)], 1)
        mirrored = line * [-1, 1, 1]
        for _ in range(6):  # across the middle as well
            whole = np.concatenate([mirrored[[1]], line, mirrored[[-2]]])
            line = 0.25 * (whole[:-2] + whole[2:]) + 0.5 * line
            mirrored = line * [-1, 1, 1]
        line[[0, -1], 0] = 0
        return line

    def _flatten(self, triangles: np.ndarray) -> np.ndarray:
        v, out = self.v, np.full((len(self.v), 2), np.nan)
        loop = self.midline + self.rim[1:-1]
        # The midline takes the left three quarters of the circle, by length.
        along = _lengths(v[self.midline])
        below = _lengths(v[self.rim])
        angle = np.concatenate([along * 1.5 * np.pi, (1.5 + 0.5 * below[1:-1]) * np.pi])
        out[loop] = np.stack([np.cos(angle), np.sin(angle)], 1)
        hub = len(v)
        fan = [(hub, a, b) for a, b in zip(self.lids, np.roll(self.lids, -1), strict=True)]
        points = np.concatenate([v, v[self.lids].mean(0, keepdims=True)])
        full = np.concatenate([triangles, fan])
        return harmonic(points, full, np.array(loop), out[loop])[: len(v)]


def harmonic(
    points: np.ndarray, triangles: np.ndarray, fixed: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """Places [V, 2] of vertices by mean value coordinates, with some fixed; NaN for the unused."""
    n = len(points)
    rows, columns, values = [], [], []
    for k in range(3):
        i, j, m = triangles[:, k], triangles[:, (k + 1) % 3], triangles[:, (k + 2) % 3]
        a, b = points[j] - points[i], points[m] - points[i]
        la, lb = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        cosine = np.clip((a * b).sum(1) / np.maximum(la * lb, 1e-15), -1, 1)
        half = np.tan(np.arccos(cosine) / 2)
        rows += [i, i]
        columns += [j, m]
        values += [half / np.maximum(la, 1e-9), half / np.maximum(lb, 1e-9)]
    weights = sparse.coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (n, n)
    ).tocsr()
    used = np.unique(triangles)
    free = np.setdiff1d(used, fixed)
    total = np.asarray(weights.sum(1)).ravel()
    system = sparse.diags(total[free]) - weights[free][:, free]
    out = np.full((n, places.shape[1]), np.nan)
    out[fixed] = places
    right = weights[free][:, fixed] @ places
    out[free] = np.stack([spsolve(system.tocsc(), right[:, k]) for k in range(places.shape[1])], 1)
    return out


def _lengths(line: np.ndarray) -> np.ndarray:
    """0..1 along a polyline [N, 3]."""
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    along = np.concatenate([[0], np.cumsum(steps)])
    return along / along[-1]


def _key(a: int, b: int) -> tuple[int, int]:
    return (int(a), int(b)) if a < b else (int(b), int(a))


def _edges(quads: np.ndarray) -> list[tuple[int, int]]:
    """Directed edges of quads [F, 4] (a triangle repeats a corner)."""
    both = np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2)
    return [(int(a), int(b)) for a, b in both if a != b]


def boundary(quads: np.ndarray) -> list[list[int]]:
    """Border loops of quads, each a list of vertices in order."""
    directed = set(_edges(quads))
    after = {a: b for a, b in directed if (b, a) not in directed}
    loops = []
    while after:
        loop = [next(iter(after))]
        while (following := after.pop(loop[-1], None)) is not None and following != loop[0]:
            loop.append(following)
        loops.append(loop)
    return loops


def _component(quads: np.ndarray, cuts: set[tuple[int, int]], seed: int) -> np.ndarray:
    """The quads that hang together, not across `cuts`, with one at the vertex `seed`."""
    owner: dict[tuple[int, int], int] = {}
    pairs = []
    for f, quad in enumerate(quads):
        for a, b in _edges(quad[None]):
            key = _key(a, b)
            if key in cuts:
                continue
            if key in owner:
                pairs.append((owner[key], f))
            owner[key] = f
    p = np.array(pairs)
    graph = sparse.coo_matrix((np.ones(len(p)), (p[:, 0], p[:, 1])), (len(quads),) * 2)
    _, label = connected_components(graph, False)
    wanted = label[(quads == seed).any(1).argmax()]
    return quads[label == wanted]


def _loop_near(v: np.ndarray, quads: np.ndarray, points: np.ndarray) -> list[int]:
    """The closed edge loop of the quads that passes nearest to the points [N, 3] on average."""
    directed = {}
    for f, quad in enumerate(quads):
        for a, b in _edges(quad[None]):
            directed[a, b] = f
    beside: dict[int, set[int]] = {}
    for a, b in directed:
        beside.setdefault(a, set()).add(b)
        beside.setdefault(b, set()).add(a)

    def faces(a: int, b: int) -> set[int]:
        return {directed.get((a, b), -1), directed.get((b, a), -1)} - {-1}

    def walk(a: int, b: int) -> list[int]:
        loop = [a]
        while b != loop[0] and len(loop) < 80:
            loop.append(b)
            across = [c for c in beside[b] if not faces(b, c) & faces(loop[-2], b)]
            if len(beside[b]) != 4 or len(across) != 1:
                return []
            b = across[0]
        return loop if b == loop[0] else []

    starts = set(cKDTree(v[np.unique(quads)]).query(points, k=6)[1].ravel().tolist())
    used = np.unique(quads)
    best, least = [], np.inf
    for start in starts:
        a = int(used[start])
        for b in beside[a]:
            loop = walk(a, b)
            if loop:
                error = cKDTree(v[loop]).query(points)[0].mean()
                if error < least:
                    best, least = loop, error
    return best

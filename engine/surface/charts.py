"""Cutting a closed surface into a few charts, each one a disk: front, back, the flat neck cap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import (
    breadth_first_order,
    connected_components,
    dijkstra,
    maximum_flow,
    minimum_spanning_tree,
)

from engine.surface.mesh import Mesh, half_edges, twins
from engine.surface.topology import split_fans

FRONT, BACK, CAP = 0, 1, 2
BAND = 0.04  # of the mesh's size: how far the seam may stray from its plane


@dataclass(frozen=True)
class Chart:
    """A disk cut from a mesh.

    kind: FRONT, BACK or CAP. source: int [f], its faces in the mesh. vertices: float64 [v, 3].
    faces: int [f, 3] into vertices. loop: int [b], its boundary's vertices, counter-clockwise.
    """

    kind: int
    source: np.ndarray
    vertices: np.ndarray
    faces: np.ndarray
    loop: np.ndarray


def segment(mesh: Mesh) -> np.ndarray:
    """FRONT, BACK or CAP for each face [F].

    The seam runs over the crown and down behind the face, near a plane at the surface's mean depth:
    the shortest cut that stays close to it. The cap is the flat cut at the bottom, if there is one.
    """
    v, f = mesh.vertices.astype(np.float64), mesh.faces
    normal = mesh.face_normals()
    area = np.linalg.norm(normal, axis=1)
    centre = v[f].mean(1)
    low, high = v.min(0), v.max(0)
    cap = (normal[:, 1] < -0.9 * area) & (centre[:, 1] < low[1] + 0.005 * (high - low)[1])
    if area[cap].sum() < 0.005 * area.sum():
        cap[:] = False
    depth = (centre[:, 2] - np.average(centre[:, 2], weights=area)) / (high - low).max()
    label = np.where(cap, CAP, np.where(depth > 0, FRONT, BACK))
    twin = twins(f)
    tail, head = half_edges(f)
    length = np.linalg.norm(v[tail] - v[head], axis=1) / (high - low).max()
    label = _short_seam(label, depth, area / area.mean(), twin // 3, length / length.mean())
    return _connected(label, twin // 3, area)


def _short_seam(
    label: np.ndarray, depth: np.ndarray, area: np.ndarray, across: np.ndarray, length: np.ndarray
) -> np.ndarray:
    """label with the seam between front and back moved, inside a band round depth zero, to where
    it is short: a minimum cut over the faces, which pay for their depth. across, length: [3F]."""
    band = (np.abs(depth) < BAND) & (label != CAP)
    face = np.arange(len(across)) // 3
    number = np.cumsum(band) - 1
    n = int(band.sum())
    source, sink = n, n + 1
    inner = band[face] & band[across]
    rim = band[face] & ~band[across] & (label[across] != CAP)
    front, back = rim & (label[across] == FRONT), rim & (label[across] == BACK)
    own = number[band]
    pay = 0.1 * area[band] * np.abs(depth[band]) / BAND
    ahead = depth[band] > 0
    rows = [number[face[inner]], np.full(front.sum(), source), number[face[back]],
            np.full(ahead.sum(), source), own[~ahead]]  # fmt: skip
    cols = [number[across[inner]], number[face[front]], np.full(back.sum(), sink),
            own[ahead], np.full((~ahead).sum(), sink)]  # fmt: skip
    capacity = [length[inner], length[front], length[back], pay[ahead], pay[~ahead]]
    capacity = np.maximum(np.concatenate(capacity) * 1000, 1).astype(np.int32)  # whole numbers
    graph = csr_matrix(
        (capacity, (np.concatenate(rows), np.concatenate(cols))), (n + 2, n + 2), dtype=np.int32
    )
    left = graph - maximum_flow(graph, source, sink).flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    reached = breadth_first_order(left, source, return_predecessors=False)
    out = label.copy()
    which = np.flatnonzero(band)
    out[which] = BACK
    out[which[reached[reached < n]]] = FRONT
    return out


def _connected(label: np.ndarray, across: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Spikes go, and of each label only the largest connected part stays; the others join the
    label that surrounds them. across: [3F] the face behind each half-edge."""
    across = across.reshape(-1, 3)
    label = label.copy()
    for _ in range(20):
        beside = label[across]
        for kind in range(3):
            label[((beside == kind).sum(1) >= 2) & (label != CAP)] = kind
        part = _parts(label, across)
        size = np.bincount(part, area)
        kind_of = np.zeros(len(size), int)
        kind_of[part] = label
        largest = {k: np.flatnonzero(kind_of == k)[np.argmax(size[kind_of == k])]
                   for k in np.unique(kind_of)}  # fmt: skip
        stray = part != np.array([largest[k] for k in label])
        if not stray.any():
            break
        # Every stray part takes its commonest neighbour's label.
        rows = np.repeat(np.flatnonzero(stray), 3)
        cols = across[stray].ravel()
        edge = part[rows] != part[cols]
        votes = np.zeros((len(size), 3))
        np.add.at(votes, (part[rows[edge]], label[cols[edge]]), 1)
        label[stray] = votes.argmax(1)[part[stray]]
    return label


def parts_across(across: np.ndarray) -> np.ndarray:
    """The connected part of each face; across: [F, 3] the faces beside it, -1 for none."""
    rows, cols = np.repeat(np.arange(len(across)), 3), across.ravel()
    keep = cols >= 0
    n = len(across)
    graph = coo_matrix((np.ones(keep.sum(), bool), (rows[keep], cols[keep])), (n, n))
    return connected_components(graph, directed=False)[1]


def _parts(label: np.ndarray, across: np.ndarray) -> np.ndarray:
    return parts_across(np.where(label[across] == label[:, None], across, -1))


def disks(mesh: Mesh, label: np.ndarray) -> list[Chart]:
    """The charts of a closed manifold mesh whose faces carry labels [F], each cut to a disk.

    A part with holes or handles is slit along short paths; no face is lost. Parts of one label
    that do not hang together become several charts.
    """
    twin = twins(mesh.faces)
    face_of = np.arange(len(twin)) // 3
    twin[label[face_of] != label[twin // 3]] = -1
    part = _parts(label, (twins(mesh.faces) // 3).reshape(-1, 3))
    charts = []
    for p in np.unique(part):
        source = np.flatnonzero(part == p)
        charts.append(_disk(mesh, source, twin, int(label[source[0]])))
    return charts


def _disk(mesh: Mesh, source: np.ndarray, twin: np.ndarray, kind: int) -> Chart:
    to_local = np.full(len(mesh.faces), -1)
    to_local[source] = np.arange(len(source))
    half = (source[:, None] * 3 + np.arange(3)).ravel()
    t = twin[half]
    local = np.where(t >= 0, to_local[t // 3] * 3 + t % 3, -1)
    for _ in range(3):
        v, f, _ = split_fans(mesh.vertices, mesh.faces[source], local)
        edges = ((local >= 0).sum() // 2) + (local < 0).sum()
        loops = _loops(f, local)
        if len(v) - edges + len(f) == 1 and len(loops) == 1:
            return Chart(kind, source, v.astype(np.float64), f, loops[0])
        local = _slit(v.astype(np.float64), f, local)
    raise ValueError("a chart could not be cut to a disk")


def _loops(faces: np.ndarray, twin: np.ndarray) -> list[np.ndarray]:
    tail, head = half_edges(faces)
    border = np.flatnonzero(twin < 0)
    following = dict(zip(tail[border].tolist(), head[border].tolist(), strict=True))
    loops = []
    while following:
        start, at = next(iter(following.items()))
        del following[start]
        loop = [start]
        while at != start:
            loop.append(at)
            at = following.pop(at)
        loops.append(np.array(loop))
    return loops


def _slit(vertices: np.ndarray, faces: np.ndarray, twin: np.ndarray) -> np.ndarray:
    """twin with the cut edges set to -1 that make the part a disk.

    Tree and cotree: shortest paths from the boundary, a tree over the faces that avoids them, and
    for each edge in neither the paths from its ends to the boundary.
    """
    tail, head = half_edges(faces)
    n = len(vertices)
    length = np.linalg.norm(vertices[tail] - vertices[head], axis=1)
    graph = csr_matrix((np.maximum(length, 1e-12), (tail, head)), (n, n))
    graph = graph.maximum(graph.T)
    border = np.unique(tail[twin < 0])
    closed = len(border) == 0
    if closed:  # start from one end of a far pair, and slit at least to the other
        border = np.array([int(dijkstra(graph, indices=0).argmax())])
    distance, parent, _ = dijkstra(
        graph, indices=border, min_only=True, return_predecessors=True, directed=False
    )
    inner = np.flatnonzero((twin >= 0) & (np.arange(len(twin)) < twin))
    a, b = tail[inner], head[inner]
    in_tree = (parent[a] == b) | (parent[b] == a)
    rest = inner[~in_tree]
    far = distance[tail[rest]] + distance[head[rest]] + length[rest]
    weight = 1 + far.max() - far
    f = len(faces)
    # Of several edges between two faces (a face pair can share two) only one may be in the tree.
    pair = np.minimum(rest // 3, twin[rest] // 3) * f + np.maximum(rest // 3, twin[rest] // 3)
    _, first = np.unique(pair, return_index=True)
    dual = coo_matrix((weight[first], (rest[first] // 3, twin[rest[first]] // 3)), (f, f))
    tree = minimum_spanning_tree(dual).tocoo()
    low, high = np.minimum(tree.row, tree.col), np.maximum(tree.row, tree.col)
    crossed = np.zeros(len(rest), bool)
    crossed[first] = np.isin(pair[first], low.astype(np.int64) * f + high)

    cut = set()
    starts = []
    for h in rest[~crossed]:
        cut.add((min(tail[h], head[h]), max(tail[h], head[h])))
        starts += [tail[h], head[h]]
    if closed and not starts:
        starts = [int(distance.argmax())]
    for at in starts:
        while parent[at] >= 0:
            step = (min(at, parent[at]), max(at, parent[at]))
            if step in cut and at not in starts:
                break
            cut.add(step)
            at = parent[at]
    out = twin.copy()
    for h in inner:
        if (min(tail[h], head[h]), max(tail[h], head[h])) in cut:
            out[twin[h]] = -1
            out[h] = -1
    return out

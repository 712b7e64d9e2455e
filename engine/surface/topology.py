"""Topology of triangle meshes: what is wrong with one, and making it a closed manifold.

`closed_manifold` works on any closed, consistently wound soup (every edge run through as often in
one direction as in the other), which marching cubes gives and edge contraction keeps: half-edges
are paired so that each wedge of material closes on itself, and a vertex becomes as many vertices
as there are fans of faces round it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from engine.surface.mesh import Mesh, half_edges, twins, volume


@dataclass(frozen=True)
class Topology:
    """What a mesh's topology is; a clean head has 1 component and zeros down to `degenerate`."""

    vertices: int
    faces: int
    components: int
    boundary_edges: int
    nonmanifold_edges: int
    nonmanifold_vertices: int
    misoriented_edges: int
    degenerate_faces: int
    duplicate_faces: int
    unused_vertices: int
    genus: int

    @property
    def clean(self) -> bool:
        """One closed, oriented, manifold component without degenerate or duplicate faces."""
        bad = (
            self.boundary_edges + self.nonmanifold_edges + self.nonmanifold_vertices
            + self.misoriented_edges + self.degenerate_faces + self.duplicate_faces
            + self.unused_vertices
        )  # fmt: skip
        return self.components == 1 and bad == 0

    def to_json(self) -> dict:
        return {**asdict(self), "clean": self.clean}


def _unique_edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half-edge → edge number [3F], uses of each edge [E], its half-edges' direction sum [E]."""
    tail, head = half_edges(faces)
    low, high = np.minimum(tail, head).astype(np.int64), np.maximum(tail, head)
    _, edge, uses = np.unique(
        low * (int(faces.max()) + 1) + high, return_inverse=True, return_counts=True
    )
    direction = np.bincount(edge, np.where(tail < head, 1, -1), minlength=len(uses))
    return edge.reshape(-1), uses, direction


def face_components(faces: np.ndarray, vertex_count: int) -> tuple[int, np.ndarray]:
    """Number of components joined by vertices, and the component of each face [F]."""
    tail, head = half_edges(faces)
    graph = coo_matrix((np.ones(len(tail), bool), (tail, head)), (vertex_count, vertex_count))
    _, label = connected_components(graph, directed=False)
    used, faces_label = np.unique(label[faces[:, 0]], return_inverse=True)
    return len(used), faces_label.reshape(-1)


def examine(mesh: Mesh) -> Topology:
    """Count everything that may be wrong with the mesh's topology, by index."""
    f = mesh.faces
    edge, uses, direction = _unique_edges(f)
    components, _ = face_components(f, len(mesh.vertices))
    used = np.bincount(f.ravel(), minlength=len(mesh.vertices)) > 0
    ok_twin = twins(f)
    ok_twin[uses[edge] != 2] = -1
    fans = np.unique(_fans(ok_twin)).size
    areas = np.linalg.norm(mesh.face_normals(), axis=1)
    repeated = (f == f[:, (1, 2, 0)]).any(1)
    unique_faces = len(np.unique(np.sort(f, 1), axis=0))
    euler = int(used.sum()) - len(uses) + len(f)
    return Topology(
        vertices=len(mesh.vertices),
        faces=len(f),
        components=components,
        boundary_edges=int((uses == 1).sum()),
        nonmanifold_edges=int((uses > 2).sum()),
        nonmanifold_vertices=int(fans - used.sum()),
        misoriented_edges=int(((uses == 2) & (direction != 0)).sum()),
        degenerate_faces=int((repeated | (areas <= 0)).sum()),
        duplicate_faces=len(f) - unique_faces,
        unused_vertices=int((~used).sum()),
        genus=components - euler // 2,
    )


def _fans(twin: np.ndarray) -> np.ndarray:
    """The fan [3F] that each face corner belongs to when faces join across paired half-edges
    only (twin[h] = -1: not joined)."""
    h = np.flatnonzero(twin >= 0)
    t = twin[h]
    following = np.arange(len(twin)) + np.where(np.arange(len(twin)) % 3 == 2, -2, 1)
    rows, cols = np.concatenate([h, following[h]]), np.concatenate([following[t], t])
    graph = coo_matrix((np.ones(len(rows), bool), (rows, cols)), (len(twin), len(twin)))
    return connected_components(graph, directed=False)[1]


def split_fans(
    vertices: np.ndarray, faces: np.ndarray, twin: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give every fan of faces its own vertex.

    twin: half-edge pairing [3F] (-1: cut open there). Returns vertices, faces [F, 3] and the old
    vertex [V'] of each new one.
    """
    fan = _fans(twin)
    old = np.zeros(fan.max() + 1, np.int64)
    old[fan] = faces.ravel()
    return vertices[old], fan.reshape(-1, 3).astype(np.int32), old


def _pair_wedges(vertices: np.ndarray, faces: np.ndarray, twin: np.ndarray) -> None:
    """Pair, in place, the half-edges at edges with more than two faces: each face with the first
    one met when turning round the edge through the material."""
    edge, uses, _ = _unique_edges(faces)
    bad = np.flatnonzero(uses[edge] > 2)
    if not len(bad):
        return
    tail, head = half_edges(faces)
    for e in np.unique(edge[bad]):
        hs = bad[edge[bad] == e]
        a, b = sorted((tail[hs[0]], head[hs[0]]))
        axis = vertices[b].astype(np.float64) - vertices[a]
        axis /= max(np.linalg.norm(axis), 1e-30)
        opposite = vertices[faces[hs // 3, (hs % 3 + 2) % 3]] - vertices[a].astype(np.float64)
        x = opposite[0] - axis * (opposite[0] @ axis)
        x /= max(np.linalg.norm(x), 1e-30)
        angle = np.arctan2(opposite @ np.cross(axis, x), opposite @ x) % (2 * np.pi)
        ring = hs[np.argsort(angle, kind="stable")]
        # A face that runs along the axis has its normal towards growing angles, so its
        # material lies towards falling ones.
        forward = [i for i, h in enumerate(ring) if tail[h] == a]
        free = {i for i, h in enumerate(ring) if tail[h] != a}
        for i in forward:
            j = next(k % len(ring) for k in range(i + len(ring) - 1, i - 1, -1)
                     if k % len(ring) in free)  # fmt: skip
            free.discard(j)
            twin[ring[i]], twin[ring[j]] = ring[j], ring[i]


def drop_degenerate(faces: np.ndarray) -> np.ndarray:
    """Faces without those that repeat a vertex and without pairs that lie back to back."""
    f = faces[~(faces == faces[:, (1, 2, 0)]).any(1)]
    key = np.sort(f, 1)
    odd = (f[:, 0] < f[:, 1]).astype(int) + (f[:, 1] < f[:, 2]) + (f[:, 2] < f[:, 0])
    sign = np.where(odd == 2, 1, -1)  # even permutations of the sorted triple
    _, group = np.unique(key, axis=0, return_inverse=True)
    group = group.reshape(-1)
    surplus = np.bincount(group, sign)
    count = np.bincount(group)
    plain = count[group] == 1
    keep = np.flatnonzero(plain)
    rest = []
    for i in np.flatnonzero(~plain):
        if surplus[group[i]] * sign[i] > 0:
            surplus[group[i]] -= sign[i]
            rest.append(i)
    return f[np.sort(np.concatenate([keep, np.array(rest, keep.dtype)]))]


def _split_double_edges(
    vertices: np.ndarray, faces: np.ndarray, twin: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Where two edges join the same two vertices, put a vertex on one of them; None if nowhere."""
    edge, uses, _ = _unique_edges(faces)
    bad = np.flatnonzero(uses[edge] > 2)
    if not len(bad):
        return None
    vertices, faces = list(vertices), [list(f) for f in faces]
    kept, seen, changed = set(), set(), set()
    for h in bad:
        t = int(twin[h])
        if h in seen:
            continue
        seen |= {int(h), t}
        if edge[h] not in kept:  # one of them stays
            kept.add(edge[h])
            continue
        f, g = int(h) // 3, t // 3
        if {f, g} & changed:  # left for the next round
            continue
        changed |= {f, g}
        a, b, c = faces[f][h % 3], faces[f][(h + 1) % 3], faces[f][(h + 2) % 3]
        d = faces[g][(t + 2) % 3]
        m = len(vertices)
        vertices.append((vertices[a] + vertices[b]) / 2 * 0.9 + (vertices[c] + vertices[d]) * 0.05)
        faces[f], faces[g] = [a, m, c], [b, m, d]
        faces += [[m, b, c], [m, a, d]]
    return np.array(vertices, np.float32), np.array(faces, np.int32)


def closed_manifold(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same surface as a closed manifold (possibly of several components).

    vertices [V, 3], faces [F, 3]: closed and consistently wound. Vertices that had to be doubled
    are drawn a little into their own fan, so that sheets that touched no longer do. Raises
    ValueError if the surface has a boundary.
    """
    faces = drop_degenerate(faces)
    for _ in range(8):
        twin = twins(faces)
        _pair_wedges(vertices, faces, twin)
        if (twin < 0).any() or (twin[twin] != np.arange(len(twin))).any():
            raise ValueError("the surface is not closed")
        vertices, faces, old = split_fans(vertices, faces, twin)
        doubled = np.flatnonzero(np.bincount(old)[old] > 1)
        if len(doubled):
            vertices = _drawn_in(vertices, faces, doubled)
        split = _split_double_edges(vertices, faces, twin)
        if split is None:
            return vertices, faces
        vertices, faces = split
    raise ValueError("the surface could not be made a manifold")


def _drawn_in(vertices: np.ndarray, faces: np.ndarray, which: np.ndarray) -> np.ndarray:
    tail, head = half_edges(faces)
    count = np.bincount(tail, minlength=len(vertices))
    out = vertices.copy()
    for k in range(3):
        mean = np.bincount(tail, vertices[head, k], minlength=len(vertices)) / np.maximum(count, 1)
        out[which, k] = 0.9 * vertices[which, k] + 0.1 * mean[which]
    return out


def largest_component(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The component that encloses the largest volume, without unused vertices. Cavities, whose
    volume is negative, and crumbs go."""
    count, label = face_components(faces, len(vertices))
    if count > 1:
        volumes = [volume(vertices, faces[label == i]) for i in range(count)]
        faces = faces[label == int(np.argmax(volumes))]
    used, index = np.unique(faces, return_inverse=True)
    return vertices[used], index.reshape(-1, 3).astype(np.int32)

"""From marching cubes' triangles to the head an artist gets: one closed manifold, smoothed and
decimated."""

from __future__ import annotations

from collections.abc import Callable

import fast_simplification
import numpy as np
from scipy.sparse import coo_matrix, diags

from engine.errors import ReconstructionError
from engine.surface.mesh import Mesh, half_edges
from engine.surface.topology import closed_manifold, examine, largest_component

TOLERANCE = 0.2  # of the target count


def smooth(vertices: np.ndarray, faces: np.ndarray, rounds: int) -> np.ndarray:
    """Taubin's smoothing: a low-pass filter that takes marching cubes' steps away and leaves
    everything wider than about four edges as it is, volume included."""
    tail, head = half_edges(faces)
    n = len(vertices)
    mean = coo_matrix((np.ones(len(tail), np.float32), (tail, head)), (n, n)).tocsr()
    mean = diags(1 / np.asarray(mean.sum(1)).ravel()).astype(np.float32) @ mean
    v = vertices.astype(np.float32)
    for _ in range(rounds):
        for factor in (0.5, -0.53):
            v = v + np.float32(factor) * (mean @ v - v)
    return v


def decimate(vertices: np.ndarray, faces: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Quadric edge contraction to about `target` faces; the result is a closed manifold again.

    The contraction does not check links, so it may pinch the surface; it keeps it closed and
    wound, which is all that `closed_manifold` needs to mend it.
    """
    # Its thresholds are absolute, so it is given a mesh of size one.
    low = vertices.min(0)
    size = float((vertices.max(0) - low).max())
    unit = (vertices - low).astype(np.float64) / size
    for aggression in (5.0, 7.0, 9.0):
        v, f = fast_simplification.simplify(unit, faces, target_count=target, agg=aggression)
        if len(f) <= target * (1 + TOLERANCE):
            break
    v = (v * size + low).astype(np.float32)
    return largest_component(*closed_manifold(v, f.astype(np.int32)))


def clean(
    mesh: Mesh, faces: int = 40000, smoothing: int = 4, check: Callable[[], None] = lambda: None
) -> Mesh:
    """One watertight, manifold component with about `faces` faces.

    mesh: closed, as `isosurface.extract` gives it. smoothing: rounds before decimation. A mesh
    with fewer faces than asked for keeps them. check: called between steps; raises to cancel.
    Raises ReconstructionError when no solid is left.
    """
    v, f = largest_component(*closed_manifold(mesh.vertices, mesh.faces))
    check()
    v = smooth(v, f, smoothing)
    check()
    if len(f) > faces:
        v, f = decimate(v, f, faces)
    check()
    out = _without_flat_faces(Mesh(v, f))
    if len(out.faces) < 4 or not examine(out).clean:
        raise ReconstructionError(
            "The reconstruction's surface could not be cleaned into one solid.",
            "Try another photo or the preset 'best'.",
        )
    return out


def _without_flat_faces(mesh: Mesh) -> Mesh:
    """Faces of no area get some: their vertices move towards the mean of their neighbours."""
    v = mesh.vertices
    for _ in range(10):
        area = np.linalg.norm(Mesh(v, mesh.faces).face_normals(), axis=1)
        flat = area <= 1e-7 * np.median(area)
        if not flat.any():
            break
        moved = smooth(v, mesh.faces, 1)
        which = np.unique(mesh.faces[flat])
        v = v.copy()
        v[which] = moved[which]
    return Mesh(v, mesh.faces)

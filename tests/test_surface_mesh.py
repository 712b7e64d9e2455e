"""Iso-surface and clean-up: where the surface lies, and that it is one closed manifold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.errors import Cancelled, ReconstructionError
from engine.surface.cleanup import clean
from engine.surface.isosurface import extract, grid_values
from engine.surface.mesh import Mesh, twins, volume
from engine.surface.topology import closed_manifold, examine, largest_component
from tests import surface_fixtures as shapes

TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]], np.int32)
CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)


@pytest.mark.parametrize("density", [False, True])
def test_a_sphere_is_where_it_should_be(density):
    field = shapes.AnalyticField(shapes.sphere, density)
    mesh = extract(field, 96)
    radius = np.linalg.norm(mesh.vertices, axis=1)
    assert np.abs(radius - 0.12).max() < 2e-4  # a voxel is 4e-3
    assert volume(mesh.vertices, mesh.faces) == pytest.approx(4 / 3 * np.pi * 0.12**3, rel=5e-3)
    assert examine(mesh).clean
    assert (mesh.vertex_normals * mesh.vertices).sum(1).min() > 0.1  # outwards


def test_the_grid_is_exact_wherever_the_surface_is():
    field = shapes.AnalyticField(shapes.head)
    grid, low, step = grid_values(field, 64)
    axes = [low[i] + np.arange(grid.shape[i]) * step for i in range(3)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    dense = -shapes.numpy_distance(shapes.head, points).reshape(grid.shape)
    assert ((grid > 0) == (dense > 0)).all()
    for axis in range(3):
        g, d = np.moveaxis(grid, axis, 0), np.moveaxis(dense, axis, 0)
        crossing = (d[1:] > 0) != (d[:-1] > 0)
        for end in (slice(1, None), slice(None, -1)):
            assert np.abs(g[end][crossing] - d[end][crossing]).max() < 1e-6


def test_only_the_neighbourhood_of_the_surface_is_evaluated():
    field = shapes.AnalyticField(shapes.head)
    extract(field, 128)
    assert field.evaluations < 0.15 * 129**3


def test_a_sheet_thinner_than_a_coarse_cell_is_followed():
    def sheet(p: torch.Tensor) -> torch.Tensor:
        plate = (p.abs() - torch.tensor([0.17, 0.17, 0.004])).amax(1)
        # Off the coarse nodes, so that only the ball in its middle is seen there.
        plate = torch.maximum(plate, -p[:, 0] - 0.3)
        return torch.minimum(p.norm(dim=1) - 0.05, plate)

    field = shapes.AnalyticField(lambda p: sheet(p + torch.tensor([0.0, 0.0, 0.0071])))
    mesh = extract(field, 128)
    assert np.ptp(mesh.vertices, 0)[:2] == pytest.approx([0.34, 0.34], abs=5e-3)


def test_a_field_that_leaves_its_box_is_closed_flat():
    mesh = extract(shapes.AnalyticField(shapes.head), 96)
    assert examine(mesh).clean
    bottom = mesh.vertices[:, 1].min()
    cap = mesh.vertices[mesh.vertices[:, 1] < bottom + 1e-5]
    assert len(cap) > 500
    assert bottom == pytest.approx(-0.2, abs=0.4 / 96)


def test_no_surface_is_an_error_an_artist_can_read():
    with pytest.raises(ReconstructionError, match="no surface"):
        extract(shapes.AnalyticField(lambda p: p.norm(dim=1) + 1), 32)
    with pytest.raises(ReconstructionError):
        extract(shapes.AnalyticField(lambda p: p[:, 0] * float("nan")), 32)


def test_both_steps_can_be_cancelled():
    def check():
        raise Cancelled()

    field = shapes.AnalyticField(shapes.head)
    with pytest.raises(Cancelled):
        extract(field, 64, check)
    with pytest.raises(Cancelled):
        clean(extract(field, 64), 1000, check=check)


def test_crumbs_and_cavities_go():
    raw = extract(shapes.AnalyticField(shapes.debris), 128)
    assert examine(raw).components == 3
    mesh = clean(raw, 12000)
    report = examine(mesh)
    assert report.clean
    assert report.genus == 0
    solid = extract(shapes.AnalyticField(shapes.head), 128)
    assert volume(mesh.vertices, mesh.faces) == pytest.approx(
        volume(solid.vertices, solid.faces), rel=2e-3
    )


def test_the_head_keeps_its_features_at_the_default_count():
    field = shapes.AnalyticField(shapes.head)
    mesh = clean(extract(field, 256))
    assert 30000 <= len(mesh.faces) <= 50000
    assert examine(mesh).clean
    inside = np.abs(mesh.vertices).max(1) < 0.19
    distance = np.abs(shapes.numpy_distance(shapes.head, mesh.vertices[inside]))
    assert distance.max() < 5e-4
    assert distance.mean() < 5e-5
    nose = mesh.vertices[np.argmax(mesh.vertices[:, 2])]
    assert nose == pytest.approx([0, -0.005, 0.116], abs=2e-3)


@pytest.mark.parametrize("target", [20000, 2000])
def test_a_rough_field_becomes_one_manifold(target):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(1, 1, 40, 40, 40, generator=generator)

    def rough(p: torch.Tensor) -> torch.Tensor:
        at = (p / 0.2)[None, None, None]
        n = torch.nn.functional.grid_sample(noise, at, align_corners=True)[0, 0, 0, 0]
        return shapes.head(p) + 0.012 * n

    raw = extract(shapes.AnalyticField(rough), 96)
    assert examine(raw).components > 5
    mesh = clean(raw, target)
    assert examine(mesh).clean
    assert len(mesh.faces) <= 1.25 * target


def test_a_mesh_with_fewer_faces_than_asked_for_keeps_them():
    raw = extract(shapes.AnalyticField(shapes.sphere), 32)
    assert len(clean(raw, 10**6).faces) == len(raw.faces)


def test_solids_that_touch_at_an_edge_or_a_corner_are_parted():
    other = CORNERS * -1 + (1, 0, 0)  # shares the edge 0-1 with the first
    vertices = np.concatenate([CORNERS, other[2:]]).astype(np.float32)
    second = np.array([1, 0, 4, 5])[TETRAHEDRON[:, ::-1]]
    second = second if volume(vertices, second) > 0 else second[:, ::-1]
    faces = np.concatenate([TETRAHEDRON, second]).astype(np.int32)
    assert examine(Mesh(vertices, faces)).nonmanifold_edges == 1
    v, f = closed_manifold(vertices, faces)
    assert len(v) == 8
    assert examine(Mesh(*largest_component(v, f))).clean

    third = np.array([0, 4, 5, 6])[TETRAHEDRON]
    vertices = np.concatenate([CORNERS, -CORNERS[1:]]).astype(np.float32)
    third = third if volume(vertices, third) > 0 else third[:, ::-1]
    faces = np.concatenate([TETRAHEDRON, third]).astype(np.int32)
    report = examine(Mesh(vertices, faces))
    assert (report.nonmanifold_vertices, report.nonmanifold_edges) == (1, 0)
    v, f = closed_manifold(vertices, faces)
    assert len(v) == 8 and examine(Mesh(v, f)).components == 2


def test_faces_back_to_back_and_repeated_corners_go():
    flap = np.array([[0, 1, 4], [1, 0, 4], [2, 2, 3]], np.int32)
    vertices = np.concatenate([CORNERS, [[2, 2, 2]]]).astype(np.float32)
    v, f = closed_manifold(vertices, np.concatenate([TETRAHEDRON, flap]))
    assert len(f) == 4 and examine(Mesh(v, f)).clean


def pinched_torus() -> tuple[np.ndarray, np.ndarray]:
    """A torus with a triangular section, one of whose sections has shrunk to an edge."""
    n, m = 9, 3
    u, w = np.meshgrid(np.arange(n) * 2 * np.pi / n, np.arange(m) * 2 * np.pi / m, indexing="ij")
    r = 2 + 0.7 * np.cos(w)
    v = np.stack([r * np.cos(u), r * np.sin(u), 0.7 * np.sin(w)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(n), np.arange(m), indexing="ij")
    a, b = i * m + j, (i + 1) % n * m + j
    c, d = (i + 1) % n * m + (j + 1) % m, i * m + (j + 1) % m
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3),
                            np.stack([a, c, d], -1).reshape(-1, 3)])  # fmt: skip
    faces[faces == 1], v[0] = 0, (v[0] + v[1]) / 2
    faces = faces if volume(v, faces) > 0 else faces[:, ::-1]
    return v.astype(np.float32), faces.astype(np.int32)


def test_a_tube_pinched_to_an_edge_is_cut():
    v, f = closed_manifold(*pinched_torus())
    report = examine(Mesh(v, f))
    assert report.clean and report.genus == 0


def test_a_tunnel_pinched_to_an_edge_stays_open():
    # Inside out the torus is a tunnel; its two edges between the same vertices become distinct.
    vertices, faces = pinched_torus()
    v, f = closed_manifold(vertices, faces[:, ::-1])
    report = examine(Mesh(v, f))
    assert report.clean and report.genus == 1


def test_an_open_surface_is_refused():
    with pytest.raises(ValueError, match="closed"):
        closed_manifold(CORNERS, TETRAHEDRON[:3])


def test_examine_sees_what_is_wrong():
    assert examine(Mesh(CORNERS, TETRAHEDRON)).clean
    open_mesh = examine(Mesh(CORNERS, TETRAHEDRON[:3]))
    assert open_mesh.boundary_edges == 3 and not open_mesh.clean
    turned = TETRAHEDRON.copy()
    turned[0] = turned[0, ::-1]
    assert examine(Mesh(CORNERS, turned)).misoriented_edges == 3
    doubled = examine(Mesh(CORNERS, np.concatenate([TETRAHEDRON, TETRAHEDRON[:1]])))
    assert doubled.duplicate_faces == 1 and doubled.nonmanifold_edges == 3
    spare = examine(Mesh(np.concatenate([CORNERS, CORNERS[:1]]), TETRAHEDRON))
    assert spare.unused_vertices == 1 and not spare.clean


def test_genus_and_twins():
    mesh = extract(shapes.AnalyticField(shapes.ring), 96)
    assert examine(mesh).genus == 1
    t = twins(mesh.faces)
    assert (t[t] == np.arange(len(t))).all()

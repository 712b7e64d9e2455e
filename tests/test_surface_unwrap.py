"""Unwrapping: few islands, nothing folded, nothing overlapping, little distortion."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import Cancelled
from engine.surface.charts import BACK, CAP, FRONT, Chart, disks, segment
from engine.surface.cleanup import clean
from engine.surface.isosurface import extract
from engine.surface.mesh import Mesh
from engine.surface.parametrise import _Energy, ellipse, fixed, relax, rest_frames
from engine.surface.topology import examine
from engine.surface.unwrap import islands, measure, unwrap
from tests import surface_fixtures as shapes


def solid(sdf, faces: int = 6000) -> Mesh:
    return clean(extract(shapes.AnalyticField(sdf), 96), faces)


@pytest.fixture(scope="module")
def head() -> Mesh:
    return solid(shapes.head)


@pytest.fixture(scope="module")
def chart(head):
    return disks(head, segment(head))[0]


def test_a_head_in_three_islands(head):
    mesh = unwrap(head, 1024)
    report = measure(mesh, 2048)
    assert report.islands == 3
    assert report.overlap < 1e-4
    assert report.folded == 0
    assert report.inside
    assert report.coverage > 0.4
    assert report.stretch < 1.25 and report.stretch_95 < 1.6
    assert (mesh.uvs == unwrap(head, 1024).uvs).all()


def test_the_face_gets_the_most_texels_and_is_upright(head):
    mesh = unwrap(head)
    centre = mesh.vertices[mesh.faces].mean(1)
    uv = mesh.uvs.mean(1)
    d = mesh.uvs[:, 1:] - mesh.uvs[:, :1]
    density = np.abs(np.linalg.det(d)) / np.linalg.norm(mesh.face_normals(), axis=1)
    face = (centre[:, 2] > 0.06) & (np.abs(centre[:, 1]) < 0.08)
    assert density[face].mean() > 1.5 * density[centre[:, 2] < -0.05].mean()
    assert np.corrcoef(uv[face, 1], centre[face, 1])[0, 1] > 0.98
    assert np.corrcoef(uv[face, 0], centre[face, 0])[0, 1] > 0.98


def test_islands_keep_their_distance(head):
    size = 512
    mesh = unwrap(head, size)
    label = islands(mesh)
    boxes = [(mesh.uvs[label == i].min((0, 1)), mesh.uvs[label == i].max((0, 1)))
             for i in range(label.max() + 1)]  # fmt: skip
    for i, (low, high) in enumerate(boxes):
        assert low.min() >= 4 / size - 1e-6 and high.max() <= 1 - 4 / size + 1e-6
        for other_low, other_high in boxes[:i]:
            gap = np.maximum(low - other_high, other_low - high).max()
            assert gap >= 8 / size - 1e-6


@pytest.mark.parametrize("sdf", [shapes.sphere, shapes.two_lobes, shapes.ring, shapes.debris])
def test_other_solids(sdf):
    mesh = unwrap(solid(sdf, 4000))
    report = measure(mesh, 1024)
    assert report.islands <= 4
    assert report.overlap < 1e-3
    assert report.folded == 0 and report.inside
    assert report.stretch < 1.8


def test_many_handles():
    def handles(p):
        out = shapes.head(p)
        for x in (-0.05, 0.0, 0.05):
            q = (p - p.new_tensor([x, 0.08, -0.09]))[:, (2, 1, 0)]
            tube = q.new_zeros(len(q), 2)
            tube[:, 0], tube[:, 1] = q[:, :2].norm(dim=1) - 0.035, q[:, 2]
            out = shapes._union(out, tube.norm(dim=1) - 0.008, 0.004)
        return out

    mesh = solid(handles, 8000)
    assert examine(mesh).genus == 3
    report = measure(unwrap(mesh), 1024)
    assert report.folded == 0 and report.inside
    assert report.overlap < 1e-3
    assert report.islands <= 4


def test_tiny_solids():
    v = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    f = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]], np.int32)
    report = measure(unwrap(Mesh(v, f)), 256)
    assert report.overlap == 0 and report.folded == 0 and report.inside


def test_the_seam_parts_front_from_back(head):
    label = segment(head)
    centre = head.vertices[head.faces].mean(1)
    assert set(np.unique(label)) == {FRONT, BACK, CAP}
    assert (label[centre[:, 2] > 0.06] == FRONT).all()
    assert (label[(centre[:, 2] < -0.08) & (centre[:, 1] > -0.15)] == BACK).all()
    assert centre[label == CAP, 1].max() < -0.19


def test_a_closed_or_pierced_part_is_slit_to_a_disk():
    for sdf in (shapes.sphere, shapes.ring):
        mesh = solid(sdf, 2000)
        charts = disks(mesh, np.zeros(len(mesh.faces), int))  # all of it one part
        assert len(charts) == 1
        assert len(charts[0].faces) == len(mesh.faces)
        assert len(np.unique(charts[0].loop)) == len(charts[0].loop)
    pierced = np.zeros(len(mesh.faces), int)
    top = mesh.vertices[mesh.faces].mean(1)
    pierced[np.linalg.norm(top - (0, 0, 0.08), axis=1) < 0.03] = 1
    assert all(len(c.loop) for c in disks(mesh, pierced))


def test_the_first_map_never_folds(chart):
    rest = rest_frames(chart.vertices, chart.faces, np.ones(len(chart.faces)))
    uv = fixed(chart, rest, ellipse(chart, np.array([1.0, 0, 0]), np.array([0, 1.0, 0])))
    d = uv[chart.faces]
    assert np.linalg.det(d[:, 1:] - d[:, :1]).min() > 0


def test_the_energy_its_gradient_and_its_hessian(chart):
    rest = rest_frames(chart.vertices, chart.faces, np.ones(len(chart.faces)))
    uv = fixed(chart, rest, ellipse(chart, np.array([1.0, 0, 0]), np.array([0, 1.0, 0])))
    energy = _Energy(rest, chart.faces, len(uv))
    uv = uv * energy.best_scale(uv)
    rng = np.random.default_rng(0)
    # Smooth, so that nothing folds: a shear and a bend.
    d = np.stack([uv[:, 1] * 0.3, np.sin(uv[:, 0] * 20) * 0.02], 1) + rng.normal(size=2) * 0.1
    h = 1e-5
    slope = (energy.value(uv + h * d) - energy.value(uv - h * d)) / (2 * h)
    assert (energy.gradient(uv) * d).sum() == pytest.approx(slope, rel=1e-4)
    g = energy.gradient(uv)
    assert (g * energy.hessian(uv)(g)).sum() > 0  # a descent direction
    limit = energy.longest_step(uv, -50 * g)
    assert np.isfinite(energy.value(uv - 50 * g * limit * 0.999))
    assert not np.isfinite(energy.value(uv - 50 * g * limit * 1.001))
    path = relax(chart, rest, uv, 9, lambda: None)
    values = [energy.value(p) for p in path]
    assert all(b <= a for a, b in zip(values, values[1:], strict=False))
    assert 4 <= values[-1] < 4.5 < values[0]  # 4 is an isometry


def test_a_single_triangle_becomes_itself():
    rest = np.zeros((1, 3, 2))
    rest[0, 1:] = [[1, 0], [0, 1]]
    one = Chart(0, np.array([0]), np.eye(3), np.array([[0, 1, 2]]), np.array([0, 1, 2]))
    path = relax(one, rest, np.array([[0, 0], [2.0, 0.3], [0.4, 0.5]]), 12, lambda: None)
    assert _Energy(rest, one.faces, 3).value(path[-1]) == pytest.approx(4, abs=1e-6)


def test_measure_sees_overlaps_and_folds(head):
    mesh = unwrap(head)
    shifted = mesh.uvs.copy()
    label = islands(mesh)
    sizes = np.bincount(label)
    part = label == sizes.argmin()
    other = mesh.uvs[label == sizes.argmax()].mean((0, 1))
    shifted[part] += other - shifted[part].mean((0, 1))
    assert measure(mesh.with_uvs(shifted), 512).overlap > 0.01
    mirrored = mesh.uvs.copy()
    mirrored[part, :, 0] = 1 - mirrored[part, :, 0]
    assert measure(mesh.with_uvs(mirrored), 512).folded == part.sum()
    assert not measure(mesh.with_uvs(mesh.uvs + 0.5), 512).inside


def test_it_can_be_cancelled(head):
    def check():
        raise Cancelled()

    with pytest.raises(Cancelled):
        unwrap(head, check=check)


@pytest.mark.slow
def test_forty_thousand_faces_in_four_seconds():
    import time

    mesh = clean(extract(shapes.AnalyticField(shapes.head), 256))
    start = time.process_time()
    report = measure(unwrap(mesh))
    assert time.process_time() - start < 4
    assert report.islands == 3 and report.overlap < 1e-4 and report.folded == 0

"""The rasteriser: exact geometry, shared edges, occlusion; and the pictures made with it."""

from __future__ import annotations

import numpy as np
import pytest

from engine.cameras import Camera, intrinsics_from_fov, look_at, orbit
from engine.surface.cleanup import clean
from engine.surface.draw import draw_grey, draw_normals, draw_textured, over, silhouette
from engine.surface.isosurface import extract
from engine.surface.mesh import Mesh
from engine.surface.metrics import (
    iou,
    mesh_report,
    photo_agreement,
    psnr,
    silhouette_agreement,
)
from engine.surface.rasterize import rasterize, rasterize_uvs, sample
from tests import surface_fixtures as shapes


@pytest.fixture(scope="module")
def head() -> Mesh:
    return clean(extract(shapes.AnalyticField(shapes.head), 128), 10000)


def quad(z: float, half: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    v = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * half + (0, 0, z)
    return v.astype(np.float32), np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def test_points_under_pixels_project_back_to_their_centres(head):
    camera = orbit(0.7, 0.3, 0.8, 0.45, width=160, height=120)
    raster = rasterize(head.vertices, head.faces, camera)
    inside = raster.face >= 0
    assert inside.sum() > 2000
    points = raster.interpolate(head.vertices[head.faces].astype(np.float64))[inside]
    pixels, depth = camera.project(points)
    rows, columns = np.nonzero(inside)
    assert np.abs(pixels - np.stack([columns + 0.5, rows + 0.5], 1)).max() < 2e-3
    assert np.abs(depth - raster.depth[inside]).max() < 1e-5
    assert np.isinf(raster.depth[~inside]).all()
    assert raster.barycentric[inside].sum(1) == pytest.approx(1, abs=1e-5)


def test_the_nearest_face_wins_whatever_the_order():
    (near, f), (far, _) = quad(0.5, 0.3), quad(-0.5, 1.0)
    camera = orbit(0.0, 0.0, 3.0, 0.7, width=64, height=64)
    for first, second in ((near, far), (far, near)):
        vertices = np.concatenate([first, second])
        raster = rasterize(vertices, np.concatenate([f, f + 4]), camera)
        assert raster.depth[32, 32] == pytest.approx(2.5)
        assert raster.depth[18, 18] == pytest.approx(3.5)


def test_faces_behind_the_camera_are_left_out():
    v, f = quad(0.0)
    camera = Camera(look_at([0, 0, -2], [0, 0, -3]), intrinsics_from_fov(0.8), 32, 32)
    assert (rasterize(v, f, camera).face == -1).all()
    big = v * np.float32(1000)
    big[0, 2] = -5  # reaches behind
    assert rasterize(big, f, orbit(0, 0, 2, 0.8, width=32, height=32)).face.max() <= 1


def test_triangles_that_share_edges_cover_every_texel_once():
    rng = np.random.default_rng(3)
    n = 40
    g = np.linspace(0, 1, n + 1)
    p = np.stack(np.meshgrid(g, g), -1)
    p[1:-1, 1:-1] += rng.uniform(-0.15, 0.15, (n - 1, n - 1, 2)) / n
    p = np.round(p.reshape(-1, 2) * 128) / 128  # many vertices and edges on texel centres
    i = np.arange(n * (n + 1)).reshape(n, n + 1)[:, :-1].ravel()
    faces = np.concatenate(
        [np.stack([i, i + 1, i + n + 2], 1), np.stack([i, i + n + 2, i + n + 1], 1)]
    )
    raster, double = rasterize_uvs(p[faces], 192)
    assert double == 0
    assert (raster.face >= 0).all()
    overlapping, double = rasterize_uvs(np.concatenate([p[faces], p[faces[:9]]]), 192)
    assert double > 50


def test_uv_barycentrics_and_parts_of_a_texture(head):
    rng = np.random.default_rng(0)
    uvs = rng.uniform(0, 1, (50, 3, 2)).astype(np.float32)
    raster, _ = rasterize_uvs(uvs, 100)
    rows, columns = np.nonzero(raster.face >= 0)
    at = raster.interpolate(uvs)[rows, columns]
    expected = np.stack([(columns + 0.5) / 100, 1 - (rows + 0.5) / 100], 1)
    assert np.abs(at - expected).max() < 1e-4
    part, _ = rasterize_uvs(uvs, 100, (30, 55))
    assert (part.face == raster.face[30:55]).all()
    assert np.abs(part.barycentric - raster.barycentric[30:55]).max() < 1e-4


def test_bilinear_lookup_is_exact_on_a_ramp():
    y, x = np.mgrid[0:6, 0:9]
    ramp = np.stack([x, y], -1).astype(np.float32)
    got = sample(ramp, np.array([0.5, 4.25, 8.5, -3, 20]), np.array([0.5, 3.0, 5.5, -3, 20]))
    assert got == pytest.approx(np.array([[0, 0], [3.75, 2.5], [8, 5], [0, 0], [8, 5]]))


def test_the_mesh_and_the_field_have_one_outline_and_depth(head):
    field = shapes.AnalyticField(shapes.head)
    assert min(silhouette_agreement(head, field, size=192)) > 0.97
    camera = orbit(0.4, 0.1, 1.2, 0.4, width=128, height=128)
    render = field.render(camera)
    raster = rasterize(head.vertices, head.faces, camera)
    both = (raster.face >= 0) & (render.alpha.numpy() > 0.5)
    assert np.median(np.abs(raster.depth - render.depth.numpy())[both]) < 5e-4


def test_pictures(head):
    camera = orbit(0.0, 0.0, 1.2, 0.4, width=96, height=96)
    grey = draw_grey(head, camera)
    assert grey.shape == (96, 96, 4)
    inside = grey[..., 3] == 255
    assert inside.sum() > 1500
    assert grey[..., 0][inside].std() > 15  # relief is readable
    assert (grey[..., 0] == grey[..., 2]).all()
    normals = draw_normals(head, camera)[40, 48, :3]
    assert normals[2] > 200  # the face looks along +z
    uvs = np.zeros((len(head.faces), 3, 2), np.float32) + 0.25
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[32:, :32] = (10, 200, 30)  # u and v below one half: the lower left of the picture
    drawn = draw_textured(Mesh(head.vertices, head.faces, uvs, texture), camera)
    assert drawn[inside][:, :3] == pytest.approx(
        np.array([10, 200, 30])[None].repeat(inside.sum(), 0), abs=1
    )
    assert over(drawn, (1, 2, 3))[0, 0].tolist() == [1, 2, 3]
    assert (
        silhouette(head, camera) == (rasterize(head.vertices, head.faces, camera).face >= 0)
    ).all()


def test_metrics():
    a = np.zeros((8, 8, 3), np.uint8)
    b = a + np.uint8(10)
    assert psnr(a, a) == float("inf")
    assert psnr(a, b) == pytest.approx(20 * np.log10(255 / 10))
    mask = np.zeros((8, 8), bool)
    assert np.isnan(psnr(a, b, mask))
    mask[0] = True
    c = b.copy()
    c[1:] = 200
    assert psnr(a, c, mask) == pytest.approx(20 * np.log10(255 / 10))
    other = np.roll(mask, 1, 0) | mask
    assert iou(mask, other) == 0.5
    assert iou(mask & False, mask & False) == 1.0


def test_reports(head):
    report = mesh_report(head, 1.0)
    assert report["clean"] and report["size_m"][1] == pytest.approx(0.326, abs=0.01)
    camera = orbit(0.0, 0.0, 1.2, 0.4, width=64, height=64)
    mesh = Mesh(head.vertices, head.faces, np.full((len(head.faces), 3, 2), 0.5, np.float32),
                np.full((16, 16, 3), 90, np.uint8))  # fmt: skip
    rgb = np.full((64, 64, 3), 95, np.uint8)
    matte = silhouette(head, camera).astype(np.float32)
    agreement = photo_agreement(mesh, camera, rgb, matte)
    assert agreement["iou"] > 0.97
    assert agreement["psnr_common"] == pytest.approx(20 * np.log10(255 / 5), abs=0.1)

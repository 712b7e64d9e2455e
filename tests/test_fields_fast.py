"""The fast ways through a tri-plane field agree with the plain one: table, grid, surface."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.errors import Cancelled
from engine.fields import gridded
from engine.fields.folded import aligned_pairs
from engine.fields.triplane import (
    OFFICIAL_AXES,
    Decoder,
    TriplaneField,
    TriplaneSettings,
    plane_projection,
)
from engine.render.volume import RaySettings
from engine.surface.isosurface import extract

REPAIRED_AXES = (  # planes (x, y), (x, z), (z, y), as forks of EG3D have them
    OFFICIAL_AXES[0],
    OFFICIAL_AXES[1],
    ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
)
MIRRORED_AXES = (
    ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
    ((0.0, 0.0, 1.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
)
TURNED_AXES = (
    OFFICIAL_AXES[0],
    OFFICIAL_AXES[1],
    ((0.6, 0.8, 0.0), (-0.8, 0.6, 0.0), (0.0, 0.0, 1.0)),
)
LAYOUTS = {"official": OFFICIAL_AXES, "repaired": REPAIRED_AXES, "mirrored": MIRRORED_AXES}


def smooth_field(axes=OFFICIAL_AXES, size: int = 40, seed: int = 0) -> TriplaneField:
    """Random smooth planes whose level 0 has several components."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    planes = F.interpolate(draw(3, 8, 9, 9), (size, size), mode="bicubic") * 1.5
    decoder = Decoder(draw(16, 8), draw(16), draw(6, 16), draw(6))
    rays = RaySettings(2.25, 3.3, 16, 16)
    field = TriplaneField(planes, decoder, TriplaneSettings(axes, 1.0, rays, 0.0, 1.0))
    points = torch.rand(4000, 3, generator=generator) - 0.5
    settings = TriplaneSettings(axes, 1.0, rays, float(field.value(points).quantile(0.7)), 1.0)
    return TriplaneField(planes, decoder, settings)


def plainly(field: TriplaneField, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Through grid_sample and the decoder's two layers."""
    return field.decoder(field.features(points))


@pytest.mark.parametrize("axes", LAYOUTS.values(), ids=LAYOUTS)
def test_the_table_gives_what_the_planes_give(axes):
    field = smooth_field(axes)
    # Beyond the box too, and exactly on its border and on texels' centres.
    points = torch.rand(5000, 3) * 1.3 - 0.65
    special = torch.tensor([-0.5, 0.5, 0.5 + 1 / 80, -0.5 - 1 / 80, 0.0, 0.4875])
    points = torch.cat([points, torch.cartesian_prod(special, special, special), points * 1e4])
    assert field.folded() is not None
    density, colours = field.query(points)
    wanted, wanted_colours = plainly(field, points)
    torch.testing.assert_close(density, wanted, atol=2e-4, rtol=0)
    torch.testing.assert_close(colours, wanted_colours, atol=2e-5, rtol=0)


def test_planes_over_the_same_coordinates_share_a_table():
    assert len(smooth_field(OFFICIAL_AXES).folded().pairs) == 2
    assert len(smooth_field(REPAIRED_AXES).folded().pairs) == 3


def test_turned_planes_have_no_table_and_work():
    field = smooth_field(TURNED_AXES)
    points = torch.rand(1000, 3) - 0.5
    assert field.folded() is None
    torch.testing.assert_close(field.query(points)[0], plainly(field, points)[0])
    assert field.grid(field.bounds[0], 0.1, (10, 10, 10), lambda: None) is None


def test_scaled_axes_are_not_taken_for_aligned_ones():
    stretched = tuple(
        tuple(tuple(2 * x for x in row) for row in matrix) for matrix in OFFICIAL_AXES
    )
    projection = plane_projection(stretched, 1.0, torch.zeros(1))
    assert aligned_pairs(projection, 1.0) is None


def test_planes_changed_in_place_are_noticed():
    field = smooth_field()
    points = torch.rand(100, 3) - 0.5
    field.query(points)
    with torch.no_grad():
        field.planes.mul_(0.5)
        field.decoder.bias0.add_(0.1)
    torch.testing.assert_close(
        field.query(points)[0], plainly(field, points)[0], atol=2e-4, rtol=0
    )


def test_gradients_take_the_plain_way():
    field = smooth_field()
    field.planes.requires_grad_(True)
    points = torch.rand(50, 3) - 0.5
    field.query(points)[0].sum().backward()
    assert field.planes.grad.abs().sum() > 0


@pytest.mark.parametrize("axes", LAYOUTS.values(), ids=LAYOUTS)
def test_no_node_of_the_grid_is_on_the_wrong_side(axes):
    field = smooth_field(axes)
    low, cells = torch.tensor([-0.5, -0.45, -0.4]), (37, 30, 23)
    step = 1 / 40
    grid = field.grid(low, step, cells, lambda: None)
    assert grid.shape == (38, 31, 24)
    nodes = torch.stack(torch.meshgrid(*map(torch.arange, grid.shape), indexing="ij"), -1)
    exact = field.value((low + nodes.view(-1, 3) * step).float()).view(grid.shape) - field.level
    clear = exact.abs() > 1e-3
    assert ((grid > 0) == (exact > 0))[clear].all()
    # Both ends of every edge that the surface crosses are exact.
    right = (grid - exact).abs() < 1e-3
    for axis in range(3):
        before, after = (
            x.narrow(axis, start, x.shape[axis] - 1) for x in (exact,) for start in (0, 1)
        )
        crossed = (before > 0) != (after > 0)
        ok = right.narrow(axis, 0, crossed.shape[axis]) & right.narrow(
            axis, 1, crossed.shape[axis]
        )
        assert crossed.any() and ok[crossed].all()


def test_most_of_an_empty_grid_is_never_evaluated(monkeypatch):
    field = smooth_field()
    empty = TriplaneSettings(OFFICIAL_AXES, 1.0, field.settings.rays, 1e4, 1.0)
    field = TriplaneField(field.planes, field.decoder, empty)
    seen = []
    evaluate = gridded.GriddedDensity._evaluate
    monkeypatch.setattr(
        gridded.GriddedDensity,
        "_evaluate",
        lambda self, x, which: seen.append(len(which)) or evaluate(self, x, which),
    )
    assert (field.grid(field.bounds[0], 1 / 32, (32, 32, 32), lambda: None) < 0).all()
    assert sum(seen) == 0


def test_a_speck_between_nodes_of_a_coarse_grid_is_found():
    """One texel's bump on each plane makes a speck of a voxel: a search along the surface from a
    coarse grid would never see it."""
    planes = torch.zeros(3, 1, 64, 64)
    planes[0, 0, 41, 22] = planes[1, 0, 13, 22] = planes[2, 0, 22, 13] = 8.0
    decoder = Decoder(torch.ones(1, 1), torch.zeros(1), torch.ones(5, 1), torch.zeros(5))
    settings = TriplaneSettings(OFFICIAL_AXES, 1.0, RaySettings(2.25, 3.3), 6.0, 1.0)
    mesh = extract(TriplaneField(planes, decoder, settings), 128)
    centre = (np.array([22, 41, 13]) + 0.5) / 64 - 0.5
    assert np.abs(mesh.vertices - centre).max() < 1 / 64


def test_extraction_can_be_cancelled():
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) > 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        extract(smooth_field(), 64, check)


def test_views_follow_the_camera_and_stop_at_the_bounds():
    from engine import cameras

    field = smooth_field()
    near = field.render(cameras.orbit(0.0, 0.0, 2.7, 0.3, width=24, height=24))
    far = field.render(cameras.orbit(0.0, 0.0, 5.4, 0.15, width=24, height=24))
    assert near.alpha.max() > 0.9
    assert (near.alpha - far.alpha).abs().mean() < 0.05  # nearly the same picture
    trimmed = TriplaneSettings(OFFICIAL_AXES, 1.0, field.settings.rays, 0.0, 1.0, trim=0.4)
    small = TriplaneField(field.planes, field.decoder, trimmed)
    wide = small.render(cameras.orbit(0.0, 0.0, 2.7, 0.6, width=24, height=24))
    edge = torch.ones(24, 24, dtype=bool)
    edge[8:-8, 8:-8] = False  # the bounds' 0.2 of the 1.67 that the picture shows
    assert wide.alpha[edge].max() < 1e-3
    torch.testing.assert_close(small.bounds[1], torch.full((3,), 0.1))

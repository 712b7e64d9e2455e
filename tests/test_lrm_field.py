"""Fields of the LRM kind: what they answer, their surface, their views, their files."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lrm_fixtures import OPENLRM_SMALL, TRIPOSR_SMALL, ball_field, seeded_network

from engine import cameras
from engine.cameras import Camera
from engine.errors import Cancelled, WeightsError
from engine.fields import lrm_grid
from engine.fields.io import field_to_bytes, load_field
from engine.fields.lrm import LrmField
from engine.surface.isosurface import extract
from engine.surface.mesh import volume

BOTH = pytest.mark.parametrize("config", [TRIPOSR_SMALL, OPENLRM_SMALL], ids=["triposr", "openlrm"])


def random_field(config, seed: int = 1) -> LrmField:
    """Smooth random planes and a random decoder; the surface in the middle of its values."""
    generator = torch.Generator().manual_seed(seed)
    network = seeded_network(config, seed)
    planes = torch.randn(3, config.channels, 6, 6, generator=generator)
    planes = F.interpolate(planes, (24, 24), mode="bicubic") * 2
    field = network.field(planes)
    points = (torch.rand(4000, 3, generator=generator) * 2 - 1) * config.field.radius
    middle = float(field.settings.density_of(field.value(points).median()))
    settings = replace(field.settings, surface_density=middle)
    return LrmField(planes, field.layers, settings)


def plainly(field: LrmField, points: torch.Tensor) -> torch.Tensor:
    """The decoder's four numbers through grid_sample and its layers as they are."""
    grids = []
    for across, sign, down, down_sign in field.settings.pairs:
        grids.append(torch.stack([points[:, across] * sign, points[:, down] * down_sign], 1))
    where = torch.stack(grids)[:, None] / field.settings.radius
    features = F.grid_sample(field.planes, where, align_corners=False)[:, :, 0]
    x = features.permute(2, 0, 1).flatten(1)
    activation = F.silu if field.settings.activation == "silu" else F.relu
    for weight, bias in field.layers[:-1]:
        x = activation(F.linear(x, weight, bias))
    return F.linear(x, *field.layers[-1])


@BOTH
def test_the_folded_look_up_gives_what_the_planes_give(config):
    field = random_field(config)
    points = (torch.rand(5000, 3) * 2.4 - 1.2) * config.field.radius  # beyond the box too
    density, colours = field.query(points)
    wanted = plainly(field, points)
    torch.testing.assert_close(density, wanted[:, 0], atol=2e-5, rtol=0)
    margin = config.field.colour_margin
    torch.testing.assert_close(
        colours, torch.sigmoid(wanted[:, 1:]) * (1 + 2 * margin) - margin, atol=1e-5, rtol=0
    )
    assert field.color(points).min() >= 0 and field.color(points).max() <= 1


@BOTH
def test_the_level_is_the_surface_density(config):
    field = random_field(config)
    level = torch.tensor(field.level, dtype=torch.float64)
    density = float(field.settings.density_of(level))
    assert density == pytest.approx(field.settings.surface_density, rel=1e-9)
    published = ball_field(config).settings
    assert published.surface_density == {"exp": 25.0, "softplus": 3.0}[published.density]


@BOTH
@pytest.mark.parametrize("count", [21, 48])
def test_the_grid_misses_nothing(config, count):
    field = random_field(config)
    radius = field.settings.radius
    low, step = torch.tensor([-radius] * 3), 2 * radius / (count - 1)
    values = field.grid(low, step, [count - 1, count - 1, count - 5], lambda: None)
    axes = [low[i] + step * torch.arange(n) for i, n in enumerate([count, count, count - 4])]
    wanted = (field.value(torch.cartesian_prod(*axes)) - field.level).view(values.shape)
    sure = wanted.abs() > 1e-4
    assert torch.equal((values > 0)[sure], (wanted > 0)[sure])
    assert 0.2 < (wanted > 0).float().mean() < 0.8
    # Exact at both ends of every edge that the surface crosses.
    for axis in range(3):
        ours, theirs = values.transpose(0, axis), wanted.transpose(0, axis)
        crossed = (theirs[1:] > 0) != (theirs[:-1] > 0)
        torch.testing.assert_close(ours[1:][crossed], theirs[1:][crossed], atol=1e-4, rtol=0)
        torch.testing.assert_close(ours[:-1][crossed], theirs[:-1][crossed], atol=1e-4, rtol=0)


def test_a_grid_of_a_ball_looks_at_few_nodes():
    field = ball_field()
    radius, count = field.settings.radius, 129
    grid = lrm_grid.GriddedLayers(
        field.folded(), field, torch.tensor([-radius] * 3), 2 * radius / (count - 1), [128] * 3
    )
    grid.values(field.level, lambda: None)
    assert grid.evaluated < count**3 / 6


@BOTH
def test_the_surface_of_a_ball(config):
    field = ball_field(config)
    mesh = extract(field, 64)
    assert volume(mesh.vertices, mesh.faces) > 0  # wound to be seen from outside
    away = np.linalg.norm(mesh.vertices, axis=1)
    assert away == pytest.approx(0.5 * config.field.radius, rel=0.02)


@BOTH
def test_axes_are_the_house_s(config):
    """Red rises with x, green with y, blue with z, whichever planes a model has."""
    field = ball_field(config)
    for axis in range(3):
        points = torch.zeros(2, 3)
        points[:, axis] = torch.tensor([-0.4, 0.4]) * config.field.radius
        low, high = field.color(points)
        rises = (high - low) > 0.5
        assert rises.tolist() == [axis == k for k in range(3)]


@BOTH
def test_views(config):
    field = ball_field(config)
    camera = field.input_camera(32)
    view = field.render(camera)
    assert view.image.shape == (32, 32, 3)
    assert view.alpha[16, 16] > 0.95 and view.alpha[0, 0] < 0.05
    # Seen from the front, x to the right, y up, z towards the camera.
    assert view.image[16, 20, 0] > view.image[16, 12, 0]
    assert view.image[12, 16, 1] > view.image[20, 16, 1]
    near = config.field.camera_distance - 0.5 * config.field.radius
    assert float(view.depth[16, 16]) == pytest.approx(near, abs=0.15)
    # A third of the picture, as asked for; the rest is 0.
    only = torch.zeros(32, 32, dtype=torch.bool)
    only[10:20] = True
    part = field.render(camera, only=only)
    torch.testing.assert_close(part.image[10:20], view.image[10:20], atol=1e-5, rtol=0)
    assert part.alpha[20:].abs().max() == 0


@BOTH
def test_views_from_elsewhere(config):
    field = ball_field(config)
    intrinsics = cameras.intrinsics_from_fov(math.radians(40))
    aside = Camera(cameras.look_at([3.0, 0, 0], [0, 0, 0]), intrinsics, 24, 24)
    assert field.render(aside).image[12, 12, 0] > 0.75  # red is on that side
    away = Camera(cameras.look_at([3.0, 0, 0], [6.0, 0, 0]), intrinsics, 8, 8)
    assert field.render(away).alpha.max() == 0
    inside = Camera(cameras.look_at([0.0, 0, 0.1], [0, 0, 1]), intrinsics, 8, 8)
    assert torch.isfinite(field.render(inside).image).all()
    flat = cameras.intrinsics_from_extent(2.0, 2.0)
    flat_camera = Camera(cameras.look_at([0.0, 0, 3], [0, 0, 0]), flat, 16, 16, orthographic=True)
    assert field.render(flat_camera).alpha[8, 8] > 0.95
    # What the near plane cuts off is not seen: the ball from its middle on.
    cut = replace(aside, near=3.0 + 0.45 * config.field.radius)
    assert field.render(cut).alpha[12, 12] < 0.9


@BOTH
def test_files(config):
    field = random_field(config)
    again = load_field(field_to_bytes(field, half=False))
    assert isinstance(again, LrmField) and again.settings == field.settings
    points = torch.rand(100, 3) - 0.5
    torch.testing.assert_close(again.query(points), field.query(points))
    halved = load_field(field_to_bytes(field))
    torch.testing.assert_close(halved.value(points), field.value(points), atol=0.05, rtol=0.01)
    assert again.level == field.level and again.metres_per_unit == 1.0
    field.metres_per_unit = 0.25  # as a job does that knows the object's size
    assert load_field(field_to_bytes(field)).metres_per_unit == 0.25


@pytest.mark.parametrize(
    "change",
    [
        {"pairs": [[0, 1, 0, 1]] * 3},
        {"pairs": [[0, 1, 3, 1]] * 3},
        {"pairs": [[0, 2, 1, 1]] * 3},
        {"activation": "tanh"},
        {"density": "linear"},
        {"radius": 0.0},
        {"coarse": 1 << 30},
        {"surface_density": -1.0},
    ],
)
def test_damaged_settings_are_refused(change):
    field = ball_field()
    metadata = json.loads(json.dumps(field.metadata())) | change
    with pytest.raises((ValueError, KeyError)):
        LrmField.from_saved(field.tensors(), metadata)


def test_layers_that_do_not_fit_are_refused():
    field = ball_field()
    tensors = field.tensors() | {"decoder.1.weight": torch.zeros(4, 9)}
    with pytest.raises(ValueError):
        LrmField.from_saved(tensors, field.metadata())
    with pytest.raises(WeightsError):
        load_field(field_to_bytes(field)[:-8])


def test_cancelling():
    def stop() -> None:
        raise Cancelled()

    field = ball_field()
    with pytest.raises(Cancelled):
        field.render(field.input_camera(16), stop)
    with pytest.raises(Cancelled):
        extract(field, 32, stop)

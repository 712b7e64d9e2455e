"""Head fields: files, and renders of shapes whose silhouettes are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.cameras import Camera, orbit
from engine.errors import Cancelled, WeightsError
from engine.fields import head as module
from engine.fields.base import field_class
from engine.fields.head import HeadField, neus_weights
from engine.fields.io import field_to_bytes, load_field
from engine.headspace import lattice
from engine.networks.planes import PlaneDecoder
from engine.surface import isosurface, metrics

BOUNDS = torch.tensor([[-0.2] * 3, [0.2] * 3])
RADIUS, DISTANCE, FOV = 0.08, 1.2, 0.35


def field_of(distance, resolution: int = 96) -> HeadField:
    """A field of a distance function [N, 3] -> [N] with random colours and a small warp."""
    generator = torch.Generator().manual_seed(0)
    grid = distance(lattice.nodes(resolution, BOUNDS)).reshape((resolution,) * 3)
    torch.manual_seed(0)
    decoder = PlaneDecoder(8, 16).requires_grad_(False)
    planes = torch.randn(4, 8, 32, 32, generator=generator)
    warp = 0.01 * torch.randn(3, 8, 8, 8, generator=generator)
    return HeadField(grid, warp, planes, decoder, BOUNDS, {"model": "test"})


def ball(centre: tuple[float, float, float], radius: float = RADIUS):
    return lambda p: (p - torch.tensor(centre)).norm(dim=1) - radius


@pytest.fixture(scope="module")
def sphere() -> HeadField:
    return field_of(ball((0, 0, 0)))


def meets(camera: Camera, centre: tuple[float, float, float], radius: float) -> np.ndarray:
    """Pixels whose ray meets a ball [H, W]."""
    origin, rays = camera.rays()
    to = np.array(centre) - origin
    along = rays @ to
    return to @ to - along**2 < radius**2


def shrunk(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask without its outermost pixels; with a negative number, with so many more."""
    x = torch.from_numpy(mask)[None, None].float()
    k = 2 * abs(pixels) + 1
    grow = torch.nn.functional.max_pool2d(x if pixels < 0 else 1 - x, k, 1, abs(pixels))[0, 0] > 0
    return (grow if pixels < 0 else ~grow).numpy()


def test_value_is_positive_inside(sphere):
    inside = sphere.value(torch.tensor([[0, 0, 0], [RADIUS, 0, 0], [0.15, 0, 0.0]]))
    assert inside[0] == pytest.approx(RADIUS, abs=0.004)
    assert inside[1].abs() < 2e-4
    assert inside[2] == pytest.approx(RADIUS - 0.15, abs=2e-4)


def test_query_density_follows_distance(sphere):
    at = torch.tensor([[0, 0, 0], [RADIUS + 0.02, 0, 0], [RADIUS, 0, 0.0]])
    density, feature = sphere.query(at)
    assert density[0] == pytest.approx(module.SHARPNESS, rel=1e-3)
    assert density[1] < 1e-3 * module.SHARPNESS
    assert feature.shape == (3, 3)
    assert torch.equal(feature, sphere.color(at))
    assert feature.min() >= 0 and feature.max() <= 1


def test_colour_is_looked_up_in_canonical_space(sphere):
    p = torch.tensor([[0.03, -0.02, 0.05]])
    moved = p + lattice.sample(sphere.warp, p, BOUNDS)
    still = HeadField(
        sphere.distance, torch.zeros_like(sphere.warp), sphere.planes, sphere.decoder, BOUNDS
    )
    assert (moved - p).norm() > 1e-4
    assert torch.allclose(sphere.color(p), still.color(moved))


def test_a_spheres_silhouette_and_depth(sphere):
    camera = orbit(0.6, 0.3, DISTANCE, FOV, width=161, height=161)
    seen = sphere.render(camera)
    assert seen.image.shape == (161, 161, 3)
    alpha, depth = seen.alpha.numpy(), seen.depth.numpy()
    focal = 161 * 0.5 / math.tan(FOV / 2)
    radius = focal * math.tan(math.asin(RADIUS / DISTANCE))
    assert math.sqrt(alpha.sum() / math.pi) == pytest.approx(radius, abs=0.3)
    mask = meets(camera, (0, 0, 0), RADIUS)
    assert alpha[shrunk(mask, 2)].min() > 0.99
    assert alpha[~shrunk(mask, -2)].max() < 0.01
    origin, rays = camera.rays()
    along = -(rays @ origin)
    t = along - np.sqrt(np.maximum(RADIUS**2 - (origin @ origin - along**2), 0))
    expected = t * (rays @ camera.cam2world[:3, 2])
    inner = shrunk(mask, 3)
    assert np.abs(depth - expected)[inner].max() < 6e-4
    assert np.abs(depth - expected)[inner].mean() < 1.5e-4


def test_the_image_is_premultiplied_and_shows_the_surface(sphere):
    camera = orbit(0, 0, DISTANCE, FOV, width=81, height=81)
    seen = sphere.render(camera)
    assert (seen.image <= seen.alpha[..., None] + 1e-4).all()
    assert (seen.image[seen.alpha < 1e-3] < 1e-3).all()
    origin, rays = (torch.from_numpy(np.asarray(x)).float() for x in camera.rays())
    t = seen.depth[40, 40] / (rays[40, 40] @ torch.tensor(camera.cam2world[:3, 2]).float())
    on_surface = origin + t * rays[40, 40]
    assert on_surface.norm() == pytest.approx(RADIUS, abs=3e-4)
    assert (sphere.color(on_surface[None])[0] - seen.image[40, 40]).abs().max() < 0.05


@pytest.mark.parametrize("yaw", [0.0, 0.35, 1.3])
def test_no_light_lines_where_one_thing_hides_another(yaw):
    """A small ball before a large one: rays that graze the small one go on to the large one."""
    large, small = ((0.0, 0.0, -0.06), 0.1), ((0.02, 0.01, 0.12), 0.04)
    field = field_of(lambda p: torch.minimum(ball(*large)(p), ball(*small)(p)))
    camera = orbit(yaw, 0.1, DISTANCE, FOV, width=144, height=144)
    union = meets(camera, *large) | meets(camera, *small)
    seen = field.render(camera)
    alpha = seen.alpha.numpy()
    assert alpha[shrunk(union, 2)].min() > 0.98
    assert alpha[~shrunk(union, -2)].max() < 0.02
    front = shrunk(meets(camera, *small), 3)
    assert (seen.depth.numpy()[front] < seen.depth.numpy()[union].max() - 0.05).all() or yaw > 1


def test_a_camera_inside_or_turned_away(sphere):
    away = orbit(0, 0, DISTANCE, FOV, (0, 0, 5.0), 24, 24)
    turned = Camera(orbit(math.pi, 0, 1.0, FOV, (0, 0, 2.0)).cam2world, away.intrinsics, 24, 24)
    assert turned.position[2] == pytest.approx(1.0)
    assert sphere.render(turned).alpha.max() == 0
    near = sphere.render(orbit(0, 0, 0.15, 1.0, width=24, height=24))  # inside the box
    assert near.alpha[12, 12] > 0.99
    assert near.depth[12, 12] == pytest.approx(0.15 - RADIUS, abs=1e-3)


def test_the_mesh_has_the_fields_silhouette():
    def distance(p: Tensor) -> Tensor:
        return torch.minimum(ball((0, 0.02, 0), 0.1)(p), ball((0.01, 0, 0.1), 0.03)(p))

    field = field_of(distance)
    mesh = isosurface.extract(field, 96)
    agreement = metrics.silhouette_agreement(mesh, field, yaws=(0, 70), size=128)
    assert min(agreement) > 0.985


def test_rendering_is_deterministic_and_can_be_cancelled(sphere):
    camera = orbit(0.2, 0, DISTANCE, FOV, width=40, height=40)
    a, b = sphere.render(camera), sphere.render(camera)
    assert torch.equal(a.image, b.image) and torch.equal(a.alpha, b.alpha)

    def check():
        raise Cancelled()

    with pytest.raises(Cancelled):
        sphere.render(camera, check)


def test_chunks_make_no_difference(sphere, monkeypatch):
    camera = orbit(0.2, 0, DISTANCE, FOV, width=40, height=40)
    whole = sphere.render(camera)
    monkeypatch.setattr(module, "CHUNK", 301)
    assert torch.allclose(sphere.render(camera).image, whole.image, atol=1e-5)


def test_compositing_weights():
    """A ray through a slab stops at its first face; one past it is not stopped."""
    d = torch.linspace(0.004, -0.004, 33)
    through, past = neus_weights(torch.stack([d, torch.full_like(d, 0.02)]))
    assert through.sum() == pytest.approx(1, abs=1e-3)
    at = (through * torch.linspace(0.5, 31.5, 32)).sum() / through.sum()
    assert at == pytest.approx(16, abs=0.7)
    assert past.sum() < 1e-3


@pytest.mark.parametrize("half", [True, False])
def test_saved_and_loaded_it_looks_the_same(sphere, half):
    data = field_to_bytes(sphere, half)
    again = load_field(data)
    assert isinstance(again, HeadField) and field_class("head") is HeadField
    assert again.info == {"model": "test"} and torch.equal(again.bounds, sphere.bounds)
    camera = orbit(0.3, 0.1, DISTANCE, FOV, width=96, height=96)
    a, b = sphere.render(camera), again.render(camera)
    assert metrics.iou(a.alpha.numpy() > 0.5, b.alpha.numpy() > 0.5) > 0.995
    assert (a.image - b.image).abs().mean() < 2e-3
    solid = (a.alpha > 0.99) & (b.alpha > 0.99)
    assert (a.depth - b.depth)[solid].abs().max() < 5e-4
    if not half:
        assert torch.equal(a.image, b.image)
    else:
        assert len(data) < 0.6 * len(field_to_bytes(sphere, half=False))
    # Saving a loaded field once more changes nothing.
    third = load_field(field_to_bytes(again, half))
    for name, tensor in again.tensors().items():
        assert torch.equal(tensor, third.tensors()[name]), name


def changed(field: HeadField, **tensors: Tensor | None) -> bytes:
    """The field's file with tensors replaced, or left out (None)."""
    other = HeadField(
        field.distance, field.warp, field.planes, field.decoder, field.bounds, field.info
    )
    content = {k: v for k, v in (field.tensors() | tensors).items() if v is not None}
    other.tensors = lambda: content
    return field_to_bytes(other)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("distance", None),
        ("distance", torch.zeros(8, 8)),
        ("warp", None),
        ("warp", torch.zeros(2, 4, 4, 4)),
        ("planes", None),
        ("planes", torch.zeros(3, 8, 32, 32)),
        ("planes", torch.zeros(4, 7, 32, 32)),
        ("decoder.net.0.weight", None),
        ("decoder.net.0.weight", torch.zeros(16)),
        ("decoder.net.2.bias", None),
        ("decoder.net.2.weight", torch.zeros(4, 9)),
        ("distance", torch.full((8, 8, 8), float("nan"))),
    ],
)
def test_tensors_that_do_not_fit_are_refused(sphere, name, value):
    with pytest.raises(WeightsError):
        load_field(changed(sphere, **{name: value}))


@pytest.mark.parametrize(
    "bounds",
    [None, "box", [[0, 0, 0]], [[0.2] * 3, [-0.2] * 3], [[0, 0, 0], [1, 1]], {"low": 0}],
    ids=str,
)
def test_bounds_that_are_no_box_are_refused(sphere, bounds):
    other = HeadField(sphere.distance, sphere.warp, sphere.planes, sphere.decoder, sphere.bounds)
    described = other.metadata() | {"bounds": bounds}
    other.metadata = lambda: described
    with pytest.raises(WeightsError):
        load_field(field_to_bytes(other))


def test_a_damaged_file_is_refused(sphere):
    data = bytearray(field_to_bytes(sphere))
    data[len(data) // 2] ^= 0xFF
    for damaged in (bytes(data), bytes(data[:-100]), bytes(data[:50]), b""):
        with pytest.raises(WeightsError):
            load_field(damaged)


def test_the_constructor_refuses_what_does_not_fit(sphere):
    with pytest.raises(ValueError, match="planes"):
        HeadField(sphere.distance, sphere.warp, sphere.planes[:, :5], sphere.decoder, BOUNDS)
    with pytest.raises(ValueError, match="shapes"):
        HeadField(sphere.distance[0], sphere.warp, sphere.planes, sphere.decoder, BOUNDS)

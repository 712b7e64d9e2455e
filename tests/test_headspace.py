"""The head space of the shipped weights: shapes of heads, their warps, landmarks and hair."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.checkpoints.default import load_default
from engine.errors import WeightsError
from engine.headspace import lattice
from engine.headspace.space import SHAPES, HeadSpace, smooth_union

BOUNDS = torch.tensor([[-0.2] * 3, [0.2] * 3])
NOSE_TIP, CHIN, RIGHT_EYE, LEFT_EYE = 30, 8, slice(36, 42), slice(42, 48)  # iBUG's order


@pytest.fixture(scope="module")
def space() -> HeadSpace:
    return load_default().space


def head(space: HeadSpace, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Coefficients of a random head."""
    generator = torch.Generator().manual_seed(seed)
    identity = torch.randn(len(space.identity), generator=generator)
    return identity, 0.7 * torch.randn(len(space.expression), generator=generator)


def skin(space: HeadSpace, points: torch.Tensor) -> torch.Tensor:
    return lattice.sample(space.skin_distance[None], points, space.bounds)[:, 0]


def test_the_mean_head_is_a_symmetric_human(space):
    marks = space.landmarks(space.mean)
    assert marks.shape == (84, 3)
    right, left = marks[RIGHT_EYE].mean(0), marks[LEFT_EYE].mean(0)
    assert 0.05 < left[0] - right[0] < 0.075  # the left eye lies at +x
    assert (left + right)[0].abs() < 0.004
    assert ((left + right) / 2)[1] == pytest.approx(0.02, abs=0.004)
    assert marks[NOSE_TIP, 2] > left[2] + 0.01  # the nose points to +z
    assert 0.08 < left[1] - marks[CHIN, 1] < 0.14
    mirrored = space.skin_distance.flip(-1)
    near = space.skin_distance.abs() < 0.004
    assert (mirrored - space.skin_distance)[near].abs().median() < 0.001


def test_the_template_is_the_zero_level(space):
    assert skin(space, space.mean).abs().mean() < 3e-4
    assert skin(space, torch.tensor([[0.0, 0.02, 0.0]])) < -0.02
    assert skin(space, torch.tensor([[0.19, 0.19, 0.19]])) > 0.05
    a, b, c = (space.mean[space.faces[:, i]] for i in range(3))
    volume = (a * torch.linalg.cross(b, c)).sum() / 6
    assert 0.003 < volume < 0.008  # closed, wound outwards, some five litres


@pytest.mark.parametrize("seed", range(3))
def test_the_warp_undoes_the_displacement(space, seed):
    identity, expression = head(space, seed)
    moved = space.vertices(identity, expression)
    assert (moved - space.mean).norm(dim=1).mean() > 0.006
    warp = space.warp(identity, expression)
    back = moved + lattice.sample(warp, moved, space.bounds)
    # The template itself lies 0.2 mm from the grid's zero level.
    assert skin(space, back).abs().mean() < 4.5e-4
    upper = space.mean[:, 1] > -0.1
    assert (back - space.mean)[upper].norm(dim=1).mean() < 6e-4


def test_no_displacement_is_no_warp(space):
    none = torch.zeros(len(space.identity)), torch.zeros(len(space.expression))
    assert space.warp(*none).abs().max() < 1e-9
    assert torch.equal(space.vertices(*none), space.mean)


def test_landmarks_follow_the_vertices(space):
    identity, expression = head(space, 5)
    vertices = space.vertices(identity, expression)
    marks = space.landmarks(vertices)
    nearest = torch.cdist(marks, vertices).amin(1)
    assert nearest.max() < 0.012
    shift = torch.tensor([0.01, -0.02, 0.03])
    assert torch.allclose(space.landmarks(vertices + shift), marks + shift, atol=1e-6)
    both = space.landmarks(torch.stack([vertices, space.mean]))
    assert torch.allclose(both[0], marks) and both.shape == (2, 84, 3)


def test_coefficients_have_unit_scale(space):
    """A standard deviation of the first directions moves a head by millimetres, not metres."""
    size = space.identity.norm(dim=2).mean(1)
    assert 0.001 < size[0] < 0.02
    assert size[-1] < size[0]


def test_hair_weights_mirror(space):
    n = (space.styles - 1) // 2
    assert space.styles == 2 * n + 1 and n + 1 == len(space.hair_distance)
    one = torch.eye(space.styles)
    for style in range(n):
        assert torch.equal(space.hair(one[style]).flip(-1), space.hair(one[n + style]))
        assert torch.equal(space.hair(one[style])[0], space.hair_distance[style])
    assert torch.equal(space.hair(one[2 * n])[0], space.hair_distance[-1])
    lopsided = [(space.hair(one[s]) - space.hair(one[n + s])).abs().max().item() for s in range(n)]
    assert max(lopsided) > 0.005  # some style has a parting, or mirroring would mean nothing
    mixed = space.hair(0.25 * one[0] + 0.75 * one[n + 1])
    parts = 0.25 * space.hair_distance[0] + 0.75 * space.hair_distance[1].flip(-1)
    assert torch.allclose(mixed[0], parts, atol=1e-6)


def test_fuller_hair_is_larger(space):
    weights = torch.eye(space.styles)[0]
    plain, fuller = space.hair(weights), space.hair(weights, 0.004)
    assert torch.allclose(plain - fuller, torch.full_like(plain, 0.004), atol=1e-6)


def test_bald_is_under_the_skin(space):
    bald = space.hair(torch.eye(space.styles)[-1])
    above_the_cut = space.mean[space.mean[:, 1] > -0.12]
    at = lattice.sample(bald, above_the_cut, space.bounds)[:, 0]
    assert (at > 0.004).float().mean() > 0.98


def test_the_residual_is_bounded(space):
    bound = lattice.sample(space.residual_bound[None], space.mean, space.bounds)[:, 0]
    assert 0 < bound.min() < 0.004  # bare places stay put, hair may move by centimetres
    assert 0.02 < bound.max() < 0.05


def test_smooth_union():
    a = torch.linspace(-0.02, 0.02, 401)
    b = torch.full_like(a, 0.001)
    r = 0.003
    u = smooth_union(a, b, r)
    apart = (a - b).abs() >= r
    assert torch.equal(u[apart], torch.minimum(a, b)[apart])
    assert (u <= torch.minimum(a, b) + 1e-9).all()
    assert (torch.minimum(a, b) - u).max() == pytest.approx(r / 4, rel=1e-3)
    slope = (u[1:] - u[:-1]) / (a[1] - a[0])
    assert (slope[1:] - slope[:-1]).abs().max() < 0.05  # no crease
    assert torch.allclose(u, smooth_union(b, a, r))


def test_sampling_a_lattice_is_exact_for_a_plane():
    weights = torch.tensor([0.3, -0.7, 1.1])
    grid = (lattice.nodes(9, BOUNDS) @ weights).reshape(1, 9, 9, 9)
    points = torch.rand(100, 3, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.2
    got = lattice.sample(grid, points, BOUNDS)
    assert torch.allclose(got[:, 0], points @ weights, atol=1e-6)
    corner = lattice.sample(grid, torch.tensor([[0.5, 0.5, 0.5]]), BOUNDS)
    assert corner[0, 0] == pytest.approx(float(weights.sum() * 0.2), abs=1e-6)


@pytest.fixture(scope="module")
def spread() -> tuple[torch.Tensor, lattice.Spread]:
    generator = torch.Generator().manual_seed(1)
    points = torch.nn.functional.normalize(torch.randn(4000, 3, generator=generator), dim=1) * 0.1
    return points, lattice.Spread(points, BOUNDS, 24)


def test_spreading_is_linear(spread):
    points, spread = spread
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(2, len(points), 3, generator=generator)
    assert torch.allclose(spread(2 * a - 3 * b), 2 * spread(a) - 3 * spread(b), atol=1e-4)


def test_spreading_keeps_constants_and_follows_smooth_values(spread):
    points, spread = spread
    flat = spread(torch.full((len(points), 1), 0.7))
    assert flat.shape == (1, 24, 24, 24)
    near = lattice.sample(flat, points, BOUNDS)
    assert (near - 0.7).abs().max() < 0.05
    values = points @ torch.tensor([[1.0], [0.5], [-1.0]])
    near = lattice.sample(spread(values), points, BOUNDS)
    assert (near - values).abs().mean() < 0.1 * values.abs().mean()


def test_spreading_passes_gradients(spread):
    points, spread = spread
    values = torch.zeros(len(points), 3, requires_grad=True)
    spread(values).square().sum().backward()
    assert torch.equal(values.grad, torch.zeros_like(values))
    spread(values + 1).square().sum().backward()
    assert (values.grad != 0).any(1).all()


def test_blur_keeps_planes():
    weights = torch.tensor([1.0, 2.0, 3.0])
    grid = (lattice.nodes(8, BOUNDS) @ weights).reshape(1, 8, 8, 8)
    inner = (slice(None), *(slice(1, -1),) * 3)
    assert torch.allclose(lattice.blur(grid)[inner], grid[inner], atol=1e-6)
    spike = torch.zeros(1, 9, 9, 9)
    spike[0, 4, 4, 4] = 1
    soft = lattice.blur(spike)
    assert soft.sum() == pytest.approx(1, abs=1e-5) and soft.max() < 0.6


def test_inverting_a_known_warp():
    """A shrinking warp q -> q + (s - 1) q has the inverse p -> p / s."""
    r, s = 20, 0.9
    forward = ((s - 1) * lattice.nodes(r, BOUNDS)).T.reshape(3, r, r, r)
    back = lattice.invert(forward, BOUNDS, steps=12)
    p = (torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.3
    assert (p + lattice.sample(back, p, BOUNDS) - p / s).abs().max() < 2e-4


def test_gradients_reach_the_coefficients(space):
    identity, expression = (x.requires_grad_() for x in head(space, 1))
    space.warp(identity, expression, resolution=16).square().sum().backward()
    assert identity.grad.abs().min() > 0 and expression.grad.abs().max() > 0


@pytest.mark.parametrize("name", SHAPES)
def test_missing_or_misshapen_tensors_are_named(space, name):
    tensors = {n: getattr(space, n) for n in SHAPES}
    with pytest.raises(WeightsError, match=f"'{name}'"):
        HeadSpace({n: t for n, t in tensors.items() if n != name})
    with pytest.raises(WeightsError, match=f"'{name}'"):
        HeadSpace(tensors | {name: tensors[name].flatten()[:8]})


def test_half_precision_bases_become_float32(space):
    tensors = {n: getattr(space, n) for n in SHAPES}
    tensors |= {"identity": space.identity.half(), "faces": space.faces.int()}
    again = HeadSpace(tensors)
    assert again.identity.dtype == torch.float32 and again.faces.dtype == torch.int64
    assert np.allclose(again.identity, space.identity, atol=1e-4)

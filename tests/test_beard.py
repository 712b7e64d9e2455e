"""A beard's volume: where the photo shows hair about the chin, and no farther than the outline."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.checkpoints.default import load_default
from engine.fields.head import HeadField
from engine.headspace import lattice
from engine.headspace.beard import beard_region, bearded, chin_region, reach_region
from engine.headspace.space import HeadSpace
from engine.inversion import beard, fit, shape
from engine.inversion import pose as poses
from engine.surface import quad

SIZE = 128
FRONT = (0.0, 0.0, 0.0, 0.5, 0.5, math.log(0.36))
CHIN, CHEEK, BROW, LIPS, THROAT = torch.tensor(
    [[0, -0.083, 0.09], [0.05, -0.02, 0.07], [0, 0.04, 0.1], [0, -0.048, 0.106], [0, -0.12, 0.03]]
)


@pytest.fixture(scope="module")
def space() -> HeadSpace:
    return load_default().space


def bald(space: HeadSpace, pose: tuple[float, ...] = FRONT) -> shape.Shape:
    r = shape.RESIDUAL
    return shape.Shape(
        torch.zeros(len(space.identity)),
        torch.zeros(len(space.expression)),
        torch.eye(space.styles)[-1],
        torch.zeros(()),
        torch.zeros(1, r, r, r),
        torch.tensor(pose),
        space.hair(torch.eye(space.styles)[-1]),
    )


def picture(space: HeadSpace, head: shape.Shape, chosen) -> torch.Tensor:
    """1 where a picture of SIZE shows vertices of the mean head that `chosen` says, with a rim."""
    at = poses.project(space.vertices(head.identity, head.expression), head.pose)
    x, y = (at[torch.from_numpy(chosen(space.mean.numpy()))] * SIZE).long().clamp(0, SIZE - 1).T
    out = torch.zeros(SIZE, SIZE)
    out[y, x] = 1
    return torch.nn.functional.max_pool2d(out[None, None], 7, 1, 3)[0, 0]


def full(mean: np.ndarray) -> np.ndarray:
    """A full beard, as a front view shows it."""
    return (beard_region(mean) > 0.5) & (mean[:, 2] > 0.02)


def field_of(space: HeadSpace, head: shape.Shape) -> HeadField:
    generator = load_default().generator
    distance, warp = shape.bake(space, head, torch.zeros(1, 8, 8, 8), 112)
    planes = torch.zeros(4, generator.config.plane_channels, 4, 4)
    info = {"coefficients": head.coefficients()}
    return HeadField(distance, warp, planes, generator.decoder, space.bounds, info)


def thick_at(space: HeadSpace, found: beard.Beard, points: torch.Tensor) -> torch.Tensor:
    return lattice.sample(found.thick, points, space.bounds)[:, 0]


KNOWN = torch.zeros(SIZE, SIZE)


def test_where_beards_grow(space):
    chin, cheek, brow, lips, throat = beard_region(
        torch.stack([CHIN, CHEEK, BROW, LIPS, THROAT]).numpy()
    )
    assert chin > 0.9 and lips == brow == cheek == throat == 0
    mean = space.mean.numpy()
    region, wide, middle = beard_region(mean), reach_region(mean), chin_region(mean)
    assert ((0 <= region) & (region <= wide + 1e-6)).all() and wide.max() == 1
    assert 0.03 < (region > 0.5).mean() < 0.2 and 30 < (middle > 0.5).sum() < (region > 0.5).sum()


def test_a_bare_chin_has_none_whatever_hangs_beside_it(space):
    head = bald(space)
    assert beard.beard_of(space, head, KNOWN, KNOWN) is None
    sides = picture(space, head, lambda v: (np.abs(v[:, 0]) > 0.045) & (v[:, 1] < 0.05))
    assert sides.mean() > 0.03 and beard.beard_of(space, head, sides, KNOWN) is None
    assert not bearded(np.ones(4), np.array([1, 0, 0, 0])) and bearded(np.ones(4), np.ones(4))


def test_hair_about_the_chin_is_a_beard_and_the_lips_stay_free(space):
    head = bald(space)
    found = beard.beard_of(space, head, picture(space, head, full), KNOWN)
    chin, cheek, brow, lips, _ = thick_at(
        space, found, torch.stack([CHIN, CHEEK, BROW, LIPS, THROAT])
    )
    assert chin > 0.8 and lips < 0.15 and cheek < 0.05 and brow == 0
    # A picture without sides gives a beard without sides.
    assert (found.thick - found.thick.flip(-1)).abs().mean() < 0.002


def test_the_hidden_half_is_as_the_one_that_shows(space):
    head = bald(space, (0.9, *FRONT[1:]))
    found = beard.beard_of(space, head, picture(space, head, full), KNOWN)
    jaw = torch.tensor([[0.045, -0.07, 0.05]])
    here, there = (float(thick_at(space, found, jaw * torch.tensor([s, 1, 1]))) for s in (1.0, -1))
    assert here > 0.5 and there > 0.5


def test_what_a_picture_does_not_say_is_no_beard(space):
    head = bald(space)
    hairy = picture(space, head, full)
    assert beard.beard_of(space, head, hairy, torch.ones(SIZE, SIZE)) is None


def test_it_stands_off_the_skin_by_its_length(space):
    head = bald(space)
    found = beard.beard_of(space, head, picture(space, head, full), KNOWN)
    nowhere, below = torch.tensor([[0, 0.06, 0.12], [0, -0.087, 0.094]])[:, None]

    def at(length: float, point: torch.Tensor) -> float:
        mass = found.on(head.mass, torch.tensor(length))
        return float(lattice.sample(mass, point, space.bounds))

    assert at(0.02, below) == pytest.approx(at(0.01, below) - 0.01, abs=0.003)
    assert at(0.5, below) == at(beard.LONGEST, below)
    assert at(0.02, nowhere) == pytest.approx(
        float(lattice.sample(head.mass, nowhere, space.bounds)), abs=1e-6
    )
    # Of no length, or where none grows, it lies under the skin.
    none = found.on(torch.full_like(head.mass, 1.0), torch.tensor(0.0))
    assert (none >= found.skin - 1e-6).all()


def test_the_outline_says_how_long_it_is(space):
    head = bald(space)
    hairy = picture(space, head, full)
    found = beard.beard_of(space, head, hairy, KNOWN)
    none = torch.zeros(1, 8, 8, 8)
    landmarks = poses.project(space.landmarks(space.mean), head.pose)
    numbers = len(head.identity) + len(head.expression) + 6
    camera = poses.to_camera(head.pose, SIZE)
    shaved = field_of(space, head).render(camera).depth.numpy()
    grown = []
    for length in (0.003, 0.022):
        seen = field_of(space, replace(head, mass=found.on(head.mass, torch.tensor(length))))
        seen = seen.render(camera)
        alpha, hair = seen.alpha.numpy(), seen.depth.numpy() < shaved - 0.001
        labels = np.where(alpha > 0.5, np.where(hair, fit.HAIR, fit.SKIN), 0).astype(np.uint8)
        made = fit.fit_silhouette(
            space, head, alpha, labels, np.zeros((SIZE, SIZE), bool), landmarks,
            torch.full((84,), 0.01), none, 1e-3 * torch.eye(numbers), steps=40, beard=found,
        )  # fmt: skip
        chin = CHIN[None] + torch.tensor([[0, -0.01, 0.0]])
        grown.append(-float(lattice.sample(made.mass, chin, space.bounds)))
    assert grown[1] - grown[0] > 0.005


def test_a_mesh_without_hair_keeps_the_beard_as_paint(space):
    head = bald(space)
    found = beard.beard_of(space, head, picture(space, head, full), KNOWN)
    masses = head.mass, found.on(head.mass, torch.tensor(0.015))
    bare, hairy = (quad.shape(field_of(space, replace(head, mass=m)), "LOW") for m in masses)
    chin = np.linalg.norm(hairy.vertices - CHIN.numpy(), axis=1).argmin()
    assert not bare.beard.any() and np.array_equal(bare.hidden, bare.covered)
    assert hairy.covered[chin] > 0.9 and hairy.beard[chin] > 0.9 and hairy.hidden[chin] < 0.1
    # The mesh is the skin's, with or without.
    assert np.abs(hairy.vertices - bare.vertices).max() < 0.003

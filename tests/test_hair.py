"""Which hair a head is given where its photo shows none: the vote of the styles."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.checkpoints.default import load_default
from engine.headspace import lattice
from engine.headspace.space import HeadSpace
from engine.inversion import beyond, fit, hair, shape
from engine.inversion import pose as poses

# The styles of the head pack, in order.
BOB, BRAID, LONG, SHORT = 2, 3, 4, 8


@pytest.fixture(scope="module")
def space() -> HeadSpace:
    return load_default().space


def expected_iou(inside: torch.Tensor, styles: torch.Tensor, weights: torch.Tensor) -> float:
    """Of a shape bool [...] with the styles' insides bool [S, ...] by their probabilities."""
    both = (inside & styles).flatten(1).sum(1)
    either = (inside | styles).flatten(1).sum(1)
    return float((weights * both / either).sum())


def discs(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances [5, 48, 48] of a disc with tails of different lengths, and probabilities."""
    generator = torch.Generator().manual_seed(seed)
    at = torch.linspace(-1, 1, 48)
    y, x = torch.meshgrid(at, at, indexing="ij")
    disc = (x.square() + (y + 0.4).square()).sqrt() - 0.35
    tails = []
    for end in torch.rand(5, generator=generator) * 1.4 - 0.6:
        away = torch.stack([x.abs() - 0.3, (y + 0.4) - (end + 0.4).clamp_min(0.01)])
        tails.append(torch.maximum(away, torch.stack([away[0], -0.4 - y])).amax(0))
    weights = torch.rand(5, generator=generator).square() + 0.02
    return torch.minimum(disc, torch.stack(tails)), weights / weights.sum()


def test_the_vote_is_expected_to_overlap_more_than_the_mean():
    """And than the likeliest style alone; by probabilities that are right."""
    gains, over_best = [], []
    for seed in range(40):
        distances, weights = discs(seed)
        inside = distances < 0
        voted = expected_iou(hair.vote(distances, weights) < 0, inside, weights)
        mean = expected_iou(torch.tensordot(weights, distances, 1) < 0, inside, weights)
        gains.append(voted - mean)
        over_best.append(voted - expected_iou(inside[weights.argmax()], inside, weights))
    assert np.mean(gains) > 0.01 and np.mean(over_best) > 0.01
    assert min(gains) > -0.02


def test_the_vote_follows_the_majority_and_keeps_distances():
    generator = torch.Generator().manual_seed(1)
    distances = torch.randn(6, 500, generator=generator)
    weights = torch.rand(6, generator=generator)
    weights /= weights.sum()
    voted = hair.vote(distances, weights)
    share = (weights[:, None] * (distances < 0)).sum(0)
    low, high = hair.MIDDLE
    assert (voted[share > high + 1e-4] < 0).all() and (voted[share < low - 1e-4] > 0).all()
    # Steady: no farther off than the distances are, and in whatever order they come.
    other = distances + 0.1 * (2 * torch.rand(6, 500, generator=generator) - 1)
    assert (hair.vote(other, weights) - voted).abs().max() <= 0.1 + 1e-5
    order = torch.randperm(6, generator=generator)
    assert torch.allclose(hair.vote(distances[order], weights[order]), voted, atol=1e-5)
    alone = hair.vote(distances, F.one_hot(torch.tensor(2), 6).float())
    assert torch.allclose(alone, distances[2], atol=1e-5)


def nape(space: HeadSpace, mass: torch.Tensor) -> float:
    """Share of the back of the neck's skin that a mass [1, d, d, d] covers by over 2 mm."""
    q = lattice.nodes(96, space.bounds)
    x, y, z = q.unbind(1)
    skin = lattice.sample(space.skin_distance[None], q, space.bounds)[:, 0]
    neck = (y < -0.075) & (y > -0.13) & (z < -0.03) & (skin.abs() < 0.003) & (x.abs() < 0.05)
    thick = skin[neck] - lattice.sample(mass, q[neck], space.bounds)[:, 0]
    return float((thick > 0.002).float().mean())


def weights_of(space: HeadSpace, **styles: float) -> torch.Tensor:
    index = {"bob": BOB, "braid": BRAID, "long": LONG, "short": SHORT}
    out = torch.zeros(space.styles)
    for name, weight in styles.items():
        out[index[name]] = weight
    return out


def test_a_bob_that_may_be_a_braid_has_a_bare_nape(space):
    """Or long: the likeliest style, but most of the likely ones end above the neck."""
    for style, least in (("braid", 0.15), ("long", 0.9)):
        weights = weights_of(space, **{style: 0.42}, bob=0.33, short=0.25)
        assert nape(space, space.hair(weights_of(space, **{style: 1.0}))) > least
        assert nape(space, space.hair(weights)) > least / 6  # as the mean of distances has it
        assert nape(space, hair.likely_mass(space, weights)) == 0


def test_long_hair_stays_long(space):
    weights = weights_of(space, long=0.7, bob=0.2, short=0.1)
    assert nape(space, hair.likely_mass(space, weights)) > 0.5


def test_a_sure_style_is_itself(space):
    weights = weights_of(space, bob=0.985, braid=0.015)
    mass = hair.likely_mass(space, weights)
    assert torch.allclose(mass, space.hair(weights_of(space, bob=1.0)), atol=1e-6)
    mirrored = torch.zeros(space.styles)
    mirrored[len(space.hair_distance) - 1 + BOB] = 1
    assert torch.allclose(hair.likely_mass(space, mirrored), mass.flip(-1), atol=1e-6)


def test_all_styles_are_in_the_order_of_the_weights(space):
    masses = hair.all_styles(space)
    assert len(masses) == space.styles
    for k in (0, BOB, 12, space.styles - 1):
        assert torch.equal(masses[k][None], space.hair(torch.eye(space.styles)[k]))


def test_fitting_keeps_the_voted_mass(space):
    """Outline and hairline move its residual and its offset; no style comes in by itself."""
    r = shape.RESIDUAL
    start = shape.Shape(
        torch.zeros(len(space.identity)),
        torch.zeros(len(space.expression)),
        weights_of(space, braid=0.42, bob=0.33, short=0.25),
        torch.tensor(0.002),
        torch.zeros(1, r, r, r),
        torch.tensor([0.0, 0.0, 0.0, 0.5, 0.5, math.log(0.42)]),
    )
    voted = replace(start, mass=hair.likely_mass(space, start.hair) - start.offset)
    assert torch.equal(shape.hair_mass(space, voted), voted.mass)
    assert torch.equal(shape.hair_mass(space, start), space.hair(start.hair, start.offset))
    y, x = np.mgrid[:64, :64] / 64 - 0.5
    head = (x**2 / 0.06 + y**2 / 0.1 < 1).astype(np.float32)
    labels = np.where(head > 0, np.where(y < -0.05, fit.HAIR, fit.SKIN), 0).astype(np.uint8)
    landmarks = poses.project(space.landmarks(space.mean), start.pose)
    numbers = len(start.identity) + len(start.expression) + 6
    for before in (start, voted):
        made = fit.fit_silhouette(
            space, before, head, labels, np.zeros((64, 64), bool), landmarks,
            torch.full((84,), 0.01), torch.zeros(1, 8, 8, 8), 1e-3 * torch.eye(numbers), steps=2,
        )  # fmt: skip
        assert torch.equal(made.hair, start.hair) and made.offset != start.offset
        thick = hair.thickness(space, made.mass)
        moved = made.mass + (made.offset - start.offset) * thick
        assert torch.allclose(moved, shape.hair_mass(space, before), atol=1e-6)
        assert made.residual.any()


def test_fuller_hair_is_fuller_where_it_is_thick(space):
    mass = space.hair(weights_of(space, short=1.0))
    thick = hair.thickness(space, mass)
    assert thick.shape == mass.shape
    assert thick.min() == 0 and 0.8 < thick.max() * hair.TYPICAL / hair.THICK <= 1
    assert not thick[0, -1].any()  # far from the skin: the box's front
    # Ten millimetres off the skin of the crown, and inside the head.
    crown = torch.tensor([[0.0, float(space.mean[:, 1].max()) + 0.01, 0.0], [0.0, 0.05, 0.0]])
    off, inside = lattice.sample(thick, crown, space.bounds)[:, 0]
    assert off * hair.TYPICAL == pytest.approx(0.01, abs=0.003) and inside == 0


def test_outline_beyond_the_picture_counts(space):
    """Hair that goes on above the crop raises the crown; background there does not."""
    r = shape.RESIDUAL
    start = shape.Shape(
        torch.zeros(len(space.identity)),
        torch.zeros(len(space.expression)),
        weights_of(space, short=1.0),
        torch.zeros(()),
        torch.zeros(1, r, r, r),
        torch.tensor([0.0, 0.0, 0.0, 0.5, 0.45, math.log(0.24)]),  # the crown is cut off
    )
    landmarks = poses.project(space.landmarks(space.mean), start.pose)
    assert landmarks[82, 1] < 0  # the crown's
    full, none = np.ones((64, 64), np.float32), np.zeros((64, 64), np.float32)
    labels, nothing = np.full((64, 64), fit.HAIR, np.uint8), np.ones((64, 64), bool)
    above = np.zeros((64, 64), bool)
    above[8:] = True  # nothing is known of the rest
    numbers = len(start.identity) + len(start.expression) + 6
    crown = torch.tensor([[0.0, 0.15, 0.0]])
    distances = []
    for head in (full, none):
        made = fit.fit_silhouette(
            space, start, full, labels, nothing, landmarks, torch.full((84,), 0.01),
            torch.zeros(1, 8, 8, 8), 1e-3 * torch.eye(numbers), steps=8,
            outer=beyond.Beyond(head, labels, above),
        )  # fmt: skip
        more = torch.zeros(1, 8, 8, 8)
        distances.append(shape.distance_at(space, crown, made.mass, made.residual, more))
    assert distances[0] < distances[1] - 0.002

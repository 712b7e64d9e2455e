"""Colours and strands of what a photo does not show, on points whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.checkpoints.default import load_default
from engine.fields.strands import Strands, lines
from engine.inversion import appearance, unseen
from engine.inversion.appearance import Seen

BOUNDS = torch.tensor([[-0.2] * 3, [0.2] * 3])
SKIN = torch.tensor([0.7, 0.5, 0.4])
PIXEL = 0.0006


def ball(count: int, seed: int = 0) -> torch.Tensor:
    """Points all over a ball of a head's size."""
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)


def seen_of(points: torch.Tensor, colour: torch.Tensor) -> Seen:
    index = torch.full((2, 2), -1)
    return Seen(points, colour.expand(len(points), 3).clone(), torch.ones(len(points)), index)


@pytest.fixture(scope="module")
def points() -> torch.Tensor:
    return ball(20000)


@pytest.fixture(scope="module")
def front(points) -> torch.Tensor:
    return points[points[:, 2] > 0.02]


def continued(points, expected, covered, seen, seen_expected, seen_covered):
    return unseen.continued(points, expected, covered, seen, seen_expected, seen_covered, BOUNDS)


def test_what_is_near_is_shown(points, front):
    seen = seen_of(front, SKIN)
    seen.weight[front[:, 0] > 0] = 0.25
    weight, nearest = seen.near(points)
    assert (weight[points[:, 2] < 0.01] == 0).all()
    exact = points[:, 2] > 0.02
    assert torch.equal(seen.canonical[nearest[exact]], points[exact])
    seen_well = appearance.visibility(points, seen)
    assert (seen_well[exact & (points[:, 0] <= 0)] == 1).all()
    assert (seen_well[exact & (points[:, 0] > 0.01)] == 0.5).all()


def test_a_tone_runs_on_and_fades(front):
    """A photo twice as bright as the generator: exactly so near by, no longer far away."""
    ratio = torch.full((len(front), 3), 2.0).log()
    at = torch.tensor([[0.0, 0.0, 0.1], [0.098, 0.0, 0.019], [0.0, 0.0, -0.1]])
    got = unseen.run_on(ratio, torch.ones(len(front)), front, at, BOUNDS).exp()
    assert torch.allclose(got[0], torch.tensor(2.0), rtol=0.02)
    assert float(got[1].min()) > 1.8 and float(got[2].max()) < 1.05
    assert torch.allclose(unseen.run_on(0 * ratio, ratio[:, 0], front, at, BOUNDS), torch.zeros(3))


def test_an_affine_tone_is_matched_exactly_by_class(points, front):
    """Hair and skin that the photo shows in other tones: unseen ones get the same, each its own."""
    ours = {False: torch.tensor([0.5, 0.4, 0.3]), True: torch.tensor([0.2, 0.2, 0.2])}
    photo = {False: torch.tensor([0.6, 0.5, 0.45]), True: torch.tensor([0.3, 0.15, 0.1])}

    def paint(p, colours):
        return torch.where((p[:, 1:2] > 0), colours[True], colours[False])

    covered = (points[:, 1] > 0).float()
    seen_covered = (front[:, 1] > 0).float()
    seen = seen_of(front, paint(front, photo))
    both = torch.cat([covered, seen_covered])
    generated = torch.cat([paint(points, ours), paint(front, ours)])
    toned = appearance.expected_colours(
        generated, both, seen, generated[len(points) :], both[len(points) :]
    )
    assert torch.allclose(toned[: len(points)], paint(points, photo), atol=0.02)


def test_the_seen_half_is_mirrored(points):
    left = points[points[:, 0] > 0.01]
    stripes = (left[:, 1] * 300).sin()[:, None] * 0.1 + 0.5
    seen = seen_of(left, stripes)
    bare, seen_bare = torch.zeros(len(points)), torch.zeros(len(left))
    grey = torch.full((len(points), 3), 0.5)
    out = continued(points, grey, bare, seen, grey[: len(left)], seen_bare)
    right = (points[:, 0] < -0.015) & (unseen.neck(points) == 0)
    truth = (points[:, 1] * 300).sin()[:, None] * 0.1 + 0.5
    assert float((out - truth)[right].abs().mean()) < 0.02
    # What is hair here and skin there is no mirror image.
    hair = continued(points, grey, bare + 1, seen, grey[: len(left)], seen_bare)
    assert float((hair - grey)[right].abs().mean()) < 0.01


def test_neck_and_hair_take_the_photos_hue_and_keep_their_light(points, front):
    seen = seen_of(front, SKIN)
    expected = SKIN.repeat(len(points), 1)
    low = points[:, 1] < -0.085
    stain = low & (points[:, 0].abs() < 0.02)
    face = (points[:, 1] > 0.02) & (points[:, 0].abs() < 0.02)
    expected[stain | face] = torch.tensor([0.25, 0.12, 0.2])
    bare = torch.zeros(len(points))
    out = unseen.calm(points, expected, bare, seen, torch.zeros(len(front)))
    assert torch.equal(out[face], expected[face])
    clean = (unseen.neck(points) == 1) & stain

    def off(x):  # from the skin's hue
        return (x / (x @ unseen.LUMA)[:, None] - SKIN / (SKIN @ unseen.LUMA)).abs().mean()

    assert off(out[clean]) < 0.3 * off(expected[clean])
    assert torch.allclose(out[clean] @ unseen.LUMA, expected[clean] @ unseen.LUMA, atol=0.04)
    # Long hair on the neck takes the hair's, where the photo shows some, and is else left alone.
    long = unseen.calm(points, expected, bare + 1, seen, torch.zeros(len(front)))
    assert torch.equal(long, expected)
    hair = seen_of(front, torch.tensor([0.4, 0.3, 0.1]))
    hued = unseen.calm(points, expected, bare + 1, hair, torch.ones(len(front)))
    assert torch.allclose(hued @ unseen.LUMA, expected @ unseen.LUMA, atol=0.01)
    assert float((hued[:, 2] / hued[:, 0]).max()) < 0.6


def test_stray_locks_are_no_hair_but_long_hair_is(points):
    below = unseen.neck(points) == 1
    lock = torch.where(below & (points[:, 0].abs() < 0.01), 0.01, -0.01)
    lock = torch.where(points[:, 1] > 0.05, 0.01, lock)
    covered = unseen.under_hair(points, lock)
    assert float(covered[below].max()) == 0 and float(covered[points[:, 1] > 0.05].min()) > 0.99
    long = unseen.under_hair(points, torch.full((len(points),), 0.01))
    assert float(long.min()) > 0.99
    # Two millimetres of hair are hair on the scalp, a shadow elsewhere.
    short = unseen.under_hair(points, torch.full((len(points),), 0.002))
    back = (points[:, 1] > 0.06) & (points[:, 2] < -0.02)
    cheek = (points[:, 1].abs() < 0.02) & (points[:, 2] > 0.05)
    assert float(short[back].min()) > 0.7 and float(short[cheek].max()) < 0.2
    assert float(unseen.under_hair(points, torch.full((len(points),), -0.05)).max()) < 1e-3


def picture(strength: list[float], size: int = 300) -> np.ndarray:
    """A photo of nothing but hair, uint8 [size, size, 3]."""
    across = (torch.arange(size) - size / 2) * PIXEL
    x, y = across.expand(size, size), -across[:, None].expand(size, size)
    z = -(0.15**2 - x * x).sqrt()
    points = torch.stack([x, y, z], -1).reshape(-1, 3)
    shade = lines(points, torch.tensor(strength)).reshape(size, size, 1)
    colour = torch.tensor([0.5, 0.35, 0.25]) * shade.exp()
    return (colour.clamp(0, 1) * 255).byte().numpy()


def test_strands_are_measured_as_they_were_drawn():
    everywhere = np.ones((300, 300), bool)
    drawn = [0.03, 0.05, 0.06, 0.04, 0.02]
    strength, tint = unseen.measure(picture(drawn), everywhere, PIXEL)
    assert np.abs(strength.numpy() - drawn).max() < 0.02
    assert float((tint - 1).abs().max()) < 0.2
    fine, _ = unseen.measure(picture([0.1, 0, 0, 0, 0]), everywhere, PIXEL)
    broad, _ = unseen.measure(picture([0, 0, 0, 0, 0.1]), everywhere, PIXEL)
    assert fine[0] > 2 * fine[4] and broad[4] > 2 * broad[0]


@pytest.mark.parametrize("level", [0, 255])
def test_measuring_hair_without_any_light_or_dark(level):
    flat = np.full((100, 100, 3), level, np.uint8)
    strength, tint = unseen.measure(flat, np.ones((100, 100), bool), PIXEL)
    assert torch.isfinite(strength).all() and torch.isfinite(tint).all()
    none, _ = unseen.measure(flat, np.zeros((100, 100), bool), PIXEL)
    assert torch.equal(none, torch.tensor(unseen.USUAL))


def strands(points, covered, seen) -> Strands | None:
    hair = np.zeros((20, 20), bool)
    crop = np.zeros((20, 20, 3), np.uint8)
    return unseen.strands(points, covered, seen, BOUNDS, crop, hair, PIXEL)


def test_strands_lie_on_unseen_hair_only(points, front):
    seen = seen_of(front, SKIN)
    assert strands(points, torch.zeros(len(points)), seen) is None  # bald
    hair = (points[:, 1] > -0.03).float()
    made = strands(points, hair, seen)
    amount = unseen.lattice.sample(made.amount, points, BOUNDS)[:, 0]
    shown, bare = points[:, 2] > 0.045, points[:, 1] < -0.055
    assert float(amount[shown].max()) < 0.05 and float(amount[bare].max()) < 0.05
    assert float(amount[(points[:, 2] < 0) & (points[:, 1] > 0)].min()) > 0.9
    all_hair = strands(points, torch.ones(len(points)), seen)
    assert torch.isfinite(all_hair.factor(points, BOUNDS)).all()


@pytest.mark.parametrize("covered", [0.0, 1.0])
def test_heads_without_hair_or_without_skin(points, front, covered):
    """Nothing to learn one class from: its colours stay, and stay numbers."""
    seen = seen_of(front, SKIN)
    expected = SKIN.repeat(len(points), 1)
    cover, seen_cover = (torch.full((len(p),), covered) for p in (points, front))
    out = continued(points, expected, cover, seen, expected[: len(front)], seen_cover)
    assert torch.isfinite(out).all()
    assert torch.allclose(out, expected, atol=0.02)


def test_planes_are_matched_where_it_counts():
    generator = load_default().generator
    with torch.no_grad():
        planes = generator.planes(generator.w_avg[None])
    points = ball(300, 3)
    wanted = torch.tensor([0.3, 0.5, 0.7]).expand(300, 3)
    back = points[:, 2] < -0.03
    moved = appearance.match(generator, planes, points, wanted, back.float())

    def off(p):
        with torch.no_grad():
            return (generator(p, points[None])[0][0] - wanted).abs().mean(1)

    assert float(off(moved)[back].mean()) < 0.2 * float(off(planes)[back].mean())
    assert float(off(moved)[points[:, 2] > 0.05].mean()) > 0.5 * float(off(planes).mean())


def test_the_other_halfs_hair_is_not_mirrored_onto_a_bare_temple():
    """Brows are mirrored as dark as they are; a fringe that hangs over one temple is not."""
    generator = torch.Generator().manual_seed(0)

    def patch(x: float, y: float, z: float) -> torch.Tensor:
        return torch.tensor([x, y, z]) + 0.004 * torch.randn(60, 3, generator=generator)

    brow, temple = patch(-0.03, 0.035, 0.085), patch(-0.075, 0.03, 0.0)
    points = torch.cat([brow, temple])
    bounds = torch.tensor([[-0.2] * 3, [0.2] * 3])
    n = len(points)
    other_side = points * torch.tensor([-1.0, 1.0, 1.0])
    seen = Seen(other_side, torch.full((n, 3), 0.1), torch.ones(n), torch.arange(n)[None])
    skin, bare = torch.full((n, 3), 0.6), torch.zeros(n)
    out = unseen.continued(points, skin, bare, seen, skin, bare, bounds)
    assert out[:60].mean() < 0.35
    assert out[60:].mean() > 0.5


def test_no_ear_shines_through_hair():
    hair, ear = torch.full((200, 3), 0.3), torch.tensor([[0.7, 0.55, 0.5]]).expand(20, 3)
    expected = torch.cat([hair, ear, ear, ear])
    covered = torch.cat([torch.ones(220), torch.zeros(20), torch.ones(20)])
    points = torch.tensor([[-0.075, 0.0, 0.0]]).repeat(len(expected), 1)
    points[240:] = torch.tensor([0.0, 0.1, -0.1])  # a light at the back of the head is no ear
    out = unseen.without_ears(points, expected, covered)
    assert torch.equal(out[:200], hair) and torch.equal(out[220:], expected[220:])
    assert out[200:220].max() < 0.4
    assert unseen.without_ears(points[:20], ear, torch.zeros(20)) is ear

"""What the perception network says, averaged over the mirror image and made consistent; mirrored
heads; the last step's calibration."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from engine.checkpoints.default import load_default
from engine.device import Compute
from engine.headspace.mirror import MIRRORED, mirror_landmarks, mirror_of, mirror_pose
from engine.headspace.space import HeadSpace
from engine.inversion import pose as poses
from engine.inversion.perceive import features, look, project, refined
from engine.inversion.reconstruct import CROP, encode_only, hair_weights, perceive
from engine.portrait.align import align
from engine.portrait.detect import find_points
from engine.portrait.image import load_photo
from engine.portrait.perception import Perception, PerceptionNet, Refine, soft_argmax
from engine.surface.metrics import iou
from engine.training.calibrate import ridge

POSE = torch.tensor([0.3, -0.1, 0.07, 0.48, 0.56, -0.9])
FLIP = torch.tensor([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def space() -> HeadSpace:
    return load_default().space


@pytest.fixture(scope="module")
def net() -> PerceptionNet:
    return load_default().perception


def head(space: HeadSpace, seed: int, size: float = 0.8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        size * torch.randn(len(space.identity), generator=generator),
        size * torch.randn(len(space.expression), generator=generator),
    )


def test_landmarks_are_paired(space):
    assert sorted(MIRRORED) == list(range(84))
    assert [MIRRORED[MIRRORED[k]] for k in range(84)] == list(range(84))
    middle = space.landmarks(space.mean)
    assert ((middle[list(MIRRORED)] * FLIP) - middle).norm(dim=1).max() < 6e-4


def test_a_mirrored_heads_coefficients(space):
    """Its vertices are the mirrored ones, as far as the bases reach."""
    mirror = mirror_of(space)
    identity, expression = head(space, 1)
    here = space.landmarks(space.vertices(identity, expression))
    there = space.landmarks(
        space.vertices(identity @ mirror.identity, expression @ mirror.expression)
    )
    error = (there - here[list(MIRRORED)] * FLIP).norm(dim=1)
    asymmetry = (here - here[list(MIRRORED)] * FLIP).norm(dim=1)
    assert error.mean() < 5e-4 and error.max() < 2e-3
    assert error.mean() < 0.65 * asymmetry.mean()  # faces are nearly symmetric themselves
    # Twice is once over.
    gram = space.identity.flatten(1) @ space.identity.flatten(1).T / len(space.mean)
    twice = identity @ mirror.identity @ mirror.identity - identity
    assert ((twice @ gram) * twice).sum().sqrt() < 6e-4
    n = len(space.hair_distance) - 1
    assert torch.equal(mirror.hair[mirror.hair], torch.arange(2 * n + 1))
    mass = space.hair(torch.eye(space.styles)[2])
    assert torch.equal(space.hair(torch.eye(space.styles)[mirror.hair[2]]), mass.flip(-1))


def test_a_mirrored_camera_sees_the_mirrored_picture():
    points = torch.rand(84, 3, generator=torch.Generator().manual_seed(0)) * 0.2 - 0.1
    places = poses.project(points, POSE)
    mirrored = poses.project(points[list(MIRRORED)] * FLIP, mirror_pose(POSE))
    assert torch.allclose(mirrored, mirror_landmarks(places), atol=1e-6)
    assert torch.allclose(mirror_pose(mirror_pose(POSE)), POSE)


def test_a_mirrored_picture_is_seen_mirrored(space, net, pictures):
    mirror = mirror_of(space)
    with torch.no_grad():
        straight, turned = look(space, net, pictures), look(space, net, pictures.flip(-1))
        plain, plain_turned = net(pictures), net(pictures.flip(-1))
    assert torch.allclose(turned.classes, straight.classes.flip(-1), atol=1e-4)
    assert torch.allclose(turned.landmarks, mirror_landmarks(straight.landmarks), atol=1e-5)
    assert torch.allclose(turned.pose, mirror_pose(straight.pose), atol=1e-5)
    assert torch.allclose(turned.hair, straight.hair[:, mirror.hair], atol=1e-4)
    moved = space.displacement(turned.identity, turned.expression) - space.displacement(
        straight.identity @ mirror.identity, straight.expression @ mirror.expression
    )
    assert moved.norm(dim=-1).mean() < 5e-4
    # The network alone is not so even-handed.
    assert (plain_turned.landmarks - mirror_landmarks(plain.landmarks)).abs().max() > 1e-3
    middle = (plain.landmarks + mirror_landmarks(plain_turned.landmarks)) / 2
    assert torch.allclose(straight.landmarks, middle, atol=1e-5)


def test_many_heads_are_projected_like_one(space):
    heads = [head(space, s) for s in (2, 3)]
    both = project(space, *(torch.stack(x) for x in zip(*heads)), torch.stack([POSE, 0.5 * POSE]))
    for k, (identity, expression) in enumerate(heads):
        one = space.landmarks(space.vertices(identity, expression))
        assert torch.allclose(both[k], poses.project(one, [POSE, 0.5 * POSE][k]), atol=1e-5)


def noisy(space: HeadSpace, count: int) -> tuple[torch.Tensor, Perception]:
    """True numbers, and a Perception with sharp landmarks but numbers that err."""
    generator = torch.Generator().manual_seed(4)
    identity = torch.randn(count, len(space.identity), generator=generator)
    expression = 0.3 * torch.randn(count, len(space.expression), generator=generator)
    pose = POSE + 0.1 * torch.randn(count, 6, generator=generator)
    marks = project(space, identity, expression, pose)
    off = torch.randn(count, 6, generator=generator) * torch.tensor(
        [0.05, 0.05, 0.02, 0.01, 0.01, 0.03]
    )
    seen = Perception(
        torch.zeros(count, 5, 2, 2),
        marks,
        torch.full((count, 84), 0.01),
        identity * 0.7,
        expression,
        torch.zeros(count, space.styles),
        pose + off,
    )
    return torch.cat([identity, expression, pose], 1), seen


def numbers(seen: Perception) -> torch.Tensor:
    return torch.cat([seen.identity, seen.expression, seen.pose], 1)


def test_the_last_step_learns_from_landmarks_which_numbers_err(space, net):
    truth, seen = noisy(space, 900)
    taught = copy.deepcopy(net)
    inputs, lacking = features(space, seen), truth - numbers(seen)
    sizes = torch.ones(inputs.shape[1])
    sizes[:168] = 0.01
    weight, bias = ridge(inputs[:600], lacking[:600], sizes, 1.0)
    with torch.no_grad():
        taught.refine.weight.copy_(weight)
        taught.refine.bias.copy_(bias)
        better = refined(space, taught, seen)
    before, after = ((truth - numbers(s))[600:, -6:].abs().mean(0) for s in (seen, better))
    assert (after[:2] < 0.5 * before[:2]).all() and (after < before).all()
    apart = (project(space, better.identity, better.expression, better.pose) - seen.landmarks)[600:]
    assert apart.norm(dim=-1).mean() < 0.006
    assert better.landmarks is seen.landmarks and better.hair is seen.hair


def test_a_landmark_far_off_pulls_no_further(space):
    _, seen = noisy(space, 1)
    far = copy.deepcopy(seen)
    far.landmarks[0, 30] += 0.4
    farther = copy.deepcopy(seen)
    farther.landmarks[0, 30] += 0.8
    assert torch.equal(features(space, far), features(space, farther))
    assert not torch.equal(features(space, far), features(space, seen))


def test_weights_without_a_last_step_change_nothing(space, net):
    old = {k: v for k, v in net.state_dict().items() if not k.startswith(("refine.", "second."))}
    fresh = PerceptionNet(len(space.identity), len(space.expression), space.styles)
    fresh.load_state_dict(old)
    _, seen = noisy(space, 2)
    with torch.no_grad():
        assert torch.equal(numbers(refined(space, fresh, seen)), numbers(seen))
    assert (fresh.refine.error.diagonal() > 0).all()
    with pytest.raises(RuntimeError):
        fresh.load_state_dict({k: v for k, v in old.items() if k != "stem.weight"})


def test_ridge_finds_a_line_and_shrinks():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 3, generator=generator) * torch.tensor([1.0, 100.0, 0.01])
    slope, bias = torch.tensor([[2.0, 0.03, 50.0], [0.0, -0.01, 0.0]]), torch.tensor([5.0, -1.0])
    sizes = torch.tensor([1.0, 100.0, 0.01])
    found, level = ridge(x, x @ slope.T + bias, sizes, 1e-6)
    assert torch.allclose(found, slope, rtol=1e-3, atol=1e-4)
    assert torch.allclose(level, bias, atol=1e-3)
    shrunk, _ = ridge(x, x @ slope.T + bias, sizes, 500.0)
    assert torch.allclose(shrunk[0] / slope[0], torch.full((3,), 0.5), atol=0.06)


def test_the_error_starts_as_a_factor_of_a_covariance():
    error = Refine(168, (64, 20, 6)).error
    assert error.shape == (90, 90) and torch.equal(error, error.tril())
    assert np.linalg.matrix_rank(error.numpy()) == 90


def test_soft_argmax_is_the_mean_place():
    heat = torch.full((1, 2, 64, 64), -30.0)
    heat[0, 0, 10, 20] = heat[0, 1, 31, 31] = heat[0, 1, 32, 32] = 30.0
    place, spread = soft_argmax(heat)
    assert torch.allclose(place[0], torch.tensor([[20.5 / 64, 10.5 / 64], [0.5, 0.5]]), atol=1e-5)
    assert spread[0, 0] < 1e-3 and spread[0, 1] == pytest.approx(0.5 * 2**0.5 / 64, rel=1e-2)


def test_encode_only_is_the_networks_numbers(photo):
    model, compute = load_default(), Compute(torch.device("cpu"), torch.float32)
    picture = load_photo(photo)
    aligned = align(picture, find_points(picture.rgb)[0], CROP, model.config["widen"])
    made = encode_only(model, aligned, compute)
    seen = perceive(model, aligned.crop, compute)
    for name in ("identity", "expression", "pose"):
        assert torch.equal(getattr(made.shape, name), getattr(seen, name)[0]), name
    assert made.shape.hair.sum() == pytest.approx(1, abs=1e-5)
    assert not made.shape.residual.any() and made.shape.offset == 0
    # The head lies where the photo's does.
    shown = made.field.render(made.camera.resized(64, 64)).alpha.numpy() > 0.5
    matte = made.matte.alpha.reshape(64, CROP // 64, 64, CROP // 64).mean((1, 3)) > 0.5
    matte[45:] = shown[45:] = False  # there the photo has a suit's collar
    assert iou(shown, matte) > 0.75


def test_hair_styles_are_softened_but_not_their_sides():
    logits = torch.tensor([2.0, 0.0, -4.0, 1.0, 0.0, -4.0, -1.0])  # three styles, mirrored, bald
    weights = hair_weights(logits)
    assert weights.sum() == pytest.approx(1, abs=1e-6) and (weights > 0).all()
    plain = logits.softmax(0)
    assert weights[0] / weights[3] == pytest.approx(float((plain[0] / plain[3]) ** 2), rel=1e-4)
    assert weights[1] == weights[4]
    pair = weights[0] + weights[3]
    assert 0.4 < pair < plain[0] + plain[3]
    assert weights[6] > plain[6]
    sure = hair_weights(logits * 4)
    assert sure[0] > 0.99

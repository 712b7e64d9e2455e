"""Pictures carried to other cameras, on shapes whose every view is known exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.cameras import Camera, intrinsics_from_extent, orbit
from engine.inversion import warp

SIZE, RADIUS, FOV = 96, 0.1, math.radians(18)


def camera(yaw: float, pitch: float = 0.0, size: int = SIZE, unit: float = 1.0) -> Camera:
    return orbit(math.radians(yaw), math.radians(pitch), 1.0 * unit, FOV, width=size, height=size)


def ball(seen_by: Camera, unit: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A ball round the origin: its picture (colour by place, smooth), depth and alpha."""
    origin, d = seen_by.rays()
    b, c = d @ origin, origin @ origin - (RADIUS * unit) ** 2
    inside = b * b - c
    t = -b - np.sqrt(np.maximum(inside, 0))
    points = origin + t[..., None] * d
    colour = (0.5 + 0.4 * np.sin(points / unit * 30)) * (inside > 0)[..., None]
    depth = np.where(inside > 0, t * (d @ seen_by.cam2world[:3, 2]), 0)
    return tuple(torch.from_numpy(x).float() for x in (colour, depth, (inside > 0).astype(float)))


def carried(source: Camera, target: Camera, unit: float = 1.0):
    """The ball's picture warped from one camera to another, and what is to be seen there."""
    picture, depth, alpha = ball(source, unit)
    weight = alpha * warp.facing(depth, alpha, source)
    return warp.forward_warp(picture, depth, weight, source, target), ball(target, unit)


def test_a_warp_to_the_same_camera_changes_nothing():
    picture, depth, alpha = ball(camera(20))
    got = warp.forward_warp(picture, depth, alpha, camera(20), camera(20))
    inside = got.weight > 0.99
    assert inside.sum() > 0.9 * alpha.sum()
    assert (got.picture - picture)[inside].abs().max() < 1e-3
    assert (got.depth - depth)[inside].abs().max() < 1e-4


@pytest.mark.parametrize("unit", [1.0, 3.7])  # fields have units of their own
@pytest.mark.parametrize("turn", [(15, 0), (-40, 10), (60, -20)])
def test_a_turned_ball_shows_its_own_colours_without_cracks(turn, unit):
    source, target = camera(0, unit=unit), camera(*turn, unit=unit)
    got, (picture, depth, alpha) = carried(source, target, unit)
    sure = got.weight > 0.5
    assert (got.picture - picture)[sure].abs().mean() < 0.01
    assert (got.depth - depth)[sure].abs().max() < 0.004 * unit
    # Every point of the target that the source sees squarely has arrived.
    points = warp.points_of(depth, target)
    to_eye = torch.from_numpy(source.position).float() - points
    cosine = torch.nn.functional.cosine_similarity(points, to_eye, dim=-1)
    seen = (alpha > 0.5) & (cosine > 0.55)
    assert (got.weight[seen] > 0.9).all()
    assert got.weight[(alpha > 0.5) & (cosine < 0)].max() == 0  # nothing on the far side


def test_the_picture_may_be_finer_than_its_depth():
    coarse, fine = camera(0), camera(0, size=4 * SIZE)
    _, depth, alpha = ball(coarse)
    picture, _, _ = ball(fine)
    got = warp.forward_warp(picture, depth, alpha, coarse, camera(20, size=2 * SIZE))
    expected, _, _ = ball(camera(20, size=2 * SIZE))
    assert got.picture.shape == (2 * SIZE, 2 * SIZE, 3)
    close = warp.facing(got.depth, got.weight, camera(20)) > 0.99
    assert close.sum() > 2000
    assert (got.picture - expected)[close].abs().mean() < 0.01


def walls() -> tuple[torch.Tensor, torch.Tensor]:
    """A red wall before a green one, edge on at the picture's middle: picture, depth."""
    near = (torch.arange(SIZE) < SIZE // 2).expand(SIZE, SIZE)
    picture = torch.stack([near.float(), 1 - near.float(), torch.zeros(SIZE, SIZE)], -1)
    return picture, torch.where(near, 0.9, 1.1)


def test_the_near_wall_hides_the_far_one_and_nothing_hangs_between():
    picture, depth = walls()
    target = camera(0)
    moved = target.cam2world.copy()
    moved[0, 3] = 0.08  # to the right: the near wall slides left, a gap opens
    target = replace(target, cam2world=moved)
    got = warp.forward_warp(picture, depth, torch.ones(SIZE, SIZE), camera(0), target)
    row = got.picture[SIZE // 2]
    red, green = (row[:, 0] > 0.99), (row[:, 1] > 0.99)
    empty = got.depth[SIZE // 2] == 0
    assert red.sum() > 10 and green.sum() > 10 and (red | green | empty).all()
    parallax = 0.08 * float(target.intrinsics[0, 0]) * SIZE * (1 / 0.9 - 1 / 1.1)
    assert int(empty[red.nonzero()[-1, 0] : green.nonzero()[0, 0]].sum()) == pytest.approx(
        parallax, abs=2.5
    )
    # From the left the near wall covers part of the far one, however deep that lies.
    moved = target.cam2world.copy()
    moved[0, 3] = -0.08
    target = replace(target, cam2world=moved)
    got = warp.forward_warp(picture, depth, torch.ones(SIZE, SIZE), camera(0), target)
    assert not (got.depth[SIZE // 2, 30:] == 0).any()
    assert (got.depth[got.picture[..., 0] > 0.99] < 1.0).all()


def test_visibility_believes_only_what_the_target_sees():
    got, (_, depth, alpha) = carried(camera(0), camera(30))
    plain = warp.visibility(got, depth, alpha, camera(30))
    assert plain.min() >= 0 and plain.max() <= 1
    assert (plain <= got.weight + 1e-6).all()
    reach = 0.04 * SIZE
    inner = torch.nn.functional.avg_pool2d((got.weight == 1).float()[None, None], 11, 1, 5)[0, 0]
    assert (plain[inner == 1] > 0.98).all() and reach > 3
    # Something that the photo knew nothing of stands before the left half.
    hidden = depth.clone()
    hidden[:, : SIZE // 2] -= 0.03
    less = warp.visibility(got, hidden, alpha, camera(30))
    assert less[:, : SIZE // 2 - 3].max() == 0 and less[:, SIZE // 2 + 5 :].max() > 0.9
    # Where the field is empty, nothing is visible.
    assert warp.visibility(got, depth, torch.zeros_like(alpha), camera(30)).max() == 0


def test_visibility_fades_and_never_grows():
    got, (_, depth, alpha) = carried(camera(0), camera(0))
    seen = warp.visibility(got, depth, alpha, camera(0))
    wider = warp.visibility(got, depth, alpha, camera(0), erode=0.06)
    assert wider.sum() < seen.sum()
    row = seen[SIZE // 2]
    assert ((row > 0.05) & (row < 0.95)).sum() >= 4  # soft on both sides
    assert (seen[alpha < 0.5] == 0).all()


def test_grazing_views_say_nothing():
    _, depth, alpha = ball(camera(0, size=256))
    weight = warp.facing(depth, alpha, camera(0))
    points = warp.points_of(depth, camera(0))
    to_eye = torch.from_numpy(camera(0).position).float() - points
    cosine = torch.nn.functional.cosine_similarity(points, to_eye, dim=-1)
    solid = alpha > 0.5
    assert (weight[solid & (cosine > 0.6)] > 0.95).all()
    assert (weight[solid & (cosine < 0.12)] < 0.2).all() and (weight[~solid] == 0).all()


def test_a_mirrored_camera_sees_mirrored_points_at_mirrored_pixels():
    picture = torch.rand(SIZE, SIZE, 3)
    source = camera(33, 12)
    turn = np.eye(4)
    turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]  # rolled, and off the middle
    k = source.intrinsics.copy()
    k[0, 2] = 0.4
    source = replace(source, cam2world=source.cam2world @ turn, intrinsics=k)
    flipped, other = warp.mirrored(picture, source)
    assert torch.equal(flipped, picture.flip(1))
    points = np.random.default_rng(0).normal(size=(20, 3)) * 0.05
    a, za = source.project(points)
    b, zb = other.project(points * (-1, 1, 1))
    assert np.allclose(b[:, 0], SIZE - a[:, 0]) and np.allclose(b[:, 1], a[:, 1])
    assert np.allclose(za, zb) and np.linalg.det(other.cam2world[:3, :3]) == pytest.approx(1)
    again, back = warp.mirrored(flipped, other)
    assert torch.equal(again, picture) and np.allclose(back.cam2world, source.cam2world)


def test_there_and_back_again():
    source, target = camera(-10), camera(25)
    picture, depth, alpha = ball(source)
    seen, there, _ = ball(target)
    seen.requires_grad_()
    back = warp.rewarp(seen, there, target, depth, source)
    sure = back.weight > 0.9
    assert sure.sum() > 0.5 * alpha.sum() and (back.weight[alpha < 0.5] == 0).all()
    assert (back.picture - picture)[sure].abs().mean() < 0.01
    (back.weight[..., None] * back.picture).sum().backward()
    assert (seen.grad.abs().sum(-1) > 0).sum() > 0.4 * alpha.sum()
    # What only the other camera sees gets no gradient.
    points = warp.points_of(there, target)
    to_eye = torch.from_numpy(source.position).float() - points
    away = torch.nn.functional.cosine_similarity(points, to_eye, dim=-1) < -0.15
    assert seen.grad[away & (there > 0)].abs().max() == 0


def test_orthographic_cameras_work_too():
    front = replace(camera(0), intrinsics=intrinsics_from_extent(0.3, 0.3), orthographic=True)
    depth = torch.full((SIZE, SIZE), 1.0)
    picture = torch.rand(SIZE, SIZE, 3)
    moved = front.cam2world.copy()
    moved[0, 3] += 0.3 * 10 / SIZE
    side = replace(front, cam2world=moved)
    got = warp.forward_warp(picture, depth, torch.ones(SIZE, SIZE), front, side)
    assert torch.allclose(got.picture[5:-5, 5:-20], picture[5:-5, 15:-10], atol=1e-4)


def test_nothing_to_carry_is_no_error():
    picture, depth, _ = ball(camera(0))
    got = warp.forward_warp(picture, depth, torch.zeros(SIZE, SIZE), camera(0), camera(30))
    assert got.weight.max() == 0 and got.picture.abs().max() == 0
    assert warp.visibility(got, depth, torch.ones_like(depth), camera(30)).max() == 0

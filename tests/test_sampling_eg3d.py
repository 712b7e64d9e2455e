"""EG3D models as samplers: the original's seeds and cameras, and pictures."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from sampling_fixtures import TINY, tiny_sampler

from engine import cameras
from engine.sampling.eg3d import orbit_camera, row_names
from engine.systems.eg3d.config import FFHQ512


@pytest.fixture(scope="module")
def sampler():
    return tiny_sampler()


def test_seeds_are_the_originals(sampler):
    """Its scripts draw z with numpy's legacy generator, one row of normal numbers."""
    z = sampler.z(3)
    assert z.dtype == torch.float32 and z.shape == (16,)
    assert np.array_equal(z.numpy(), np.random.RandomState(3).randn(1, 16)[0].astype(np.float32))
    assert not torch.equal(z, sampler.z(4))
    assert sampler.z(2**32 - 1).isfinite().all()


@pytest.mark.parametrize("yaw, pitch", [(0, 0), (0.4, -0.2), (-0.4, -0.2), (0.8, 0.25), (3.0, 0.9)])
def test_cameras_are_the_originals(yaw, pitch):
    """Its look-at sampler: angles from the poles, and the height is even in them (arccos)."""
    theta, v = math.pi / 2 + yaw, math.pi / 2 + pitch
    phi = math.acos(1 - 2 * v / math.pi)
    eye = 2.7 * np.array(
        [
            math.sin(phi) * math.cos(math.pi - theta),
            math.cos(phi),
            math.sin(phi) * math.sin(math.pi - theta),
        ]
    )
    camera = orbit_camera(FFHQ512, math.degrees(yaw), -math.degrees(pitch), 512)
    np.testing.assert_allclose(camera.position, eye, atol=1e-6)
    forward = np.array([0, 0, 0.2]) - eye
    np.testing.assert_allclose(
        camera.cam2world[:3, 2], forward / np.linalg.norm(forward), atol=1e-6
    )
    assert camera.cam2world[1, 1] < 0 and camera.cam2world[1, 0] == pytest.approx(0, abs=1e-9)
    assert camera.intrinsics[0, 0] == pytest.approx(4.2633910, abs=1e-6)


def test_poles_are_no_trouble():
    for pitch in (90.0, -90.0, 120.0):
        camera = orbit_camera(FFHQ512, 0.0, pitch, 64)
        assert np.isfinite(camera.cam2world).all()
        assert np.linalg.det(camera.cam2world[:3, :3]) == pytest.approx(1)


def test_sides_and_sizes(sampler):
    assert sampler.camera(30, 0).position[0] > 0  # the subject's left
    assert sampler.camera(0, 20).position[1] > 0  # above
    assert sampler.front().width == sampler.picture_size == 64
    assert sampler.camera(0, 0, 100).width == 100
    first = sampler.photo_cameras()[0]
    assert first.width == 64 and np.array_equal(first.cam2world, sampler.front().cam2world)


def test_rows_have_names(sampler):
    assert len(sampler.rows) == len(set(sampler.rows)) == sampler.generator.num_ws == 8
    official = row_names(FFHQ512, 14)
    assert official[:3] == ("4 px", "8 px a", "8 px b")
    assert official[-2:] == ("256 px b", "256 px colours")


def test_the_conditioning_camera(sampler):
    z = sampler.z(3)
    assert not torch.allclose(sampler.map(z), sampler.map(z, yaw=30.0), atol=1e-3)
    assert torch.equal(sampler.map(z, yaw=30.0), sampler.map(z, yaw=30.0))
    c = torch.from_numpy(sampler.camera(30, 10).to_eg3d())[None]
    theirs = sampler.generator.mapping(z[None], c, 0.7, 8)[0]
    assert torch.equal(sampler.map(z, 0.7, -1, 30.0, 10.0), theirs)
    blind = tiny_sampler()
    blind.generator.config = dataclasses.replace(TINY, camera_scale=0.0)
    assert torch.equal(blind.map(z), blind.map(z, yaw=30.0))


def test_pictures(sampler):
    code = sampler.map(sampler.z(3))
    field = sampler.field(code)
    picture = sampler.picture(code, sampler.front())
    assert picture.image.shape == (64, 64, 3) and picture.image.dtype == np.uint8
    assert picture.painted and picture.alpha.shape == (64, 64)
    assert picture.alpha[32, 32] == 255 and picture.alpha[0, 0] == 0
    again = sampler.picture(code, sampler.front(), field=field)
    assert np.array_equal(again.image, picture.image)
    large = sampler.picture(code, sampler.camera(0, 0, 96), field=field)
    assert large.image.shape == (96, 96, 3) and large.alpha.shape == (96, 96)
    other = sampler.picture(code, sampler.camera(40, 0), field=field)
    assert not np.array_equal(other.image, picture.image)


def test_thumbnails_come_from_the_volume(sampler):
    code = sampler.map(sampler.z(3))
    small = sampler.picture(code, sampler.camera(0, 0, 12))
    assert small.image.shape == (12, 12, 3) and small.alpha.shape == (12, 12)
    seen = sampler.field(code).render(sampler.camera(0, 0, 12))
    expected = (seen.image.numpy() * 255).round()
    assert np.abs(small.image.astype(float) - expected).max() <= 2


def test_a_picture_can_be_cancelled(sampler):
    class Stop(Exception):
        pass

    def check():
        raise Stop

    with pytest.raises(Stop):
        sampler.picture(sampler.map(sampler.z(3)), sampler.front(), check)


def test_the_field_is_the_heads(sampler):
    """Seeds differ, and the camera's place is that of the field's own rays."""
    codes = [sampler.map(sampler.z(seed), 1.0) for seed in (3, 3, 4)]
    fields = [sampler.field(code) for code in codes]
    assert torch.equal(fields[0].planes, fields[1].planes)
    assert not torch.equal(fields[0].planes, fields[2].planes)
    view = fields[0].render(cameras.from_eg3d(sampler.camera(20, 5).to_eg3d(), 32, 32))
    assert view.alpha[16, 16] > 0.99 and view.alpha[0, 0] < 0.01

"""Rays, sampling and compositing against literal loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from engine import cameras, device
from engine.errors import Cancelled
from engine.render import compositing, sampling
from engine.render.rays import camera_rays, pixel_rays
from engine.render.volume import RaySettings, render_chunked, render_rays
from engine.threads import side_by_side


def test_rays_agree_with_the_camera():
    camera = cameras.orbit(0.4, -0.2, 2.0, 0.5, (0.1, 0, 0), width=9, height=5)
    origin, directions = camera_rays(camera)
    expected_origin, expected = camera.rays()
    np.testing.assert_allclose(origin, expected_origin, atol=1e-6)
    np.testing.assert_allclose(directions.view(5, 9, 3), expected, atol=1e-6)


def test_ray_through_a_projected_point_with_skew():
    k = torch.tensor([[2.0, 0.3, 0.45], [0, 1.7, 0.55], [0, 0, 1]], dtype=torch.float64)
    _, directions = pixel_rays(torch.eye(4, dtype=torch.float64), k, 4, 6)
    pixels = (k @ directions.T).T
    pixels = pixels[:, :2] / pixels[:, 2:]
    v, u = np.mgrid[:6, :4]
    np.testing.assert_allclose(pixels[:, 0], (u.ravel() + 0.5) / 4, atol=1e-12)
    np.testing.assert_allclose(pixels[:, 1], (v.ravel() + 0.5) / 6, atol=1e-12)


def test_rays_pass_gradients_to_the_camera_even_under_autocast():
    pose = torch.eye(4, requires_grad=True)
    k = torch.tensor([[4.0, 0, 0.5], [0, 4, 0.5], [0, 0, 1]], requires_grad=True)
    plain = pixel_rays(pose, k, 8, 8)[1]
    with torch.autocast("cpu", torch.bfloat16):
        origin, directions = pixel_rays(pose, k, 8, 8)
    assert torch.equal(plain, directions)
    (origin.sum() + directions[:, 0].square().sum()).backward()
    assert pose.grad.abs().sum() > 0 and k.grad[0, 0] != 0


def test_deterministic_uniforms():
    rays = torch.arange(3)
    assert (sampling.uniforms(4, rays, None, 0, jitter=True) == 0.5).all()
    row = torch.tensor([0.125, 0.375, 0.625, 0.875])
    assert torch.equal(sampling.uniforms(4, rays, None, 1), row.expand(3, 4))


def test_seeded_uniforms_are_uniform_and_belong_to_the_ray():
    rays = torch.arange(2000)
    u = sampling.uniforms(48, rays, 7, 0)
    assert u.min() >= 0 and u.max() < 1
    counts = torch.histc(u, 20, 0, 1) / u.numel() * 20
    assert (counts - 1).abs().max() < 0.05
    flat = (u - 0.5) * math.sqrt(12)
    for shifted in (flat.roll(1, 0), flat.roll(1, 1), flat.roll((1, 1), (0, 1))):
        assert (flat * shifted).mean().abs() < 0.02
    for other in (sampling.uniforms(48, rays, 8, 0), sampling.uniforms(48, rays, 7, 1)):
        assert ((other - 0.5) * math.sqrt(12) * flat).mean().abs() < 0.02
    assert torch.equal(sampling.uniforms(48, rays[100:130], 7, 0), u[100:130])


def test_stratified_depths_only_move_away_from_the_camera():
    depths = sampling.stratified_depths(2.0, 3.0, torch.tensor([[0.0] * 5, [0.5] * 5]))
    torch.testing.assert_close(depths[0], torch.tensor([2.0, 2.25, 2.5, 2.75, 3.0]))
    torch.testing.assert_close(depths[1], depths[0] + 0.125)


def literal_importance(depths: list, weights: list, u: list) -> list:
    """The definition for one ray, in plain Python."""
    n = len(weights)
    padded = [-math.inf, *weights, -math.inf]
    largest = [max(padded[i], padded[i + 1]) for i in range(n + 1)]
    smooth = [(largest[i] + largest[i + 1]) / 2 + 0.01 + 1e-5 for i in range(n)][1:-1]
    cdf = [0.0]
    for w in smooth:
        cdf.append(cdf[-1] + w / sum(smooth))
    middles = [(a + b) / 2 for a, b in zip(depths, depths[1:])]
    out = []
    for x in u:
        i = max(j for j in range(len(cdf)) if cdf[j] <= x)
        i = min(i, len(cdf) - 2)
        share = (x - cdf[i]) / (cdf[i + 1] - cdf[i])
        out.append(middles[i] + share * (middles[i + 1] - middles[i]))
    return out


def test_importance_samples_follow_the_definition_and_the_weight():
    generator = torch.Generator().manual_seed(0)
    depths = torch.rand(6, 12, generator=generator).sort(1).values + 2
    weights = torch.rand(6, 11, generator=generator) ** 4
    u = torch.rand(6, 9, generator=generator)
    ours = sampling.importance_depths(depths, weights, u)
    for i in range(6):
        expected = literal_importance(depths[i].tolist(), weights[i].tolist(), u[i].tolist())
        np.testing.assert_allclose(ours[i], expected, atol=2e-5)
    even = torch.linspace(2, 3, 49)[None]
    peak = torch.zeros(1, 48)
    peak[0, 30] = 1
    u = sampling.uniforms(48, torch.arange(1), None, 1)
    found = sampling.importance_depths(even, peak, u)
    assert ((found - even[0, 30:32].mean()).abs() < 0.05).float().mean() > 0.7


def test_weights_of_a_uniform_medium_are_beer_lambert():
    depths = torch.linspace(1.0, 3.0, 41)[None]
    raw = torch.full((1, 41), 1.5)
    density = math.log1p(math.exp(0.5))
    weights = compositing.interval_weights(raw, depths)
    depth, opacity = compositing.mean_depth(weights, depths)
    assert opacity.item() == pytest.approx(1 - math.exp(-2 * density), abs=1e-6)
    t = np.linspace(0, 2, 200001)
    pdf = density * np.exp(-density * t)
    assert depth.item() == pytest.approx(1 + np.sum(pdf * t) / np.sum(pdf), abs=2e-3)


def test_sample_weights_are_the_midpoint_colours():
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(4, 9, generator=generator)
    colours = torch.rand(4, 10, 3, generator=generator)
    middles = 0.5 * (colours[:, 1:] + colours[:, :-1])
    expected = (weights[..., None] * middles).sum(1)
    shares = compositing.sample_weights(weights)
    torch.testing.assert_close((shares[..., None] * colours).sum(1), expected)


def test_empty_rays_have_the_depth_of_their_own_end():
    depths = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.5, 9.0]])
    depth, opacity = compositing.mean_depth(torch.zeros(2, 2), depths)
    assert depth.tolist() == [3.0, 9.0] and opacity.tolist() == [0.0, 0.0]


class Ball:
    """A ball of radius 0.3, opaque within a few thousandths, coloured by position."""

    def look(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 1000 * (100 * (0.3 - points.norm(dim=1))).clamp(-1, 1), points

    def colours(self, state: torch.Tensor) -> torch.Tensor:
        return state + 0.5


ball = Ball()


SETTINGS = RaySettings(near=2.25, far=3.3, coarse=48, fine=48)


def rendered(width: int = 40, seed: int | None = None, **more) -> compositing.Composite:
    camera = cameras.orbit(0.3, 0.2, 2.7, 0.3, width=width, height=width)
    origin, directions = camera_rays(camera)
    return render_chunked(
        ball, origin, directions, SETTINGS, bytes_per_sample=64, seed=seed, **more
    )


def test_a_ball_has_its_depth_colour_and_outline():
    camera = cameras.orbit(0.3, 0.2, 2.7, 0.3, width=40, height=40)
    origin, directions = camera_rays(camera)
    out = rendered()
    b = directions @ origin
    inside = b.square() - origin.square().sum() + 0.09
    hit = inside > 0
    assert ((out.opacity > 0.5) == hit).float().mean() > 0.99
    # Well inside the outline the surface is met where the sphere is.
    well = inside > 0.03
    exact = (-b - inside.clamp_min(0).sqrt())[well]
    assert (out.depth[well] - exact).abs().max() < 0.01
    assert (out.depth[well] - exact).abs().mean() < 0.006
    points = origin + exact[:, None] * directions[well]
    assert (out.features[well] - (points + 0.5)).abs().max() < 0.01
    assert out.features[~hit & (out.opacity < 1e-3)].abs().max() < 1e-2


@pytest.mark.parametrize("seed", [None, 3])
def test_results_do_not_depend_on_chunks(monkeypatch, seed):
    whole = rendered(seed=seed)
    monkeypatch.setattr(device, "WORKING_SET", 64 * 48 * 37)  # 37 rays at a time
    parts = rendered(seed=seed)
    torch.testing.assert_close(parts.features, whole.features, atol=1e-5, rtol=0)
    torch.testing.assert_close(parts.depth, whole.depth, atol=1e-5, rtol=0)


def test_seeds_repeat_and_differ():
    assert torch.equal(rendered(seed=3).depth, rendered(seed=3).depth)
    difference = (rendered(seed=3).depth - rendered(seed=4).depth).abs()
    assert 1e-5 < difference.mean() < 0.02


def test_fine_samples_sharpen_the_surface():
    camera = cameras.orbit(0.0, 0.0, 2.7, 0.02, width=16, height=16)
    origin, directions = camera_rays(camera)
    rays = torch.arange(256)
    errors = []
    for fine in (0, 48):
        settings = RaySettings(2.25, 3.3, 24, fine)
        out = render_rays(ball, origin, directions, settings, ray_indices=rays)
        errors.append((out.depth - 2.4).abs().mean().item())
    assert errors[1] < 0.5 * errors[0]


def test_cancelling_between_chunks(monkeypatch):
    monkeypatch.setattr(device, "WORKING_SET", 64 * 48 * 100)
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        rendered(check=check)
    assert len(calls) == 3


def test_gradients_reach_the_field():
    scale = torch.tensor(1.0, requires_grad=True)

    class Growing(Ball):
        def look(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return 30 * (0.3 * scale - points.norm(dim=1)), points * scale

    camera = cameras.orbit(0.0, 0.0, 2.7, 0.25, width=8, height=8)
    origin, directions = camera_rays(camera)
    out = render_rays(Growing(), origin, directions, SETTINGS, ray_indices=torch.arange(64))
    out.opacity.mean().backward()
    assert scale.grad > 0  # a larger ball covers more


def test_pieces_run_side_by_side_in_order_and_alike():
    threads = torch.get_num_threads()
    pieces = [(torch.full((3,), float(i)),) for i in range(7)]

    def work(x: torch.Tensor) -> tuple:
        return x + 1, torch.is_autocast_enabled("cpu"), torch.get_num_threads()

    torch.set_num_threads(2)
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            out = side_by_side(work, pieces, lambda: None)
        assert [int(x[0]) for x, _, _ in out] == list(range(1, 8))
        assert {(auto, own) for _, auto, own in out} == {(True, 1)}
        assert torch.get_num_threads() == 2
        with torch.no_grad(), pytest.raises(ZeroDivisionError):  # of a thread, to the caller
            side_by_side(lambda x: 1 / 0, pieces, lambda: None)
        plain = side_by_side(work, pieces, lambda: None)  # with gradients: one after the other
        assert {own for _, _, own in plain} == {2}
    finally:
        torch.set_num_threads(threads)

"""Volume rendering of any field: coarse samples, importance samples, compositing; in chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from engine import device
from engine.render import compositing, sampling
from engine.render.compositing import Composite

# points [N, 3] -> raw density [N], features [N, C]
Query = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class RaySettings:
    """near, far: where rays start and end, in field units along the ray; coarse, fine: samples of
    the two passes (coarse at least 4, fine 0 for none)."""

    near: float
    far: float
    coarse: int = 48
    fine: int = 48


def render_rays(
    query: Query,
    origins: torch.Tensor,
    directions: torch.Tensor,
    settings: RaySettings,
    *,
    ray_indices: torch.Tensor,
    seed: int | None = None,
) -> Composite:
    """Render rays in one go, differentiably (importance depths take no gradient).

    origins: [R, 3] or [3]; directions: [R, 3], unit; ray_indices: [R] int64, each ray's index in
    its image, which with the seed decides its random numbers; seed None: deterministic mid-points.
    """
    u = sampling.uniforms(settings.coarse, ray_indices, seed, stream=0, jitter=True)
    depths = sampling.stratified_depths(settings.near, settings.far, u)
    density, features = _query(query, origins, directions, depths)
    if settings.fine == 0:
        weights = compositing.interval_weights(density, depths)
        colours = _weighted(compositing.sample_weights(weights), features)
        return Composite(colours, *compositing.mean_depth(weights, depths))
    with torch.no_grad():
        weights = compositing.interval_weights(density, depths)
    u = sampling.uniforms(settings.fine, ray_indices, seed, stream=1)
    more = sampling.importance_depths(depths, weights, u)
    fine_density, fine_features = _query(query, origins, directions, more)
    depths, order = torch.cat([depths, more], 1).sort(dim=1, stable=True)
    density = torch.cat([density, fine_density], 1).gather(1, order)
    weights = compositing.interval_weights(density, depths)
    # Weights go back to the order of evaluation: features, the large array, are never sorted.
    shares = compositing.sample_weights(weights)
    shares = torch.zeros_like(shares).scatter(1, order, shares)
    near_shares, fine_shares = shares.split([settings.coarse, settings.fine], 1)
    colours = _weighted(near_shares, features) + _weighted(fine_shares, fine_features)
    return Composite(colours, *compositing.mean_depth(weights, depths))


def render_chunked(
    query: Query,
    origin: torch.Tensor,
    directions: torch.Tensor,
    settings: RaySettings,
    *,
    bytes_per_sample: int,
    seed: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> Composite:
    """Render one image's rays [R, 3] from one origin [3], in chunks that fit the memory budget.

    bytes_per_sample: of the query's intermediates; check: called before every chunk, may raise to
    cancel. The result does not depend on the chunks but for rounding.
    """
    size = device.chunk_items(bytes_per_sample * max(settings.coarse, settings.fine))
    indices = torch.arange(len(directions), device=directions.device)
    parts = []
    for rays, index in zip(directions.split(size), indices.split(size)):
        check()
        parts.append(render_rays(query, origin, rays, settings, ray_indices=index, seed=seed))
    return Composite(
        torch.cat([p.features for p in parts]),
        torch.cat([p.depth for p in parts]),
        torch.cat([p.opacity for p in parts]),
    )


def _query(
    query: Query, origins: torch.Tensor, directions: torch.Tensor, depths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw density [R, S] and features [R, S, C] at depths [R, S]."""
    origins = origins.expand_as(directions)
    points = origins[:, None] + depths[:, :, None] * directions[:, None]
    density, features = query(points.reshape(-1, 3))
    # A decoder under autocast gives half precision; sums along the ray need more.
    return density.float().view(depths.shape), features.float().view(*depths.shape, -1)


def _weighted(shares: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Sum over samples: shares [R, S], features [R, S, C] -> [R, C]."""
    with device.full_precision(shares):
        return torch.bmm(shares[:, None], features)[:, 0]

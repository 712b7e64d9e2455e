"""Volume rendering of any field: coarse samples, importance samples, compositing; in chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from engine import device
from engine.render import compositing, sampling
from engine.render.compositing import Composite
from engine.threads import side_by_side

# Samples that weigh less are left out: all of a ray's together change a colour by less than 2e-5.
NEGLIGIBLE = 2e-7


class Source(Protocol):
    """What can be rendered."""

    def look(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points [N, 3] -> raw density [N] and whatever colours() needs of them [N, H]."""

    def colours(self, state: torch.Tensor) -> torch.Tensor:
        """States [M, H] of any of the points -> colours [M, C]."""


@dataclass(frozen=True)
class RaySettings:
    """near, far: where rays start and end, in field units along the ray; coarse, fine: samples of
    the two passes (coarse at least 4, fine 0 for none)."""

    near: float
    far: float
    coarse: int = 48
    fine: int = 48


def render_rays(
    source: Source,
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
    density, state = _look(source, origins, directions, depths)
    if settings.fine == 0:
        weights = compositing.interval_weights(density, depths)
        colours = _colours(source, compositing.sample_weights(weights), state)
        return Composite(colours, *compositing.mean_depth(weights, depths))
    with torch.no_grad():
        weights = compositing.interval_weights(density, depths)
    u = sampling.uniforms(settings.fine, ray_indices, seed, stream=1)
    more = sampling.importance_depths(depths, weights, u)
    fine_density, fine_state = _look(source, origins, directions, more)
    depths, order = torch.cat([depths, more], 1).sort(dim=1, stable=True)
    density = torch.cat([density, fine_density], 1).gather(1, order)
    weights = compositing.interval_weights(density, depths)
    # Weights go back to the order of evaluation: states, the large arrays, are never sorted.
    shares = compositing.sample_weights(weights)
    shares = torch.zeros_like(shares).scatter(1, order, shares)
    near_shares, fine_shares = shares.split([settings.coarse, settings.fine], 1)
    colours = _colours(source, near_shares, state) + _colours(source, fine_shares, fine_state)
    return Composite(colours, *compositing.mean_depth(weights, depths))


def render_chunked(
    source: Source,
    origin: torch.Tensor,
    directions: torch.Tensor,
    settings: RaySettings,
    *,
    bytes_per_sample: int,
    seed: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> Composite:
    """Render one image's rays [R, 3] from one origin [3], or one each [R, 3], in chunks that fit
    the memory budget.

    bytes_per_sample: of the source's intermediates; check: called before every chunk, may raise to
    cancel. The result does not depend on the chunks but for rounding.
    """
    size = device.chunk_items(bytes_per_sample * max(settings.coarse, settings.fine))
    indices = torch.arange(len(directions), device=directions.device)

    def chunk(rays: torch.Tensor, index: torch.Tensor) -> Composite:
        start = origin if origin.ndim == 1 else origin[index]
        return render_rays(source, start, rays, settings, ray_indices=index, seed=seed)

    parts = side_by_side(chunk, list(zip(directions.split(size), indices.split(size))), check)
    return Composite(
        torch.cat([p.features for p in parts]),
        torch.cat([p.depth for p in parts]),
        torch.cat([p.opacity for p in parts]),
    )


def last_depths(settings: RaySettings, rays: int, seed: int | None) -> torch.Tensor:
    """Depths [R] of the last samples of an image's rays: coarse ones, since importance samples lie
    between those."""
    u = sampling.uniforms(settings.coarse, torch.arange(rays), seed, stream=0, jitter=True)
    return sampling.stratified_depths(settings.near, settings.far, u)[:, -1]


def _look(
    source: Source, origins: torch.Tensor, directions: torch.Tensor, depths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw density [R, S] and states [R * S, H] at depths [R, S]."""
    origins = origins.expand_as(directions)
    points = torch.addcmul(origins[:, None], depths[:, :, None], directions[:, None])
    density, state = source.look(points.reshape(-1, 3))
    # A decoder under autocast gives half precision; sums along the ray need more.
    return density.float().view(depths.shape), state


def _colours(source: Source, shares: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """Sum over samples: shares [R, S], states [R * S, H] -> colours [R, C]. Where most samples
    weigh nothing, only the others are coloured at all."""
    differentiates = torch.is_grad_enabled() and (shares.requires_grad or state.requires_grad)
    seen = shares > NEGLIGIBLE
    if differentiates or 2 * int(seen.sum()) > seen.numel():
        colours = source.colours(state).float().view(*shares.shape, -1)
        with device.full_precision(shares):
            return torch.bmm(shares[:, None], colours)[:, 0]
    counts = seen.sum(1)
    starts = counts.cumsum(0) - counts
    which = seen.reshape(-1).nonzero()[:, 0]
    colours = source.colours(state[which]).float()
    everyone = torch.arange(len(which), device=which.device)
    return F.embedding_bag(
        everyone, colours, starts, mode="sum", per_sample_weights=shares[seen]
    )

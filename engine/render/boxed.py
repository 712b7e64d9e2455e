"""Volume rendering of fields that live in a box: rays are sampled from wall to wall.

Two published rules. LRM's and OpenLRM's is EG3D's (coarse and importance samples, mid-points of
intervals) with each ray's own start and end. TripoSR's takes the mid-points of equal pieces, and
holds every piece to be 1 / samples long, however long the ray is: its densities were trained so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from engine import device
from engine.render import compositing, sampling
from engine.render.compositing import Composite
from engine.threads import side_by_side

TIGHTER = 1e-3  # TripoSR: share of the box cut off at its walls
THIN = 0.01  # and rays with less of the box than this before them meet nothing
OUTSIDE = -torch.finfo(torch.float32).max / 8  # raw density outside the box
NEGLIGIBLE = 1e-7  # samples that weigh less are not coloured


class Source(Protocol):
    """What can be rendered: as engine.render.volume.Source."""

    def look(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points [N, 3] -> raw density [N] and whatever colours() needs of them [N, H]."""

    def colours(self, state: Tensor) -> Tensor:
        """States [M, H] of any of the points -> colours [M, 3]."""


@dataclass(frozen=True)
class BoxRays:
    """radius: half of the box's edge; coarse, fine: samples of the two passes; fine 0 is TripoSR's
    rule, anything else LRM's."""

    radius: float
    coarse: int
    fine: int


def walls(origins: Tensor, directions: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays [R, 3] enter and leave the box round the origin, not before their start: near [R],
    far [R] along the ray, and whether they meet it at all."""
    directions = torch.where(directions.abs() < 1e-6, 1e-6, directions)
    one, other = (radius - origins) / directions, (-radius - origins) / directions
    near = torch.minimum(one, other).amax(1).clamp_min(0.0)
    far = torch.maximum(one, other).amin(1)
    return near, far, far > near


def render_box(
    source: Source,
    origins: Tensor,
    directions: Tensor,
    rays: BoxRays,
    activation: Callable[[Tensor], Tensor],
    *,
    bytes_per_sample: int,
    check: Callable[[], None] = lambda: None,
) -> Composite:
    """Render rays: origins [3] or [R, 3], unit directions [R, 3]; in chunks, without gradients.

    activation: raw density to density. Depths of rays that meet nothing are those of their ends
    (of rays that miss the box: the farthest end of all). check: called before every chunk, may
    raise to cancel.
    """
    origins = origins.expand_as(directions)
    radius = rays.radius * (1 - TIGHTER) if rays.fine == 0 else rays.radius
    near, far, meets = walls(origins, directions, radius)
    if rays.fine == 0:
        meets = far - near > THIN
    out = directions.new_zeros(len(directions), 5)
    which = meets.nonzero()[:, 0]
    out[:, 3] = far[which].max() if len(which) else 0.0
    size = device.chunk_items(bytes_per_sample * max(rays.coarse, rays.fine))
    rule = _pieces if rays.fine == 0 else _importance

    def chunk(index: Tensor) -> Tensor:
        start, along = origins[index], directions[index]
        return rule(source, start, along, near[index], far[index], rays, activation)

    pieces = which.split(size)
    for index, part in zip(pieces, side_by_side(chunk, [(p,) for p in pieces], check)):
        out[index] = part
    return Composite(out[:, :3].contiguous(), out[:, 3], out[:, 4])


def _pieces(
    source: Source,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    rays: BoxRays,
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    """TripoSR's rule: [R, 5], colours, depth, opacity."""
    ends = torch.linspace(0, 1, rays.coarse + 1, device=near.device)
    middles = (ends[:-1] + ends[1:]) / 2
    depths = near[:, None] * (1 - middles) + far[:, None] * middles
    density, state = _look(source, origins, directions, depths)
    alpha = 1 - torch.exp(-(ends[1:] - ends[:-1]) * activation(density))
    through = torch.cumprod(1 - alpha[:, :-1] + 1e-10, 1)
    weights = alpha * F.pad(through, (1, 0), value=1.0)
    opacity = weights.sum(1)
    depth = (weights * depths).sum(1) / torch.where(opacity > 0, opacity, 1.0)
    depth = torch.where(opacity > 0, depth, depths[:, -1])
    return torch.cat([_colours(source, weights, state), depth[:, None], opacity[:, None]], 1)


def _importance(
    source: Source,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    rays: BoxRays,
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    """LRM's rule: [R, 5], colours, depth, opacity. (activation is softplus(x - 1), the only one
    that this rule is published with and that the compositing knows.)"""
    # Each step of near..far is pushed on by half a step, so the last sample lies behind the wall.
    steps = torch.arange(rays.coarse, device=near.device) / (rays.coarse - 1)
    step = (far - near)[:, None] / (rays.coarse - 1)
    depths = near[:, None] + steps * (far - near)[:, None] + 0.5 * step
    density, state = _look(source, origins, directions, depths, rays.radius)
    weights = compositing.interval_weights(density, depths)
    u = sampling.uniforms(rays.fine, torch.arange(len(near), device=near.device), None, stream=1)
    more = sampling.importance_depths(depths, weights, u)
    fine_density, fine_state = _look(source, origins, directions, more, rays.radius)
    depths, order = torch.cat([depths, more], 1).sort(dim=1, stable=True)
    density = torch.cat([density, fine_density], 1).gather(1, order)
    weights = compositing.interval_weights(density, depths)
    shares = compositing.sample_weights(weights)
    shares = torch.zeros_like(shares).scatter(1, order, shares)
    first, second = shares.split([rays.coarse, rays.fine], 1)
    colours = _colours(source, first, state) + _colours(source, second, fine_state)
    depth, opacity = compositing.mean_depth(weights, depths)
    return torch.cat([colours, depth[:, None], opacity[:, None]], 1)


def _look(
    source: Source, origins: Tensor, directions: Tensor, depths: Tensor, radius: float | None = None
) -> tuple[Tensor, Tensor]:
    """Raw density [R, S] and states [R * S, H] at depths [R, S]; with a radius, what lies outside
    the box is empty (and then so are the intervals that end there)."""
    points = torch.addcmul(origins[:, None], depths[:, :, None], directions[:, None])
    density, state = source.look(points.reshape(-1, 3))
    density = density.view(depths.shape)
    if radius is not None:
        density = density.masked_fill((points.abs() > radius).any(2), OUTSIDE)
    return density, state


def _colours(source: Source, weights: Tensor, state: Tensor) -> Tensor:
    """Sum over samples: weights [R, S], states [R * S, H] -> colours [R, 3]; only those samples are
    coloured that weigh anything."""
    seen = weights > NEGLIGIBLE
    colours = source.colours(state[seen.view(-1)])
    out = weights.new_zeros(*weights.shape, 3)
    out[seen] = colours * weights[seen][:, None]
    return out.sum(1)

"""A head's hair brought to the outline of one picture in a single step, nothing searched for.

Along the ray of a pixel the head has a least signed distance; in the picture the pixel has a
signed distance from the matte's outline. At the rim of a smooth body the two are the same thing
(exactly so for a ball), so their difference is how far the surface is off there, and moving hair
by it, near the place of the least distance, puts the outline right. What the picture shows
to be skin stays the head space's.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from engine.headspace import lattice
from engine.headspace.space import HeadSpace
from engine.inversion import pose as poses
from engine.inversion.shape import Canonical, Shape, distance_at, hair_mass
from engine.portrait.perception import SIZE

RAYS, SAMPLES = 72, 44  # a side of the picture; along each ray
DEEP = 0.19  # metres before and behind the head's origin that rays are looked at
FAR = 0.025  # metres: distances are cut off there, so the inside of the picture says nothing
SPREAD = 0.045  # metres along the ray from the rim over which what is moved fades


def pictures(alpha: np.ndarray, hair: np.ndarray, unknown: np.ndarray) -> Tensor:
    """A crop's maps [S, S] as to_outline() takes them: float32 [3, SIZE, SIZE]."""
    maps = np.stack([alpha, hair, unknown]).astype(np.float32)
    return F.interpolate(torch.from_numpy(maps)[None], (SIZE, SIZE), mode="area")[0]


@torch.no_grad()
def to_outline(
    space: HeadSpace,
    guess: Shape,
    canonical: Canonical,
    moved: Tensor,
    alpha: Tensor,
    hair: Tensor,
    unknown: Tensor,
) -> Tensor:
    """What is to be added to `moved` [1, L, L, L], the lattice by which hair is moved (metres).

    alpha, hair [S, S] in 0..1: the head's matte and the picture's hair; unknown bool [S, S]: where
    the picture says nothing about the outline, such as before clothes.
    """
    bounds, size = space.bounds, moved.shape[-1]
    forward = canonical.forward_lattice(guess.identity, guess.expression)
    mass = hair_mass(space, guess)
    at = (torch.arange(RAYS) + 0.5) / RAYS
    places = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).reshape(-1, 2)
    origin, directions = poses.rays(guess.pose, places)
    middle = poses.translation(guess.pose).norm()
    t = middle + torch.linspace(-DEEP, DEEP, SAMPLES)
    points = (origin + t[:, None] * directions[:, None]).reshape(-1, 3)
    q = points + lattice.settle(forward, points, bounds, 3)
    d = distance_at(space, q, mass, guess.residual, moved).reshape(-1, SAMPLES)
    outside = ((points < bounds[0]) | (points > bounds[1])).any(1).reshape(d.shape)
    least, k = torch.where(outside, FAR, d).min(1)
    off, deep = _apart(alpha, hair, unknown, least, guess.pose), t[k]
    # Back onto the nodes of the lattice: where they lie in the picture, and before or behind the
    # rim.
    nodes = lattice.nodes(size, bounds)
    world = nodes + lattice.sample(forward, nodes, bounds)
    grid = (poses.project(world, guess.pose) * 2 - 1)[None, None]
    maps = torch.stack([off, deep]).reshape(1, 2, RAYS, RAYS)
    here, rim = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)[0, :, 0]
    fade = torch.exp(-(((world - origin).norm(dim=1) - rim) / SPREAD).square())
    added = lattice.blur((here * fade).reshape(moved.shape))
    bound = lattice.sample(space.residual_bound[None], nodes, bounds)[:, 0].reshape(moved.shape)
    return torch.maximum(torch.minimum(moved + added, bound), -bound) - moved


def _apart(alpha: Tensor, hair: Tensor, unknown: Tensor, least: Tensor, pose: Tensor) -> Tensor:
    """[RAYS^2] metres from the head's outline, as its least distances say, to the picture's:
    negative where it is to grow."""
    metres = float(pose[5].exp()) / len(alpha)
    inside = alpha.numpy() > 0.5
    away = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    wanted = _at_rays(torch.from_numpy((away * metres).astype(np.float32)))
    off = wanted.clamp(-FAR, FAR) - least.clamp(-FAR, FAR)
    # Only hair grows, and only where hair is seen.
    grows = _at_rays(F.max_pool2d(hair[None, None], 5, 1, 2)[0, 0])
    off = torch.where(off < 0, off * grows, off)
    edge = torch.zeros_like(alpha)
    edge[2:-2, 2:-2] = 1
    known = F.max_pool2d((unknown.float().maximum(1 - edge))[None, None], 9, 1, 4)[0, 0]
    return off * (1 - _at_rays(known))


def _at_rays(image: Tensor) -> Tensor:
    return F.interpolate(image[None, None], (RAYS, RAYS), mode="area").reshape(-1)

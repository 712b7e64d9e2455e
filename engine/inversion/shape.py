"""A head's shape: coefficients of the linear head space, hair from known masses of styles, and a
smooth, bounded residual of the hair; its distance, and the grids that a field needs. engine/
inversion/fit.py finds them from a portrait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.headspace import lattice
from engine.headspace.space import HeadSpace, smooth_union

RESIDUAL = 26  # nodes a side of the residual lattice
# Metres, see neck(); from which height down, and over which it sets in. From the signed distances
# of true surfaces to 29 fitted heads that nothing was trained with (seeds 1800 to 1851): on average
# 2 mm at the throat and 3 at the bust's rim; of four choices the best mask IoU on 20 of them.
NECK, NECK_TOP, NECK_REACH = 0.002, -0.05, 0.06


@dataclass
class Shape:
    """identity [Ki], expression [Ke], hair weights [styles] (convex), offset (metres, fuller
    positive; of a fitted head where its hair is as thick as usual, see
    engine.inversion.hair.thickness), residual [1, r, r, r] metres over the canonical box, pose [6].
    mass [1, d, d, d]: the hair's distance, offset and all, where it is no plain mix of the styles
    (see engine/inversion/hair.py)."""

    identity: Tensor
    expression: Tensor
    hair: Tensor
    offset: Tensor
    residual: Tensor
    pose: Tensor
    mass: Tensor | None = None

    def coefficients(self) -> dict[str, list[float]]:
        """JSON-able: what the field keeps, so that the quad template can follow it later."""
        named = {"identity": self.identity, "expression": self.expression}
        return {k: [round(float(x), 5) for x in v] for k, v in named.items()}

    def landmarks(self, space: HeadSpace) -> Tensor:
        """The head's 84 landmarks [84, 3], metres."""
        return space.landmarks(space.vertices(self.identity, self.expression))


def hair_mass(space: HeadSpace, shape: Shape) -> Tensor:
    """The distance of a shape's hair without its residual [1, d, d, d]."""
    return space.hair(shape.hair, shape.offset) if shape.mass is None else shape.mass


class Canonical:
    """Maps points of a head with given coefficients to canonical space; differentiable."""

    def __init__(self, space: HeadSpace, resolution: int = 48) -> None:
        self.space = space
        self.spread = lattice.Spread(space.mean, space.bounds, resolution)

    def forward_lattice(self, identity: Tensor, expression: Tensor) -> Tensor:
        return lattice.blur(self.spread(self.space.displacement(identity, expression)))

    def __call__(
        self, forward: Tensor, points: Tensor, start: Tensor | None = None, steps: int = 4
    ) -> Tensor:
        """Canonical places of `points`; `start`: a guess of them."""
        bounds = self.space.bounds
        with torch.no_grad():
            start = None if start is None else start - points
        b = lattice.settle(forward, points, bounds, steps, start)
        return points - lattice.sample(forward, points + b, bounds)


def distance_at(
    space: HeadSpace, canonical: Tensor, mass: Tensor, residual: Tensor, learned: Tensor
) -> Tensor:
    """The head's distance at canonical points [N, 3]: skin joined with hair."""
    return smooth_union(*skin_and_hair(space, canonical, mass, residual, learned))


@torch.no_grad()
def learned_lattice(
    space: HeadSpace, start: Shape, learned: Callable[[Tensor], Tensor], resolution: int = 48
) -> Tensor:
    """The generator's residual as a smooth canonical lattice [1, L, L, L] in metres.

    learned: canonical points [N, 3] -> residual in -1..1 of the bound. It was taught on surfaces
    only: values far from one mean nothing and would make floaters, so they are weighed down, and
    what is left is smoothed over a few nodes.
    """
    q = lattice.nodes(resolution, space.bounds)
    mass = hair_mass(space, start)
    nothing = torch.zeros_like(space.residual_bound[None])
    d = distance_at(space, q, mass, start.residual, nothing)
    weight = torch.exp(-((d / 0.006) ** 2))
    value = torch.zeros_like(d)
    near = weight > 1e-3
    bound = lattice.sample(space.residual_bound[None], q[near], space.bounds)[:, 0]
    value[near] = bound * learned(q[near])
    shape = (1, resolution, resolution, resolution)
    total = lattice.blur((weight * value).reshape(shape), 3)
    return total / (lattice.blur(weight.reshape(shape), 3) + 0.03)


def skin_and_hair(
    space: HeadSpace, canonical: Tensor, mass: Tensor, residual: Tensor, learned: Tensor
) -> tuple[Tensor, Tensor]:
    """Distances [N] to the bare skin and to the hair: its mass, moved by the bounded residual, so
    that the outline follows the photo's, and by what the generator has learned (a lattice, see
    learned_lattice). The face stays the head space's: small errors there would tear at lips."""
    skin = lattice.sample(space.skin_distance[None], canonical, space.bounds)[:, 0]
    hair = lattice.sample(mass, canonical, space.bounds)[:, 0]
    moved = lattice.sample(residual, canonical, space.bounds)[:, 0]
    bound = lattice.sample(space.residual_bound[None], canonical, space.bounds)[:, 0]
    more = lattice.sample(learned, canonical, space.bounds)[:, 0]
    return skin, hair + bound * torch.tanh(moved / bound) + more


def neck(canonical: Tensor) -> Tensor:
    """How much thicker (metres) the neck is at canonical points [N, 3] than a fit makes it [N].

    Clothes and shadow hide most of a neck, the bust's cut is rounded in the head space, and no
    landmark is near: fitted necks are too thin on average, all round.
    """
    down = ((NECK_TOP - canonical[:, 1]) / NECK_REACH).clamp(0, 1)
    return NECK * down * down * (3 - 2 * down)


@torch.no_grad()
def bake(
    space: HeadSpace,
    shape: Shape,
    learned: Tensor,
    resolution: int = 176,
    check: Callable[[], None] = lambda: None,
    thicker: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The head's distance on a grid [R, R, R] and its warp lattice [3, 64, 64, 64].

    learned: the generator's residual, from learned_lattice; thicker: by how much the surface grows
    at canonical points [N, 3] -> metres [N], see neck().
    Fine values are computed near the surface only; elsewhere a coarse grid is interpolated.
    """
    warp = space.warp(shape.identity, shape.expression)
    # A finer, smoothed copy of the mass: its coarse grid would show as facets.
    mass = hair_mass(space, shape)
    finer = [2 * n for n in mass.shape[1:]]
    mass = F.interpolate(mass[None], finer, mode="trilinear", align_corners=True)[0]
    mass = lattice.blur(mass, 3)

    def evaluate(points: Tensor) -> Tensor:
        check()
        q = points + lattice.sample(warp, points, space.bounds)
        d = distance_at(space, q, mass, shape.residual, learned)
        return d if thicker is None else d - thicker(q)

    coarse_size = resolution // 2
    coarse = torch.cat(
        [evaluate(p) for p in lattice.nodes(coarse_size, space.bounds).split(1 << 18)]
    )
    coarse = coarse.reshape(1, coarse_size, coarse_size, coarse_size)
    fine = F.interpolate(coarse[None], (resolution,) * 3, mode="trilinear", align_corners=True)[
        0, 0
    ]
    flat = fine.reshape(-1)
    step = float(space.bounds[1, 0] - space.bounds[0, 0]) / (coarse_size - 1)
    near = (flat.abs() < 1.8 * step).nonzero()[:, 0]
    points = lattice.nodes(resolution, space.bounds)
    for part in near.split(1 << 18):
        flat[part] = evaluate(points[part])
    return flat.reshape((resolution,) * 3), warp

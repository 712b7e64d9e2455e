"""Light and dark strands for the hair of heads that no photo lends any.

The generator paints hair as a smooth mass. A fixed noise, drawn out downwards, is added to the
planes wherever hair is what one sees first, along the feature direction that makes this head's hair
lighter in its own hue: streaks over x on the front and back planes, over z on the side plane below
the crown. Procedural, not learned.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.headspace.space import HeadSpace
from engine.networks.planes import PlaneDecoder, sample_planes

CONTRAST = 0.13  # of the hair's colour, one standard deviation
THIN, THICK = -0.002, 0.001  # metres of hair over the skin: no strands below, all of them above
LOW = -0.09  # metres: bust and long hair below
SLANT = 0.35, 0.75  # cosines of the slant at which hair is met: no strands below, all above
REACH = 3  # nodes of the hair's grid
FEWEST = 500  # points of hair
CROWN = (0.10, 0.07)  # metres: side streaks fade out upwards between these heights


@lru_cache(maxsize=2)
def noise(size: int, seed: int) -> Tensor:
    """[size, size] of unit spread: streaks along the rows' axis (y), clumps within clumps."""
    rng = np.random.RandomState(seed)
    total = torch.zeros(size, size)
    for across, along, share in ((24, 5, 0.7), (72, 9, 1.0), (size, 14, 0.7)):
        grid = torch.from_numpy(rng.standard_normal((1, 1, along, across))).float()
        total += share * F.interpolate(grid, (size, size), mode="bicubic", align_corners=True)[0, 0]
    return total / total.std()


def masks(space: HeadSpace, mass: Tensor, size: int) -> Tensor:
    """Where hair is seen first and squarely, 0..1 [3, size, size]: from the front and the back
    (rows y, columns x) and from both sides (rows y, columns z). mass [1, d, d, d], see
    HeadSpace.hair."""
    hair = mass[0]
    skin = F.interpolate(
        space.skin_distance[None, None], hair.shape, mode="trilinear", align_corners=True
    )[0, 0]
    head = torch.minimum(hair, skin)
    slope = torch.stack(torch.gradient(head))
    slope = slope.abs() / slope.norm(dim=0).clamp_min(1e-6)
    y = torch.linspace(float(space.bounds[0, 1]), float(space.bounds[1, 1]), hair.shape[1])[:, None]
    thin = torch.where(y < LOW, -THIN, THIN)  # the bust's cut has both at the same place
    over = ((skin - hair - thin) / (THICK - THIN)).clamp(0, 1)

    def first(axis: int, flip: bool) -> Tensor:
        """How much of what is met first along an axis is hair, less where it is met at a slant;
        -1 where nothing is met."""
        squarely = ((slope[axis] - SLANT[0]) / (SLANT[1] - SLANT[0])).clamp(0, 1)
        inside, shown = head < 0, over * squarely
        if flip:
            inside, shown = inside.flip(axis), shown.flip(axis)
        met = shown.gather(axis, inside.float().argmax(axis, keepdim=True)).squeeze(axis)
        return torch.where(inside.any(axis), met, -torch.ones(()))

    seen = torch.stack([first(0, True), first(0, False)])[None]
    for _ in range(REACH):  # the generator's residual makes hair fuller than its mass
        seen = torch.where(seen < 0, F.max_pool2d(seen, 3, 1, 1), seen)
    side = torch.minimum(first(2, True), first(2, False)).T[None, None]
    # Skin further in that shares the side plane with hair (a neck between locks) stays clean.
    shell = (head.abs() < 0.006) & (over < 0.5)
    side = side * (1 - F.max_pool2d(shell.any(2).T.float()[None, None], 3, 1, 1))
    side = side * ((CROWN[0] - y) / (CROWN[0] - CROWN[1])).clamp(0, 1)
    seen = F.avg_pool2d(torch.cat([seen, side], 1).clamp_min(0), 3, 1, 1)
    return F.interpolate(seen, (size, size), mode="bilinear", align_corners=False)[0]


def add_strands(
    planes: Tensor, decoder: PlaneDecoder, points: Tensor, space: HeadSpace, mass: Tensor
) -> Tensor:
    """Planes [4 or 5, C, P, P] with strands; points [N, 3]: canonical ones of this head's hair."""
    if len(points) < FEWEST:
        return planes
    features = sample_planes(planes[None], points[None] / space.bounds[1, 0]).mean(1)[0]
    with torch.enable_grad():
        features.requires_grad_()
        colour = decoder(features[None])[0][0]
        slopes = torch.stack(
            [torch.autograd.grad(c, features, retain_graph=True)[0] for c in colour]
        )
    lighter = colour.detach() * CONTRAST * 3  # a plane gives a third of a point's features
    square = slopes @ slopes.T
    square = square + 0.02 * square.diagonal().mean() * torch.eye(3)
    step = torch.linalg.solve(square, lighter) @ slopes
    size = planes.shape[-1]
    streaks = torch.stack([noise(size, 0), noise(size, 0), noise(size, 1)])
    planes = planes.clone()
    streaks = (masks(space, mass, size) * streaks)[:, None] * step[:, None, None]
    planes[:3] += streaks
    if len(planes) == 5:  # the other side
        planes[3] += streaks[2]
    return planes

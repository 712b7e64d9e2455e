"""A head's picture laid onto five orthographic views of its canonical shape.

What the small LRM for heads reads (engine/systems/lrm/head.py). Perception says which head it is,
roughly, and where the camera was; so every texel of the five planes is a point on that head's
surface, and its place in the picture is known. Front, back and both sides see the upright head,
the top its crown. The shares n_x^2, n_y^2 and n_z^2 of a unit normal sum to 1: how much each of
the three directions says about a point (tri-planar mapping, Geiss 2007, GPU Gems 3, chapter 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.headspace import lattice
from engine.headspace.space import HeadSpace, smooth_union
from engine.inversion import pose as poses

VIEWS = ("front", "back", "left", "right", "top")
SIZE = 128  # texels a side
# Of each view: the axis it looks along, from its high end or not, and the axes of columns and rows.
_ALONG = ((2, True, 0, 1), (2, False, 0, 1), (0, True, 2, 1), (0, False, 2, 1), (1, True, 0, 2))
GRAZING = 0.08, 0.5  # cosines of the angle of view: texels below show nothing, above all
HIDDEN = 0.012  # metres behind what the picture shows in front: not shown
BUFFER = 80  # cells a side of the depth buffer
CHANNELS = 9  # of Views.stack()


@dataclass(frozen=True)
class Views:
    """Of B heads. colour [B, 5, 3, S, S]: the picture's (0..1) where a texel is in it; seen
    [B, 5, S, S]: how well the picture shows that texel, 0..1; classes [B, 5, 3, S, S]: the
    picture's matte, skin and hair there; share [B, 5, S, S]: see the module; solid, hair
    [B, 5, S, S]: whether there is a surface, and whether it is hair; place [B, 5, S, S, 3]: the
    surface, canonical metres (a guess where there is none)."""

    colour: Tensor
    seen: Tensor
    classes: Tensor
    share: Tensor
    solid: Tensor
    hair: Tensor
    place: Tensor

    def stack(self) -> Tensor:
        """[B, 5, CHANNELS, S, S] in 0..1: all but the places."""
        single = (self.seen, self.share, self.solid * (1 + self.hair) / 2)
        return torch.cat([self.colour, self.classes, *(x[:, :, None] for x in single)], 2)


def mirrored(views: Tensor) -> Tensor:
    """Views [..., 5, C, S, S] of the head's mirror image: both sides change places, the others are
    flipped."""
    front, back, left, right, top = views.unbind(-4)
    return torch.stack([front.flip(-1), back.flip(-1), right, left, top.flip(-1)], -4)


@lru_cache(maxsize=4)
def _between(nodes: int, size: int) -> Tensor:
    """[size, nodes]: linear interpolation from nodes at a box's ends and between to the middles of
    its texels."""
    at = (torch.arange(size) + 0.5) / size * (nodes - 1)
    return (1 - (at[:, None] - torch.arange(nodes)).abs()).clamp_min(0)


def _resized(grid: Tensor, size: int) -> Tensor:
    """A lattice [L, L, L] at the middles of size^3 cells."""
    m = _between(grid.shape[0], size)
    grid = torch.tensordot(grid, m, ([2], [1]))  # z y X
    grid = torch.tensordot(grid, m, ([1], [1]))  # z X Y
    return torch.tensordot(grid, m, ([0], [1])).permute(2, 1, 0).contiguous()


@lru_cache(maxsize=1)
def _skin(space: HeadSpace) -> Tensor:
    return _resized(space.skin_distance, SIZE)


def _centres(bounds: Tensor) -> Tensor:
    return float(bounds[0, 0]) + (torch.arange(SIZE) + 0.5) / SIZE * float(bounds[1, 0] * 2)


def _heights(grid: Tensor, centres: Tensor, high: bool) -> tuple[Tensor, Tensor]:
    """Of distances [K, R, C]: where along the first axis the surface is first met from its high or
    low end [R, C], and whether it is met at all."""
    if high:
        grid, centres = grid.flip(0), centres.flip(0)
    inside = grid < 0
    solid = inside.any(0)
    k = inside.byte().argmax(0).clamp_min(1)[None]
    here, before = grid.gather(0, k), grid.gather(0, k - 1)
    share = (here / (here - before).clamp_max(-1e-6)).clamp(0, 1)[0]
    return torch.lerp(centres[k[0]], centres[k[0] - 1], share), solid


def _filled(height: Tensor, solid: Tensor) -> Tensor:
    """Heights continued beyond the outline: the mean of those near by, 0 farther off."""
    weight = solid.float()
    near = F.avg_pool2d(torch.stack([height * weight, weight])[None], 17, 1, 8)[0]
    return torch.where(solid, height, near[0] / near[1].clamp_min(0.01))


@dataclass(frozen=True)
class Surface:
    """The five views of one head's canonical surface: place [5, S, S, 3] and normal [5, S, S, 3],
    solid bool [5, S, S], hair [5, S, S] in 0..1."""

    place: Tensor
    normal: Tensor
    solid: Tensor
    hair: Tensor


@torch.no_grad()
def surface(space: HeadSpace, hair: Tensor) -> Surface:
    """Of the skin and a hair mass [1, d, d, d], see HeadSpace.hair."""
    skin, mass = _skin(space), _resized(hair[0], SIZE)
    grid = smooth_union(skin, mass)
    axes = grid, skin - mass
    centres = _centres(space.bounds)
    place, solid = [], []
    for along, high, columns, rows in _ALONG:
        # A lattice's dimensions are z, y, x.
        turned = grid.permute(2 - along, 2 - rows, 2 - columns)
        height, met = _heights(turned, centres, high)
        point = torch.empty(SIZE, SIZE, 3)
        point[..., along] = _filled(height, met)
        point[..., columns], point[..., rows] = centres, centres[:, None]
        place.append(point)
        solid.append(met)
    place, solid = torch.stack(place), torch.stack(solid)
    # The grid's nodes are the cells' middles: a box that much smaller.
    small = space.bounds * (1 - 1 / SIZE)
    step = 1.5 * float(small[1, 0]) * 2 / SIZE
    some = place[solid]
    normal = torch.zeros_like(place)
    slope = [
        lattice.sample(grid[None], some + o, small) - lattice.sample(grid[None], some - o, small)
        for o in step * torch.eye(3)
    ]
    normal[solid] = F.normalize(torch.cat(slope, 1), dim=1)
    covered = torch.zeros(solid.shape)
    covered[solid] = torch.sigmoid(lattice.sample(axes[1][None], some, small)[:, 0] / 0.001)
    return Surface(place, normal, solid, covered)


@torch.no_grad()
def lift(
    surfaces: list[Surface],
    forward: list[Tensor],
    pose: Tensor,
    picture: Tensor,
    classes: Tensor,
    bounds: Tensor,
    fine: int = 1,
) -> Views:
    """The views of B heads in their pictures.

    forward: of each head the lattice that moves canonical points onto it (see inversion.shape's
    Canonical); pose [B, 6]; picture [B, 3, P, P] in 0..1 and classes [B, 3, Q, Q]: matte, skin and
    hair in 0..1. fine: how many times finer than SIZE the views are to be.
    """
    out = [
        _lift_one(*each, bounds, fine)
        for each in zip(surfaces, forward, pose, picture, classes, strict=True)
    ]
    return Views(*(torch.stack([vars(v)[name] for v in out]) for name in vars(out[0])))


def _lift_one(
    of: Surface, forward: Tensor, pose: Tensor, picture: Tensor, classes: Tensor, bounds: Tensor,
    fine: int,
) -> Views:  # fmt: skip
    place, normal = of.place, of.normal
    world = place + lattice.sample(forward, place.reshape(-1, 3), bounds).reshape(place.shape)
    seen = _shown(of, world, pose)
    share = _share(normal)
    solid, hair = of.solid.float(), of.hair
    if fine > 1:
        world = _finer(world.permute(0, 3, 1, 2), fine).permute(0, 2, 3, 1)
        seen, share, solid, hair = (
            _finer(x[:, None], fine)[:, 0] for x in (seen, share, solid, hair)
        )
    at = poses.project(world.reshape(-1, 3), pose).reshape(world.shape[:3] + (2,))
    grid = at.flatten(0, 1)[None] * 2 - 1
    # What is cut off by the picture's edge is not known.
    inside = ((at > 0.01) & (at < 0.99)).all(-1).float()

    def read(image: Tensor) -> Tensor:
        got = F.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]
        return got.unflatten(1, (len(VIEWS), -1)).transpose(0, 1)

    found = read(classes) * inside[:, None]
    # At the matte's edge pixels mix in what is behind.
    firm = -F.max_pool2d(-classes[:1], 3, 1, 1)
    firm = read((1.5 * firm - 0.5).clamp_min(0))[:, 0] * inside
    return Views(read(picture), seen * firm, found, share, solid, hair, place)


def _finer(x: Tensor, times: int) -> Tensor:
    return F.interpolate(x, scale_factor=float(times), mode="bilinear", align_corners=False)


def _share(normal: Tensor) -> Tensor:
    """[5, S, S]: the square of the part of the normal that a view looks along."""
    return torch.stack([normal[i, ..., along[0]] for i, along in enumerate(_ALONG)]).square()


def _shown(of: Surface, world: Tensor, pose: Tensor) -> Tensor:
    """[5, S, S]: how well a camera sees each texel of the surface, by angle and what is before
    it."""
    points, solid = world.reshape(-1, 3), of.solid.reshape(-1)
    eye = -poses.rotation(pose) @ poses.translation(pose)
    facing = (F.normalize(eye - points, dim=1) * of.normal.reshape(-1, 3)).sum(1)
    slope = ((facing - GRAZING[0]) / (GRAZING[1] - GRAZING[0])).clamp(0, 1)
    depth = (points - eye) @ poses.rotation(pose)[:, 2]
    cell = (poses.project(points, pose) * BUFFER - 0.5).clamp(0, BUFFER - 1.001)
    nearest = torch.full((BUFFER * BUFFER,), torch.inf)
    low = cell.floor().long()
    for dx in (0, 1):
        for dy in (0, 1):
            index = ((low[:, 1] + dy) * BUFFER + low[:, 0] + dx)[solid]
            nearest.scatter_reduce_(0, index, depth[solid], "amin")
    first = nearest[(cell[:, 1] + 0.5).long() * BUFFER + (cell[:, 0] + 0.5).long()]
    open_ = torch.sigmoid((HIDDEN - (depth - first)) / (0.25 * HIDDEN))
    return (slope * slope * (3 - 2 * slope) * open_ * solid).reshape(of.solid.shape)

"""A beard's volume. The head space has none: where the photo shows hair about the chin, that hair
stands off the skin by a length, which the outline decides with the rest of the shape (fit.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from engine.headspace import lattice
from engine.headspace.beard import beard_region, bearded, chin_region
from engine.headspace.space import HeadSpace
from engine.inversion import pose as poses
from engine.inversion.hair import skin_at_nodes
from engine.inversion.shape import Shape
from engine.surface.mesh import vertex_normals

# Metres: how long beards are and how much they differ (the material's), and the longest.
USUAL, SPREAD, LONGEST = 0.009, 0.006, 0.028
EDGE = 0.003  # metres under the skin at which a beard ends, where there is none
THIN, AWAY = 0.1, 0.5  # thinner than that it is none: metres that it is put away by there
COVERED = 0.3, 0.7  # share of hair about a place from which on there is some beard, and all of it
FACING = 0.15, 0.45  # cosines between which what a photo shows of a place begins to count
MIRRORED = 0.3  # weight of the other half of the face


@dataclass(frozen=True)
class Beard:
    """At the nodes of the hair masses [1, d, d, d]: how thick it is beside its length, in 0..1, and
    the distance to the skin under it, metres, more where it is thinner than THIN."""

    thick: Tensor
    skin: Tensor

    def on(self, mass: Tensor, length: Tensor) -> Tensor:
        """A hair mass with a beard of a length (metres, at most LONGEST)."""
        distance = self.skin + EDGE - (length.clamp(0, LONGEST) + EDGE) * self.thick
        return torch.minimum(mass, distance)


@dataclass(frozen=True)
class _Region:
    """By vertex [V]: where beards grow, and the middle of the chin, both in 0..1; the vertex
    nearest to its mirror image."""

    beard: Tensor
    chin: Tensor
    mirrored: Tensor


@lru_cache(maxsize=1)
def _region(space: HeadSpace) -> _Region:
    mean = space.mean.numpy()
    beard, chin = (torch.from_numpy(x) for x in (beard_region(mean), chin_region(mean)))
    return _Region(beard, chin, torch.from_numpy(cKDTree(mean).query(mean * [-1, 1, 1])[1]))


def covering(
    space: HeadSpace, guess: Shape, hair: Tensor, unknown: Tensor
) -> tuple[Tensor, Tensor]:
    """How far each vertex of a head is covered with hair [V] in 0..1 in a picture, and how well
    that is seen [V] in 0..1. hair [S, S] in 0..1; unknown [S, S] where the picture does not say."""
    vertices = space.vertices(guess.identity, guess.expression)
    grid = (poses.project(vertices, guess.pose) * 2 - 1)[None, None]
    maps = torch.stack([hair, 1 - unknown.float()])[None]
    shown, known = F.grid_sample(maps, grid, align_corners=False)[0, :, 0]
    normal = torch.from_numpy(vertex_normals(vertices.numpy(), space.faces.numpy()))
    eye = -poses.rotation(guess.pose) @ poses.translation(guess.pose)
    facing = (normal * F.normalize(eye - vertices, dim=1)).sum(1)
    low, high = FACING
    return shown, known * ((facing - low) / (high - low)).clamp(0, 1)


@torch.no_grad()
def beard_of(space: HeadSpace, guess: Shape, hair: Tensor, unknown: Tensor) -> Beard | None:
    """A head's beard, as a picture shows it; None where the chin is bare. hair, unknown: as
    covering() takes them. What the picture does not show is as on the other half of the face, or
    as near by."""
    region = _region(space)
    shown, seen = covering(space, guess, hair, unknown)
    if not bearded((region.chin * seen).numpy(), shown.numpy()):
        return None
    weight = seen + MIRRORED * seen[region.mirrored]
    hairy = seen * shown + MIRRORED * (seen * shown)[region.mirrored]
    d = space.hair_distance.shape[-1]
    spread = lattice.Spread(space.mean, space.bounds, d)
    grown, hairy, weight = spread(torch.stack([region.beard, hairy, weight], 1)).split(1)
    bare, full = COVERED
    covered = ((hairy / weight.clamp_min(1e-3) - bare) / (full - bare)).clamp(0, 1)
    thick = grown.clamp(0, 1) * covered
    away = (1 - thick / THIN).clamp_min(0) * AWAY
    return Beard(thick, skin_at_nodes(space, d) + away)

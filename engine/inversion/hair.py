"""The hair that a head most likely has where one photo does not show it."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.headspace import lattice
from engine.headspace.space import HeadSpace

MIDDLE = 0.45, 0.55  # between which quantiles of the distances the vote averages
# Metres: hair whose thickness an offset counts for; the thickest; from where on it stays as it is.
TYPICAL, THICK, LOOSE = 0.015, 0.025, 0.05
LEAST = 0.02  # of the greatest weight: styles less likely have no vote


def vote(distances: Tensor, weights: Tensor) -> Tensor:
    """The distance [...] of what most agree on, from distances [S, ...] and their probabilities
    [S], which add up to one.

    The mean of the middle quantiles. Where the median is negative, hair is likelier than none, and
    of all shapes the one of those places has about the greatest expected intersection over union:
    the threshold that is best for it is IoU / (1 + IoU), near a half (as for the F measure: Lipton,
    Elkan and Naryanaswamy 2014). A mean of distances is not like that: one thick braid, hardly
    likely, outweighs many styles that end just short of it. A quantile of distances is steady and
    no steeper than they are, so no distance has to be rebuilt.
    """
    ordered, order = distances.sort(0)
    above = weights[order].cumsum(0)
    low, high = MIDDLE
    share = above.clamp(low, high) - (above - weights[order]).clamp(low, high)
    return (share * ordered).sum(0) / (high - low)


def all_styles(space: HeadSpace) -> Tensor:
    """Distances of all styles [styles, d, d, d], in the order of the hair weights."""
    straight, bald = space.hair_distance[:-1], space.hair_distance[-1:]
    return torch.cat([straight, straight.flip(-1), bald])


@torch.no_grad()
def likely_mass(space: HeadSpace, weights: Tensor) -> Tensor:
    """The hair's mass [1, d, d, d] that most of the styles agree on, by their weights [styles]."""
    kept = weights > LEAST * weights.max()
    return vote(all_styles(space)[kept], weights[kept] / weights[kept].sum())[None]


def skin_at_nodes(space: HeadSpace, size: int) -> Tensor:
    """The skin's distance (metres) at the nodes of a lattice [1, size, size, size]."""
    nodes = lattice.nodes(size, space.bounds)
    distance = lattice.sample(space.skin_distance[None], nodes, space.bounds)
    return distance.reshape(1, size, size, size)


def thickness(space: HeadSpace, mass: Tensor) -> Tensor:
    """How far off the skin the nodes of a hair mass [1, d, d, d] are (at most THICK, in units of
    TYPICAL), in its shape. Heads with the same style differ by a factor on that, so what an outline
    says of how full hair is, holds in this proportion all round the head. Hair that stands off
    farther is tied or hangs: a portrait's outline says nothing of a tail."""
    height = skin_at_nodes(space, mass.shape[-1])
    tied = ((height - THICK) / (LOOSE - THICK)).clamp(0, 1)
    return height.clamp(0, THICK) * (1 - tied) / TYPICAL

"""From densities along a ray to colour, depth and opacity: the mid-point rule.

Source: the volume rendering integral as Mip-NeRF and EG3D discretise it: an interval's density is
the mean of its two ends' (before the activation), its colour the mean of their colours, its depth
their middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass
class Composite:
    """features [R, C] (weighted sums: premultiplied, background 0); depth [R] along the ray, within
    the ray's own samples (the last one's where nothing was met); opacity [R] in 0..1."""

    features: torch.Tensor
    depth: torch.Tensor
    opacity: torch.Tensor


def interval_weights(raw_density: torch.Tensor, depths: torch.Tensor) -> torch.Tensor:
    """Weights [R, S - 1] of the intervals between sorted samples.

    raw_density: [R, S] before activation, which is softplus(mean of neighbours - 1); depths:
    [R, S], ascending.
    """
    density = F.softplus(0.5 * (raw_density[:, :-1] + raw_density[:, 1:]) - 1.0)
    alpha = 1.0 - torch.exp(-density * (depths[:, 1:] - depths[:, :-1]))
    # 1e-10 keeps the product's gradient finite behind an opaque interval.
    through = torch.cumprod(1.0 - alpha[:, :-1] + 1e-10, 1)
    return alpha * F.pad(through, (1, 0), value=1.0)


def sample_weights(weights: torch.Tensor) -> torch.Tensor:
    """Weights [R, S] of the samples for weights [R, S - 1] of the intervals: an interval takes half
    of its colour from either end, so summing by samples needs no colours of intervals."""
    return 0.5 * (F.pad(weights, (0, 1)) + F.pad(weights, (1, 0)))


def mean_depth(weights: torch.Tensor, depths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Expected depth [R] and opacity [R] of interval weights [R, S - 1] at depths [R, S]. The depth
    stays between the ray's first and last sample; where the opacity is 0 it is the last sample's,
    so it never depends on other rays.
    (The original clamps to the samples of the whole batch, which only shows where the opacity is
    0: under the deterministic rule all rays end in the same sample, so both agree; with jitter they
    differ by up to one coarse step. EG3DGenerator.render has a switch.)"""
    opacity = weights.sum(1)
    middles = 0.5 * (depths[:, :-1] + depths[:, 1:])
    depth = (weights * middles).sum(1) / torch.where(opacity > 0, opacity, 1.0)
    depth = torch.where(opacity > 0, depth, depths[:, -1])
    return torch.maximum(torch.minimum(depth, depths[:, -1]), depths[:, 0]), opacity

"""From views back to one field: what several pictures show of a head, as one set of points.

A mesh needs one field, not a bag of pictures. A pixel whose depth is known is a point on the head's
surface, so views need not be rendered again to be learned from: their pixels join the photo's as
canonical points with colours and weights (`Seen`), and whatever fits colours to the photo fits them
to all views at once: pivotal tuning of the generator (`appearance.tune`; WarpGAN, arXiv 2511.08178,
section 3.4; HFGI3D, Xie et al. 2023, section 3.3) or the planes themselves (`appearance.match`,
`sharpen`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from engine.fields.head import HeadField
from engine.headspace.lattice import sample
from engine.inversion.appearance import NEAR, Seen
from engine.inversion.pseudo import PseudoView
from engine.inversion.warp import facing, points_of

LEAST = 0.02  # weight below which a pixel is left out
NEIGHBOURS = 6  # pixels whose mean a surface point shows


def seen_in(field: HeadField, view: PseudoView, weight: Tensor | None = None) -> Seen:
    """What a pseudo-view shows of the surface's own colours, without strands. weight [S, S] instead
    of the view's confidence; either counts as far as the view is not a grazing one."""
    weight = view.confidence if weight is None else weight
    weight = weight * facing(view.depth, view.alpha, view.camera)
    mask = (weight > LEAST) & (view.depth > 0)
    points = points_of(view.depth, view.camera)[mask]
    canonical = points + sample(field.warp, points, field.bounds)
    colour = view.picture[mask] / view.alpha[mask].clamp_min(0.5)[:, None]
    if field.strands is not None:  # drawn over the planes' colours, which are what is asked for
        colour = colour / field.strands.factor(canonical, field.bounds).clamp_min(0.2)
    index = torch.full(mask.shape, -1, dtype=torch.long)
    index[mask] = torch.arange(len(points))
    return Seen(canonical, colour.clamp(0, 1), weight[mask], index)


def together(views: Sequence[Seen]) -> Seen:
    """Several views' points as one; their pictures stand below each other, a gap between them."""
    width = max(view.index.shape[1] for view in views)
    rows, count = [], 0
    for view in views:
        h, w = view.index.shape
        index = torch.full((h + 1, width), -1, dtype=torch.long)
        index[:h, :w] = torch.where(view.index >= 0, view.index + count, -1)
        rows.append(index)
        count += len(view.weight)
    return Seen(
        torch.cat([view.canonical for view in views]),
        torch.cat([view.colour for view in views]),
        torch.cat([view.weight for view in views]),
        torch.cat(rows),
    )


def read(seen: Seen, points: Tensor, reach: float = NEAR) -> tuple[Tensor, Tensor]:
    """What is seen at canonical points [N, 3]: the weighted mean colour [N, 3] of the nearest few
    pixels within `reach` (metres), and the largest of their weights [N], 0 where none is near."""
    if not len(seen.weight):
        return torch.zeros_like(points), torch.zeros(len(points))
    away, nearest = cKDTree(seen.canonical.numpy()).query(
        points.numpy(), min(NEIGHBOURS, len(seen.weight)), distance_upper_bound=reach
    )
    away = away.reshape(len(points), -1)
    met = torch.from_numpy(np.isfinite(away))
    nearest = torch.from_numpy(nearest.reshape(away.shape)).clamp_max(len(seen.weight) - 1)
    weight = seen.weight[nearest] * met
    share = weight / weight.sum(1, keepdim=True).clamp_min(1e-6)
    return (share[..., None] * seen.colour[nearest]).sum(1), weight.amax(1)

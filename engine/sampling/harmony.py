"""Colours that agree all round a sampled head.

The small generator paints light hair in patches of several hues and lets hair and skin run into
one another. A head has one hair colour, and one skin from face to neck: a few gradient steps move
its planes so that hair keeps only its light and dark, and skin away from the face the face's hue.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.inversion.appearance import match
from engine.systems.head.model import HeadGenerator

BROWS = 0.052  # metres: what is bare above is forehead and scalp
LUMA = torch.tensor([0.299, 0.587, 0.114])
FACE = (0.055, -0.10)  # metres: the face lies in front of this z and above this y


def agreed_colours(points: Tensor, colour: Tensor, cover: Tensor) -> Tensor:
    """What canonical surface points [N, 3] with the generator's colours [N, 3] should show;
    cover [N]: 0 bare skin .. 1 hair."""
    luma = (colour @ LUMA).clamp_min(1e-3)
    face = (points[:, 2] > FACE[0]) & (points[:, 1] > FACE[1])
    out = colour
    x, y, z = points.T
    bare = (cover < 0.3) & face
    forehead = bare & (y > 0.035) & (y < 0.06) & (x.abs() < 0.045)
    cheeks = bare & (y > -0.03) & (y < 0.01) & (x.abs() > 0.025)
    if forehead.sum() > 30 and cheeks.sum() > 30:
        mean = torch.lerp(  # of the face's nearest part
            colour[cheeks].median(0).values,
            colour[forehead].median(0).values,
            _ramp(y - 0.01, 0.04)[:, None],
        )
        toned = mean * (luma / (mean @ LUMA)).clamp(0.1, 1.06)[:, None] ** 0.9
        away = torch.maximum(_ramp(FACE[0] - z, 0.03), _ramp(FACE[1] - y, 0.015))
        away = torch.maximum(away, _ramp(y - BROWS, 0.04))
        out = torch.lerp(out, toned, 0.8 * away[:, None])
    hair = cover > 0.9
    if hair.sum() > 50:
        level = luma[hair].median()
        near = hair & (luma > 0.6 * level) & (luma < 1.6 * level)
        mean = colour[near].mean(0)
        toned = mean * (luma / (mean @ LUMA)).clamp(0.6, 1.4)[:, None] ** 0.8
        out = torch.lerp(out, toned, cover[:, None])
    return out.clamp(0, 1)


def _ramp(x: Tensor, width: float) -> Tensor:
    """0 below 0, 1 from `width` on."""
    return (x / width).clamp(0, 1)


def harmonise(
    generator: HeadGenerator,
    planes: Tensor,
    points: Tensor,
    cover: Tensor,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """Planes [1, 4, C, P, P] whose colours agree at canonical surface points [N, 3]; cover as in
    agreed_colours. Deterministic; the offset is smooth, so detail stays."""
    with torch.no_grad():
        wanted = agreed_colours(points, generator(planes, points[None])[0][0], cover)
    return match(generator, planes, points, wanted, check=check)

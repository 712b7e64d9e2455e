"""Smooth warps of space on a regular lattice: the head space's displacement of its template,
spread from the vertices into the volume, and its inverse.

A lattice is a tensor [C, L, L, L] (z, y, x order, corners at the box's corners).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample(grid: Tensor, points: Tensor, bounds: Tensor) -> Tensor:
    """Trilinear samples of `grid` [C, D, H, W] at `points` [N, 3] (x, y, z in the units of
    `bounds` [2, 3]); outside the box the border's value holds. Returns [N, C]."""
    low, high = bounds[0], bounds[1]
    scale = 2 / (high - low)
    unit = torch.addcmul(-1 - low * scale, points, scale)
    out = F.grid_sample(
        grid[None],
        unit[None, :, None, None],
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return out[0, :, :, 0, 0].T


def nodes(resolution: int, bounds: Tensor) -> Tensor:
    """The lattice's node positions [resolution^3, 3], x fastest."""
    axes = [torch.linspace(float(bounds[0, i]), float(bounds[1, i]), resolution) for i in range(3)]
    z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return torch.stack([x, y, z], -1).reshape(-1, 3).to(bounds)


class Spread:
    """Spreads values given at fixed points into a lattice: trilinear splat, then push-pull.

    Linear and differentiable in the values. Near the points the lattice follows them; far away it
    is a smooth blend of the nearest ones (Gortler et al. 1996, "The Lumigraph", section 3.4).
    """

    def __init__(self, points: Tensor, bounds: Tensor, resolution: int = 64) -> None:
        self.resolution = resolution
        scaled = (points - bounds[0]) / (bounds[1] - bounds[0]) * (resolution - 1)
        base = scaled.floor().clamp(0, resolution - 2)
        frac = (scaled - base).clamp(0, 1)
        index, weight = [], []
        for corner in range(8):
            offset = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2], device=points.device)
            at = (base + offset).long()
            index.append((at[:, 2] * resolution + at[:, 1]) * resolution + at[:, 0])
            weight.append(torch.where(offset.bool(), frac, 1 - frac).prod(1))
        self.index, self.weight = torch.cat(index), torch.cat(weight)
        self.mass = self._splat(torch.ones_like(points[:, :1]))

    def _splat(self, values: Tensor) -> Tensor:
        r = self.resolution
        flat = torch.zeros(r**3, values.shape[1], dtype=values.dtype, device=values.device)
        flat = flat.index_add(0, self.index, self.weight[:, None] * values.repeat(8, 1))
        return flat.T.reshape(-1, r, r, r)

    def __call__(self, values: Tensor) -> Tensor:
        """values [P, C] -> lattice [C, L, L, L]."""
        return _push_pull(self._splat(values), self.mass)


def _push_pull(total: Tensor, mass: Tensor) -> Tensor:
    """Fill where mass is thin from coarser levels. total [C, ...] is the sum of weighted values."""
    if total.shape[-1] <= 4:
        blur = total.sum((1, 2, 3), keepdim=True) / mass.sum().clamp_min(1e-9)
        known = mass.clamp(max=1)
        return torch.where(mass > 0, total / mass.clamp_min(1e-9), blur) * known + blur * (
            1 - known
        )
    half = (total.shape[-1] + 1) // 2
    capped = mass.clamp(max=1)
    mean = total / mass.clamp_min(1e-9)
    coarse_total = _smooth_half(mean * capped, half)
    coarse_mass = _smooth_half(capped, half)
    coarse = _push_pull(coarse_total, coarse_mass)
    filled = F.interpolate(
        coarse[None], size=total.shape[1:], mode="trilinear", align_corners=True
    )[0]
    return mean * capped + filled * (1 - capped)


def _smooth_half(x: Tensor, size: int) -> Tensor:
    pooled = F.avg_pool3d(x[None], 3, stride=1, padding=1) * 27 / 8
    return F.interpolate(pooled, size=(size,) * 3, mode="trilinear", align_corners=True)[0]


def blur(lattice: Tensor, rounds: int = 1) -> Tensor:
    """Binomial smoothing with the border repeated."""
    for _ in range(rounds):
        x = F.pad(lattice[None], (1,) * 6, mode="replicate")
        lattice = (
            2 * x[..., 1:-1, 1:-1, 1:-1]
            + (
                x[..., 2:, 1:-1, 1:-1]
                + x[..., :-2, 1:-1, 1:-1]
                + x[..., 1:-1, 2:, 1:-1]
                + x[..., 1:-1, :-2, 1:-1]
                + x[..., 1:-1, 1:-1, 2:]
                + x[..., 1:-1, 1:-1, :-2]
            )
            / 3
        )[0] / 4
    return lattice


def settle(
    forward: Tensor, points: Tensor, bounds: Tensor, steps: int, start: Tensor | None = None
) -> Tensor:
    """Displacements b [N, 3] with b about -forward(points + b), from `start` or zero: the fixed
    point that leads from a head to canonical space. Takes no gradient.

    Damped, so that places where the warp folds slightly do not oscillate; converges because
    displacements of heads are smooth (Lipschitz constant well under one).
    """
    b = torch.zeros_like(points) if start is None else start
    with torch.no_grad():
        for _ in range(steps):
            b = 0.35 * b - 0.65 * sample(forward, points + b, bounds)
    return b


def invert(forward: Tensor, bounds: Tensor, steps: int = 6) -> Tensor:
    """The lattice b with q = p + b(p) for a forward warp p = q + forward(q), see settle().
    Gradients flow through the last step only."""
    r = forward.shape[-1]
    p = nodes(r, bounds)
    b = settle(forward, p, bounds, steps - 1)
    b = -sample(forward, p + b, bounds)
    return b.T.reshape(3, r, r, r)

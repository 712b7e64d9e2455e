"""Four or five tri-plane-like feature planes and their decoder: what a head field's planes mean.

Source: EG3D (Chan et al. 2022, section 3.2) for planes and decoder. A plane more than theirs: the
front and the back of a head share (x, y), so each half has a plane of its own. With five, so have
its left and right side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.stylegan2 import FullyConnected

FRONT_BACK = -0.1  # of the box's half side: where front hands over to back,
GATE = 0.06  # and how softly
SIDES = 0.03  # how softly left hands over to right


class PlaneDecoder(nn.Module):
    """Mean plane feature [N, C] -> colour [N, 3] in 0..1 and residual [N] in -1..1."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            FullyConnected(channels, width), nn.Softplus(), FullyConnected(width, 4)
        )
        with torch.no_grad():  # start from the prior's own surface
            self.net[2].weight[3] = 0

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        out = self.net(features).float()
        # EG3D's slightly widened sigmoid: pure black and white stay within reach.
        return torch.sigmoid(out[..., :3]) * 1.002 - 0.001, torch.tanh(out[..., 3])


def sample_planes(planes: Tensor, unit: Tensor) -> Tensor:
    """Features [B, N, C] of planes [B, 4 or 5, C, R, R] at points [B, N, 3] in -1..1: the mean of
    (x, y) on the front or the back plane, softly switched by z, (z, y) (of five planes: on the left
    or the right one, softly switched by x) and (x, z)."""
    b, n, c, _, _ = planes.shape
    x, y, z = unit.unbind(-1)
    sides = ((z, y),) * (n - 3)
    pairs = torch.stack([torch.stack(p, -1) for p in ((x, y), (x, y), *sides, (x, z))], 1)
    got = F.grid_sample(
        planes.flatten(0, 1),
        pairs.flatten(0, 1)[:, None],
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    ).reshape(b, n, c, -1)
    gate = torch.sigmoid((z - FRONT_BACK) / GATE)[:, None]
    side = got[:, 2]
    if n == 5:
        side = torch.lerp(got[:, 3], side, torch.sigmoid(x / SIDES)[:, None])
    mixed = got[:, 0] * gate + got[:, 1] * (1 - gate) + side + got[:, -1]
    return (mixed / 3).transpose(1, 2)

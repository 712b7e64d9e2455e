"""Four tri-plane-like feature planes and their decoder: what the head generator's planes mean.

Source: EG3D (Chan et al. 2022, section 3.2) for planes and decoder. A plane more than theirs: the
front and the back of a head share (x, y), so each half has a plane of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.stylegan2 import FullyConnected

FRONT_BACK = -0.1  # of the box's half side: where front hands over to back,
GATE = 0.06  # and how softly


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
    """Features [B, N, C] of planes [B, 4, C, R, R] at points [B, N, 3] in -1..1: the mean of
    (x, y) on the front or the back plane, softly switched by z, (z, y) and (x, z)."""
    b, _, c, _, _ = planes.shape
    x, y, z = unit.unbind(-1)
    pairs = torch.stack([torch.stack(p, -1) for p in ((x, y), (x, y), (z, y), (x, z))], 1)
    got = F.grid_sample(
        planes.flatten(0, 1),
        pairs.flatten(0, 1)[:, None],
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    ).reshape(b, 4, c, -1)
    gate = torch.sigmoid((z - FRONT_BACK) / GATE)[:, None]
    mixed = got[:, 0] * gate + got[:, 1] * (1 - gate) + got[:, 2] + got[:, 3]
    return (mixed / 3).transpose(1, 2)

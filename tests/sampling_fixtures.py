"""A tiny EG3D sampler whose heads are ellipsoids: quick, and known in advance."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from engine.device import Compute
from engine.render.volume import RaySettings
from engine.sampling.eg3d import EG3DSampler
from engine.systems.eg3d.config import FFHQ512, SuperResolutionConfig
from engine.systems.eg3d.generator import EG3DGenerator

SIZE = 48  # of the planes: the ellipsoids' polynomials must not show their pixels
TINY = dataclasses.replace(
    FFHQ512,
    field=dataclasses.replace(FFHQ512.field, rays=RaySettings(2.25, 3.3, 24, 24)),
    z_dim=16,
    w_dim=16,
    plane_resolution=32,
    plane_channels=4,
    channel_base=128,
    channel_max=8,
    decoder_hidden=8,
    neural_resolution=16,
    superresolution=SuperResolutionConfig(input_resolution=16, channels=(8, 4)),
)


class Ellipsoids(nn.Module):
    """In a synthesis network's place: planes whose mean's first channel is 1 - r^2 / R^2 less 1,
    with a radius and a colour from the rows of w."""

    def __init__(self, num_ws: int) -> None:
        super().__init__()
        self.num_ws = num_ws

    def forward(self, ws: torch.Tensor, noise_mode="const", generators=None) -> torch.Tensor:
        at = (torch.arange(SIZE) + 0.5) / SIZE - 0.5
        planes = torch.zeros(len(ws), 3, 4, SIZE, SIZE)
        radius = 0.22 + 0.03 * torch.tanh(ws[:, 0].mean(-1))
        squares = 3 * at**2 / radius[:, None] ** 2  # [B, SIZE]; the planes' mean divides by three
        planes[:, 0, 0] = -squares[:, None, :] - squares[:, :, None]
        planes[:, 1, 0] = -squares[:, :, None].expand(-1, -1, SIZE)
        planes[:, 0, 1:] = 3 * torch.tanh(ws[:, -3:].mean(-1))[:, :, None, None]
        return planes.flatten(1, 2)


def tiny_sampler(name: str = "tiny", sha256: str = "aa", density: float = 10.0) -> EG3DSampler:
    """density: at the ellipsoid's surface; the level is 10, inside it rises to density + 300."""
    torch.manual_seed(0)
    model = EG3DGenerator(TINY).eval().requires_grad_(False)
    model.backbone.synthesis = Ellipsoids(model.num_ws)
    first, last = model.decoder.net[0], model.decoder.net[2]
    for layer in (first, last):
        layer.weight.zero_(), layer.bias.zero_()
    for k in range(4):  # softplus is as good as linear so far from zero
        first.weight[k, k] = 1 / first.weight_gain
        first.bias[k] = 20
        last.weight[k, k] = (300 if k == 0 else 1) / last.weight_gain
        last.bias[k] = density + 300 - 300 * 20 if k == 0 else -20
    model.backbone.mapping.w_avg.copy_(torch.linspace(-0.5, 0.5, 16))
    return EG3DSampler(model, name, sha256, Compute(torch.device("cpu"), torch.float32))

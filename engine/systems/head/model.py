"""Our own head model: a linear head space for shape, an EG3D-type generator for appearance.

    identity, expression, hair style  --head space-->  signed distance, warp to canonical space
    w+  --StyleGAN2 synthesis-->  tri-planes (xy front, xy back, zy, xz) in canonical space
    plane features at canonical points  --decoder-->  colour, bounded residual of the distance

Because planes live in canonical space, an eye is always at the same place of a plane, whoever's
head it is: a small generator learns appearance, not shape. Source of the parts: EG3D (Chan et al.
2022) for planes and decoder, StyleGAN2 (Karras et al. 2020) for the synthesis, 3D morphable models
(Blanz and Vetter 1999) for the head space, VolSDF (Yariv et al. 2021) for density from distance.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.planes import PlaneDecoder, sample_planes
from engine.networks.stylegan2 import SynthesisNetwork, normalise


@dataclass(frozen=True)
class HeadConfig:
    """Sizes of the shipped default; kept in the weights' metadata."""

    w_dim: int = 128
    plane_resolution: int = 128
    plane_channels: int = 20
    channel_base: int = 4096
    channel_max: int = 128
    decoder_width: int = 64
    box: float = 0.2  # half side of the box in metres

    def to_json(self) -> dict:
        return asdict(self)


class HeadGenerator(nn.Module):
    """w+ -> planes; planes at canonical points -> colour and residual."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.synthesis = SynthesisNetwork(
            config.w_dim,
            config.plane_resolution,
            4 * config.plane_channels,
            channel_base=config.channel_base,
            channel_max=config.channel_max,
            use_noise=False,
        )
        self.decoder = PlaneDecoder(config.plane_channels, config.decoder_width)
        # The mean head's appearance: what all heads share need not go through the synthesis.
        shape = (4, config.plane_channels, config.plane_resolution, config.plane_resolution)
        self.mean_planes = nn.Parameter(torch.zeros(shape))
        self.register_buffer("w_avg", torch.zeros(self.num_ws, config.w_dim))

    @property
    def num_ws(self) -> int:
        return self.synthesis.num_ws

    def planes(self, ws: Tensor) -> Tensor:
        """[B, num_ws, w_dim] -> [B, 4, C, R, R]."""
        out = self.synthesis(ws)
        return out.unflatten(1, (4, self.config.plane_channels)) + self.mean_planes

    def forward(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """planes [B, 4, C, R, R], canonical points [B, N, 3] (metres) -> colour [B, N, 3] in 0..1,
        residual [B, N] in -1..1 (times the head space's bound)."""
        return self.decoder(sample_planes(planes, points / self.config.box))


class ResidualDown(nn.Module):
    """3x3 convolutions with a strided shortcut: [B, i, H, W] -> [B, o, H / 2, W / 2]."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(i, o, 3, 2, 1), nn.Conv2d(o, o, 3, 1, 1)
        self.skip = nn.Conv2d(i, o, 1)
        self.norm = nn.GroupNorm(8, o)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(F.leaky_relu(self.norm(self.a(x)), 0.2))
        return F.leaky_relu(y + self.skip(F.avg_pool2d(x, 2)), 0.2)


class AppearanceEncoder(nn.Module):
    """Aligned head picture with everything but the head blacked out -> w+.

    Input [B, 4, 128, 128]: RGB in -1..1 times the mask, and the mask. Output [B, num_ws, w_dim]:
    one w for all rows plus a per-row offset.
    """

    WIDTHS = (24, 48, 96, 160, 224)

    def __init__(self, num_ws: int, w_dim: int) -> None:
        super().__init__()
        widths = (4, *self.WIDTHS)
        self.down = nn.Sequential(*(ResidualDown(i, o) for i, o in zip(widths, widths[1:])))
        self.mix = nn.Linear(widths[-1] * 16, 320)
        self.to_w = nn.Linear(320, w_dim)
        self.to_offsets = nn.Linear(320, num_ws * w_dim)
        self.shape = (num_ws, w_dim)
        nn.init.zeros_(self.to_offsets.weight)
        nn.init.zeros_(self.to_offsets.bias)

    def forward(self, picture: Tensor) -> Tensor:
        x = self.down(picture).flatten(1)
        x = F.leaky_relu(self.mix(x), 0.2)
        # A base w of unit size keeps the styles, and with them training, in scale.
        return normalise(self.to_w(x))[:, None] + self.to_offsets(x).unflatten(1, self.shape)

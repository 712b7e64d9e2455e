"""Our own head model: a linear head space for shape, an EG3D-type generator for appearance.

    identity, expression, hair style  --head space-->  signed distance, warp to canonical space
    w+  --StyleGAN2 synthesis-->  tri-planes (xy front, xy back, zy, xz) in canonical space
    raw planes  --one more block, the last row of w+-->  the three upright planes at twice the size
    plane features at canonical points  --decoder-->  colour, bounded residual of the distance

EG3D refines pictures (section 4.2), which a mesh with one texture cannot use: here planes are
refined, so detail is the same from every side. Because planes live in canonical space, an eye is
always at the same place of a plane, whoever's head it is: a small generator learns appearance, not
shape. Source of the parts: EG3D (Chan et al.
2022) for planes and decoder, StyleGAN2 (Karras et al. 2020) for the synthesis, 3D morphable models
(Blanz and Vetter 1999) for the head space, VolSDF (Yariv et al. 2021) for density from distance.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.planes import PlaneDecoder, sample_planes
from engine.networks.resample import upsample
from engine.networks.stylegan2 import SynthesisBlock, SynthesisNetwork, normalise

MAPS = 2  # of a hair style: where it is, and a pattern on it
UPRIGHT = 3  # planes that get finer: (x, y) front and back, (z, y)


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
    # What the first weights did not have:
    fine_channels: int = 0  # of the block that doubles the planes; 0: there is none
    hair_styles: int = 0  # of the layer that paints hair where a style has it; 0: there is none
    colour_grid: int = 0  # cells a side of the coarse picture that w+ also comes from; 0: none

    def to_json(self) -> dict:
        return asdict(self)


class HairLayer(nn.Module):
    """Hair, laid over the upright planes where the head's style has it.

    At a canonical point there is scalp on one head and hair on another, and a small synthesis that
    has to draw every style's outline by itself paints fair hair as bald skin. Here w+ says which
    style it is (a softmax, so mixtures are styles too) and what hair looks like (features); where
    a style's hair is, is kept as maps, which start as the head space's own hair masses seen from
    the front, the back and the side.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        r, self.channels = config.plane_resolution, config.plane_channels
        self.maps = nn.Parameter(torch.zeros(config.hair_styles, MAPS * UPRIGHT, r, r))
        self.to_style = nn.Linear(config.w_dim, config.hair_styles)
        self.to_look = nn.Linear(config.w_dim, MAPS * config.plane_channels)
        with torch.no_grad():  # the first map's look and the other maps start at nothing
            self.to_look.weight[: self.channels] = 0
            self.to_look.bias[: self.channels] = 0

    def styles(self, ws: Tensor) -> Tensor:
        """Logits of the hair weights [B, S] of w+ [B, n, w]."""
        return self.to_style(ws.mean(1))

    def forward(self, ws: Tensor, hair: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[B, n, w] -> what is added to the upright planes [B, 3, C, r, r], and how much of them
        hair covers [B, 3, r, r], 0..1. hair [B, S]: the weights of the styles if they are known,
        from the shape; else w+ says."""
        share = self.styles(ws).softmax(1) if hair is None else hair
        maps = torch.tensordot(share, self.maps, 1)
        maps = maps.unflatten(1, (MAPS, UPRIGHT))
        look = self.to_look(ws.mean(1)).unflatten(1, (MAPS, self.channels))
        return torch.einsum("bkphw,bkc->bpchw", maps, look), maps[:, 0].clamp(0, 1)


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
        self.hair = None
        if config.hair_styles:
            self.hair = HairLayer(config)
        self.fine = None
        if config.fine_channels:
            size, last = 2 * config.plane_resolution, f"b{config.plane_resolution}"
            width = getattr(self.synthesis, last).conv1.weight.shape[0]
            self.fine = SynthesisBlock(
                width,
                config.fine_channels,
                config.w_dim,
                size,
                UPRIGHT * config.plane_channels,
                use_noise=False,
            )
            nn.init.zeros_(self.fine.torgb.weight)  # starts as the raw planes, doubled
            self.fine_mean = nn.Parameter(torch.zeros(UPRIGHT, *shape[1:2], size, size))

    @property
    def num_ws(self) -> int:
        return self.synthesis.num_ws

    def planes(self, ws: Tensor, hair: Tensor | None = None) -> Tensor:
        """[B, num_ws, w_dim] -> [B, 4, C, R, R]; R is twice plane_resolution with a fine block.
        hair [B, styles]: the head's hair weights, where they are known better than from w+."""
        return self.both(ws, hair)[1]

    def raw(self, ws: Tensor, hair: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The backbone's last features [B, F, r, r], raw planes [B, 4, C, r, r], and how much of
        the upright ones hair covers (None without a hair layer)."""
        x, out = self.synthesis.features(ws)
        out = out.unflatten(1, (4, self.config.plane_channels)) + self.mean_planes
        if self.hair is None:
            return x, out, None
        with torch.autocast(out.device.type, enabled=False):
            added, cover = self.hair(ws.float(), hair)
            out = torch.cat([out[:, :UPRIGHT] + added, out[:, UPRIGHT:]], 1)
        return x, out, cover

    def both(self, ws: Tensor, hair: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The raw planes, and what planes() returns."""
        x, raw, cover = self.raw(ws, hair)
        if self.fine is None:
            return raw, raw
        _, detail = self.fine(x, None, ws[:, -1:].expand(-1, 3, -1))
        with torch.autocast(raw.device.type, enabled=False):
            # Upright detail only: from above nobody looks closely. Its sum is written once.
            shared = self.fine_mean
            if cover is not None:  # nobody's eyes shine through a fringe
                cover = F.interpolate(cover, shared.shape[-2:], mode="bilinear")
                shared = shared * (1 - cover[:, :, None])
            detail = detail.unflatten(1, (UPRIGHT, -1)) + shared
            doubled = upsample(raw.flatten(1, 2)).unflatten(1, raw.shape[1:3])
            top, rest = doubled.split([UPRIGHT, 4 - UPRIGHT], 1)
            return raw, torch.cat([top + detail, rest], 1)

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
    one w for all rows plus a per-row offset. colour_grid: cells a side of the coarse picture that
    goes straight to the mixing layer, since the group norms on the way down forget how light and
    how red hair and skin are; 0 for none.
    """

    WIDTHS = (24, 48, 96, 160, 224)

    def __init__(self, num_ws: int, w_dim: int, colour_grid: int = 0) -> None:
        super().__init__()
        widths = (4, *self.WIDTHS)
        self.down = nn.Sequential(*(ResidualDown(i, o) for i, o in zip(widths, widths[1:])))
        self.mix = nn.Linear(widths[-1] * 16, 320)
        self.to_w = nn.Linear(320, w_dim)
        self.to_offsets = nn.Linear(320, num_ws * w_dim)
        self.shape, self.colour_grid = (num_ws, w_dim), colour_grid
        if colour_grid:
            self.colour = nn.Linear(4 * colour_grid**2, 320, bias=False)
            nn.init.zeros_(self.colour.weight)
        nn.init.zeros_(self.to_offsets.weight)
        nn.init.zeros_(self.to_offsets.bias)

    def forward(self, picture: Tensor) -> Tensor:
        x = self.mix(self.down(picture).flatten(1))
        if self.colour_grid:
            x = x + self.colour(F.adaptive_avg_pool2d(picture, self.colour_grid).flatten(1))
        x = F.leaky_relu(x, 0.2)
        # A base w of unit size keeps the styles, and with them training, in scale.
        return normalise(self.to_w(x))[:, None] + self.to_offsets(x).unflatten(1, self.shape)

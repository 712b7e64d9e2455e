"""The small LRM for heads: a picture's tokens and five lifted views in, planes out, in one pass.

    picture, its classes   --convolutions-->  16 x 16 picture tokens
    five lifted views      --convolutions-->  5 x 8 x 8 plane tokens (+ learned embedding)
    plane tokens           --self-attention, cross-attention to the picture's, MLP-->  plane tokens
    plane tokens           --convolutions up, with the views' features-->  five maps of 128 x 128
    maps + the views' own pixels  -->  planes; planes at canonical points  --decoder-->  colour,
                                                                          residual of the hair

As in LRM (Hong et al. 2023) learned plane tokens ask the picture's through cross-attention, and
nothing is optimised for a picture. Two things are other than there, because an hour of one
processor core has to do for what LRM had 128 GPUs: planes live on the canonical head, whose
distance is the prior, and a texel that the picture shows takes the picture's own colour (lift.py),
so that the network has to paint what is not seen, and to see where the shape is wrong.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.planes import PlaneDecoder, sample_planes
from engine.networks.transformer import GatedBlock
from engine.systems.lrm.lift import CHANNELS, VIEWS, Views, mirrored

PICTURE = 6  # channels: colour, matte, skin, hair
OWN = 4  # channels of a plane that are not free: colour as logits, and its weight
MARGIN = 0.02  # colours are kept this far from 0 and 1 before their logit is taken
# What skin and hair are like that the picture does not show at all (as logits of display colours),
# counting as much as this many texels that it shows.
USUAL, TEXELS = ((0.8, 0.1, -0.3), (-1.0, -1.4, -1.7)), 20.0
MIRRORED = 0.8  # how far the other half of the head is believed


@dataclass(frozen=True)
class HeadLrmConfig:
    """Sizes of the shipped model; kept in the weights' metadata. features: free channels of a
    plane; box: half side of the planes' box in metres."""

    width: int = 192
    layers: int = 5
    heads: int = 6
    features: int = 16
    decoder_width: int = 64
    box: float = 0.2

    def to_json(self) -> dict:
        return asdict(self)


class _Down(nn.Module):
    """[B, i, H, W] -> [B, o, H / 2, W / 2]: a residual block."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(i, o, 3, 2, 1), nn.Conv2d(o, o, 3, 1, 1)
        self.skip = nn.Conv2d(i, o, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(F.silu(self.a(x)))
        return F.silu(y + self.skip(F.avg_pool2d(x, 2)))


class _Up(nn.Module):
    """[B, i, H, W] and features [B, s, 2 H, 2 W] -> [B, o, 2 H, 2 W]."""

    def __init__(self, i: int, s: int, o: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(i, o, 1)
        self.a, self.b = nn.Conv2d(o + s, o, 3, 1, 1), nn.Conv2d(o, o, 3, 1, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(self.reduce(x), scale_factor=2.0, mode="nearest")
        y = F.silu(self.a(torch.cat([x, skip], 1)))
        return F.silu(x + self.b(y))


def likely(views: Tensor) -> Tensor:
    """Colours [B, 5, 3, S, S] (logits) to start from where the picture shows nothing: what it shows
    of the other half of the head, else its mean of skin or of hair. views: of Views.stack()."""
    colour, seen = _logits(views[:, :, :3]), views[:, :, 6:7]
    shown = views[:, :, 4:6]  # skin, hair
    hair = (2 * views[:, :, 8:9] - 1).clamp(0, 1)  # of the perceived surface
    usual = colour.new_tensor(USUAL)
    weight = (seen * shown).movedim(2, 0)  # 2 B 5 S S
    total = torch.einsum("kbvyx,bvcyx->bkc", weight, colour) + TEXELS * usual
    mean = total / (weight.sum((2, 3, 4)).T[..., None] + TEXELS)
    skin_mean, hair_mean = mean[:, None, :, :, None, None].unbind(2)
    out = torch.lerp(skin_mean.expand_as(colour), hair_mean.expand_as(colour), hair)
    other, other_hair = mirrored(colour), mirrored(shown[:, :, 1:])
    belief = MIRRORED * mirrored(seen) * (1 - (other_hair - hair).abs())
    return torch.lerp(out, other, belief)


def _logits(colour: Tensor) -> Tensor:
    return torch.logit(colour.clamp(MARGIN, 1 - MARGIN))


class HeadLrm(nn.Module):
    """Picture and lifted views -> planes; planes at canonical points -> colour and residual."""

    DOWN = (20, 40, 80)  # channels at 64, 32, 16

    def __init__(self, config: HeadLrmConfig) -> None:
        super().__init__()
        self.config = config
        width, n = config.width, len(VIEWS)
        a, b, c = self.DOWN
        self.view_down = nn.ModuleList(
            [_Down(CHANNELS + 3 + n, a), _Down(a, b), _Down(b, c), _Down(c, width)]
        )
        self.picture_down = nn.Sequential(_Down(PICTURE, 24), _Down(24, 64), _Down(64, width))
        self.view_tokens = nn.Parameter(0.02 * torch.randn(n, width, 8, 8))
        self.picture_tokens = nn.Parameter(0.02 * torch.randn(1, width, 16, 16))
        self.layers = nn.ModuleList(
            GatedBlock(width, config.heads, width) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.view_up = nn.ModuleList([_Up(width, c, c), _Up(c, b, b), _Up(b, a, a)])
        # A finest step without convolutions of its own: four texels from one.
        self.outputs = 1 + 3 + config.features
        self.last = nn.Conv2d(a, 4 * self.outputs, 3, 1, 1)
        # What all heads share, learned at once: colour and features of the mean head.
        self.mean = nn.Parameter(torch.zeros(n, self.outputs - 1, 64, 64))
        self.decoder = PlaneDecoder(OWN + config.features, config.decoder_width)
        self._begin()

    def _begin(self) -> None:
        """Starts as what needs no learning: the picture where it is seen."""
        with torch.no_grad():
            self.last.weight *= 0.1
            self.last.bias.zero_()
            for layer in self.layers:  # the residual stream starts as it came in
                layer.attn1.to_out[0].weight *= 0.2
                layer.attn2.to_out[0].weight *= 0.2
            first, second = self.decoder.net[0], self.decoder.net[2]
            first.weight[: 2 * 3] = 0
            second.weight[:3] *= 0.1
            for k in range(3):
                # softplus(x) - softplus(-x) = x: logits go through; sample_planes takes a third.
                for row, sign in ((2 * k, 1.0), (2 * k + 1, -1.0)):
                    first.weight[row, k] = sign * 3 / first.weight_gain
                    second.weight[:3, row] = 0
                    second.weight[k, row] = sign / second.weight_gain

    def maps(self, picture: Tensor, views: Tensor) -> Tensor:
        """picture [B, 6, 128, 128] and views [B, 5, 9, 128, 128] in 0..1 -> what is to be painted
        [B, 5, 1 + 3 + features, 128, 128]: trust in the picture (a logit), colour (logits),
        features."""
        b, n = views.shape[:2]
        base = likely(views)
        marks = torch.eye(n, device=views.device)[:, :, None, None].expand(
            b, n, n, *views.shape[3:]
        )
        x = torch.cat([views * 2 - 1, base.sigmoid() * 2 - 1, marks], 2).flatten(0, 1)
        stack = []
        for layer in self.view_down:
            x = layer(x)
            stack.append(x)
        context = self.picture_down(picture * 2 - 1) + self.picture_tokens
        context = context.flatten(2).transpose(1, 2)
        tokens = (x.unflatten(0, (b, n)) + self.view_tokens).flatten(3).permute(0, 1, 3, 2)
        tokens = tokens.flatten(1, 2).float()
        for layer in self.layers:
            tokens = layer(tokens, context)
        tokens = self.norm(tokens)
        x = tokens.transpose(1, 2).unflatten(2, (n, 8, 8)).transpose(1, 2).flatten(0, 1)
        for layer, skip in zip(self.view_up, stack[-2::-1], strict=True):
            x = layer(x, skip)
        out = F.pixel_shuffle(self.last(x), 2).float().unflatten(0, (b, n))
        mean = F.interpolate(self.mean, scale_factor=2.0, mode="bilinear", align_corners=False)
        trust, colour, features = out.split([1, 3, self.config.features], 2)
        mean_colour, mean_features = mean.split([3, self.config.features], 1)
        return torch.cat([trust, colour + mean_colour + base, features + mean_features], 2)

    def planes(self, maps: Tensor, colour: Tensor, seen: Tensor, share: Tensor) -> Tensor:
        """Planes [B, 5, 4 + features, R, R].

        maps: of maps(), enlarged where R is more than 128; colour [B, 5, 3, R, R] in 0..1, seen
        and share [B, 5, R, R]: of Views. Each view is a picture of the head from its side, the
        lifted one where it is seen; at a point the views are mixed by how far each looks at it.
        """
        if maps.shape[-1] != colour.shape[-1]:
            times = colour.shape[-1] / maps.shape[-1]
            maps = F.interpolate(
                maps.flatten(0, 1), scale_factor=times, mode="bilinear", align_corners=False
            ).unflatten(0, maps.shape[:2])
        trust, painted, features = maps.split([1, 3, self.config.features], 2)
        shown = _logits(colour)
        trust = torch.sigmoid(trust + 3) * seen[:, :, None]
        mixed = torch.lerp(painted, shown, trust) * share[:, :, None]
        return torch.cat([mixed, share[:, :, None], features], 2)

    def forward(self, picture: Tensor, views: Views | Tensor) -> Tensor:
        """The planes of pictures [B, 6, 128, 128]; see maps() and planes()."""
        stacked = views.stack() if isinstance(views, Views) else views
        maps = self.maps(picture, stacked)
        return self.planes(maps, stacked[:, :, :3], stacked[:, :, 6], stacked[:, :, 7])

    def decode(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """planes [B, 5, C, R, R], canonical points [B, N, 3] (metres) -> colour [B, N, 3] in 0..1,
        residual [B, N] in -1..1 (times the head space's bound)."""
        return self.decoder(sample_planes(planes, points / self.config.box))

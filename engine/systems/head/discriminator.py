"""The discriminator of the head model's adversarial stage.

Source: StyleGAN2's residual discriminator with minibatch deviation (Karras et al. 2020), EG3D's
dual discrimination and camera conditioning by projection (Chan et al. 2022, section 4.3; Miyato and
Koyama 2018). What is its own: the full picture comes as pixels folded into channels, which quarters
the cost of the first layers and loses nothing; and besides the verdict on the whole there is one on
every patch of the 16 x 16 level (Isola et al. 2017), which tells a generator far sooner where it is
soft.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.stylegan2 import FullyConnected

WIDTHS = (32, 64, 96, 128, 128, 128)  # at 128, 64, ... 4 pixels


class EqualConv(nn.Module):
    """Convolution with equalised learning rate, and leaky ReLU with gain sqrt 2 if `act`."""

    def __init__(self, i: int, o: int, size: int, act: bool = True, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i, size, size))
        self.bias = nn.Parameter(torch.zeros(o)) if bias else None
        self.gain, self.act = 1 / math.sqrt(i * size * size), act

    def forward(self, x: Tensor) -> Tensor:
        size = self.weight.shape[-1]
        x = F.conv2d(x, self.weight * self.gain, self.bias, padding=size // 2)
        return F.leaky_relu(x, 0.2) * math.sqrt(2) if self.act else x


class Block(nn.Module):
    """[B, i, H, W] -> [B, o, H / 2, W / 2]."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.a, self.b = EqualConv(i, i, 3), EqualConv(i, o, 3)
        self.skip = EqualConv(i, o, 1, act=False, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.avg_pool2d(self.a(x), 2)
        return (self.b(y) + self.skip(F.avg_pool2d(x, 2))) * math.sqrt(0.5)


class HeadDiscriminator(nn.Module):
    """Pictures and where they were taken from -> verdicts and features.

    picture [B, 3, 2 r, 2 r] in -1..1, 0 where no head is; raw [B, 3, r, r], the same view of the
    raw planes; direction [B, 3], unit vector from the head to the camera. Returns verdicts on the
    whole [B], on patches [B, r / 8, r / 8], and the features of the first three levels.
    """

    def __init__(self, size: int = 128, widths: tuple[int, ...] = WIDTHS, camera: int = 64) -> None:
        super().__init__()
        if size != 2 ** (len(widths) + 1):
            raise ValueError(f"{len(widths)} levels end at 4 pixels from {2 ** (len(widths) + 1)}")
        self.enter = EqualConv(15, widths[0], 1)
        self.blocks = nn.ModuleList(
            Block(i, o) for i, o in zip(widths, widths[1:], strict=False)
        )
        self.patch = nn.Sequential(EqualConv(widths[3], 64, 1), EqualConv(64, 1, 1, act=False))
        self.last = EqualConv(widths[-1] + 1, widths[-1], 3)
        self.mix = FullyConnected(widths[-1] * 16, camera, activation="lrelu")
        self.camera = nn.Sequential(
            FullyConnected(3, camera, activation="lrelu"), FullyConnected(camera, camera)
        )
        self.out = FullyConnected(camera, 1)

    def forward(
        self, picture: Tensor, raw: Tensor, direction: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        x = self.enter(torch.cat([F.pixel_unshuffle(picture, 2), raw], 1))
        features, patches = [], None
        for k, block in enumerate(self.blocks):
            x = block(x)
            if k < 3:
                features.append(x)
            if k == 2:
                patches = self.patch(x)[:, 0].float()
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            # Minibatch deviation: a batch of twins gives itself away.
            spread = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()
            x = self.last(torch.cat([x, spread.expand(len(x), 1, *x.shape[2:])], 1))
            x = self.mix(x.flatten(1))
            asked = self.camera(direction.float())
            whole = self.out(x)[:, 0] + (x * asked).sum(1) / math.sqrt(x.shape[1])
        return whole, patches, features

"""What our own small network sees in an aligned portrait: classes, landmarks, shape, pose.

Trained on synthetic heads only (engine/training/train_perception.py). One residual U-Net trunk,
several heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = ("background", "skin", "hair", "garment", "glasses")
SIZE = 128


@dataclass
class Perception:
    """For a batch of B pictures.

    classes [B, 5, 128, 128] logits; landmarks [B, 84, 2] in 0..1 of the picture (x right, y down),
    spread [B, 84] their standard deviation in the same unit; identity [B, Ki] and expression
    [B, Ke] coefficients; hair [B, S] logits of styles; pose [B, 6]: yaw, pitch, roll of the
    camera about the head (radians), the head origin's place (x, y in 0..1) and log of the
    picture's height in metres at the origin's distance.
    """

    classes: Tensor
    landmarks: Tensor
    spread: Tensor
    identity: Tensor
    expression: Tensor
    hair: Tensor
    pose: Tensor


class Block(nn.Module):
    def __init__(self, i: int, o: int, stride: int = 1) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(i, o, 3, stride, 1), nn.Conv2d(o, o, 3, 1, 1)
        self.norm = nn.GroupNorm(8, o)
        self.skip = nn.Conv2d(i, o, 1)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(F.silu(self.norm(self.a(x))))
        return F.silu(y + self.skip(F.avg_pool2d(x, 2) if self.stride == 2 else x))


class PerceptionNet(nn.Module):
    """[B, 3, 128, 128] in -1..1 -> Perception."""

    WIDTHS = (16, 32, 64, 112, 160, 224)  # at 128, 64, 32, 16, 8, 4

    def __init__(self, identity: int = 64, expression: int = 20, styles: int = 11) -> None:
        super().__init__()
        w = self.WIDTHS
        self.stem = nn.Conv2d(3, w[0], 3, 1, 1)
        self.down = nn.ModuleList(Block(i, o, 2) for i, o in zip(w, w[1:]))
        self.up = nn.ModuleList(Block(i + o, o) for o, i in zip(w[1:-1], w[2:]))  # 64 .. 8
        self.squeeze = nn.Conv2d(w[0] + w[1], w[0], 1)
        self.final = nn.Conv2d(w[0], w[0], 3, 1, 1)
        self.to_classes = nn.Conv2d(w[0], len(CLASSES), 1)
        self.to_heat = nn.Conv2d(w[1], 84, 1)
        self.mix = nn.Linear(w[-1] * 16, 384)
        self.sizes = (identity, expression, styles, 6)
        self.to_numbers = nn.Linear(384, sum(self.sizes))

    def forward(self, x: Tensor) -> Perception:
        x = F.silu(self.stem(x))
        stack = [x]
        for block in self.down:
            stack.append(block(stack[-1]))
        deep = stack[-1]
        numbers = self.to_numbers(F.silu(self.mix(deep.flatten(1)))).float()
        y = deep
        for block, skip in zip(reversed(self.up), reversed(stack[1:-1])):
            y = block(torch.cat([F.interpolate(y, scale_factor=2.0, mode="nearest"), skip], 1))
        landmarks, spread = soft_argmax(self.to_heat(y).float())
        y = F.interpolate(y, scale_factor=2.0, mode="nearest")
        y = F.silu(self.squeeze(torch.cat([y, stack[0]], 1)))
        classes = self.to_classes(F.silu(self.final(y))).float()
        identity, expression, hair, pose = numbers.split(self.sizes, 1)
        return Perception(classes, landmarks, spread, identity, expression, hair, pose)


def soft_argmax(heat: Tensor) -> tuple[Tensor, Tensor]:
    """Heat maps [B, K, H, W] -> expected position [B, K, 2] in 0..1 and spread [B, K]."""
    b, k, h, w = heat.shape
    p = heat.flatten(2).softmax(-1).unflatten(2, (h, w))
    x = (torch.arange(w, device=heat.device) + 0.5) / w
    y = (torch.arange(h, device=heat.device) + 0.5) / h
    px, py = p.sum(2), p.sum(3)
    mean = torch.stack([(px * x).sum(-1), (py * y).sum(-1)], -1)
    variance = (px * x.square()).sum(-1) + (py * y.square()).sum(-1) - mean.square().sum(-1)
    return mean, variance.clamp_min(1e-8).sqrt()

"""How far a view is from a picture: pixels on several scales, and features of our own network.

Published inversions use LPIPS, whose weights come from networks trained on other people's photos.
Ours take the perception network's first features instead (trained on synthetic heads): they see
edges and places rather than colours, which is what pixels alone are slow to move.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.portrait.perception import SIZE, PerceptionNet

SCALES = 3  # of pixels, each half the one before
LEVELS = (1, 2, 3)  # of the network's features: 64, 32 and 16 a side
FEATURES = 0.5  # weight of the features against the pixels
TINY = 1e-6


class Likeness:
    """The loss of one camera's picture."""

    def __init__(self, picture: Tensor, weight: Tensor, net: PerceptionNet | None) -> None:
        """picture: [3, R, R] in 0..1; weight: [R, R] in 0..1, how much each pixel counts; net: None
        for pixels alone; all on one device."""
        self._net = net
        self._pictures = _halved(picture[None])
        self._weights = [w / w.sum().clamp_min(TINY) for w in _halved(weight[None, None])]
        if net is not None:
            with torch.no_grad():
                self._features = self._look(picture)
            self._masks = []
            for f in self._features:
                mask = F.interpolate(weight[None, None], f.shape[-2:], mode="area")
                self._masks.append(mask / mask.sum().clamp_min(TINY))

    def __call__(self, image: Tensor) -> Tensor:
        """image: [3, R, R] in 0..1 -> the loss, a number."""
        total = image.new_zeros(())
        for ours, theirs, weight in zip(_halved(image[None]), self._pictures, self._weights):
            away = ((ours - theirs).square().sum(1, keepdim=True) + 1e-5).sqrt()
            total = total + (weight * away).sum() / SCALES
        if self._net is not None:
            for ours, theirs, mask in zip(self._look(image), self._features, self._masks):
                away = (ours - theirs).square().sum(1, keepdim=True)
                total = total + FEATURES / len(LEVELS) * (mask * away).sum()
        return total

    def _look(self, image: Tensor) -> list[Tensor]:
        """Features [1, C, h, w] of the levels, of unit length at each place."""
        whole = F.interpolate(image[None], (SIZE, SIZE), mode="bilinear", align_corners=False)
        stack = first_features(self._net, whole * 2 - 1)
        return [f / (f.square().sum(1, keepdim=True) + TINY).sqrt() for f in stack]


def first_features(net: PerceptionNet, pictures: Tensor) -> list[Tensor]:
    """What the network's blocks at LEVELS say of pictures [B, 3, 128, 128] in -1..1."""
    x, found = F.silu(net.stem(pictures)), []
    for level, block in enumerate(net.down[: max(LEVELS)], 1):
        x = block(x)
        if level in LEVELS:
            found.append(x)
    return found


def _halved(x: Tensor) -> list[Tensor]:
    """x [1, C, R, R] on all scales."""
    out = [x]
    while len(out) < SCALES and out[-1].shape[-1] >= 16:
        out.append(F.avg_pool2d(out[-1], 2))
    return out

"""Sizes of SVINet: the published ones, and our own small ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SvinetConfig:
    """size: pixels a side; width: channels of the first layer, doubled at each of `downs` halvings
    up to max_width; blocks: modulated residual blocks; ratio: the global share of channels in the
    middle; style_dim: of a row of w+; fold: pixels a side that are folded into channels before the
    first layer and unfolded after the last; kernel: of these two layers; mixes: see
    SviNet.forward."""

    size: int = 512
    width: int = 64
    downs: int = 3
    blocks: int = 9
    ratio: float = 0.75
    max_width: int = 1024
    style_dim: int = 512
    fold: int = 1
    kernel: int = 7
    mixes: bool = False

    def channels(self, level: int) -> int:
        """After `level` halvings."""
        return min(self.max_width, self.width * 2**level)


PUBLISHED = SvinetConfig()  # WarpGAN, arXiv 2511.08178: configs/train_inpainting.yaml
# Details come from the warped pictures and the first fill, so that all of it may work on 64 x 64
# places: a folded 3x3 sees as far as an 11x11, at a fraction of the cost.
SMALL = SvinetConfig(
    size=256, width=64, downs=1, blocks=5, style_dim=128, fold=4, kernel=3, mixes=True
)

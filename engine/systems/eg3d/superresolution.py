"""EG3D's super-resolution for 512 images (the published SuperresolutionHybrid8XDC)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from engine.networks.stylegan2 import SynthesisBlock
from engine.systems.eg3d.config import SuperResolutionConfig


class SuperResolution(nn.Module):
    """Features and their first three channels as an image, to an image four times the size, in two
    modulated blocks that all take the last row of w. No noise is added, as published; its maps are
    only part of the state dict."""

    def __init__(self, channels: int, w_dim: int, config: SuperResolutionConfig) -> None:
        super().__init__()
        self.input_resolution = size = config.input_resolution
        first, second = config.channels
        self.block0 = SynthesisBlock(channels, first, w_dim, 2 * size, 3, clamp=config.clamp)
        self.block1 = SynthesisBlock(first, second, w_dim, 4 * size, 3, clamp=config.clamp)

    def forward(self, features: torch.Tensor, ws: torch.Tensor) -> torch.Tensor:
        """features [B, C, R, R] in -1..1, of any R; ws [B, num_ws, w_dim] -> image [B, 3, 4 S, 4 S]
        in about -1..1, float32; S is input_resolution, to which features are resized."""
        rgb = features[:, :3]
        if features.shape[-1] != self.input_resolution:
            size = (self.input_resolution, self.input_resolution)
            features, rgb = (
                F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
                for x in (features, rgb)
            )
        rows = ws[:, -1:].expand(-1, 3, -1)
        features = features.contiguous(memory_format=torch.channels_last)
        x, rgb = self.block0(features, rgb, rows, "none")
        return self.block1(x, rgb, rows, "none")[1]

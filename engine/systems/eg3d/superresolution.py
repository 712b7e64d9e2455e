"""EG3D's super-resolution: the published modules are all two modulated blocks and differ in sizes,
in whether the first one doubles the picture, and in details of the resizing before it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from engine.networks import resample
from engine.networks.stylegan2 import NoiseMode, SynthesisBlock, SynthesisLayer, ToRGB
from engine.systems.eg3d.config import SuperResolutionConfig


class FlatBlock(nn.Module):
    """A SynthesisBlock that keeps the size (the published SynthesisBlockNoUp)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        *,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("resample_filter", resample.fir_kernel())  # as published; not read
        self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, clamp=clamp)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, clamp=clamp)
        self.torgb = ToRGB(out_channels, img_channels, w_dim, clamp)

    def forward(
        self,
        x: torch.Tensor,
        img: torch.Tensor,
        ws: torch.Tensor,
        noise_mode: NoiseMode = "const",
        generators: Sequence[torch.Generator] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As SynthesisBlock.forward, but x and img already have this block's resolution. (The
        original adds to img in place, which spoils the raw image it hands back; this does not.)"""
        x = self.conv0(x, ws[:, 0], noise_mode, generators)
        x = self.conv1(x, ws[:, 1], noise_mode, generators)
        return x, img.float() + self.torgb(x, ws[:, 2]).float()


class SuperResolution(nn.Module):
    """Features and their first three channels as an image, to an image two or four times the size,
    in two modulated blocks that all take the last row of w."""

    def __init__(self, channels: int, w_dim: int, config: SuperResolutionConfig) -> None:
        super().__init__()
        self.config = config
        size, (first, second) = config.input_resolution, config.channels
        block = SynthesisBlock if config.doubles_first else FlatBlock
        middle = 2 * size if config.doubles_first else size
        self.block0 = block(channels, first, w_dim, middle, 3, clamp=config.clamp)
        self.block1 = SynthesisBlock(
            first, second, w_dim, config.output_resolution, 3, clamp=config.clamp
        )
        if config.has_filter:
            self.register_buffer("resample_filter", resample.fir_kernel())  # not read

    def forward(
        self,
        features: torch.Tensor,
        ws: torch.Tensor,
        generators: Sequence[torch.Generator] | None = None,
    ) -> torch.Tensor:
        """features [B, C, R, R] in -1..1, of any R; ws [B, num_ws, w_dim] -> image [B, 3, S, S] in
        about -1..1, float32. Features are resized to the input resolution (in the original, blocks
        that keep the size fail on larger ones).

        generators: one a sample, for a model that takes fresh noise (config.noise 'random');
        without them it gets its stored noise maps, so that the same field gives the same picture.
        """
        rgb, size = features[:, :3], self.config.input_resolution
        if features.shape[-1] != size:
            features, rgb = (
                F.interpolate(
                    x,
                    (size, size),
                    mode="bilinear",
                    align_corners=False,
                    antialias=self.config.antialias,
                )
                for x in (features, rgb)
            )
        noise: NoiseMode = self.config.noise
        if noise == "random" and generators is None:
            noise = "const"
        rows = ws[:, -1:].expand(-1, 3, -1)
        features = features.contiguous(memory_format=torch.channels_last)
        x, rgb = self.block0(features, rgb, rows, noise, generators)
        return self.block1(x, rgb, rows, noise, generators)[1]

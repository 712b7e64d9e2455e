"""StyleGAN2 layers: mapping, modulated convolution, synthesis.

Source: Karras et al. 2020 (StyleGAN2), as used by EG3D (Chan et al. 2022). Module and parameter
names follow the published checkpoints' state dicts one to one, so that official weights load with
strict=True; sizes are free, so that our own small default is another configuration.

Every forward is differentiable and runs under autocast; demodulation is always float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from engine.networks import resample
from engine.networks.modulated import modulated_conv

NoiseMode = Literal["const", "random", "none"]
Activation = Literal["linear", "lrelu"]

LRELU_SLOPE = 0.2
LRELU_GAIN = math.sqrt(2.0)  # keeps the variance of a normal input


def normalise(x: torch.Tensor) -> torch.Tensor:
    """x [B, C] divided by the root mean square of each row."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class FullyConnected(nn.Module):
    """A linear layer with equalised learning rate: stored weights have unit variance (divided by
    `lr_multiplier`), the effective ones are weight * lr_multiplier / sqrt(in_features).

    activation: 'linear', or 'lrelu' (slope 0.2, gain sqrt 2).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: Activation = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], float(bias_init)))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, in_features] -> [B, out_features]."""
        x = F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        if self.activation == "lrelu":
            x = F.leaky_relu(x, LRELU_SLOPE) * LRELU_GAIN
        return x


class MappingNetwork(nn.Module):
    """z, and a camera if c_dim > 0, to a style code w.

    num_layers may be 0: then w is the normalised input itself, whose width must be w_dim.
    num_ws: rows of w that the synthesis takes; w is repeated that often.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int,
        num_layers: int = 8,
        lr_multiplier: float = 0.01,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.num_ws, self.num_layers = num_ws, num_layers
        if c_dim > 0:
            self.embed = FullyConnected(c_dim, w_dim)
        width = z_dim + (w_dim if c_dim > 0 else 0)
        if num_layers == 0 and width != w_dim:
            raise ValueError(f"a mapping without layers needs {w_dim} inputs, not {width}")
        for i in range(num_layers):
            layer = FullyConnected(width, w_dim, activation="lrelu", lr_multiplier=lr_multiplier)
            self.add_module(f"fc{i}", layer)
            width = w_dim
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        psi: float = 1.0,
        cutoff: int | None = None,
    ) -> torch.Tensor:
        """z [B, z_dim], c [B, c_dim] -> ws [B, num_ws, w_dim].

        psi: truncation, 1 for none, 0 for the average w; cutoff: only the first rows get it.
        """
        x = normalise(z.float())
        if self.c_dim > 0:
            if c is None:
                raise ValueError(f"this mapping is conditioned on {self.c_dim} camera numbers")
            x = torch.cat([x, normalise(self.embed(c.float()).float())], 1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        return self.truncate(x.unsqueeze(1).expand(-1, self.num_ws, -1), psi, cutoff)

    def truncate(self, ws: torch.Tensor, psi: float, cutoff: int | None = None) -> torch.Tensor:
        """ws [B, num_ws, w_dim] pulled towards the average w; see forward()."""
        if psi == 1.0:
            return ws
        n = ws.shape[1] if cutoff is None else cutoff
        return torch.cat([self.w_avg.lerp(ws[:, :n], psi), ws[:, n:]], 1)

    @torch.no_grad()
    def track_average(self, w: torch.Tensor, beta: float = 0.998) -> None:
        """Move w_avg towards the mean of w [B, w_dim] (in training)."""
        self.w_avg.copy_(w.detach().float().mean(0).lerp(self.w_avg, beta))


def styles_of(affine: FullyConnected, w: torch.Tensor) -> torch.Tensor:
    """Styles [B, in] of w [B, w_dim] in float32, also under autocast: they scale everything."""
    with torch.autocast(w.device.type, enabled=False):
        return affine(w.float())


def clamped(x: torch.Tensor, limit: float | None) -> torch.Tensor:
    """x in -limit..limit (None: as it is); overwrites x where no gradient needs it."""
    if limit is None:
        return x
    return x.clamp(-limit, limit) if x.requires_grad else x.clamp_(-limit, limit)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, optional noise, bias, leaky ReLU, optional clamp.

    resolution: of the output (square); up: 1 or 2.
    use_noise: the layer owns a noise map and its strength, added before the bias.
    clamp: outputs are clamped to +-clamp after the activation's gain (published half-precision
        layers do this in float32 too); None for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        up: int = 1,
        use_noise: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.use_noise, self.clamp = resolution, up, use_noise, clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("resample_filter", resample.fir_kernel())  # as published; not read
        if use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))

    def _noise(
        self, batch: int, mode: NoiseMode, generators: Sequence[torch.Generator] | None
    ) -> torch.Tensor | None:
        """The noise to add, [B or 1, 1, R, R], or None."""
        if not self.use_noise or mode == "none":
            return None
        if mode == "const":
            return (self.noise_const * self.noise_strength)[None, None]
        if mode != "random":
            raise ValueError(f"noise mode {mode!r} is none of 'const', 'random', 'none'")
        size, like = (self.resolution, self.resolution), self.noise_const
        if generators is None:
            drawn = torch.randn((batch, *size), device=like.device)
        else:
            drawn = torch.stack(
                [torch.randn(size, generator=g, device=g.device) for g in generators]
            )
        return drawn.to(like)[:, None] * self.noise_strength

    def forward(
        self,
        x: torch.Tensor,
        w: torch.Tensor,
        noise_mode: NoiseMode = "const",
        generators: Sequence[torch.Generator] | None = None,
    ) -> torch.Tensor:
        """x [B, in, H, W], w [B, w_dim] -> [B, out, H * up, W * up].

        noise_mode: 'const' the stored map, 'random' a fresh one, 'none'.
        generators: one a sample for 'random', so that a sample's noise does not depend on its
            batch; None draws from torch's global generator.
        """
        noise = self._noise(len(x), noise_mode, generators)
        styles = styles_of(self.affine, w)
        # The activation's gain goes into the convolution: leaky ReLU commutes with it.
        x = modulated_conv(
            x, self.weight, styles, self.bias, up=self.up, gain=LRELU_GAIN, noise=noise
        )
        return clamped(F.leaky_relu(x, LRELU_SLOPE, inplace=True), self.clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation to `out_channels` (3 for a picture, three
    times the plane channels for a tri-plane); optional clamp."""

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1.0 / math.sqrt(in_channels)

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """x [B, in, H, W], w [B, w_dim] -> [B, out, H, W]."""
        styles = styles_of(self.affine, w) * self.weight_gain
        x = modulated_conv(x, self.weight, styles, self.bias, demodulate=False)
        return clamped(x, self.clamp)


class SynthesisBlock(nn.Module):
    """One resolution of the skip architecture: conv0 (doubles), conv1, and torgb whose output is
    added to the doubled image so far. in_channels 0 makes the first block: a learned constant and
    conv1 only. use_noise and clamp as in SynthesisLayer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        *,
        use_noise: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.num_conv = 2 if in_channels else 1
        self.register_buffer("resample_filter", resample.fir_kernel())  # as published; not read
        layer = {"use_noise": use_noise, "clamp": clamp}
        if in_channels:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up=2, **layer)
        else:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, **layer)
        self.torgb = ToRGB(out_channels, img_channels, w_dim, clamp)

    def forward(
        self,
        x: torch.Tensor | None,
        img: torch.Tensor | None,
        ws: torch.Tensor,
        noise_mode: NoiseMode = "const",
        generators: Sequence[torch.Generator] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and image of half the resolution (None in the first block; img may be None in
        any) and ws [B, num_conv + 1, w_dim] to features and image of this resolution. The image
        is float32 whatever the features are."""
        if self.num_conv == 1:
            x = self.const.expand(len(ws), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        else:
            x = self.conv0(x, ws[:, 0], noise_mode, generators)
        x = self.conv1(x, ws[:, self.num_conv - 1], noise_mode, generators)
        rgb = self.torgb(x, ws[:, self.num_conv]).float()
        if img is not None:
            with torch.autocast(rgb.device.type, enabled=False):
                rgb += resample.upsample(img.float())
        return x, rgb


class SynthesisNetwork(nn.Module):
    """Blocks b4, b8, ... up to img_resolution (a power of two, at least 4).

    Channels at resolution r: min(channel_base / r, channel_max). Each block takes the rows of w of
    its convolutions, and its torgb the first row of the next block, so num_ws is the number of
    convolutions plus one.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        use_noise: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        if img_resolution < 4 or img_resolution & (img_resolution - 1):
            raise ValueError(f"img_resolution must be a power of two from 4, not {img_resolution}")
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.block_resolutions = [2**i for i in range(2, img_resolution.bit_length())]
        self.num_ws = 1
        width = 0
        for resolution in self.block_resolutions:
            before, width = width, min(channel_base // resolution, channel_max)
            block = SynthesisBlock(
                before, width, w_dim, resolution, img_channels, use_noise=use_noise, clamp=clamp
            )
            self.num_ws += block.num_conv
            self.add_module(f"b{resolution}", block)

    def forward(
        self,
        ws: torch.Tensor,
        noise_mode: NoiseMode = "const",
        generators: Sequence[torch.Generator] | None = None,
    ) -> torch.Tensor:
        """ws [B, num_ws, w_dim] -> image [B, img_channels, img_resolution, img_resolution],
        float32. noise_mode and generators as in SynthesisLayer.forward."""
        return self.features(ws, noise_mode, generators)[1]

    def features(
        self,
        ws: torch.Tensor,
        noise_mode: NoiseMode = "const",
        generators: Sequence[torch.Generator] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The last block's features [B, C, img_resolution, img_resolution] and the image; see
        forward()."""
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"ws must be [B, {self.num_ws}, {self.w_dim}], not {tuple(ws.shape)}")
        x = img = None
        row = 0
        for resolution in self.block_resolutions:
            block = getattr(self, f"b{resolution}")
            rows = ws[:, row : row + block.num_conv + 1]
            x, img = block(x, img, rows, noise_mode, generators)
            row += block.num_conv
        return x, img


class StyleGenerator(nn.Module):
    """mapping + synthesis: the published `backbone`."""

    def __init__(self, mapping: MappingNetwork, synthesis: SynthesisNetwork) -> None:
        super().__init__()
        if mapping.num_ws != synthesis.num_ws or mapping.w_dim != synthesis.w_dim:
            raise ValueError("mapping and synthesis disagree on the shape of ws")
        self.synthesis = synthesis
        self.mapping = mapping

    def forward(self, z: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        """z [B, z_dim], c [B, c_dim] -> image [B, img_channels, R, R]."""
        return self.synthesis(self.mapping(z, c))

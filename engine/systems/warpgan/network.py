"""SVINet: WarpGAN's inpainting network for a photo carried to a new view.

Source: Huang et al., "WarpGAN: Warping-guided 3D GAN inversion with style-based novel view
inpainting" (arXiv 2511.08178), section 3.3. A LaMa-like network of fast Fourier convolutions whose
middle and upper layers are modulated by the photo's latent code; the mirrored photo, carried to the
same view, goes through the same encoder and enters by FiLM.

Layout of the published state dict (key `inpaintor_state_dict` of a training checkpoint), which this
module's equals for config.PUBLISHED:

    model_down.1 .. 4      LaMa's layers, 7x7 then three strided 3x3: ffc.conv{l2l,l2g}, bn_{l,g}
    cond.condition_scale, condition_shift   two layers each (index 0 and 1)
    model_res.0 .. 8       conv1, conv2: ffc.conv{l2l,l2g,g2l}.{conv,bias}, ffc.convg2g.{conv1,
                           fu.conv_layer,conv2}.{conv,bias}, bn_{l,g}; conv: weight [1, o, i, k, k],
                           affine.{weight,bias}, resample_filter
    model_up.0 .. 2        conv0 (doubles), conv1, toRGB (in the file, but nothing asks for it)
    model_out.1            7x7 convolution
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks import resample
from engine.networks.ffc import FFCBlock, ModulatedWeight, NormedFFC, Pair, StyleConv
from engine.systems.warpgan.config import SvinetConfig

CODE_ROWS = 5  # of w+, the last ones: what the middle (the first of them) and the ups listen to

# Of a mixing network's last layer, which else moves half of black to white in one of Adam's steps.
OUT_GAIN = 0.02


class Film(nn.Module):
    """What the mirrored photo's features say of the photo's: x (1 + scale) + shift."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        self.condition_scale, self.condition_shift = (
            nn.Sequential(
                NormedFFC(2 * channels, channels, 3, ratio, ratio, padding=1),
                NormedFFC(channels, channels, 3, ratio, ratio, padding=1),
            )
            for _ in range(2)
        )

    def forward(self, x: Pair, mirror: Pair) -> Pair:
        both = torch.cat([x[0], mirror[0]], 1), torch.cat([x[1], mirror[1]], 1)
        scale, shift = self.condition_scale(both), self.condition_shift(both)
        return tuple(a * (1 + s) + b for a, s, b in zip(x, scale, shift, strict=True))


class UnusedPicture(nn.Module):
    """The parameters of the upper layers' pictures, which checkpoints hold and nothing uses."""

    def __init__(self, i: int, style_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedWeight(i, 3, 1, style_dim)
        self.bias = nn.Parameter(torch.zeros(3))
        self.register_buffer("resample_filter", resample.fir_kernel())


class Up(nn.Module):
    """Two modulated layers, the first of which doubles the size."""

    def __init__(self, i: int, o: int, style_dim: int) -> None:
        super().__init__()
        self.conv0 = StyleConv(i, o, 3, style_dim, up=2)
        self.conv1 = StyleConv(o, o, 3, style_dim)
        self.toRGB = UnusedPicture(o, style_dim)

    def forward(self, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return self.conv1(self.conv0(x, first), second)


class SviNet(nn.Module):
    """See the top of this file. `config` says the sizes."""

    def __init__(self, config: SvinetConfig) -> None:
        super().__init__()
        self.config, ratio, n = config, config.ratio, config.downs
        layers = [
            nn.ReflectionPad2d(config.kernel // 2),
            NormedFFC(7 * config.fold**2, config.channels(0), config.kernel, 0, 0),
        ]
        for k in range(n):
            share = ratio if k == n - 1 else 0
            i, o = config.channels(k), config.channels(k + 1)
            layers.append(NormedFFC(i, o, 3, 0, share, stride=2, padding=1))
        self.model_down = nn.Sequential(*layers)
        middle = config.channels(n)
        self.cond = Film(middle, ratio)
        self.model_res = nn.ModuleList(
            FFCBlock(middle, ratio, config.style_dim) for _ in range(config.blocks)
        )
        self.model_up = nn.ModuleList(
            Up(config.channels(k), config.channels(k - 1), config.style_dim)
            for k in range(n, 0, -1)
        )
        outputs = (4 if config.mixes else 3) * config.fold**2
        self.model_out = nn.Sequential(
            nn.ReflectionPad2d(config.kernel // 2),
            nn.Conv2d(config.channels(0) * (3 if config.mixes else 1), outputs, config.kernel),
        )
        if config.mixes:  # starts at the first fill
            nn.init.zeros_(self.model_out[1].weight)
            nn.init.zeros_(self.model_out[1].bias)

    def forward(self, own: Tensor, mirror: Tensor, ws: Tensor) -> Tensor:
        """The view [B, 3, S, S] in 0..1.

        own, mirror [B, 7, S, S]: the photo, and the mirrored photo, carried to the view with holes
        filled by the inversion's render (0..1); the render; 1 in holes, 0 where the photo is seen.
        ws [B, n, style_dim]: w+ of the photo, n >= 5.
        Without config.mixes the network paints the view, as published. With it, the last layer sees
        the first one's features, too, and says how the filled photo is to be changed: by a share of
        the mirrored photo's own pixels, and by a difference of colour; what it cannot tell stays
        the first fill. (A gate on the difference, a confidence, was tried: within a hundred steps
        it closes for good.)
        """
        count = len(own)
        folded = F.pixel_unshuffle(torch.cat([own, mirror]), self.config.fold)
        near = self.model_down[:2](folded)
        both = self.model_down[2:](near)
        x = self.cond(tuple(p[:count] for p in both), tuple(p[count:] for p in both))
        rows = ws[:, -CODE_ROWS:]
        for block in self.model_res:
            x = block(x, rows[:, 0])
        x = torch.cat(x, 1)
        for k, up in enumerate(self.model_up):
            first, second = (rows[:, min(2 * k + j, CODE_ROWS - 1)] for j in range(2))
            x = up(x, first, second)
        if self.config.mixes:
            x = torch.cat([x, near[0][:count], near[0][count:]], 1)
        out = F.pixel_shuffle(self.model_out(x).float(), self.config.fold)
        if not self.config.mixes:
            return torch.sigmoid(out)
        change, share = (OUT_GAIN * out).split([3, 1], 1)
        share = torch.sigmoid(share - 2) * (1 - mirror[:, 6:])
        mixed = own[:, :3] + share * (mirror[:, :3] - own[:, :3])
        # Nothing is painted beside the head, where a premultiplied render is black.
        return mixed + change * (own[:, 3:6].amax(1, keepdim=True) > 0)

"""Fast Fourier convolutions, plain and modulated by a style code.

Source: Chi et al. 2020, "Fast Fourier convolution", as LaMa uses them (Suvorov et al. 2022,
"Resolution-robust large mask inpainting with Fourier convolutions", section 2.1), and their
style-modulated form in WarpGAN's SVINet (arXiv 2511.08178, section 3.3). Channels are split into
local ones, which ordinary convolutions see, and global ones, whose spectrum a 1x1 convolution sees,
so that a pixel knows of the whole picture after one layer.

Parameter names and shapes follow the published checkpoints' state dicts one to one.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks import resample
from engine.networks.modulated import modulated_conv
from engine.networks.stylegan2 import LRELU_GAIN, LRELU_SLOPE, FullyConnected

Pair = tuple[Tensor, Tensor]  # local and global channels, [B, l, H, W] and [B, g, H, W]


def to_spectrum(x: Tensor) -> Tensor:
    """[B, C, H, W] -> float32 [B, 2 C, H, W // 2 + 1]: real and imaginary part of each channel's
    orthonormal two-dimensional Fourier transform, one after the other."""
    y = torch.view_as_real(torch.fft.rfft2(x.float(), norm="ortho"))
    return y.permute(0, 1, 4, 2, 3).flatten(1, 2)


def from_spectrum(y: Tensor, height: int, width: int) -> Tensor:
    """Inverse of to_spectrum for pictures of a size: [B, 2 C, H, W // 2 + 1] -> [B, C, H, W]."""
    y = y.float().unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2).contiguous()
    return torch.fft.irfft2(torch.view_as_complex(y), s=(height, width), norm="ortho")


class ModulatedWeight(nn.Module):
    """The parameters of a modulated convolution: weight [1, o, i, k, k], affine: style -> scales of
    the inputs. The filter is a constant that checkpoints store."""

    def __init__(self, i: int, o: int, size: int, style_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, o, i, size, size))
        self.affine = FullyConnected(style_dim, i, bias_init=1.0)
        self.register_buffer("resample_filter", resample.fir_kernel())
        self.gain = 1 / math.sqrt(i * size**2)


class StyleConv(nn.Module):
    """Modulated convolution, demodulated, bias and leaky ReLU with gain sqrt 2. up 2 doubles the
    size; the stored weights are correlated then, too, where StyleGAN2's are convolved."""

    def __init__(self, i: int, o: int, size: int, style_dim: int, up: int = 1) -> None:
        super().__init__()
        self.conv = ModulatedWeight(i, o, size, style_dim)
        self.bias = nn.Parameter(torch.zeros(o))
        self.up = up

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [B, i, H, W], style w [B, style_dim] -> [B, o, H up, W up]."""
        weight = self.conv.weight[0] * self.conv.gain
        if self.up == 2:
            weight = weight.flip(2, 3)
        with torch.autocast(x.device.type, enabled=False):
            styles = self.conv.affine(w.float())
        if torch.is_autocast_enabled(x.device.type):  # what scales x itself is not cast by it
            x = x.to(torch.get_autocast_dtype(x.device.type))
        y = modulated_conv(x, weight, styles, self.bias, up=self.up, gain=LRELU_GAIN)
        return F.leaky_relu(y, LRELU_SLOPE)


class FourierUnit(nn.Module):
    """A 1x1 convolution of the spectrum; style_dim 0: plain, with batch norm and ReLU."""

    def __init__(self, i: int, o: int, style_dim: int = 0) -> None:
        super().__init__()
        if style_dim:
            self.conv_layer = StyleConv(2 * i, 2 * o, 1, style_dim)
        else:
            self.conv_layer = nn.Conv2d(2 * i, 2 * o, 1, bias=False)
            self.bn = nn.BatchNorm2d(2 * o)

    def forward(self, x: Tensor, w: Tensor | None = None) -> Tensor:
        """[B, i, H, W] -> [B, o, H, W]."""
        y = to_spectrum(x)
        if isinstance(self.conv_layer, StyleConv):
            y = self.conv_layer(y, w)
        else:
            y = F.relu(self.bn(self.conv_layer(y)))
        return from_spectrum(y, *x.shape[2:])


class SpectralTransform(nn.Module):
    """The global branch: to half the channels, the Fourier unit beside the identity, and back."""

    def __init__(self, i: int, o: int, style_dim: int = 0) -> None:
        super().__init__()
        half = o // 2
        if style_dim:
            self.conv1 = StyleConv(i, half, 1, style_dim)
            self.conv2 = StyleConv(half, o, 1, style_dim)
        else:
            self.conv1 = nn.Sequential(
                nn.Conv2d(i, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU()
            )
            self.conv2 = nn.Conv2d(half, o, 1, bias=False)
        self.fu = FourierUnit(half, half, style_dim)

    def forward(self, x: Tensor, w: Tensor | None = None) -> Tensor:
        """[B, i, H, W] -> [B, o, H, W]."""
        if w is None:
            x = self.conv1(x)
            return self.conv2(x + self.fu(x).to(x.dtype))
        x = self.conv1(x, w)
        return self.conv2(x + self.fu(x, w).to(x.dtype), w)


class FFC(nn.Module):
    """Convolutions among local and global channels. ratio_in, ratio_out: the global share of the
    channels; plain ones have reflected borders and a stride, modulated ones (style_dim) borders of
    zeros. Branches without channels are absent."""

    def __init__(
        self,
        i: int,
        o: int,
        size: int,
        ratio_in: float,
        ratio_out: float,
        stride: int = 1,
        padding: int = 0,
        style_dim: int = 0,
    ) -> None:
        super().__init__()
        ig, og = int(i * ratio_in), int(o * ratio_out)
        il, ol = i - ig, o - og
        if ig and og and stride != 1:
            raise ValueError("global channels keep their size")

        def path(a: int, b: int) -> nn.Module:
            if not a or not b:
                return nn.Identity()
            if style_dim:
                return StyleConv(a, b, size, style_dim)
            return nn.Conv2d(a, b, size, stride, padding, bias=False, padding_mode="reflect")

        self.convl2l, self.convl2g, self.convg2l = path(il, ol), path(il, og), path(ig, ol)
        self.convg2g = SpectralTransform(ig, og, style_dim) if ig and og else nn.Identity()
        self.parts = il, ig, ol, og

    def forward(self, x: Pair | Tensor, w: Tensor | None = None) -> Pair:
        """Local and global channels (a tensor: local ones alone) -> the same; of absent ones an
        empty tensor."""
        local, broad = x if isinstance(x, tuple) else (x, x[:, :0])
        il, ig, ol, og = self.parts
        extra = () if w is None else (w,)

        def total(many: int, near: nn.Module, far: nn.Module) -> Tensor:
            found = [net(part, *extra) for n, net, part in ((il, near, local), (ig, far, broad))
                     if n and many]  # fmt: skip
            return sum(found[1:], found[0]) if found else local[:, :0]

        return total(ol, self.convl2l, self.convg2l), total(og, self.convl2g, self.convg2g)


class NormedFFC(nn.Module):
    """FFC, batch norm and ReLU: LaMa's basic layer, arguments as FFC's."""

    def __init__(
        self, i: int, o: int, size: int, ratio_in: float, ratio_out: float, **more: int
    ) -> None:
        super().__init__()
        self.ffc = FFC(i, o, size, ratio_in, ratio_out, **more)
        ol, og = self.ffc.parts[2:]
        self.bn_l = nn.BatchNorm2d(ol) if ol else nn.Identity()
        self.bn_g = nn.BatchNorm2d(og) if og else nn.Identity()

    def forward(self, x: Pair | Tensor, w: Tensor | None = None) -> Pair:
        """See FFC.forward."""
        local, broad = self.ffc(x, w)
        return F.relu(self.bn_l(local)), F.relu(self.bn_g(broad))


class FFCBlock(nn.Module):
    """Two modulated layers beside the identity: [B, C] channels at `ratio` stay what they are."""

    def __init__(self, channels: int, ratio: float, style_dim: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            NormedFFC(channels, channels, 3, ratio, ratio, padding=1, style_dim=style_dim)
            for _ in range(2)
        )

    def forward(self, x: Pair, w: Tensor) -> Pair:
        """Pairs of the same shape."""
        local, broad = self.conv2(self.conv1(x, w), w)
        return x[0] + local, x[1] + broad

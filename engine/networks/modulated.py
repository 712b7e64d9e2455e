"""StyleGAN2's modulated convolution, in whichever of its equal forms costs less.

Source: Karras et al. 2020 (StyleGAN2), section 2.2. The published form gives every sample weights
of its own: weight * style, brought back to unit variance. The same numbers come from scaled
activations -> shared weights -> scaled activations. The first form touches the weights once and the
second the activations several times, so which one is cheaper depends on which are more; a batch
needs the second.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from engine.networks import resample


def demodulation(weight: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
    """Factors [B, out] that bring each output channel back to unit variance, in float32.

    weight: [out, in, k, k]; styles: [B, in].
    """
    with torch.autocast(styles.device.type, enabled=False):
        energy = weight.float().square().sum([2, 3])  # [out, in]
        return (F.linear(styles.float().square(), energy) + 1e-8).rsqrt()


def modulated_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    bias: torch.Tensor,
    *,
    up: int = 1,
    demodulate: bool = True,
    gain: float = 1.0,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """gain * (x, modulated by styles and convolved with weight, + noise + bias).

    x: [B, in, H, W]; weight: [out, in, k, k]; styles: [B, in]; bias: [out]; noise: [B or 1, 1, H',
    W']. "Same" borders of zeros. up 2 doubles the size: a stride-2 transposed convolution and the
    [1, 3, 3, 1] filter. Returns [B, out, H * up, W * up]. Raises ValueError for another up.
    """
    if up not in (1, 2):
        raise ValueError(f"up is {up}: it must be 1 or 2")
    scale = demodulation(weight, styles) if demodulate else torch.ones_like(bias)[None]
    scale = scale * gain
    if len(x) == 1 and x.numel() > weight.numel():
        weight = weight * (scale[0, :, None] * styles[0])[:, :, None, None]
        y = _convolve(x, weight, bias * gain, up)
    else:
        y = _convolve(x * styles.to(x.dtype)[:, :, None, None], weight, None, up)
        shift = (bias * gain).to(y.dtype)[None, :, None, None]
        y = torch.addcmul(shift, y, scale.to(y.dtype)[:, :, None, None])
    if noise is not None:
        y += (noise * gain).to(y.dtype)
    return y


def _convolve(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, up: int
) -> torch.Tensor:
    weight = weight.to(x.dtype)
    bias = None if bias is None else bias.to(x.dtype)
    if up == 1:
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    return resample.smooth(x, gain=4.0, bias=bias)

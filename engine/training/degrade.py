"""What cameras, files and hands do to a picture: the degradations of the networks' inputs."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def apply_tone(rgb: Tensor, tone: Tensor) -> Tensor:
    """Display colours [B, 3, ...] through the gain and gamma of tone [B, 3, 2]."""
    shape = (*tone.shape[:2], *(1,) * (rgb.ndim - 2))
    return (rgb.clamp(0, 1) ** tone[..., 1].reshape(shape) * tone[..., 0].reshape(shape)).clamp(
        0, 1
    )


def degrade(x: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Pictures [B, 3, S, S] in 0..1 as bad photos: exposure, white balance, contrast, uneven light,
    something in front, soft focus or shake, noise, JPEG blocks, grey. Returns them and the tone
    curves [B, 3, 2] used (see apply_tone)."""
    b, size = len(x), x.shape[-1]
    gain = np.exp(rng.normal(size=(b, 1)) * 0.16 + rng.normal(size=(b, 3)) * 0.06)
    gamma = np.exp(rng.normal(size=(b, 1)) * 0.16) * np.ones((1, 3))
    tone = torch.from_numpy(np.stack([gain, gamma], -1).astype(np.float32))
    x = apply_tone(x, tone)
    shade = torch.from_numpy(rng.normal(size=(b, 1, 3, 3)).astype(np.float32))
    strength = torch.from_numpy(
        (rng.random((b, 1, 1, 1)) < 0.4) * rng.uniform(0, 0.3, (b, 1, 1, 1))
    ).float()
    x = x * F.interpolate(shade * strength, (size, size), mode="bilinear").exp()
    out = []
    for p in x.clamp(0, 1):
        if rng.random() < 0.22:
            p = _covered(p, rng)
        chance = rng.random()
        if chance < 0.35:
            p = _small(p, rng)
        elif chance < 0.5:
            p = _shaken(p, rng)
        if rng.random() < 0.12:
            p = p.mean(0, keepdim=True).expand(3, -1, -1)
        if rng.random() < 0.5:
            noise = torch.from_numpy(rng.standard_normal(p.shape, np.float32))
            p = p + noise * float(rng.uniform(0, 0.05))
        if rng.random() < 0.25:
            p = jpeg(p, int(rng.integers(25, 90)))
        out.append(p)
    return torch.stack(out).clamp(0, 1), tone


def jpeg(p: Tensor, quality: int) -> Tensor:
    """A picture [3, S, S] in 0..1 saved as JPEG and opened again."""
    pixels = (p.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255


def _small(p: Tensor, rng: np.random.Generator) -> Tensor:
    """Soft focus, or a small original enlarged."""
    size = p.shape[-1]
    small = int(size * rng.uniform(0.3, 1))
    p = F.interpolate(p[None], (small, small), mode="area")
    return F.interpolate(p, (size, size), mode="bilinear")[0]


def _shaken(p: Tensor, rng: np.random.Generator) -> Tensor:
    """Blurred along a short straight path."""
    reach, angle = rng.uniform(1, 4), rng.uniform(0, math.pi)
    along = torch.linspace(-1, 1, 9) * reach
    at = torch.arange(-4.0, 5.0)
    x = (1 - (at[:, None] - along * math.cos(angle)).abs()).clamp_min(0)
    y = (1 - (at[:, None] - along * math.sin(angle)).abs()).clamp_min(0)
    kernel = y @ x.T / (y @ x.T).sum()
    padded = F.pad(p[:, None], (4, 4, 4, 4), mode="replicate")
    return F.conv2d(padded, kernel[None, None])[:, 0]


def _covered(p: Tensor, rng: np.random.Generator) -> Tensor:
    """Something in front of the head: a box, a soft-edged blob of a hand's size and colour, or
    strands of hair."""
    size = p.shape[-1]
    at = torch.linspace(0, 1, size)
    x0, y0 = rng.uniform(0, 1, 2)
    angle = rng.uniform(0, math.pi)
    u = (at[None] - x0) * math.cos(angle) + (at[:, None] - y0) * math.sin(angle)
    v = (at[:, None] - y0) * math.cos(angle) - (at[None] - x0) * math.sin(angle)
    colour = torch.from_numpy(rng.random((3, 1, 1), dtype=np.float32))
    kind = rng.random()
    if kind < 0.3:
        w, h = rng.uniform(0.04, 0.18, 2)
        mask = ((u.abs() < w) & (v.abs() < h)).float()
    elif kind < 0.7:
        w, h = rng.uniform(0.05, 0.2, 2)
        mask = torch.sigmoid((1 - ((u / w).square() + (v / h).square())) * 4)
        tan = torch.tensor([0.85, 0.62, 0.5])[:, None, None] * float(rng.uniform(0.25, 1.05))
        colour = tan * (1 + 0.15 * torch.sin(u * 40))
    else:
        bend, gap = rng.uniform(-1.5, 1.5), rng.uniform(25, 90)
        across = v - bend * u.square()
        strands = torch.sigmoid((torch.cos(across * gap) - 0.6) * 12)
        mask = strands * (across.abs() < rng.uniform(0.02, 0.1)).float()
        colour = colour * 0.5
    return p * (1 - mask) + colour.clamp(0, 1) * mask

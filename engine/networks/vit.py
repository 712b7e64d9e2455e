"""Vision transformers as image encoders: DINO (patches of 16) and DINOv2 (patches of 14).

Source: Caron et al. 2021 (DINO), Oquab et al. 2023 (DINOv2), Darcet et al. 2023 (register tokens);
Dosovitskiy et al. 2020 for the network. Parameters are named as in published checkpoints: DINO's
as the transformers library does, DINOv2's as its own code does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.products import Branch, LayerNorm, Linear, attend, parameter

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ViTConfig:
    """width, layers, heads, patch (pixels a side): sizes; grid: patches a side that the learned
    positions stand for; registers: extra tokens (DINOv2 alone); pooler: whether the checkpoint
    holds a pooling layer, which nothing uses (DINO alone)."""

    width: int = 768
    layers: int = 12
    heads: int = 12
    patch: int = 16
    grid: int = 14
    registers: int = 0
    pooler: bool = False


def resized_positions(
    table: Tensor, side: int, offset: float = 0.0, antialias: bool = False
) -> Tensor:
    """Learned positions [1, 1 + G * G, C] (the class token's first) for side * side patches.

    Bicubic. The originals hand on a scale factor, (side + offset) / G, not the size: positions are
    sampled at spacing 1 / factor, so an offset shifts all of them a little.
    """
    grid = round((table.shape[1] - 1) ** 0.5)
    if grid == side:
        return table
    first, rest = table[:, :1].float(), table[:, 1:].float()
    rest = rest.unflatten(1, (grid, grid)).permute(0, 3, 1, 2)
    factor = (side + offset) / grid
    rest = F.interpolate(rest, scale_factor=(factor, factor), mode="bicubic", antialias=antialias)
    if rest.shape[-1] != side:
        raise ValueError(f"positions for {side} patches cannot be made of {grid}")
    return torch.cat([first, rest.flatten(2).transpose(1, 2)], 1)


class _DinoLayer(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        parts = {name: Linear(width, width) for name in ("query", "key", "value")}
        self.attention = Branch(
            attention=Branch(**parts), output=Branch(dense=Linear(width, width))
        )
        self.intermediate = Branch(dense=Linear(width, 4 * width))
        self.output = Branch(dense=Linear(4 * width, width))
        self.layernorm_before = LayerNorm(width, eps=1e-12)
        self.layernorm_after = LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.attention.attention
        y = self.layernorm_before(x).to(inner.query.weight.dtype)
        y = attend(inner.query(y), inner.key(y), inner.value(y), self.heads)
        x = x + self.attention.output.dense(y)
        y = self.intermediate.dense.gelu(self.layernorm_after(x))
        return x + self.output.dense(y)


class Dino(nn.Module):
    """DINO's transformer. Takes images normalised with ImageNet's mean and deviation."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.width, config.patch
        self.embeddings = Branch(
            cls_token=parameter(1, 1, width),
            position_embeddings=parameter(1, 1 + config.grid**2, width),
            patch_embeddings=Branch(projection=nn.Conv2d(3, width, patch, patch)),
        )
        layers = [_DinoLayer(width, config.heads) for _ in range(config.layers)]
        self.encoder = Branch(layer=nn.ModuleList(layers))
        self.layernorm = LayerNorm(width, eps=1e-12)
        if config.pooler:
            self.pooler = Branch(dense=nn.Linear(width, width))

    def positions(self, side: int) -> Tensor:
        """[1, 1 + side * side, C]; sampled as transformers 4.35 does."""
        return resized_positions(self.embeddings.position_embeddings, side, offset=0.1)

    def forward(self, images: Tensor, check: Callable[[], None] = lambda: None) -> Tensor:
        """images [B, 3, S, S], S a multiple of the patch -> tokens [B, 1 + n * n, C], the class
        token first, float32. check: called before every layer, may raise to cancel."""
        x = self.embeddings.patch_embeddings.projection(images)
        side = x.shape[-1]
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.embeddings.cls_token.expand(len(x), -1, -1), x], 1)
        x = x + self.positions(side)
        for layer in self.encoder.layer:
            check()
            x = layer(x)
        return self.layernorm(x)


class _Dinov2Layer(nn.Module):
    """Pre-norm attention and MLP, each scaled channel by channel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = LayerNorm(width, eps=1e-6)
        self.attn = Branch(qkv=Linear(width, 3 * width), proj=Linear(width, width))
        self.ls1 = Branch(gamma=parameter(width))
        self.norm2 = LayerNorm(width, eps=1e-6)
        self.mlp = Branch(fc1=Linear(width, 4 * width), fc2=Linear(4 * width, width))
        self.ls2 = Branch(gamma=parameter(width))

    def forward(self, x: Tensor) -> Tensor:
        y = attend(*self.attn.qkv(self.norm1(x)).chunk(3, -1), self.heads)
        x = torch.addcmul(x, self.attn.proj(y).to(x), self.ls1.gamma)
        y = self.mlp.fc2(self.mlp.fc1.gelu(self.norm2(x)))
        return torch.addcmul(x, y.to(x), self.ls2.gamma)


class Dinov2(nn.Module):
    """DINOv2's transformer, with or without register tokens."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.width, config.patch
        self.cls_token = parameter(1, 1, width)
        self.pos_embed = parameter(1, 1 + config.grid**2, width)
        if config.registers:
            self.register_tokens = parameter(1, config.registers, width)
        self.patch_embed = Branch(proj=nn.Conv2d(3, width, patch, patch))
        layers = [_Dinov2Layer(width, config.heads) for _ in range(config.layers)]
        self.blocks = nn.ModuleList(layers)
        self.norm = LayerNorm(width, eps=1e-6)

    def positions(self, side: int) -> Tensor:
        """[1, 1 + side * side, C]. The variants with registers were trained with other settings of
        the interpolation than those without."""
        if self.config.registers:
            return resized_positions(self.pos_embed, side, antialias=True)
        return resized_positions(self.pos_embed, side, offset=0.1)

    def forward(self, images: Tensor, check: Callable[[], None] = lambda: None) -> Tensor:
        """images [B, 3, S, S], S a multiple of the patch -> tokens [B, 1 + n * n, C], the class
        token first, without the registers, float32."""
        x = self.patch_embed.proj(images)
        side = x.shape[-1]
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.positions(side)
        if self.config.registers:
            extra = self.register_tokens.expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], extra, x[:, 1:]], 1)
        for layer in self.blocks:
            check()
            x = layer(x)
        x = self.norm(x)
        return torch.cat([x[:, :1], x[:, 1 + self.config.registers :]], 1)

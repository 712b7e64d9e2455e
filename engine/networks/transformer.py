"""Decoder layers that turn plane tokens into planes under an image's tokens: the two published
kinds, named as in their checkpoints.

Source: Hong et al. 2023 (LRM, section 3.2), He and Wang 2023 (OpenLRM), Tochilkin et al. 2024
(TripoSR; its blocks are those of latent diffusion).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.networks.products import Branch, LayerNorm, Linear, attend, by_rows, parameter, product


class _Attention(nn.Module):
    """Multi-head attention with separate projections and a bias at its output only."""

    def __init__(self, width: int, heads: int, from_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = Linear(width, width, bias=False)
        self.to_k = Linear(from_width, width, bias=False)
        self.to_v = Linear(from_width, width, bias=False)
        self.to_out = nn.ModuleList([Linear(width, width)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """context None: of x itself."""
        x = x.to(self.to_q.weight.dtype)  # once for all three
        context = x if context is None else context
        y = attend(self.to_q(x), self.to_k(context), self.to_v(context), self.heads)
        return self.to_out[0](y)


class GatedBlock(nn.Module):
    """TripoSR's layer: self-attention, cross-attention, an MLP gated by GELU."""

    def __init__(self, width: int, heads: int, context_width: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (LayerNorm(width, eps=1e-5) for _ in range(3))
        self.attn1 = _Attention(width, heads, width)
        self.attn2 = _Attention(width, heads, context_width)
        gate = Branch(proj=Linear(width, 8 * width))
        self.ff = Branch(net=Branch(**{"0": gate, "2": Linear(4 * width, width)}))

    def alone(self, x: Tensor) -> Tensor:
        """x [B, N, C] after the self-attention, which comes first and knows no context."""
        return x + self.attn1(self.norm1(x))

    def forward(self, x: Tensor, context: Tensor, begun: bool = False) -> Tensor:
        """x [B, N, C], context [B, M, context_width] -> [B, N, C]. begun: x has been through
        alone()."""
        x = x if begun else self.alone(x)
        x = x + self.attn2(self.norm2(x), context)
        first, last = self.ff.net._modules.values()
        return x + by_rows(lambda part: last(first.proj.gated(part)), self.norm3(x))


class _Modulated(nn.Module):
    """Layer norm whose scale and shift come from a vector (adaptive layer norm)."""

    def __init__(self, width: int, from_width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width, eps=1e-6)
        self.mlp = Branch(**{"1": nn.Linear(from_width, 2 * width)})

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """x [B, N, C], vector [B, from_width], after its SiLU."""
        (linear,) = self.mlp._modules.values()
        shift, scale = linear(vector)[:, None].chunk(2, -1)
        return torch.addcmul(shift, self.norm(x), 1 + scale)


class _MultiHead(nn.Module):
    """Multi-head attention without any bias, with the parameters of nn.MultiheadAttention: one
    weight for queries, keys and values where their inputs are equally wide, else three."""

    def __init__(self, width: int, heads: int, from_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.shared = width == from_width
        if self.shared:
            self.in_proj_weight = parameter(3 * width, width)
        else:
            self.q_proj_weight = parameter(width, width)
            self.k_proj_weight = parameter(width, from_width)
            self.v_proj_weight = parameter(width, from_width)
        self.out_proj = Linear(width, width, bias=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """context None: of x itself."""
        if context is None:
            q, k, v = product(x, self.in_proj_weight).chunk(3, -1)
        else:
            if self.shared:
                query, key, value = self.in_proj_weight.chunk(3)
            else:
                query, key, value = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
            q, k, v = product(x, query), product(context, key), product(context, value)
        return self.out_proj(attend(q, k, v, self.heads))


class ModulatedBlock(nn.Module):
    """LRM's layer: cross-attention, self-attention, MLP, each behind a layer norm modulated by the
    camera."""

    def __init__(self, width: int, heads: int, context_width: int, camera_width: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (_Modulated(width, camera_width) for _ in range(3))
        self.cross_attn = _MultiHead(width, heads, context_width)
        self.self_attn = _MultiHead(width, heads, width)
        # 1, 2 and 4 of the published sequence are GELU and dropout.
        self.mlp = Branch(**{"0": Linear(width, 4 * width), "3": Linear(4 * width, width)})

    def forward(self, x: Tensor, context: Tensor, camera: Tensor) -> Tensor:
        """x [B, N, C], context [B, M, context_width], camera [B, camera_width] after its SiLU ->
        [B, N, C]."""
        x = x + self.cross_attn(self.norm1(x, camera), context)
        x = x + self.self_attn(self.norm2(x, camera))
        first, last = self.mlp._modules.values()
        return x + by_rows(lambda part: last(first.gelu(part)), self.norm3(x, camera))

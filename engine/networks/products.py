"""What transformers are made of: matrix products and attention, quick on a processor too.

Two things decide there. PyTorch hands float32 products to a library that uses half of the width of
some makers' registers; oneDNN, to which it hands all others, does not (twice as fast there, equal
elsewhere). And PyTorch's fused attention is made for processors with matrix tiles: without them,
products of oneDNN's on pieces that stay in the cache take half of its time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.threads import side_by_side

PIECE = 256  # rows of attention at a time: their scores stay in the cache
ROWS = 1024  # of a wide layer at a time: enough for products at full speed
SMALL = 1 << 16  # scores of a head from which on pieces are worth it
# exp(x) is 1 / (1 + exp(-x)) but for a share of exp(x): at x <= -MARGIN that is less than half of
# the last digit of bfloat16.
MARGIN = 8.0
FAINT = 1e-20  # sums of such weights below this have lost their smaller terms


def _onednn() -> Any:
    """oneDNN's product as torch.compile calls it, or None where this PyTorch has none."""
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        return torch.ops.mkldnn._linear_pointwise
    except (AttributeError, RuntimeError):
        return None


_POINTWISE = _onednn()


def _direct(x: Tensor, weight: Tensor) -> bool:
    """Whether a product may be oneDNN's own: its operation knows no gradients."""
    return (
        _POINTWISE is not None
        and x.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_grad_enabled()
    )


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: bool = False) -> Tensor:
    """x [..., in] times weight [out, in] plus bias [out], through GELU (the exact one) if asked
    for; in the weight's number type -> [..., out]."""
    x = x.to(weight.dtype)
    bias = None if bias is None else bias.to(weight.dtype)
    if _direct(x, weight):
        return _POINTWISE(x, weight, bias, "gelu" if gelu else "none", [], "none")
    out = F.linear(x, weight, bias)
    return F.gelu(out) if gelu else out


class Linear(nn.Linear):
    """nn.Linear that computes in its weight's number type and answers in it."""

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        return product(x, self.weight, self.bias)

    def gelu(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out], through GELU."""
        return product(x, self.weight, self.bias, gelu=True)

    def gated(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out / 2]: the first half of the outputs times GELU of the second."""
        x = x.to(self.weight.dtype)
        first, second = self.weight.chunk(2)
        bias, gate_bias = self.bias.chunk(2)
        value, gate = product(x, first, bias), product(x, second, gate_bias, gelu=True)
        return value * gate if torch.is_grad_enabled() else value.mul_(gate)


def by_rows(layers: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """layers(x) for layers that treat every row of x [B, N, C] alike: piece by piece, so that what
    lies between them (four or eight times as wide as x) is never whole in memory."""
    if torch.is_grad_enabled() or x.shape[1] <= ROWS:
        return layers(x)
    return torch.cat([layers(part) for part in x.split(ROWS, 1)], 1)


class LayerNorm(nn.LayerNorm):
    """nn.LayerNorm in its input's precision (float32 where it matters: the residual stream)."""


class Branch(nn.Module):
    """Modules and parameters by name: what gives parameters the dotted names of published files."""

    def __init__(self, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Parameter):
                self.register_parameter(name, part)
            else:
                self.add_module(name, part)


def parameter(*shape: int) -> nn.Parameter:
    """A parameter of zeros, to be loaded."""
    return nn.Parameter(torch.zeros(shape))


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """softmax(q k' / sqrt(width of a head)) v for each head.

    q [B, N, C], k and v [B, M, C], their channels head by head -> [B, N, C].
    """
    if not _direct(q, k) or q.shape[1] * k.shape[1] < SMALL:
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    width = q.shape[2] // heads
    head = _head_low if q.dtype == torch.bfloat16 else _head

    def one(_: Tensor, sample: int, first: int) -> None:
        where = slice(first, first + width)
        head(*(t[sample, :, where] for t in (q, k, v, out)))

    pieces = [(q, sample, width * i) for sample in range(len(q)) for i in range(heads)]
    side_by_side(one, pieces, lambda: None)
    return out


def _head(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
    """One head [N, C], [M, C], [M, C] -> out [N, C]."""
    keys, values = k.contiguous(), v.T.contiguous()
    q = q * q.shape[1] ** -0.5
    for rows, place in zip(q.split(PIECE), out.split(PIECE)):
        place.copy_(product(torch.softmax(product(rows, keys), 1), values))


def _head_low(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
    """The same in bfloat16, its exponentials taken by the product itself.

    oneDNN's products can end in a sigmoid, which far below 0 is the exponential. A bound of every
    row's scores (length of the query times the longest key) keeps them there: one more column of
    the query holds it, one more of the keys -1 (and one of zeros makes their number even). Rows so
    far below their bound that digits were lost are done again the plain way.
    """
    width, values = q.shape[1], v.contiguous()
    queries, keys = q.new_zeros(len(q), width + 2), k.new_zeros(len(k), width + 2)
    torch.mul(q, width**-0.5, out=queries[:, :width])
    keys[:, :width], keys[:, width] = k, -1
    longest = torch.linalg.vector_norm(k, dim=1, dtype=torch.float32).max()
    lengths = torch.linalg.vector_norm(queries[:, :width], dim=1, dtype=torch.float32)
    queries[:, width] = lengths * longest + MARGIN
    for rows, place in zip(queries.split(PIECE), out.split(PIECE)):
        shares = _POINTWISE(rows, keys, None, "sigmoid", [], "")
        total = shares.sum(1, keepdim=True, dtype=torch.float32)
        if float(total.min()) > FAINT:
            place.copy_((shares @ values) / total)
        else:
            place.copy_(torch.softmax(product(rows[:, :width], keys[:, :width]), 1) @ values)

"""A tri-plane's density on a regular grid of nodes, without looking at most of them.

On a grid whose axes are the planes', the first layer is a sum of terms of two coordinates each:
hidden(x, y, z) = A(x, y) + B(x, z) (+ C(y, z)). So planes are interpolated once a pair of
coordinates, not once a node, and for a block of nodes the least and the greatest of each term give
bounds of the density that hold for certain: softplus grows, and the second layer is linear. Blocks
whose bounds lie on one side of the level hold no surface and are filled; the others are evaluated.
Nothing is missed, however small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from engine import device
from engine.fields.folded import BEFORE, FoldedPlanes

BLOCK = 4  # cells along a block's edge; a block's nodes include those of its far faces
ROUNDING = 1e-3  # of the density: what the bounds and the values may differ by in float32


class GriddedDensity:
    """folded: the first layer; weight [H], bias []: the second layer's density row; low [3]: the
    first node, field units; step: between nodes; cells: along x, y and z."""

    def __init__(
        self,
        folded: FoldedPlanes,
        weight: torch.Tensor,
        bias: torch.Tensor,
        low: torch.Tensor,
        step: float,
        cells: Sequence[int],
    ) -> None:
        self.weight, self.bias = weight.detach(), bias.detach()
        self.blocks = [-(-n // BLOCK) for n in cells]
        self.nodes = [n + 1 for n in cells]
        axes = [
            float(low[i]) + step * torch.arange(n * BLOCK + 1, dtype=torch.float64)
            for i, n in enumerate(self.blocks)
        ]
        # [nodes of a, nodes of b, H] for each pair of axes a < b
        self.terms = {
            pair: on_nodes(folded, k, axes[pair[0]], axes[pair[1]])
            for k, pair in enumerate(folded.pairs)
        }
        self._rows = torch.cat([term.flatten(0, 1) for term in self.terms.values()])

    def values(self, level: float, check: Callable[[], None]) -> torch.Tensor:
        """value - level at the nodes [nx, ny, nz], on the field's device: exact at every corner of
        every cell through which the surface passes, elsewhere of the right sign. check: called
        often; raises to cancel."""
        out = self._sides(level, check)
        wanted = out == 0
        for axis in range(3):
            out = torch.cat([out.repeat_interleave(BLOCK, axis), out.narrow(axis, -1, 1)], axis)
            wanted = _closed(wanted, axis)
        out, wanted = out.contiguous(), wanted.contiguous()
        size = device.chunk_items(16 * len(self.weight))  # a quarter of the usual: cache counts
        for x in range(self.nodes[0]):
            check()
            plane = out[x].view(-1)
            for which in wanted[x].view(-1).nonzero()[:, 0].int().split(size):
                plane[which] = self._evaluate(x, which) - level
        nx, ny, nz = self.nodes
        return out[:nx, :ny, :nz]

    def _sides(self, level: float, check: Callable[[], None]) -> torch.Tensor:
        """For each block -1 (all below the level), 1 (all above) or 0 (not certain)."""
        least = {pair: -_block_maxima(-term) for pair, term in self.terms.items()}
        greatest = {pair: _block_maxima(term) for pair, term in self.terms.items()}
        up, down = self.weight.clamp_min(0), self.weight.clamp_max(0)
        rows = []
        for i in range(self.blocks[0]):
            check()
            low = F.softplus(_slab(least, i))
            high = F.softplus(_slab(greatest, i))
            floor = low @ up + high @ down + self.bias - level
            ceiling = high @ up + low @ down + self.bias - level
            row = (floor > ROUNDING).float() - (ceiling < -ROUNDING).float()
            rows.append(row.expand(self.blocks[1], self.blocks[2]))
        return torch.stack(rows)

    def _evaluate(self, x: int, which: torch.Tensor) -> torch.Tensor:
        """The density [M] at nodes of one x index; which [M] int32: y index * nodes along z + z."""
        along = self.blocks[2] * BLOCK + 1
        y = torch.div(which, along, rounding_mode="floor")
        at = (x, y, which - y * along)
        rows, start = [], 0
        for (a, b), term in self.terms.items():
            rows.append(at[a] * term.shape[1] + at[b] + start)
            start += term.shape[0] * term.shape[1]
        hidden = F.embedding_bag(torch.stack(rows, 1), self._rows, mode="sum")
        return torch._C._nn.softplus(hidden, out=hidden) @ self.weight + self.bias


def _closed(blocks: torch.Tensor, axis: int) -> torch.Tensor:
    """Nodes of marked blocks along one axis, those of their far faces included."""
    inner = blocks.repeat_interleave(BLOCK, axis)
    nodes = torch.cat([inner, torch.zeros_like(inner.narrow(axis, 0, 1))], axis)
    nodes.transpose(0, axis)[BLOCK::BLOCK] |= blocks.transpose(0, axis)
    return nodes


def on_nodes(
    folded: FoldedPlanes, number: int, across: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """A pair's table at nodes: [len(across), len(down), H]."""
    size = folded.stride
    table = folded.table.view(len(folded.pairs), size, size, -1)[number]  # [down, across, H]
    for axis, nodes in ((0, down), (1, across)):
        where = nodes * folded.scale + folded.resolution / 2 - 0.5 + BEFORE
        where = where.clamp(0, folded.resolution + BEFORE).to(table.device)
        low = where.floor().long()
        part = (where - low).to(table.dtype)
        part = part.view(-1, 1, 1) if axis == 0 else part.view(1, -1, 1)
        table = torch.lerp(table.index_select(axis, low), table.index_select(axis, low + 1), part)
    return table.transpose(0, 1).contiguous()


def _block_maxima(term: torch.Tensor) -> torch.Tensor:
    """The greatest of each block's nodes: [n BLOCK + 1, m BLOCK + 1, H] -> [n, m, H]."""
    term = term.unfold(0, BLOCK + 1, BLOCK).amax(-1)
    return term.unfold(1, BLOCK + 1, BLOCK).amax(-1)


def _slab(terms: dict[tuple[int, int], torch.Tensor], i: int) -> torch.Tensor:
    """The sum of the terms of blocks at x index i: [by or 1, bz or 1, H]."""
    parts = []
    for (a, b), term in terms.items():
        if a != 0:
            parts.append(term)
        else:
            parts.append(term[i][:, None] if b == 1 else term[i][None])
    return sum(parts[1:], parts[0])

"""An LRM field's raw density on a regular grid of nodes, without looking at most of them.

On a grid whose axes are the planes', the decoder's first layer is a sum of terms of two coordinates
each, so planes are interpolated once a pair of coordinates, not once a node. Ten layers leave no
useful bounds (as engine.fields.gridded has them for two), so the surface is looked for: on every
fourth node, then in every block whose corners differ in sign or whose values are so close to the
level, for how much they vary there, that they may cross it in between, and in whatever further
block the surface is seen to lead into.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from engine import device
from engine.fields.folded import FoldedPlanes
from engine.fields.gridded import on_nodes
from engine.threads import side_by_side

BLOCK = 4  # cells along a block's edge
CAUTION = 0.5  # how much nearer to the level than they vary values may come, unseen in between


class Layers(Protocol):
    """The decoder after its first layer."""

    def deeper(self, hidden: Tensor) -> Tensor: ...

    def raw_density(self, state: Tensor) -> Tensor: ...


class GriddedLayers:
    """folded: the first layer; layers: the rest; low [3]: the first node, field units; step:
    between nodes; cells: along x, y and z."""

    def __init__(
        self,
        folded: FoldedPlanes,
        layers: Layers,
        low: Tensor,
        step: float,
        cells: Sequence[int],
    ) -> None:
        self.layers = layers
        self.blocks = [-(-n // BLOCK) for n in cells]
        self.cells = list(cells)
        axes = [
            float(low[i]) + step * torch.arange(n * BLOCK + 1, dtype=torch.float64)
            for i, n in enumerate(self.blocks)
        ]
        terms = {
            pair: on_nodes(folded, k, axes[pair[0]], axes[pair[1]])
            for k, pair in enumerate(folded.pairs)
        }
        self.evaluated = 0  # nodes so far
        self._pairs, self._starts, self._widths = tuple(terms), [], []
        start = 0
        for term in terms.values():
            self._starts.append(start)
            self._widths.append(term.shape[1])
            start += term.shape[0] * term.shape[1]
        self._rows = torch.cat([term.flatten(0, 1) for term in terms.values()])
        del terms

    def values(self, level: float, check: Callable[[], None]) -> Tensor:
        """value - level at the nodes [nx, ny, nz]: exact at every corner of every cell through
        which the surface is seen to pass, elsewhere of the right sign. check: called often; raises
        to cancel."""
        nodes = [n * BLOCK + 1 for n in self.blocks]
        axes = [torch.arange(0, n, BLOCK, dtype=torch.int32) for n in nodes]
        coarse = self._evaluate(_mesh(axes), level, check).view([n + 1 for n in self.blocks])
        grid = F.interpolate(coarse[None, None], nodes, mode="trilinear", align_corners=True)[0, 0]
        flat = grid.view(-1)
        known = torch.zeros(nodes, dtype=torch.bool, device=grid.device)
        known[::BLOCK, ::BLOCK, ::BLOCK] = True
        new = _suspected(coarse)
        active = torch.zeros_like(new)
        while new.any():
            check()
            active |= new
            wanted = _nodes(new) & ~known
            known |= wanted
            index = wanted.view(-1).nonzero()[:, 0]
            flat[index] = self._evaluate(_places(index, nodes), level, check)
            new = _crossed(grid > 0) & ~active
        nx, ny, nz = (n + 1 for n in self.cells)
        return grid[:nx, :ny, :nz]

    def _evaluate(self, at: tuple[Tensor, ...], level: float, check: Callable[[], None]) -> Tensor:
        """value - level [M] at nodes with indices x, y, z, [M] int32 each."""
        rows = torch.stack(
            [
                at[a] * width + at[b] + start
                for (a, b), width, start in zip(self._pairs, self._widths, self._starts)
            ],
            1,
        ).to(self._rows.device)
        self.evaluated += len(rows)

        def some(which: Tensor) -> Tensor:
            hidden = F.embedding_bag(which, self._rows, mode="sum")
            return self.layers.raw_density(self.layers.deeper(hidden)) - level

        size = device.chunk_items(4 * 16 * self._rows.shape[1])  # a quarter of the usual: caches
        return torch.cat(side_by_side(some, [(part,) for part in rows.split(size)], check))


def _mesh(axes: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(t.reshape(-1) for t in torch.meshgrid(*axes, indexing="ij"))


def _places(index: Tensor, nodes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Indices along x, y and z [M] int32 of flat indices [M]."""
    index = index.int()
    plane = nodes[1] * nodes[2]
    x = torch.div(index, plane, rounding_mode="floor")
    rest = index - x * plane
    y = torch.div(rest, nodes[2], rounding_mode="floor")
    return x, y, rest - y * nodes[2]


def _suspected(coarse: Tensor) -> Tensor:
    """Blocks [n ...] of corner values [n + 1 ...] in which the surface may be."""
    cubes = coarse[None, None]
    highest = F.max_pool3d(cubes, 2, 1)[0, 0]
    lowest = -F.max_pool3d(-cubes, 2, 1)[0, 0]
    margin = CAUTION * (highest - lowest)
    return (lowest - margin < 0) & (highest + margin > 0)


def _crossed(inside: Tensor) -> Tensor:
    """Blocks [n ...] whose nodes, those of all faces included, of inside [4 n + 1 ...] differ."""
    some, every = inside, inside
    for axis in range(3):
        some = _reduced(some, axis, torch.logical_or)
        every = _reduced(every, axis, torch.logical_and)
    return some & ~every


def _reduced(x: Tensor, axis: int, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    x = x.transpose(0, axis)
    parts = [x[i : len(x) - BLOCK + i : BLOCK] for i in range(BLOCK)] + [x[BLOCK::BLOCK]]
    out = parts[0]
    for part in parts[1:]:
        out = combine(out, part)
    return out.transpose(0, axis)


def _nodes(blocks: Tensor) -> Tensor:
    """Nodes [4 n + 1 ...] that belong to marked blocks [n ...], their faces included."""
    for axis in range(3):
        inner = blocks.repeat_interleave(BLOCK, axis)
        nodes = torch.cat([inner, torch.zeros_like(inner.narrow(axis, 0, 1))], axis)
        nodes.transpose(0, axis)[BLOCK::BLOCK] |= blocks.transpose(0, axis)
        blocks = nodes
    return blocks

"""Where along a camera's rays the surface of a grid of distances may lie: the way to skip the rest.

The grid is cut into blocks. Those through which the surface may pass are projected into the image,
and each tile of the image remembers between which depths they lie. A ray then starts and ends where
its tile says. Nothing is missed: between the grid's nodes the distance lies between theirs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.cameras import Camera

BLOCK = 6  # cells along a block's edge
TILE = 8  # pixels along a tile's edge
NEAREST = 1e-4  # of the box's size: a block with a corner nearer than this may be anywhere


class SurfaceBlocks:
    """The blocks of a grid [R, R, R] (z, y, x order, corners at those of `bounds` [2, 3]) that hold
    a distance of less than `margin` from the surface on either side."""

    def __init__(self, distance: Tensor, bounds: Tensor, margin: float) -> None:
        lowest, highest = -_maxima(-distance), _maxima(distance)
        at = ((lowest < margin) & (highest > -margin)).nonzero().flip(1)  # x, y, z
        cells = torch.tensor(distance.shape, device=at.device).flip(0) - 1
        ends = torch.stack([at * BLOCK, torch.minimum((at + 1) * BLOCK, cells)])  # [2, B, 3]
        size = (bounds[1] - bounds[0]).double()
        self._size = float(size.norm())
        placed = bounds[0] + ends / cells * size
        which = torch.tensor([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)], device=at.device)
        self._corners = torch.stack(
            [torch.stack([placed[w, :, axis] for axis, w in enumerate(row)], 1) for row in which], 1
        )  # [B, 8, 3]

    def depths(self, camera: Camera) -> tuple[Tensor, Tensor]:
        """The least and the greatest depth along the camera's z at which each pixel's ray may meet
        the surface, float32 [height * width]; least > greatest where it cannot."""
        corners, device = self._corners, self._corners.device
        across, down = -(-camera.width // TILE), -(-camera.height // TILE)
        least = torch.full((down * across,), torch.inf, dtype=torch.float64, device=device)
        greatest = -least
        pixels, z = camera.project(corners.reshape(-1, 3).cpu().numpy())
        z = torch.from_numpy(z).to(device).view(-1, 8)
        tiles = torch.from_numpy(pixels).to(device).view(-1, 8, 2) / TILE
        if not camera.orthographic:
            # In front of the camera in part only: it may be seen anywhere.
            straddling = (z.amin(1) < NEAREST * self._size) & (z.amax(1) > 0)
            tiles[straddling, 0] = -1.0
            tiles[straddling, 1] = float(max(across, down))
            tiles, z = tiles[z.amax(1) > 0], z[z.amax(1) > 0]
        limit = torch.tensor([across - 1, down - 1], device=device)
        # A little wider than it is: a pixel's ray may pass just where rounding says it does not.
        low = (tiles.amin(1) - 0.01).floor()
        high = (tiles.amax(1) + 0.01).floor()
        seen = ((high >= 0) & (low <= limit)).all(1)
        low, high = low[seen].clamp_min(0).long(), torch.minimum(high[seen], limit).long()
        z = z[seen]
        spread = high - low + 1
        count = spread.prod(1)
        owner = torch.arange(len(count), device=device).repeat_interleave(count)
        step = torch.arange(len(owner), device=device) - (count.cumsum(0) - count)[owner]
        row = low[owner, 1] + step // spread[owner, 0]
        tile = row * across + low[owner, 0] + step % spread[owner, 0]
        least.scatter_reduce_(0, tile, z.amin(1)[owner], "amin")
        greatest.scatter_reduce_(0, tile, z.amax(1)[owner], "amax")
        return self._by_pixel(least, camera), self._by_pixel(greatest, camera)

    @staticmethod
    def _by_pixel(tiles: Tensor, camera: Camera) -> Tensor:
        grid = tiles.view(-1, -(-camera.width // TILE)).float()
        grid = grid.repeat_interleave(TILE, 0).repeat_interleave(TILE, 1)
        return grid[: camera.height, : camera.width].reshape(-1)


def _maxima(grid: Tensor) -> Tensor:
    """The greatest of each block's nodes, those of its far faces included."""
    pads: list[int] = []
    for nodes in reversed(grid.shape):
        pads += 0, -(nodes - 1) % BLOCK
    padded = torch.nn.functional.pad(grid[None, None], pads, mode="replicate")
    return torch.nn.functional.max_pool3d(padded, BLOCK + 1, BLOCK)[0, 0]

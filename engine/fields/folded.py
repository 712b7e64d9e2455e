"""Planes and the decoder's first layer as one table of rows: the fast way to look a field up.

Three facts make one gather of eight rows a sample out of twelve and a matrix product:
- planes over the same two coordinates are sampled at the same place, so they can be added up
  beforehand (EG3D's official layout has (x, z) twice, once transposed);
- the decoder's first layer is linear, and so is interpolation: it can be applied to the texels;
- its bias can be added to the texels of one plane, as interpolation weights add up to one. Borders
  of texels that hold nothing else stand for the zeros outside the planes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

BEFORE, AFTER = 1, 2  # texels of border; the one after more so that the last needs no test


def aligned_pairs(projection: torch.Tensor, box: float) -> list[tuple[int, int, int, int]] | None:
    """Which two coordinates each plane spans, if all of them are parallel to two axes.

    projection: [3, 3, 2], points (rows) to plane coordinates in -1..1; box: as in TriplaneSettings.
    Returns for each plane (axis along the width, its sign, axis along the height, its sign), or
    None if one of them is turned or scaled.
    """
    found = []
    for matrix in (projection.double() * (box / 2)).tolist():
        row: list[int] = []
        for column in zip(*matrix):
            (axis, value), *others = sorted(enumerate(column), key=lambda item: -abs(item[1]))
            if abs(abs(value) - 1) > 1e-6 or any(abs(other) > 1e-6 for _, other in others):
                return None
            row += [axis, 1 if value > 0 else -1]
        if row[0] == row[2]:
            return None
        found.append(tuple(row))
    return found


def merged_planes(
    planes: torch.Tensor, pairs: Sequence[tuple[int, int, int, int]]
) -> dict[tuple[int, int], torch.Tensor]:
    """Planes [3, C, R, R] added up by the coordinates that they span: (a, b) with a < b -> [C, R,
    R], a rising along the width and b along the height."""
    out: dict[tuple[int, int], torch.Tensor] = {}
    for plane, (across, across_sign, down, down_sign) in zip(planes, pairs):
        flips = [dim for dim, sign in ((2, across_sign), (1, down_sign)) if sign < 0]
        plane = plane.flip(flips) if flips else plane
        plane = plane if across < down else plane.transpose(1, 2)
        key = (min(across, down), max(across, down))
        out[key] = out[key] + plane if key in out else plane
    return out


class FoldedPlanes:
    """A look-up of the decoder's hidden layer, before its activation. Not differentiable in the
    planes it was made from.

    planes: [3, C, R, R]; weight [H, C], bias [H]: the decoder's first layer, which takes the mean
    of the planes' features; pairs: see aligned_pairs; box: edge of the planes' cube, field units.
    """

    def __init__(
        self,
        planes: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        pairs: Sequence[tuple[int, int, int, int]],
        box: float,
    ) -> None:
        self.resolution = planes.shape[-1]
        self.scale = self.resolution / box
        merged = merged_planes(planes.detach(), pairs)
        self.pairs = tuple(merged)
        self.stride = self.resolution + BEFORE + AFTER
        inner = slice(BEFORE, BEFORE + self.resolution)
        table = planes.new_zeros(len(merged), self.stride, self.stride, len(bias))
        for k, plane in enumerate(merged.values()):
            texels = plane.permute(1, 2, 0).contiguous()
            table[k, inner, inner] = F.linear(texels, weight.detach() / len(planes))
        table[0] += bias.detach()
        self.table = table.flatten(0, 2)
        corners = torch.tensor([0, 1, self.stride, self.stride + 1], dtype=torch.int32)
        starts = torch.arange(len(merged), dtype=torch.int32) * self.stride**2
        self._corners = (starts[:, None] + corners).to(planes.device)  # [pairs, 4]

    def hidden(self, points: torch.Tensor) -> torch.Tensor:
        """Points [N, 3] -> [N, H]."""
        shift = self.resolution / 2 - 0.5 + BEFORE
        where = (points * self.scale + shift).clamp_(0, self.resolution + BEFORE)
        where = where.T.contiguous()  # one long row a coordinate: vectors, not triples
        low = where.floor()
        upper = where - low
        lower, low = 1 - upper, low.int()
        count = len(points)
        shares = points.new_empty(count, len(self.pairs), 2, 2)
        rows = torch.empty(count, len(self.pairs), 4, dtype=torch.int32, device=points.device)
        for k, (a, b) in enumerate(self.pairs):
            torch.add((low[b] * self.stride + low[a])[:, None], self._corners[k], out=rows[:, k])
            for down, share in enumerate((lower[b], upper[b])):
                torch.mul(share, lower[a], out=shares[:, k, down, 0])
                torch.mul(share, upper[a], out=shares[:, k, down, 1])
        return F.embedding_bag(
            rows.flatten(1), self.table, mode="sum", per_sample_weights=shares.flatten(1)
        )

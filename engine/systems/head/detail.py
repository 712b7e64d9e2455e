"""Fine colour detail of faces, for heads that no photo lends any.

The generator's raw planes have a texel every 3 mm, which leaves eyes as smudges. Canonical space
puts everybody's eyes at the same place, so one small patch of finer front plane, shared by all
heads, with a few variations that follow from w+, sharpens them: lids, irises, brows, nostrils,
lips. A generator with a fine block draws part of that itself and needs less of it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.errors import WeightsError
from engine.headspace.lattice import sample
from engine.headspace.space import HeadSpace

RESOLUTION = 256  # of planes with detail
SIDE = 112  # texels of the patch
CORNER = (72, 66)  # its first column and row: x -87.5 .. 87.5 mm, y -97 .. 78 mm
FADE = 16  # texels over which it fades out at its edge
COVER = 0.0015, 0.001  # metres of hair over the skin that hide the detail, and how softly
SHAPES = {"patch": 4, "channels": 2, "follow": 2, "centre": 1}


class FaceDetail:
    """patch [1 + V, r, SIDE, SIDE]: the mean detail and V variations in r numbers a texel; channels
    [r, C]: plane channels of these; follow [w, V], centre [w]: the variations' amounts from the
    mean row of w+."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        """Raises WeightsError if a tensor is missing or does not fit."""
        for name, dims in SHAPES.items():
            if name not in tensors or tensors[name].ndim != dims:
                raise WeightsError(f"The face detail's weights lack a usable '{name}'.")
        self.patch, self.channels, self.follow, self.centre = (
            tensors[name].float() for name in SHAPES
        )
        if (
            self.patch.shape[1:] != (len(self.channels), SIDE, SIDE)
            or len(self.patch) != 1 + self.follow.shape[1]
            or len(self.centre) != len(self.follow)
        ):
            raise WeightsError("The face detail's weights do not fit together.")

    def at(self, ws: Tensor) -> Tensor:
        """The patch [C, SIDE, SIDE] of a head's w+ [n, w]."""
        amounts = torch.cat([torch.ones(1), (ws.mean(0) - self.centre) @ self.follow])
        mixed = torch.tensordot(amounts, self.patch, 1)
        return torch.einsum("rhw,rc->chw", mixed, self.channels) * window()

    def add(
        self, planes: Tensor, ws: Tensor, space: HeadSpace, mass: Tensor, share: float = 1.0
    ) -> Tensor:
        """Planes [4, C, P, P] of a head at RESOLUTION, with a share of its detail on the front one
        where no hair (its mass [1, d, d, d], see HeadSpace.hair) hides the face. A new tensor."""
        planes = F.interpolate(
            planes.float(), (RESOLUTION,) * 2, mode="bilinear", align_corners=False
        ).clone()
        u, v = CORNER
        bare = 1 - covered(space, mass)
        planes[0, :, v : v + SIDE, u : u + SIDE] += self.at(ws) * bare * share
        return planes


def window() -> Tensor:
    """[SIDE, SIDE]: 1, falling smoothly to 0 at the edge."""
    t = torch.arange(SIDE) + 0.5
    ramp = (torch.minimum(t, SIDE - t) / FADE).clamp(0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return ramp[:, None] * ramp


def covered(space: HeadSpace, mass: Tensor) -> Tensor:
    """How much hair lies over the canonical face's skin at each texel of the patch [SIDE, SIDE]."""
    half = float(space.bounds[1, 0])
    step = 2 * half / RESOLUTION
    x = (CORNER[0] + torch.arange(SIDE) + 0.5) * step - half
    y = (CORNER[1] + torch.arange(SIDE) + 0.5) * step - half
    z = torch.linspace(0.14, -0.04, 61)
    depth, rows, columns = torch.meshgrid(z, y, x, indexing="ij")
    points = torch.stack([columns, rows, depth], -1)
    skin = sample(space.skin_distance[None], points.reshape(-1, 3), space.bounds)
    first = (skin.reshape(len(z), SIDE, SIDE) < 0).float().argmax(0)  # the nearest to the front
    surface = points.gather(0, first[None, ..., None].expand(1, SIDE, SIDE, 3))[0]
    hair = sample(mass, surface.reshape(-1, 3), space.bounds).reshape(SIDE, SIDE)
    return torch.sigmoid((-hair - COVER[0]) / COVER[1])

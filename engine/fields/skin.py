"""Fine skin on a head field: what planes with a texel every 1.6 mm cannot hold, wrapped round the
head from ear to ear like a label round a jar.

Lashes, irises, the line between the lips, stubble: a picture over the angle round a vertical axis
and the height, of what the planes' colours are multiplied by. A sampled head gets one from
systems/head/faces.py. Being a function of the canonical place, it is the same in the field's
pictures and in textures baked from it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS, COLUMNS = 256, 384
LOW, HIGH = -0.115, 0.095  # metres: heights of the picture's first and last row's edge
AXIS = -0.015  # metres: z of the vertical axis
WIDEST = math.radians(112)  # angle at the picture's edges; 0 is the face's middle
CROWD = 1.6  # how much denser than at the edges columns are in the middle: cosh of this
OFF = 0.0032, 0.004  # metres off the bare skin up to which it shows, and over which it fades
PREFIX, PARTS = "skin.", ("shade", "radius")


def unwrap(points: Tensor) -> tuple[Tensor, Tensor]:
    """Of canonical points [N, 3] the place on the picture [N, 2] (column, row; -1..1 on it), and
    the distance from the axis [N] (metres)."""
    x, y, z = points.unbind(-1)
    z = z - AXIS
    across = torch.asinh(torch.atan2(x, z) * (math.sinh(CROWD) / WIDEST)) / CROWD
    up = (y - LOW) * (2 / (HIGH - LOW)) - 1
    return torch.stack([across, up], -1), torch.sqrt(x * x + z * z)


def directions() -> tuple[Tensor, Tensor]:
    """Of the picture's texels the horizontal unit vectors away from the axis [COLUMNS, 2] (x, z),
    and the heights [ROWS] (metres)."""
    across = (torch.arange(COLUMNS) + 0.5) * (2 / COLUMNS) - 1
    angle = torch.sinh(across * CROWD) * (WIDEST / math.sinh(CROWD))
    up = (torch.arange(ROWS) + 0.5) / ROWS * (HIGH - LOW) + LOW
    return torch.stack([angle.sin(), angle.cos()], 1), up


class Skin:
    """shade [3, ROWS, COLUMNS]: logarithm of what colours are multiplied by; radius [1, ROWS,
    COLUMNS]: how far from the axis the bare canonical skin is (metres)."""

    def __init__(self, shade: Tensor, radius: Tensor) -> None:
        """Raises ValueError if shapes do not fit."""
        if shade.shape != (3, ROWS, COLUMNS) or radius.shape != (1, ROWS, COLUMNS):
            raise ValueError("the fine skin's tensors have unexpected shapes")
        self.shade, self.radius = shade, radius

    def factor(self, canonical: Tensor) -> Tensor:
        """What colours at canonical points [N, 3] are multiplied by: [N, 3]; 1 off the picture and
        off the skin, where hair lies over it."""
        place, radius = unwrap(canonical)
        out = torch.ones_like(canonical)
        some = (place.abs().amax(1) < 1).nonzero()[:, 0]
        if len(some):
            got = F.grid_sample(
                torch.cat([self.shade, self.radius])[None],
                place[some][None, None],
                padding_mode="border",
                align_corners=False,
            )[0, :, 0].T
            off = (radius[some] - got[:, 3]).abs()
            shown = (1 - (off - OFF[0]) / OFF[1]).clamp(0, 1)
            out[some] = torch.exp(got[:, :3] * shown[:, None])
        return out

    def tensors(self) -> dict[str, Tensor]:
        """By the names under which a field's file holds them."""
        return {PREFIX + name: getattr(self, name) for name in PARTS}

    @classmethod
    def from_saved(cls, tensors: dict[str, Tensor]) -> Skin | None:
        """Of a field's tensors: None where they hold none. Raises ValueError if some lack."""
        parts = [tensors.get(PREFIX + name) for name in PARTS]
        if all(part is None for part in parts):
            return None
        if any(part is None for part in parts):
            raise ValueError("some of the fine skin's tensors are missing")
        return cls(*(part.float() for part in parts))

    def to(self, device: torch.device | str) -> Skin:
        return Skin(self.shade.to(device), self.radius.to(device))

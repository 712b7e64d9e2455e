"""The linear head space: identity and expression as linear bases of a template in correspondence,
with the template's signed distance, and hair masses as a convex family of distances.

Everything lives in canonical space: metres, +x to the subject's left, +y up, +z out of the face,
the midpoint of the eyes at (0, 0.02, 0.075), the neck cut flat below.
Method: a 3D morphable model (Blanz and Vetter 1999) whose displacement warps a signed distance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.errors import WeightsError
from engine.headspace import lattice

SHAPES = {  # name -> number of dimensions
    "mean": 2,
    "identity": 3,
    "expression": 3,
    "faces": 2,
    "landmark_index": 2,
    "landmark_weight": 2,
    "landmark_offset": 2,
    "skin_distance": 3,
    "hair_distance": 4,
    "residual_bound": 3,
    "bounds": 2,
}


class HeadSpace:
    """Loaded bases, on one device, in float32.

    mean [V, 3] metres; identity [Ki, V, 3], expression [Ke, V, 3]: metres per standard deviation,
    so coefficients are about N(0, 1). faces [F, 3]. landmark_index/weight [84, 3]: the 68 usual
    points (iBUG order) and 16 more, as weighted template vertices.
    skin_distance [D, D, D], hair_distance [S, d, d, d]: canonical signed distances in metres
    (positive outside) over `bounds` [2, 3]; the last hair style is bald.
    residual_bound [d, d, d]: how far, in metres, a learned residual may move the surface there.
    """

    def __init__(self, tensors: dict[str, Tensor], device: torch.device | str = "cpu") -> None:
        """Raises WeightsError if a tensor is missing or has the wrong number of dimensions."""
        for name, dims in SHAPES.items():
            if name not in tensors or tensors[name].ndim != dims:
                raise WeightsError(
                    f"The head space's weights lack a usable '{name}'.",
                    "Install the extension again.",
                )
            value = tensors[name].to(device)
            setattr(self, name, value.float() if value.is_floating_point() else value.long())
        self._spread: lattice.Spread | None = None

    @property
    def styles(self) -> int:
        """Number of hair weights: every style, every style mirrored, and bald, in this order."""
        return 2 * self.hair_distance.shape[0] - 1

    def vertices(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Coefficients [..., Ki], [..., Ke] -> vertices [..., V, 3] in metres."""
        return self.mean + self.displacement(identity, expression)

    def displacement(self, identity: Tensor, expression: Tensor) -> Tensor:
        flat = identity @ self.identity.flatten(1) + expression @ self.expression.flatten(1)
        return flat.unflatten(-1, (-1, 3))

    def landmarks(self, vertices: Tensor) -> Tensor:
        """[..., V, 3] -> [..., 84, 3]."""
        near = vertices[..., self.landmark_index, :] * self.landmark_weight[..., None]
        return near.sum(-2) + self.landmark_offset

    def fixed_landmarks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Landmarks without vertices: of the mean head [84, 3], and what identity [84, 3, Ki] and
        expression [84, 3, Ke] add to them a unit."""
        moved = (
            (basis[:, self.landmark_index] * self.landmark_weight[..., None])
            .sum(2)
            .permute(1, 2, 0)
            for basis in (self.identity, self.expression)
        )
        return self.landmarks(self.mean), *moved

    def warp(self, identity: Tensor, expression: Tensor, resolution: int = 64) -> Tensor:
        """The inverse warp [3, L, L, L]: canonical point = point + warp(point)."""
        if self._spread is None or self._spread.resolution != resolution:
            self._spread = lattice.Spread(self.mean, self.bounds, resolution)
        forward = lattice.blur(self._spread(self.displacement(identity, expression)), 2)
        return lattice.invert(forward, self.bounds)

    def hair(self, weights: Tensor, offset: Tensor | float = 0.0) -> Tensor:
        """A hair mass [1, d, d, d] from convex weights [styles]; `offset` metres make it fuller."""
        n = self.hair_distance.shape[0] - 1
        straight = torch.cat([weights[:n], weights[2 * n :]])
        out = torch.tensordot(straight, self.hair_distance, 1)
        mirrored = torch.tensordot(weights[n : 2 * n], self.hair_distance[:n], 1).flip(-1)
        return (out + mirrored)[None] - offset


def smooth_union(a: Tensor, b: Tensor, radius: float = 0.003) -> Tensor:
    """min(a, b) with the crease rounded over `radius` (quadratic smooth minimum)."""
    h = (radius - (a - b).abs()).clamp_min(0) / radius
    return torch.minimum(a, b) - h * h * radius / 4

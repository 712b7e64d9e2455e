"""The mirror image of a head in the head space's own numbers.

The template's vertices are not in left-right pairs, so a mirrored head is the nearest one in the
space: the displacement at the mirror image of every vertex is read off the template's surface
nearby. What the bases cannot follow is 0.4 mm at the landmarks (tests/test_perceive.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from engine.headspace.space import HeadSpace

# Landmark k of a mirrored head is landmark MIRRORED[k] of the head.
MIRRORED = (
    *reversed(range(17)),  # jaw
    *reversed(range(17, 27)),  # brows
    *range(27, 31),  # nose's ridge
    *reversed(range(31, 36)),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
    *reversed(range(48, 55)),  # outer lips, upper and lower
    *reversed(range(55, 60)),
    *reversed(range(60, 65)),  # inner lips
    *reversed(range(65, 68)),
    *(69, 68, 71, 70, 72, 74, 73, 75),  # pupils, eyes, nose's tip, mouth's corners, chin
    *(77, 76, 79, 78, 81, 80, 82, 83),  # ears, crown, occiput
)


def mirror_landmarks(landmarks: Tensor) -> Tensor:
    """Places [..., 84, 2] in 0..1 of a picture -> in the mirrored picture."""
    moved = landmarks[..., list(MIRRORED), :]
    return torch.stack([1 - moved[..., 0], moved[..., 1]], -1)


def mirror_pose(pose: Tensor) -> Tensor:
    """Pose numbers [..., 6] (see engine.inversion.pose) -> of the mirrored picture."""
    yaw, pitch, roll, x, y, height = pose.unbind(-1)
    return torch.stack([-yaw, pitch, -roll, 1 - x, y, height], -1)


@dataclass(frozen=True)
class Mirror:
    """Coefficients times identity [Ki, Ki] or expression [Ke, Ke] are the mirrored head's; its
    hair weights are hair [styles] of the head's."""

    identity: Tensor
    expression: Tensor
    hair: Tensor


@lru_cache(maxsize=1)
def mirror_of(space: HeadSpace, near: int = 4, thin: int = 3) -> Mirror:
    """By least squares over every thin-th vertex, each read off its `near` nearest ones."""
    flip = torch.tensor([-1.0, 1.0, 1.0])
    vertices = (space.mean * flip)[::thin]
    distance, index = (torch.from_numpy(x) for x in cKDTree(space.mean).query(vertices, near))
    weight = 1 / (distance.float() + 1e-5).square()
    weight = (weight / weight.sum(1, keepdim=True))[..., None]

    def matrix(basis: Tensor) -> Tensor:
        mirrored = ((basis[:, index] * weight).sum(2) * flip).flatten(1)
        flat = basis[:, ::thin].flatten(1)
        return torch.linalg.lstsq(flat.T.double(), mirrored.T.double()).solution.T.float()

    n = len(space.hair_distance) - 1
    hair = torch.cat([torch.arange(n, 2 * n), torch.arange(n), torch.tensor([2 * n])])
    return Mirror(matrix(space.identity), matrix(space.expression), hair)

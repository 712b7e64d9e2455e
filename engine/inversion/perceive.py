"""What the perception network sees, averaged and made consistent: the start of every fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.device import Compute
from engine.headspace.mirror import MIRRORED, mirror_landmarks, mirror_of, mirror_pose
from engine.headspace.space import HeadSpace
from engine.inversion import pose as poses
from engine.portrait.perception import SIZE, Perception, PerceptionNet

FAR = 0.05  # of the picture's side: landmarks farther from the numbers' count as this far


def look(space: HeadSpace, net: PerceptionNet, picture: Tensor) -> Perception:
    """Pictures [B, 3, 128, 128] in -1..1: the mean of what the network says of them and of their
    mirror images, mirrored back. All in float32."""
    mirror, b = mirror_of(space), len(picture)
    both = net(torch.cat([picture, picture.flip(-1)]))
    straight, turned = (
        Perception(*(value[part].float() for value in vars(both).values()))
        for part in (slice(b), slice(b, None))
    )
    back = Perception(
        classes=turned.classes.flip(-1),
        landmarks=mirror_landmarks(turned.landmarks),
        spread=turned.spread[:, list(MIRRORED)],
        identity=turned.identity @ mirror.identity,
        expression=turned.expression @ mirror.expression,
        hair=turned.hair[:, mirror.hair],
        pose=mirror_pose(turned.pose),
    )
    return Perception(*((a + z) / 2 for a, z in zip(vars(straight).values(), vars(back).values())))


def look_at(
    space: HeadSpace, net: PerceptionNet, crop: np.ndarray, compute: Compute
) -> Perception:
    """look() at a picture uint8 [S, S, 3] of any size."""
    with torch.no_grad(), compute.autocast():
        return look(space, net, F.interpolate(signed(crop), (SIZE, SIZE), mode="area"))


def signed(crop: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> [1, 3, H, W] in -1..1, as the networks take pictures."""
    return torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 127.5 - 1


def features(space: HeadSpace, seen: Perception) -> Tensor:
    """What refined() corrects by [B, 168 + Ki + Ke + 6]: how far the landmarks lie from where the
    numbers put them, and the numbers."""
    apart = seen.landmarks - project(space, seen.identity, seen.expression, seen.pose)
    numbers = [seen.identity, seen.expression, seen.pose]
    return torch.cat([apart.clamp(-FAR, FAR).flatten(1), *numbers], 1)


def project(space: HeadSpace, identity: Tensor, expression: Tensor, pose: Tensor) -> Tensor:
    """Heads [B, Ki], [B, Ke] in their cameras [B, 6]: places of the landmarks [B, 84, 2]."""
    rest, by_identity, by_expression = space.fixed_landmarks()
    points = rest + torch.einsum("bk,lck->blc", identity, by_identity)
    points = points + torch.einsum("bk,lck->blc", expression, by_expression)
    return poses.project(points, pose)


def refined(space: HeadSpace, net: PerceptionNet, seen: Perception) -> Perception:
    """Identity, expression and pose corrected by the network's own landmarks: one linear step,
    learned on training heads by ridge regression (engine/training/calibrate.py). The maps see more
    sharply than the numbers, and which of the numbers is to blame for a landmark that is off was
    learned with it. Weights without this step change nothing."""
    step = net.refine(features(space, seen))
    parts = step.split([seen.identity.shape[1], seen.expression.shape[1], 6], 1)
    return replace(
        seen,
        identity=seen.identity + parts[0],
        expression=seen.expression + parts[1],
        pose=seen.pose + parts[2],
    )

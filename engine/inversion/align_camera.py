"""The camera refined by the photo's own colours: what pose-optimising inversion adds.

The head's surface points keep their colours; the camera moves until the photo shows those colours
where the points fall (Lucas and Kanade 1981), and the landmarks stay where they were seen. Its six
numbers move in small steps, and colours do not move with them: the photo's light is not the
model's, so both are compared after their broad light and shade is taken off.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.fields.head import HeadField
from engine.headspace.space import HeadSpace
from engine.inversion import pose as poses
from engine.inversion.optim import Adam
from engine.inversion.pseudo import solid_depth
from engine.inversion.shape import Shape
from engine.inversion.warp import facing, points_of

SIZE = 128  # pixels a side at which pictures are compared
BROAD = 15  # pixels: light and shade as wide as this are taken off
# How far yaw, pitch, roll (radians), place (of the picture) and the log of the size move in a step.
STEP = 0.002, 0.002, 0.002, 0.0006, 0.0006, 0.001
LANDMARKS = 0.05  # weight of a landmark's distance, in units of its spread
USUAL = 0.06, 0.05, 0.03, 0.01, 0.01, 0.03  # how wrong the camera may be, one standard deviation
LUMA = 0.299, 0.587, 0.114


def align_camera(
    space: HeadSpace,
    field: HeadField,
    shape: Shape,
    crop: np.ndarray,
    trust: np.ndarray,
    landmarks: Tensor,
    spread: Tensor,
    steps: int = 30,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """A better pose [6] (see engine.inversion.pose) than the shape's for a field.

    crop uint8 [S, S, 3] and trust [S, S] in 0..1: the photo and its matte; landmarks [84, 2] in
    0..1 with their spread [84]: as the network saw them.
    """
    start = shape.pose.detach().clone()
    camera = poses.to_camera(start, SIZE)
    seen = field.render(camera, check)
    depth, alpha = solid_depth(seen), seen.alpha
    picture = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
    matte = torch.from_numpy(trust)[None, None].float()
    picture, matte = (F.interpolate(x, (SIZE, SIZE), mode="area") for x in (picture, matte))
    weight = facing(depth, alpha, camera) * matte[0, 0]
    inside = weight > 0.05
    points, weight = points_of(depth, camera)[inside], weight[inside]
    own = _detail(seen.image.permute(2, 0, 1)[None], alpha[None, None])[0, 0][inside]
    photo = _detail(picture * matte, matte)
    marks = shape.landmarks(space)
    trusted = 1 / spread.clamp(0.006, 0.05)
    size, usual = torch.tensor(STEP), torch.tensor(USUAL)

    number = torch.zeros(6, requires_grad=True)  # in units of a step
    optimiser = Adam([{"params": [number], "lr": 1.0}], betas=(0.8, 0.95))
    for step in range(steps):
        check()
        optimiser.param_groups[0]["lr"] = 1.5 * (1 - step / steps)
        pose = start + number * size
        places = poses.project(points, pose) * 2 - 1
        got = F.grid_sample(photo, places[None, None], align_corners=False)[0, 0, 0]
        apart = ((got - own).square() + 1e-4).sqrt()
        loss = (weight * apart).sum() / weight.sum()
        off = (poses.project(marks, pose) - landmarks).square().sum(1).add(1e-6).sqrt()
        loss = loss + LANDMARKS * (trusted * off).mean()
        loss = loss + 0.002 * ((pose - start) / usual).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return (start + number * size).detach()


def _detail(picture: Tensor, alpha: Tensor) -> Tensor:
    """Log brightness [1, 1, S, S] of a premultiplied picture [1, 3, S, S] without what is broad."""
    luma = (picture * picture.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    bright = (luma / alpha.clamp_min(0.05) + 0.05).log() * (alpha > 0.05)

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, BROAD, 1, BROAD // 2)

    fine = F.avg_pool2d(bright, 3, 1, 1)
    return (fine - mean(bright * alpha) / mean(alpha).clamp_min(0.02)) * (alpha > 0.5)

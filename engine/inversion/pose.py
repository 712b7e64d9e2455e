"""A head-centred camera as six numbers, differentiable (see Perception.pose).

pose [6]: yaw, pitch, roll of the camera about the head (radians), the head origin's place in the
picture (x right, y down, in 0..1), and the log of the picture's height in metres at the origin's
distance. The focal length (normalised by the picture's side) is given, not estimated: one portrait
hardly determines it. A crop counts as the picture of a camera of its own, whose axis goes through
the crop's middle; training labels are made so (engine/training/data.py, pose_of).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from engine.cameras import Camera

FOV = math.radians(18)  # of the aligned square, assumed: a portrait lens
FOCAL = 0.5 / math.tan(FOV / 2)


def rotation(pose: Tensor) -> Tensor:
    """cam2world rotation [..., 3, 3], OpenCV axes, of poses [..., 6]."""
    cy, cp, cr = torch.cos(pose[..., :3]).unbind(-1)
    sy, sp, sr = torch.sin(pose[..., :3]).unbind(-1)
    back = torch.stack([sy * cp, sp, cy * cp], -1)
    level = torch.stack([cy, torch.zeros_like(cy), -sy], -1)
    up = torch.linalg.cross(back, level)
    cr, sr = cr[..., None], sr[..., None]
    return torch.stack([cr * level + sr * up, sr * level - cr * up, -back], -1)


def translation(pose: Tensor, focal: float = FOCAL) -> Tensor:
    """The head's origin in camera coordinates [..., 3], of poses [..., 6]."""
    z = focal * pose[..., 5:].exp()
    return torch.cat([(pose[..., 3:5] - 0.5) / focal * z, z], -1)


def project(points: Tensor, pose: Tensor, focal: float = FOCAL) -> Tensor:
    """Points [..., N, 3] -> places [..., N, 2] in 0..1 of the pictures of poses [..., 6]."""
    p = points @ rotation(pose) + translation(pose, focal)[..., None, :]
    return focal * p[..., :2] / p[..., 2:] + 0.5


def rays(pose: Tensor, places: Tensor, focal: float = FOCAL) -> tuple[Tensor, Tensor]:
    """Origin [3] and unit directions [N, 3] through places [N, 2] in 0..1."""
    r = rotation(pose)
    d = torch.cat([(places - 0.5) / focal, torch.ones_like(places[:, :1])], 1)
    return -r @ translation(pose, focal), torch.nn.functional.normalize(d, dim=1) @ r.T


def to_camera(pose: Tensor, size: int, focal: float = FOCAL) -> Camera:
    """The camera of a size x size aligned square."""
    pose = pose.detach().double().cpu()
    r = rotation(pose)
    cam2world = np.eye(4)
    cam2world[:3, :3] = r.numpy()
    cam2world[:3, 3] = (-r @ translation(pose, focal)).numpy()
    k = np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1.0]])
    return Camera(cam2world, k, size, size, "photo")

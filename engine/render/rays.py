"""Rays through the pixels of cameras, in torch; of pinholes differentiable in the camera."""

from __future__ import annotations

import torch

from engine.cameras import Camera
from engine.device import full_precision


def pixel_rays(
    cam2world: torch.Tensor, intrinsics: torch.Tensor, width: int, height: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rays through the pixel centres, row by row.

    cam2world: [4, 4], OpenCV axes; intrinsics: [3, 3], normalised to image size, skew allowed.
    Returns origin [3] and unit directions [height * width, 3], on the camera's device and in its
    dtype, with gradients to both matrices.
    """
    like = {"device": cam2world.device, "dtype": cam2world.dtype}
    v, u = torch.meshgrid(
        (torch.arange(height, **like) + 0.5) / height,
        (torch.arange(width, **like) + 0.5) / width,
        indexing="ij",
    )
    u, v = u.reshape(-1), v.reshape(-1)
    y = (v - intrinsics[1, 2]) / intrinsics[1, 1]
    x = (u - intrinsics[0, 2] - intrinsics[0, 1] * y) / intrinsics[0, 0]
    with full_precision(cam2world):
        directions = torch.stack([x, y, torch.ones_like(x)], 1) @ cam2world[:3, :3].T
    return cam2world[:3, 3], torch.nn.functional.normalize(directions, dim=1)


def camera_rays(
    camera: Camera, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Origin [3], of an orthographic camera origins [height * width, 3], and unit directions
    [height * width, 3] of a Camera, float32, row by row. Made in float64, so that distant cameras
    lose nothing."""
    origin, directions = camera.rays()
    like = {"dtype": torch.float32, "device": device}
    if camera.orthographic:
        origin = origin.reshape(-1, 3)
    directions = directions.reshape(-1, 3)
    return torch.tensor(origin, **like), torch.tensor(directions, **like)

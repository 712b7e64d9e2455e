"""What the tests of views share: a small head-like field, its mesh, and cameras of all kinds."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch

from engine import cameras
from engine.cameras import FIELD_TO_BLENDER, Camera
from engine.fields.head import HeadField
from engine.fields.triplane import OFFICIAL_AXES, Decoder, TriplaneField, TriplaneSettings
from engine.headspace import lattice
from engine.networks.planes import PlaneDecoder
from engine.render.volume import RaySettings
from engine.surface import isosurface
from engine.surface.mesh import Mesh

BOUNDS = torch.tensor([[-0.2] * 3, [0.2] * 3])


def solid(p: torch.Tensor) -> torch.Tensor:
    """Distance to a skull with a nose, an ear on one side only, and a neck."""

    def ball(centre, radius):
        return (p - torch.tensor(centre)).norm(dim=1) - radius

    parts = [
        ball((0.0, 0.03, 0.0), 0.09),
        ball((0.0, 0.02, 0.09), 0.022),
        ball((0.09, 0.02, -0.01), 0.026),
        ball((0.0, -0.08, -0.02), 0.055),
    ]
    return torch.stack(parts).amin(0)


@cache
def field() -> HeadField:
    resolution = 112
    grid = solid(lattice.nodes(resolution, BOUNDS)).reshape((resolution,) * 3)
    torch.manual_seed(0)
    decoder = PlaneDecoder(8, 16).requires_grad_(False)
    made = HeadField(
        grid, torch.zeros(3, 4, 4, 4), torch.randn(4, 8, 32, 32), decoder, BOUNDS, {"model": "test"}
    )
    return made


@cache
def mesh() -> Mesh:
    return isosurface.extract(field(), 128)


@cache
def cloud() -> TriplaneField:
    """A tri-plane whose density grows towards the middle: planes of x², y², z² and a linear map."""
    size = 96
    at = (torch.arange(size) + 0.5) / size * 2 - 1
    planes = torch.zeros(3, 2, size, size)
    planes[0, 0], planes[1, 0] = (at**2)[None, :] + (at**2)[:, None], (at**2)[:, None]
    decoder = Decoder(
        torch.tensor([[-120.0, 0.0], [0.0, 0.0]]),
        torch.tensor([10.0, 0.0]),
        torch.tensor([[20.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, -1.0]]),
        torch.tensor([-40.0, 0.0, 0.0, 0.0]),
    )
    rays = RaySettings(2.2, 3.2, 64, 64)
    settings = TriplaneSettings(OFFICIAL_AXES, 1.0, rays, 10.0, 0.25)
    return TriplaneField(planes, decoder, settings)


def blender_camera(seed: int, size: int = 512) -> dict:
    """Blender's numbers of a camera that looks at the head from somewhere: lens 20 to 135 mm, any
    fit, shifted, pixels that are not square, upright and broad pictures; every third one is
    orthographic."""
    rng = np.random.default_rng(seed)
    yaw, pitch, roll = rng.uniform(-math.pi, math.pi), rng.uniform(-1.2, 1.2), rng.uniform(-1, 1)
    lens, sensor = rng.uniform(20, 135), rng.uniform(20, 40)
    short = int(size * rng.uniform(0.6, 1.0))
    resolution = [(size, short), (short, size)][seed % 2]
    aspects = [(1.0, 1.0), (1.6, 1.0), (1.0, 1.3)][seed % 3]
    shown = min(resolution[0] * aspects[0], resolution[1] * aspects[1])
    shown /= max(resolution[0] * aspects[0], resolution[1] * aspects[1])
    distance = 0.36 / shown * lens / sensor
    back = np.array([math.sin(yaw) * math.cos(pitch), -math.cos(yaw) * math.cos(pitch)])
    place = distance * np.array([*back, math.sin(pitch)])
    matrix = cameras.look_at(place, np.zeros(3), (0, 0, 1.0)) @ cameras.OPENCV_TO_BLENDER_CAMERA
    turn = np.eye(4)
    turn[:2, :2] = [[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]]
    return {
        "matrix_world": (matrix @ turn).ravel().tolist(),
        "type": "ORTHO" if seed % 3 == 2 else "PERSP",
        "sensor_fit": ("AUTO", "HORIZONTAL", "VERTICAL")[seed % 3 if shown < 1 else 0],
        "sensor_width": sensor,
        "sensor_height": sensor,
        "lens": lens,
        "ortho_scale": 0.36 / shown,
        "shift_x": rng.uniform(-0.08, 0.08),
        "shift_y": rng.uniform(-0.08, 0.08),
        "resolution_x": resolution[0],
        "resolution_y": resolution[1],
        "pixel_aspect_x": aspects[0],
        "pixel_aspect_y": aspects[1],
        "clip_start": 0.01,
        "clip_end": 100.0,
    }


def camera(seed: int, size: int = 512) -> Camera:
    return cameras.from_blender(blender_camera(seed, size), FIELD_TO_BLENDER)

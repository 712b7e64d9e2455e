"""EG3D models as samplers. Seeds, cameras and truncation are those of the original's scripts, so
that the same seed gives the same head. Source: Chan et al. 2022."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from engine import cameras
from engine.cameras import Camera
from engine.device import Compute
from engine.fields.base import Field
from engine.fields.triplane import TriplaneField
from engine.sampling.base import Picture, Sampler
from engine.systems.eg3d.config import EG3DConfig
from engine.systems.eg3d.generator import EG3DGenerator


def orbit_camera(config: EG3DConfig, yaw: float, pitch: float, size: int) -> Camera:
    """The original's look-at camera (its LookAtPoseSampler), size x size pixels.

    It stands on a sphere round the field's origin and looks at the model's pivot. yaw, pitch:
    degrees from the front, see Sampler.camera. The original is even in the sphere's area, not in
    the angle: the sine of the elevation is pitch / 90 degrees.
    """
    height = min(max(pitch / 90.0, -1 + 1e-9), 1 - 1e-9)
    level = math.sqrt(1 - height * height)
    turn = math.radians(yaw)
    direction = np.array([level * math.sin(turn), height, level * math.cos(turn)])
    pose = cameras.look_at(config.field.orbit_radius * direction, config.field.orbit_pivot)
    focal = config.camera_focal
    intrinsics = np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
    return Camera(pose, intrinsics, size, size)


def row_names(config: EG3DConfig, count: int) -> tuple[str, ...]:
    """What the rows of w steer: the two convolutions of each plane size, and the last colours."""
    sizes = [4] + [2 ** (3 + i // 2) for i in range(count - 2)]
    names = ["4 px"] + [f"{s} px {'ab'[i % 2]}" for i, s in enumerate(sizes[1:])]
    return (*names, f"{config.plane_resolution} px colours")


class EG3DSampler(Sampler):
    """A generator on a device; its networks run at the compute's precision."""

    def __init__(self, generator: EG3DGenerator, name: str, sha256: str, compute: Compute) -> None:
        self.generator = generator.to(compute.device)
        self.name, self.sha256, self.compute = name, sha256, compute
        self.config = generator.config
        self.rows = row_names(self.config, generator.num_ws)
        self.picture_size = self.config.image_resolution

    def z(self, seed: int) -> torch.Tensor:
        drawn = np.random.RandomState(seed).randn(1, self.config.z_dim)
        return torch.from_numpy(drawn[0]).float()

    @torch.no_grad()
    def map(
        self,
        z: torch.Tensor,
        psi: float = 0.7,
        cutoff: int = -1,
        yaw: float = 0.0,
        pitch: float = 0.0,
    ) -> torch.Tensor:
        c = torch.from_numpy(self.camera(yaw, pitch).to_eg3d())[None]
        c = c[:, : self.config.c_dim].to(self.compute.device)
        cutoff = len(self.rows) if cutoff < 0 else cutoff
        return self.generator.mapping(z[None].to(c), c, psi, cutoff)[0].cpu()

    @torch.no_grad()
    def field(self, code: torch.Tensor) -> TriplaneField:
        with self.compute.autocast():
            planes = self.generator.planes(code[None].to(self.compute.device))
        return self.generator.field(planes[0])

    def camera(self, yaw: float, pitch: float, size: int = 0) -> Camera:
        return orbit_camera(self.config, yaw, pitch, size or self.picture_size)

    @torch.no_grad()
    def picture(
        self,
        code: torch.Tensor,
        camera: Camera,
        check: Callable[[], None] = lambda: None,
        field: Field | None = None,
    ) -> Picture:
        """Super-resolved: good for square cameras near the model's orbit. Cameras of another size
        than picture_size get that picture resized; thumbnails, no larger than the volume's own
        pictures, come straight from the volume. Painted: what such a model shows behind a head is
        mostly part of the field."""
        made = field if isinstance(field, TriplaneField) else self.field(code)
        check()
        c = torch.from_numpy(camera.to_eg3d())[None].to(self.compute.device)
        small = camera.width <= self.config.neural_resolution
        ws = None if small else code[None].to(self.compute.device)
        size = camera.width if small else None
        with self.compute.autocast():
            views = self.generator.render([made], c, ws, resolution=size, check=check)
        pixels = (views.image[0].float().permute(1, 2, 0) * 127.5 + 128).clamp(0, 255).byte()
        alpha = (views.opacity[0].float() * 255 + 0.5).clamp(0, 255).byte()
        return Picture(_scaled(pixels, camera.width), _scaled(alpha, camera.width), painted=True)

    def photo_cameras(self) -> tuple[Camera, ...]:
        return tuple(self.camera(yaw, 0.0) for yaw in (0.0, 30.0, -30.0))


def _scaled(pixels: torch.Tensor, size: int) -> np.ndarray:
    """uint8 [S, S, ...] at size x size."""
    array = pixels.cpu().numpy()
    if len(array) == size:
        return array
    kind = Image.Resampling.LANCZOS if size < len(array) else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(array).resize((size, size), kind))

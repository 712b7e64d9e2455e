"""Tri-plane fields of the EG3D kind: three feature planes, their mean, a small decoder.

Source: Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks" (2022). Which
coordinates a plane spans belongs to the checkpoint, not to the code: it is part of the metadata.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from engine import device as devices
from engine.cameras import Camera
from engine.fields.base import Field, Render
from engine.render.rays import camera_rays
from engine.render.volume import RaySettings, render_chunked

Axes = tuple[tuple[tuple[float, float, float], ...], ...]

# Published EG3D checkpoints: planes (x, y), (x, z), (z, x).
OFFICIAL_AXES: Axes = (
    ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)),
    ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
)
RGB_MARGIN = 0.001  # colours are the sigmoid widened by this on both sides, so 0 and 1 are reached


@dataclass(frozen=True)
class TriplaneSettings:
    """What a tri-plane's numbers mean.

    plane_axes: per plane a 3x3 matrix; a point (as a row) times its inverse gives the plane's
        coordinates in the first two numbers, the first along the width.
    box: edge of the cube round the origin that the planes cover, in field units.
    rays: where to sample; level: raw density at the surface; metres_per_unit: as in Field.
    """

    plane_axes: Axes
    box: float
    rays: RaySettings
    level: float
    metres_per_unit: float


@dataclass(frozen=True)
class Decoder:
    """Two linear layers as plain tensors: features [C] -> hidden, softplus -> density and colours.

    weight0 [hidden, C], bias0 [hidden], weight1 [1 + colours, hidden], bias1 [1 + colours].
    """

    weight0: torch.Tensor
    bias0: torch.Tensor
    weight1: torch.Tensor
    bias1: torch.Tensor

    def density(self, features: torch.Tensor) -> torch.Tensor:
        """Features [N, C] -> raw density [N]."""
        hidden = F.softplus(F.linear(features, self.weight0, self.bias0))
        return F.linear(hidden, self.weight1[:1], self.bias1[:1])[:, 0]

    def __call__(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [N, C] -> raw density [N], colours [N, colours] in -0.001 .. 1.001."""
        hidden = F.softplus(F.linear(features, self.weight0, self.bias0))
        out = F.linear(hidden, self.weight1, self.bias1)
        return out[:, 0], torch.sigmoid(out[:, 1:]) * (1 + 2 * RGB_MARGIN) - RGB_MARGIN


def plane_projection(axes: Axes, box: float, like: torch.Tensor) -> torch.Tensor:
    """Matrices [3, 3, 2] that take points (rows) to each plane's coordinates in -1 .. 1."""
    inverse = torch.linalg.inv(torch.tensor(axes, dtype=torch.float64))
    return (inverse[:, :, :2] * (2.0 / box)).to(like)


def sample_planes(
    planes: torch.Tensor, points: torch.Tensor, projection: torch.Tensor
) -> torch.Tensor:
    """Features of each plane [3, C, N]: planes [3, C, H, W], points [N, 3], projection [3, 3, 2].
    Bilinear between pixel centres (align_corners False), zeros outside."""
    with devices.full_precision(points):
        grid = torch.matmul(points.expand(3, -1, -1), projection)[:, None]  # [3, 1, N, 2]
        return F.grid_sample(planes, grid, "bilinear", "zeros", align_corners=False)[:, :, 0]


class TriplaneField(Field):
    """planes: [3, C, H, W] float32; decoder: Decoder; settings: TriplaneSettings.

    color() and render() show the first three of the decoder's colours.
    """

    kind = "eg3d"

    def __init__(self, planes: torch.Tensor, decoder: Decoder, settings: TriplaneSettings) -> None:
        hidden, channels = decoder.weight0.shape
        outputs = decoder.weight1.shape[0]
        if planes.ndim != 4 or planes.shape[:2] != (3, channels) or outputs < 4:
            raise ValueError("planes and decoder do not fit together")
        if (
            decoder.weight1.shape[1] != hidden
            or decoder.bias0.shape != (hidden,)
            or decoder.bias1.shape != (outputs,)
        ):
            raise ValueError("the decoder's layers do not fit together")
        self.planes, self.decoder, self.settings = planes, decoder, settings
        self.level, self.metres_per_unit = settings.level, settings.metres_per_unit
        half = settings.box / 2
        self.bounds = torch.tensor([[-half] * 3, [half] * 3])
        self._projection = plane_projection(settings.plane_axes, settings.box, planes)

    def plane_features(self, points: torch.Tensor) -> torch.Tensor:
        """Points [N, 3] -> features of each plane [3, C, N]."""
        return sample_planes(self.planes, points, self._projection)

    def features(self, points: torch.Tensor) -> torch.Tensor:
        """Points [N, 3] -> the mean of the planes' features [N, C]: what the decoder takes."""
        return self.plane_features(points).mean(0).T

    def value(self, points: torch.Tensor) -> torch.Tensor:
        return torch.cat(
            [self.decoder.density(self.features(p)) for p in points.split(self._chunk())]
        )

    def query(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.decoder(self.features(points))

    def color(self, points: torch.Tensor) -> torch.Tensor:
        parts = [self.query(p)[1][:, :3] for p in points.split(self._chunk())]
        return torch.cat(parts).clamp(0, 1)

    def render(self, camera: Camera, check: Callable[[], None] = lambda: None) -> Render:
        with torch.no_grad():
            origin, directions = camera_rays(camera, self.planes.device)
            out = render_chunked(
                self.query,
                origin,
                directions,
                self.settings.rays,
                bytes_per_sample=self.bytes_per_point(),
                check=check,
            )
            # Rays are not parallel to the camera's axis: along it they are shorter.
            axis = torch.as_tensor(camera.cam2world[:3, 2]).to(directions)
            size = (camera.height, camera.width)
            return Render(
                out.features[:, :3].clamp(0, 1).view(*size, 3),
                (out.depth * (directions @ axis)).view(size),
                out.opacity.view(size),
            )

    def bytes_per_point(self) -> int:
        """Of intermediates while points are evaluated."""
        hidden, channels = self.decoder.weight0.shape
        return 4 * (4 * channels + 2 * hidden + 2 * self.decoder.weight1.shape[0] + 12)

    def _chunk(self) -> int:
        return devices.chunk_items(self.bytes_per_point())

    def tensors(self) -> dict[str, torch.Tensor]:
        named = {f"decoder.{name}": tensor for name, tensor in vars(self.decoder).items()}
        return {"planes": self.planes, **named}

    def metadata(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self.settings)}

    @classmethod
    def from_saved(
        cls, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]
    ) -> TriplaneField:
        decoder = Decoder(
            *(tensors[f"decoder.{name}"] for name in ("weight0", "bias0", "weight1", "bias1"))
        )
        axes = tuple(
            tuple(tuple(float(x) for x in row) for row in m) for m in metadata["plane_axes"]
        )
        if torch.tensor(axes).shape != (3, 3, 3):
            raise ValueError("plane_axes must be three 3x3 matrices")
        settings = TriplaneSettings(
            plane_axes=axes,
            box=float(metadata["box"]),
            rays=RaySettings(**metadata["rays"]),
            level=float(metadata["level"]),
            metres_per_unit=float(metadata["metres_per_unit"]),
        )
        return cls(tensors["planes"], decoder, settings)

    def to(self, device: torch.device | str) -> TriplaneField:
        if self.planes.device == torch.device(device):
            return self
        moved = {name: tensor.to(device) for name, tensor in vars(self.decoder).items()}
        decoder = replace(self.decoder, **moved)
        return TriplaneField(self.planes.to(device), decoder, self.settings)

"""Tri-plane fields of the EG3D kind: three feature planes, their mean, a small decoder.

Source: Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks" (2022). Which
coordinates a plane spans belongs to the checkpoint, not to the code: it is part of the metadata.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from engine import device as devices
from engine.cameras import Camera
from engine.fields.base import Field, Render
from engine.fields.folded import FoldedPlanes, aligned_pairs
from engine.fields.gridded import GriddedDensity
from engine.render.rays import camera_rays
from engine.render.volume import RaySettings, render_chunked

Axes = tuple[tuple[tuple[float, float, float], ...], ...]

# Published EG3D checkpoints: planes (x, y), (x, z), (z, x).
OFFICIAL_AXES: Axes = (
    ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)),
    ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
)
NOTHING = -1000.0  # raw density where nothing is
RGB_MARGIN = 0.001  # colours are the sigmoid widened by this on both sides, so 0 and 1 are reached


@dataclass(frozen=True)
class TriplaneSettings:
    """What a tri-plane's numbers mean.

    plane_axes: per plane a 3x3 matrix; a point (as a row) times its inverse gives the plane's
        coordinates in the first two numbers, the first along the width.
    box: edge of the cube round the origin that the planes cover, in field units.
    rays: where to sample, for a camera at orbit_radius from the origin; level: raw density at the
        surface; metres_per_unit: as in Field.
    orbit_radius, orbit_pivot: the cameras that the planes were trained with stood on a sphere of
        that radius round the origin and looked at the pivot.
    trim: share of the box cut off at either side where a surface is wanted: what lies there is
        background and the planes' edges.
    white_background: the generator's own images show white where nothing is, not black.
    """

    plane_axes: Axes
    box: float
    rays: RaySettings
    level: float
    metres_per_unit: float
    orbit_radius: float = 2.7
    orbit_pivot: tuple[float, float, float] = (0.0, 0.0, 0.0)
    trim: float = 0.0
    white_background: bool = False


@dataclass(frozen=True)
class Decoder:
    """Two linear layers as plain tensors: features [C] -> hidden, softplus -> density and colours.

    weight0 [hidden, C], bias0 [hidden], weight1 [1 + colours, hidden], bias1 [1 + colours].
    """

    weight0: torch.Tensor
    bias0: torch.Tensor
    weight1: torch.Tensor
    bias1: torch.Tensor

    def hidden(self, features: torch.Tensor) -> torch.Tensor:
        """Features [N, C] -> the first layer's outputs [N, hidden], before the softplus."""
        return F.linear(features, self.weight0, self.bias0)

    def density(self, activated: torch.Tensor) -> torch.Tensor:
        """Activated first layer [N, hidden] -> raw density [N]."""
        return activated @ self.weight1[0] + self.bias1[0]

    def colours(self, activated: torch.Tensor) -> torch.Tensor:
        """Activated first layer [N, hidden] -> colours [N, colours] in -0.001 .. 1.001."""
        out = F.linear(activated, self.weight1[1:], self.bias1[1:])
        return torch.sigmoid(out) * (1 + 2 * RGB_MARGIN) - RGB_MARGIN

    def __call__(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [N, C] -> raw density [N], colours [N, colours]."""
        activated = F.softplus(self.hidden(features))
        return self.density(activated), self.colours(activated)


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
        half = settings.box * (0.5 - settings.trim)
        self.bounds = torch.tensor([[-half] * 3, [half] * 3], device=planes.device)
        self._projection = plane_projection(settings.plane_axes, settings.box, planes)
        self._folded: FoldedPlanes | None = None
        self._folded_versions: list[int] = []

    def plane_features(self, points: torch.Tensor) -> torch.Tensor:
        """Points [N, 3] -> features of each plane [3, C, N]."""
        return sample_planes(self.planes, points, self._projection)

    def features(self, points: torch.Tensor) -> torch.Tensor:
        """Points [N, 3] -> the mean of the planes' features [N, C]: what the decoder takes."""
        return self.plane_features(points).mean(0).T

    def activated(self, points: torch.Tensor) -> torch.Tensor:
        """Points [N, 3] -> the decoder's hidden layer [N, hidden], activated: what density and
        colours are linear in (colours before their sigmoid). Differentiable; several times faster
        where nothing asks for gradients."""
        with devices.full_precision(points):
            folded = None if self._differentiates(points) else self.folded()
            if folded is None:
                return F.softplus(self.decoder.hidden(self.features(points)))
            hidden = folded.hidden(points)
            return torch._C._nn.softplus(hidden, out=hidden)

    def folded(self) -> FoldedPlanes | None:
        """The fast look-up, made at the first call; None where the planes' layout allows none."""
        height, width = self.planes.shape[2:]
        pairs = aligned_pairs(self._projection, self.settings.box)
        if pairs is None or height != width:
            return None
        first = self.decoder.weight0, self.decoder.bias0
        # Whoever changes the planes in place, as tuning does, gets a new table.
        versions = [0 if t.is_inference() else t._version for t in (self.planes, *first)]
        if self._folded is None or versions != self._folded_versions:
            self._folded = FoldedPlanes(self.planes, *first, pairs, self.settings.box)
            self._folded_versions = versions
        return self._folded

    def _differentiates(self, points: torch.Tensor) -> bool:
        tensors = (points, self.planes, *vars(self.decoder).values())
        return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)

    def look(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points [N, 3] -> raw density [N] and the state [N, hidden] that colours() takes."""
        activated = self.activated(points)
        with devices.full_precision(points):
            return self.decoder.density(activated), activated

    def colours(self, state: torch.Tensor) -> torch.Tensor:
        """States [N, hidden] -> all of the decoder's colours [N, colours]."""
        return self.decoder.colours(state)

    def value(self, points: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.look(p)[0] for p in points.split(self._chunk())])

    @torch.no_grad()
    def grid(
        self, low: torch.Tensor, step: float, cells: Sequence[int], check: Callable[[], None]
    ) -> torch.Tensor | None:
        folded = self.folded()
        if folded is None:
            return None
        row = self.decoder.weight1[0], self.decoder.bias1[0]
        return GriddedDensity(folded, *row, low, step, cells).values(self.level, check)

    def query(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        density, state = self.look(points)
        return density, self.colours(state)

    def color(self, points: torch.Tensor) -> torch.Tensor:
        parts = [self.query(p)[1][:, :3] for p in points.split(self._chunk())]
        return torch.cat(parts).clamp(0, 1)

    def render(
        self,
        camera: Camera,
        check: Callable[[], None] = lambda: None,
        only: torch.Tensor | None = None,
    ) -> Render:
        with torch.no_grad():
            self.folded()  # once, before several threads ask for it
            origin, directions = camera_rays(camera, self.planes.device)
            if only is not None:
                wanted = only.flatten()
                origin = origin if origin.ndim == 1 else origin[wanted]
                directions = directions[wanted]
            out = render_chunked(
                _Trimmed(self, camera),
                origin,
                directions,
                self._rays_from(camera),
                bytes_per_sample=self.bytes_per_point(),
                check=check,
            )
            # Rays are not parallel to the camera's axis: along it they are shorter.
            axis = torch.as_tensor(camera.world2cam[2, :3]).to(directions)
            depth = out.depth * (directions @ axis)
            seen = torch.cat(
                [out.features[:, :3].clamp(0, 1), depth[:, None], out.opacity[:, None]], 1
            )
            if only is not None:
                seen = seen.new_zeros(len(wanted), 5).masked_scatter_(wanted[:, None], seen)
            image, depth, alpha = seen.view(camera.height, camera.width, 5).split([3, 1, 1], 2)
            return Render(image.contiguous(), depth[..., 0], alpha[..., 0])

    def _rays_from(self, camera: Camera) -> RaySettings:
        """Where to sample for a camera that may be nearer or farther than those that the planes
        were trained with."""
        rays, middle = self.settings.rays, camera.world2cam[2]
        away = np.linalg.norm(camera.position)
        if camera.orthographic:  # along its rays, to beside the middle
            away = middle[3] / np.linalg.norm(middle[:3])
        farther = float(away) - self.settings.orbit_radius
        near = max(rays.near + farther, 1e-3)
        return replace(rays, near=near, far=max(rays.far + farther, near + 1e-3))

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
            orbit_radius=float(metadata["orbit_radius"]),
            orbit_pivot=tuple(float(x) for x in metadata["orbit_pivot"]),
            trim=float(metadata["trim"]),
            white_background=bool(metadata["white_background"]),
        )
        return cls(tensors["planes"], decoder, settings)

    def to(self, device: torch.device | str) -> TriplaneField:
        if self.planes.device == torch.device(device):
            return self
        moved = {name: tensor.to(device) for name, tensor in vars(self.decoder).items()}
        decoder = replace(self.decoder, **moved)
        field = TriplaneField(self.planes.to(device), decoder, self.settings)
        field.origin = self.origin
        return field


class _Trimmed:
    """A field with nothing outside its bounds: what is shown is what the surface is made of. Nor
    is there anything before the camera's near plane or behind its far plane."""

    def __init__(self, field: TriplaneField, camera: Camera) -> None:
        self._field, self.colours = field, field.colours
        self._bounds = field.bounds.to(field.planes)
        self._clips = camera.near > 0 or math.isfinite(camera.far)
        self._near, self._far = camera.near, camera.far
        self._depth = torch.as_tensor(camera.world2cam[2]).to(field.planes)

    def look(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        density, state = self._field.look(points)
        outside = ((points < self._bounds[0]) | (points > self._bounds[1])).any(1)
        if self._clips:
            depth = points @ self._depth[:3] + self._depth[3]
            outside |= (depth < self._near) | (depth > self._far)
        return density.masked_fill_(outside, NOTHING), state

"""Tri-plane fields of the LRM family: features of three planes side by side, and a deeper decoder.

Source: Hong et al. 2023 (LRM), OpenLRM, TripoSR. Which coordinates a plane spans belongs to the
model; it is written in house axes (x to the subject's left, y up, z towards the viewer), so a field
already stands as every other field does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine import device as devices
from engine.cameras import Camera, intrinsics_from_fov
from engine.fields.base import Field, Render
from engine.fields.folded import FoldedPlanes
from engine.fields.lrm_grid import GriddedLayers
from engine.render.boxed import BoxRays, render_box
from engine.render.rays import camera_rays

NOTHING = -1000.0  # raw density where nothing is
Pair = tuple[int, int, int, int]


@dataclass(frozen=True)
class LrmSettings:
    """What a field's numbers mean.

    pairs: of each plane the axis along its width, that axis' sign, the axis along its height, its
        sign (signs 1 or -1).
    radius: half of the edge of the box that the planes cover, field units.
    activation: of the decoder's hidden layers, "silu" or "relu"; density: from the decoder's first
        number less 1, "exp" or "softplus"; colour_margin: colours are the sigmoid widened by it.
    coarse, fine: samples on a ray, see engine.render.boxed.BoxRays.
    surface_density: where the surface is.
    camera_distance, camera_fov: of the picture that the field was made from (fov: radians across).
    metres_per_unit: as in Field.
    """

    pairs: tuple[Pair, Pair, Pair]
    radius: float
    activation: str
    density: str
    colour_margin: float
    coarse: int
    fine: int
    surface_density: float
    camera_distance: float
    camera_fov: float
    metres_per_unit: float = 1.0

    @property
    def level(self) -> float:
        """The decoder's first number at the surface."""
        if self.density == "exp":
            return 1 + math.log(self.surface_density)
        return 1 + math.log(math.expm1(self.surface_density))

    def density_of(self, raw: Tensor) -> Tensor:
        """Raw density -> density."""
        return torch.exp(raw - 1) if self.density == "exp" else F.softplus(raw - 1)


class LrmField(Field):
    """planes: [3, C, R, R] float32; layers: the decoder's (weight, bias), the first [H, 3 C] over
    the planes' features one after the other, the last [4, H]: raw density, then colours; settings.

    value() is the raw density: in a grid's cells its course is straighter than the density's, so
    surfaces come out smoother; the level is where the density is settings.surface_density.
    """

    kind = "lrm"

    def __init__(
        self, planes: Tensor, layers: Sequence[tuple[Tensor, Tensor]], settings: LrmSettings
    ) -> None:
        channels = planes.shape[1]
        widths = [3 * channels] + [len(bias) for _, bias in layers]
        shapes = [tuple(weight.shape) for weight, _ in layers]
        if planes.ndim != 4 or len(planes) != 3 or planes.shape[2] != planes.shape[3]:
            raise ValueError("the planes are not three squares")
        if len(layers) < 2 or widths[-1] != 4 or shapes != list(zip(widths[1:], widths)):
            raise ValueError("planes and decoder do not fit together")
        known = settings.activation in ("silu", "relu"), settings.density in ("exp", "softplus")
        if not all(known):
            raise ValueError("the field's functions are not known")
        self.planes, self.layers, self.settings = planes, list(layers), settings
        self.level, self.metres_per_unit = settings.level, settings.metres_per_unit
        r = settings.radius
        self.bounds = torch.tensor([[-r] * 3, [r] * 3], device=planes.device)
        self._folded: FoldedPlanes | None = None

    def folded(self) -> FoldedPlanes:
        """The look-up of the first layer, made at the first call: it is linear, and so is
        interpolation, so it is applied to the planes' texels."""
        if self._folded is None:
            weight, bias = self.layers[0]
            parts = weight.unflatten(1, (3, -1))  # [H, 3, C]
            planes = torch.einsum("hkc,kcvu->khvu", parts, self.planes)
            # The look-up takes the mean of planes and one weight for all.
            same = 3 * torch.eye(len(bias), device=planes.device)
            self._folded = FoldedPlanes(
                planes, same, bias, self.settings.pairs, 2 * self.settings.radius
            )
        return self._folded

    def activated(self, x: Tensor) -> Tensor:
        """A hidden layer's activation, in place."""
        return F.silu(x, inplace=True) if self.settings.activation == "silu" else x.relu_()

    def deeper(self, hidden: Tensor) -> Tensor:
        """The first layer's output [N, H], before its activation (it is overwritten) -> the last
        hidden layer [N, H], activated."""
        for weight, bias in self.layers[1:-1]:
            hidden = F.linear(self.activated(hidden), weight, bias)
        return self.activated(hidden)

    def raw_density(self, state: Tensor) -> Tensor:
        """Last hidden layer [N, H] -> raw density [N]."""
        weight, bias = self.layers[-1]
        return state @ weight[0] + bias[0]

    def look(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points [N, 3] -> raw density [N] and the state [N, H] that colours() takes."""
        with torch.no_grad(), devices.full_precision(points):
            state = self.deeper(self.folded().hidden(points))
            return self.raw_density(state), state

    def colours(self, state: Tensor) -> Tensor:
        """States [N, H] -> colours [N, 3], about 0..1."""
        weight, bias = self.layers[-1]
        margin = self.settings.colour_margin
        with devices.full_precision(state):
            out = torch.sigmoid(F.linear(state, weight[1:], bias[1:]))
        return out * (1 + 2 * margin) - margin

    def value(self, points: Tensor) -> Tensor:
        return torch.cat([self.look(p)[0] for p in points.split(self._chunk())])

    @torch.no_grad()
    def grid(
        self, low: Tensor, step: float, cells: Sequence[int], check: Callable[[], None]
    ) -> Tensor | None:
        return GriddedLayers(self.folded(), self, low, step, cells).values(self.level, check)

    def query(self, points: Tensor) -> tuple[Tensor, Tensor]:
        density, state = self.look(points)
        return density, self.colours(state)

    def color(self, points: Tensor) -> Tensor:
        parts = [self.query(p)[1] for p in points.split(self._chunk())]
        return torch.cat(parts).clamp(0, 1)

    def input_camera(self, size: int = 512) -> Camera:
        """The camera that the picture is assumed to have been taken with: straight from the
        front. size: pixels a side."""
        cam2world = np.diag([1.0, -1.0, -1.0, 1.0])
        cam2world[2, 3] = self.settings.camera_distance
        intrinsics = intrinsics_from_fov(self.settings.camera_fov)
        return Camera(cam2world, intrinsics, size, size, name="picture")

    def render(
        self,
        camera: Camera,
        check: Callable[[], None] = lambda: None,
        only: Tensor | None = None,
    ) -> Render:
        self.folded()  # once, before several threads ask for it
        origin, directions = camera_rays(camera, self.planes.device)
        if only is not None:
            wanted = only.flatten()
            origin = origin if origin.ndim == 1 else origin[wanted]
            directions = directions[wanted]
        settings = self.settings
        with torch.no_grad():
            out = render_box(
                _Clipped(self, camera),
                origin,
                directions,
                BoxRays(settings.radius, settings.coarse, settings.fine),
                settings.density_of,
                bytes_per_sample=self.bytes_per_point(),
                check=check,
            )
            # Rays are not parallel to the camera's axis: along it they are shorter.
            axis = torch.as_tensor(camera.world2cam[2, :3]).to(directions)
            depth = out.depth * (directions @ axis)
            seen = torch.cat([out.features.clamp(0, 1), depth[:, None], out.opacity[:, None]], 1)
            if only is not None:
                seen = seen.new_zeros(len(wanted), 5).masked_scatter_(wanted[:, None], seen)
            image, depth, alpha = seen.view(camera.height, camera.width, 5).split([3, 1, 1], 2)
        return Render(image.contiguous(), depth[..., 0], alpha[..., 0])

    def bytes_per_point(self) -> int:
        """Of intermediates while points are evaluated."""
        return 4 * (4 * len(self.layers[0][1]) + 40)

    def _chunk(self) -> int:
        return devices.chunk_items(self.bytes_per_point())

    def tensors(self) -> dict[str, Tensor]:
        named = {"planes": self.planes}
        for number, (weight, bias) in enumerate(self.layers):
            named[f"decoder.{number}.weight"], named[f"decoder.{number}.bias"] = weight, bias
        return named

    def metadata(self) -> dict[str, Any]:
        facts = asdict(self.settings) | {"metres_per_unit": self.metres_per_unit}
        return {"kind": self.kind, **facts}

    @classmethod
    def from_saved(cls, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> LrmField:
        count = sum(name.endswith(".weight") for name in tensors)
        layers = [
            (tensors[f"decoder.{i}.weight"], tensors[f"decoder.{i}.bias"]) for i in range(count)
        ]
        pairs = tuple(tuple(int(n) for n in pair) for pair in metadata["pairs"])
        good = all(len(p) == 4 and {p[0], p[2]} < {0, 1, 2} and p[0] != p[2] for p in pairs)
        if len(pairs) != 3 or not good or any(abs(p[i]) != 1 for p in pairs for i in (1, 3)):
            raise ValueError("pairs must be three times two axes")
        numbers = {
            name: float(metadata[name])
            for name in (
                "radius",
                "colour_margin",
                "surface_density",
                "camera_distance",
                "camera_fov",
                "metres_per_unit",
            )
        }
        if not all(math.isfinite(x) for x in numbers.values()) or not numbers["radius"] > 0:
            raise ValueError("a number is out of bounds")
        coarse, fine = int(metadata["coarse"]), int(metadata["fine"])
        if not (4 <= coarse <= 1024 and 0 <= fine <= 1024 and numbers["surface_density"] > 0):
            raise ValueError("a number is out of bounds")
        words = {name: str(metadata[name]) for name in ("activation", "density")}
        settings = LrmSettings(pairs=pairs, coarse=coarse, fine=fine, **words, **numbers)
        return cls(tensors["planes"], layers, settings)

    def to(self, device: torch.device | str) -> LrmField:
        if self.planes.device == torch.device(device):
            return self
        layers = [(weight.to(device), bias.to(device)) for weight, bias in self.layers]
        field = LrmField(self.planes.to(device), layers, self.settings)
        field.origin, field.metres_per_unit = self.origin, self.metres_per_unit
        return field


class _Clipped:
    """A field with nothing before the camera's near plane or behind its far plane."""

    def __init__(self, field: LrmField, camera: Camera) -> None:
        self._field, self.colours = field, field.colours
        self._clips = camera.near > 0 or math.isfinite(camera.far)
        self._near, self._far = camera.near, camera.far
        self._depth = torch.as_tensor(camera.world2cam[2]).to(field.planes)

    def look(self, points: Tensor) -> tuple[Tensor, Tensor]:
        density, state = self._field.look(points)
        if self._clips:
            depth = points @ self._depth[:3] + self._depth[3]
            density.masked_fill_((depth < self._near) | (depth > self._far), NOTHING)
        return density, state

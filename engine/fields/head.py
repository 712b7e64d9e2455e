"""The field of our own head model: a signed distance on a grid, tri-planes for colour.

Field units are metres. The distance (positive outside) is a grid over the box, so surfaces are
cheap and exact. Colour is looked up in canonical space: a point is moved by the warp lattice, the
tri-planes are read there, a small network decodes. Density for rendering follows from distance:
opacity between two samples as in NeuS (Wang et al. 2021, equation 13), which puts the weight on
the surface without bias.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.cameras import Camera
from engine.fields.base import Field, Render
from engine.headspace.lattice import sample
from engine.networks.planes import PlaneDecoder, sample_planes

SHARPNESS = 1 / 0.0005  # per metre: the surface is about half a millimetre thick
COARSE = 72  # distance samples per ray to find the surface
FINE_HALF = 0.0035  # metres: samples are spread this far before and behind it
FINE = 8
LAYERS = 3
CHUNK = 16384  # rays


class HeadField(Field):
    """distance [R, R, R] metres (z, y, x order), warp [3, L, L, L] metres to canonical space,
    planes [4, C, P, P], decoder: plane features -> colour; all over the box `bounds`."""

    kind = "head"
    metres_per_unit = 1.0
    level = 0.0

    def __init__(
        self,
        distance: Tensor,
        warp: Tensor,
        planes: Tensor,
        decoder: PlaneDecoder,
        bounds: Tensor,
        info: dict[str, Any] | None = None,
    ) -> None:
        if distance.ndim != 3 or warp.ndim != 4 or planes.ndim != 4 or warp.shape[0] != 3:
            raise ValueError("the head field's tensors have unexpected shapes")
        if planes.shape[0] != 4 or planes.shape[1] != decoder.net[0].weight.shape[1]:
            raise ValueError("the head field's planes do not fit its decoder")
        self.distance, self.warp, self.planes = distance, warp, planes
        self.decoder, self.bounds, self.info = decoder, bounds, dict(info or {})

    def value(self, points: Tensor) -> Tensor:
        return -sample(self.distance[None], points, self.bounds)[:, 0]

    def query(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Density (per metre, VolSDF's Laplace form, equation 2) and display colour [N, 3]."""
        inside = self.value(points) * SHARPNESS
        half = 0.5 * torch.exp(-inside.abs())
        return SHARPNESS * torch.where(inside > 0, 1 - half, half), self.color(points)

    def color(self, points: Tensor) -> Tensor:
        canonical = points + sample(self.warp, points, self.bounds)
        features = sample_planes(self.planes[None], canonical[None] / self.bounds[1, 0])
        return self.decoder(features)[0][0].clamp(0, 1)

    @torch.no_grad()
    def render(self, camera: Camera, check: Callable[[], None] = lambda: None) -> Render:
        origin, directions = camera.rays()
        origin = torch.tensor(origin, dtype=torch.float32, device=self.distance.device)
        rays = torch.tensor(directions.reshape(-1, 3), dtype=torch.float32, device=origin.device)
        forward = torch.tensor(camera.cam2world[:3, 2], dtype=torch.float32, device=origin.device)
        parts = []
        for chunk in rays.split(CHUNK):
            check()
            parts.append(self._render_rays(origin, chunk))
        colour, along, alpha = (torch.cat(p) for p in zip(*parts))
        shape = (camera.height, camera.width)
        return Render(
            colour.reshape(*shape, 3),
            (along * (rays @ forward)).reshape(shape),
            alpha.reshape(shape),
        )

    def _render_rays(self, origin: Tensor, rays: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Colour [N, 3] (premultiplied), place along the ray [N], alpha [N]."""
        near, far = self.box_span(origin, rays)
        colour, depth = torch.zeros_like(rays), torch.zeros_like(far)
        clear = torch.ones_like(far)
        live = (far > near).nonzero()[:, 0]
        start = near.clone()
        # An edge grazed in front lets part of the ray through to what lies behind it.
        for _ in range(LAYERS):
            if not len(live):
                break
            centre, least = self.find_surface(origin, rays[live], start[live], far[live])
            live, centre = live[least < FINE_HALF], centre[least < FINE_HALF]
            shown, along, total = self._shade(origin, rays[live], centre)
            share = clear[live]
            colour[live] += share[:, None] * shown
            depth[live] += share * along
            clear[live] = share * (1 - total)
            start[live] = centre + FINE_HALF
            live = live[(clear[live] > 0.02) & (start[live] < far[live] - FINE_HALF)]
        alpha = 1 - clear
        return colour, torch.where(alpha > 0.01, depth / alpha.clamp_min(1e-6), far), alpha

    def _shade(self, origin: Tensor, rays: Tensor, centre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Composite of the samples around `centre` [N]: colour [N, 3], weighted place [N] and
        weight [N]."""
        offsets = torch.linspace(-FINE_HALF, FINE_HALF, FINE + 1, device=rays.device)
        t = centre[:, None] + offsets
        points = origin + t[..., None] * rays[:, None]
        distance = -self.value(points.reshape(-1, 3)).reshape(t.shape)
        weights = neus_weights(distance)
        # A ray that ends inside is stopped, however flat it went in.
        total = weights.sum(1, keepdim=True)
        solid = (distance[:, -1:] < 0) & (total > 1e-3)
        weights = torch.where(solid, weights / total.clamp_min(1e-3), weights)
        middle = (points[:, 1:] + points[:, :-1]) / 2
        decoded = torch.zeros_like(middle)
        shown = weights > 1e-3
        if shown.any():
            decoded[shown] = self.color(middle[shown])
        along = (weights * (t[:, 1:] + t[:, :-1]) / 2).sum(1)
        return (weights[..., None] * decoded).sum(1), along, weights.sum(1)

    def box_span(self, origin: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
        """Where rays enter and leave the box; far <= near where they miss it."""
        safe = torch.where(rays.abs() < 1e-9, torch.full_like(rays, 1e-9), rays)
        a, b = (self.bounds[0] - origin) / safe, (self.bounds[1] - origin) / safe
        near = torch.minimum(a, b).amax(1).clamp_min(0.0)
        return near, torch.maximum(a, b).amin(1)

    def find_surface(
        self, origin: Tensor, rays: Tensor, near: Tensor, far: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Along each ray the place of the first crossing into the inside (secant between coarse
        samples), or of the least distance where there is none; and that least distance (negative
        or zero at a crossing)."""
        steps = torch.linspace(0, 1, COARSE, device=rays.device)
        t = near[:, None] + (far - near)[:, None] * steps
        points = origin + t[..., None] * rays[:, None]
        d = -self.value(points.reshape(-1, 3)).reshape(t.shape)
        crossed, secant, k = _first_crossing(t, d)
        middle, closest = t.gather(1, k)[:, 0], d.gather(1, k)[:, 0]
        # Thin things and grazing rays: look again, finely, around the least distance.
        span = (far - near) / (COARSE - 1)
        fine = torch.linspace(-1, 1, 13, device=rays.device)
        around = (
            torch.where(crossed, secant, middle)[:, None]
            + span[:, None] * fine * torch.where(crossed, 0.5, 1.0)[:, None]
        )
        d = -self.value((origin + around[..., None] * rays[:, None]).reshape(-1, 3))
        d = d.reshape(around.shape)
        again, secant, _ = _first_crossing(around, d)
        least = around.gather(1, d.argmin(1, keepdim=True))[:, 0]
        return torch.where(again, secant, least), torch.minimum(closest, d.amin(1))

    def tensors(self) -> dict[str, Tensor]:
        decoder = {f"decoder.{k}": v for k, v in self.decoder.state_dict().items()}
        return {"distance": self.distance, "warp": self.warp, "planes": self.planes, **decoder}

    def metadata(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "bounds": self.bounds.tolist(),
            "metres_per_unit": self.metres_per_unit,
            "axes": "x to the subject's left, y up, z out of the face",
            "planes": ["x y front", "x y back", "z y", "x z"],
            "info": self.info,
        }

    @classmethod
    def from_saved(cls, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> HeadField:
        width, channels = tensors["decoder.net.0.weight"].shape
        decoder = PlaneDecoder(channels, width)
        state = {k[8:]: v.float() for k, v in tensors.items() if k.startswith("decoder.")}
        try:
            decoder.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        decoder.requires_grad_(False)
        bounds = torch.tensor(metadata["bounds"], dtype=torch.float32)
        if bounds.shape != (2, 3) or not (bounds[1] > bounds[0]).all():
            raise ValueError("the head field's bounds are no box")
        return cls(
            tensors["distance"].float(),
            tensors["warp"].float(),
            tensors["planes"].float(),
            decoder,
            bounds,
            metadata.get("info"),
        )

    def to(self, device: torch.device | str) -> HeadField:
        for name in ("distance", "warp", "planes", "bounds"):
            setattr(self, name, getattr(self, name).to(device))
        self.decoder.to(device)
        return self


def _first_crossing(t: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of distances d [N, S] at places t [N, S]: whether any is inside [N], the secant's zero before
    the first that is [N], and the sample there, or the nearest where none is (never the first)
    [N, 1]."""
    inside = d < 0
    crossed = inside.any(1)
    k = torch.where(crossed, inside.int().argmax(1), d.argmin(1)).clamp(1, d.shape[1] - 1)[:, None]
    d0, d1 = d.gather(1, k - 1)[:, 0], d.gather(1, k)[:, 0]
    t0, t1 = t.gather(1, k - 1)[:, 0], t.gather(1, k)[:, 0]
    return crossed, t0 + (t1 - t0) * (d0 / (d0 - d1).clamp_min(1e-9)).clamp(0, 1), k


def neus_weights(distance: Tensor) -> Tensor:
    """Distances along rays [N, S + 1] -> compositing weights [N, S] (NeuS, equations 10 and 13)."""
    phi = torch.sigmoid(distance * SHARPNESS)
    alpha = ((phi[:, :-1] - phi[:, 1:]) / phi[:, :-1].clamp_min(1e-5)).clamp(0, 1)
    clear = torch.cumprod(1 - alpha + 1e-7, 1)
    clear = F.pad(clear[:, :-1], (1, 0), value=1.0)
    return alpha * clear

"""The field of our own head model: a signed distance on a grid, tri-planes for colour.

Field units are metres. The distance (positive outside) is a grid over the box, so surfaces are
cheap and exact. Colour is looked up in canonical space: a point is moved by the warp lattice, the
tri-planes are read there, a small network decodes. Density for rendering follows from distance:
opacity between two samples as in NeuS (Wang et al. 2021, equation 13), which puts the weight on
the surface without bias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.cameras import Camera
from engine.fields.base import Field, Render
from engine.fields.skin import Skin
from engine.fields.spans import SurfaceBlocks
from engine.fields.strands import Strands
from engine.headspace.lattice import sample
from engine.networks.planes import PlaneDecoder, sample_planes
from engine.render.rays import camera_rays

SHARPNESS = 1 / 0.0005  # per metre: the surface is about half a millimetre thick
COARSE = 72  # distance samples along the box's edge to find the surface
STRIDE = 10  # of these are taken at a time: most rays need no more
FINE_HALF = 0.0035  # metres: samples are spread this far before and behind it
FINE = 8
LAYERS = 3
CHUNK = 16384  # rays at a time
PLANES = {
    4: ["x y front", "x y back", "z y", "x z"],
    5: ["x y front", "x y back", "z y left", "z y right", "x z"],
}
BAND = 1 << 20  # pixels of an image whose rays are known at a time


@dataclass(frozen=True)
class _Rays:
    """Rays of a picture: origins [N, 3], unit directions [N, 3], depth gained per length `along`
    [N]; the surface may be met from `start` to `end`, the box or the far plane ends them at `far`,
    and `cut` is where the near plane cuts the box open (inf where it does not) [N]."""

    origins: Tensor
    directions: Tensor
    along: Tensor
    start: Tensor
    end: Tensor
    far: Tensor
    cut: Tensor

    def only(self, which: Tensor) -> _Rays:
        """The rays with these indices."""
        return _Rays(*(tensor[which] for tensor in vars(self).values()))


class HeadField(Field):
    """distance [R, R, R] metres (z, y, x order), warp [3, L, L, L] metres to canonical space,
    planes [4 or 5, C, P, P], decoder: plane features -> colour; all over the box `bounds`; strands:
    lines over the planes' colours where no photo lends the hair its own, see strands.py; skin: the
    same for the face, see skin.py."""

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
        strands: Strands | None = None,
        skin: Skin | None = None,
    ) -> None:
        if distance.ndim != 3 or warp.ndim != 4 or planes.ndim != 4 or warp.shape[0] != 3:
            raise ValueError("the head field's tensors have unexpected shapes")
        if planes.shape[0] not in (4, 5) or planes.shape[1] != decoder.net[0].weight.shape[1]:
            raise ValueError("the head field's planes do not fit its decoder")
        self.distance, self.warp, self.planes = distance, warp, planes
        self.decoder, self.bounds, self.info = decoder, bounds, dict(info or {})
        self.strands, self.skin = strands, skin
        self._blocks: SurfaceBlocks | None = None
        self._blocks_of: tuple[Tensor | None, int] = (None, 0)

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
        colour = self.decoder(features)[0][0]
        if self.strands is not None:
            colour = colour * self.strands.factor(canonical, self.bounds)
        if self.skin is not None:
            colour = colour * self.skin.factor(canonical)
        return colour.clamp(0, 1)

    @torch.no_grad()
    def render(
        self,
        camera: Camera,
        check: Callable[[], None] = lambda: None,
        only: Tensor | None = None,
    ) -> Render:
        out = torch.zeros(camera.height, camera.width, 5, device=self.distance.device)
        rows = max(1, BAND // camera.width)
        for top in range(0, camera.height, rows):
            check()
            band = slice(top, min(top + rows, camera.height))
            wanted = None if only is None else only[band].flatten().nonzero()[:, 0]
            if wanted is None or len(wanted):
                seen = self._render_band(camera.rows(band.start, band.stop), wanted, check)
                out[band] = seen.view(-1, camera.width, 5)
        image, depth, alpha = out.split([3, 1, 1], 2)
        return Render(image.contiguous(), depth[..., 0].contiguous(), alpha[..., 0].contiguous())

    def _render_band(
        self, camera: Camera, wanted: Tensor | None, check: Callable[[], None]
    ) -> Tensor:
        """Colour, depth and alpha [N, 5] of an image's pixels; those not wanted [M] are 0."""
        rays = self._rays(camera)
        count = len(rays.along)
        out = torch.zeros(count, 5, device=rays.along.device)
        wanted = torch.arange(count, device=out.device) if wanted is None else wanted
        for part in wanted.split(CHUNK):
            check()
            colour, place, alpha = self._render_rays(rays.only(part))
            depth = place * rays.along[part]
            out[part] = torch.cat([colour, depth[:, None], alpha[:, None]], 1)
        return out

    def _rays(self, camera: Camera) -> _Rays:
        device = self.distance.device
        origins, directions = camera_rays(camera, device)
        axis = torch.tensor(camera.world2cam[2, :3], dtype=torch.float32, device=device)
        along = directions @ axis
        least, most = self._surface_blocks().depths(camera)
        enters, leaves = self.box_span(origins, directions)
        near = torch.maximum(enters, camera.near / along)
        far = torch.minimum(leaves, camera.far / along)
        start, end = torch.maximum(near, least / along), torch.minimum(far, most / along)
        cut = near.where((near > enters) & (near < far), far.new_tensor(torch.inf))
        return _Rays(origins.expand_as(directions), directions, along, start, end, far, cut)

    def _surface_blocks(self) -> SurfaceBlocks:
        """Where the surface is, found at the first call and whenever the distance has changed."""
        version = 0 if self.distance.is_inference() else self.distance._version
        of, known = self._blocks_of
        if self._blocks is None or of is not self.distance or known != version:
            self._blocks = SurfaceBlocks(self.distance, self.bounds, FINE_HALF)
            self._blocks_of = self.distance, version
        return self._blocks

    def _render_rays(self, rays: _Rays) -> tuple[Tensor, Tensor, Tensor]:
        """Colour [N, 3] (premultiplied), place along the ray [N], alpha [N]."""
        origins, directions, start, end = rays.origins, rays.directions, rays.start, rays.end
        colour, depth = torch.zeros_like(directions), torch.zeros_like(end)
        clear = torch.ones_like(end)
        cut = rays.cut.isfinite().nonzero()[:, 0]
        if len(cut):
            # A near plane that cuts the head open shows the cut.
            points = _at(origins[cut], rays.cut[cut, None], directions[cut])[:, 0]
            inside = self.value(points) > 0
            cut = cut[inside]
            clear[cut], depth[cut] = 0.0, rays.cut[cut]
            if len(cut):
                colour[cut] = self.color(points[inside])
        live = ((end > start) & (clear > 0)).nonzero()[:, 0]
        # An edge grazed in front lets part of the ray through to what lies behind it.
        for _ in range(LAYERS):
            if not len(live):
                break
            centre, distance = self.find_surface(
                origins[live], directions[live], start[live], end[live]
            )
            met = distance < FINE_HALF
            live, centre = live[met], centre[met]
            shown, along, total = self._shade(origins[live], directions[live], centre)
            share = clear[live]
            colour[live] += share[:, None] * shown
            depth[live] += share * along
            clear[live] = share * (1 - total)
            start[live] = centre + FINE_HALF
            live = live[(clear[live] > 0.02) & (start[live] < end[live] - FINE_HALF)]
        alpha = 1 - clear
        return colour, torch.where(alpha > 0.01, depth / alpha.clamp_min(1e-6), rays.far), alpha

    def _shade(self, origin: Tensor, rays: Tensor, centre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Composite of the samples around `centre` [N]: colour [N, 3], weighted place [N] and
        weight [N]."""
        offsets = torch.linspace(-FINE_HALF, FINE_HALF, FINE + 1, device=rays.device)
        t = centre[:, None] + offsets
        points = _at(origin, t, rays)
        distance = -self.value(points.reshape(-1, 3)).reshape(t.shape)
        weights = neus_weights(distance)
        # A ray that ends inside is stopped, however flat it went in.
        total = weights.sum(1, keepdim=True)
        solid = (distance[:, -1:] < 0) & (total > 1e-3)
        weights = torch.where(solid, weights / total.clamp_min(1e-3), weights)
        along, total = (weights * (t[:, 1:] + t[:, :-1]) / 2).sum(1), weights.sum(1)
        # One colour a ray, at the mean place: over the surface's thickness none can be told apart.
        decoded = torch.zeros_like(rays)
        shown = total > 1e-3
        if shown.any():
            place = (along[shown] / total[shown])[:, None]
            first = origin if origin.ndim == 1 else origin[shown]
            decoded[shown] = self.color(_at(first, place, rays[shown])[:, 0])
        return total[:, None] * decoded, along, total

    def box_span(self, origin: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
        """Where rays [N, 3] from one origin [3], or one each [N, 3], enter and leave the box; the
        second <= the first where they miss it."""
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
        step = float((self.bounds[1] - self.bounds[0]).amax()) / (COARSE - 1)
        crossed, place, closest = self._march(origin, rays, near, far, step)
        # Thin things and grazing rays: look again, finely, around the least distance.
        fine = torch.linspace(-1, 1, 13, device=rays.device)
        around = place[:, None] + step * fine * torch.where(crossed, 0.5, 1.0)[:, None]
        d = -self.value(_at(origin, around, rays).reshape(-1, 3)).reshape(around.shape)
        again, secant, _ = _first_crossing(around, d)
        least = around.gather(1, d.argmin(1, keepdim=True))[:, 0]
        return torch.where(again, secant, least), torch.minimum(closest, d.amin(1))

    def _march(
        self, origin: Tensor, rays: Tensor, near: Tensor, far: Tensor, step: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Steps along the rays until they cross the surface, or all the way: whether each has
        crossed [N], where (or where it came nearest) [N], and the distance there [N]."""
        crossed = torch.zeros_like(near, dtype=torch.bool)
        place, closest = near.clone(), torch.full_like(near, torch.inf)
        live = torch.arange(len(near), device=near.device)
        first = 0
        while len(live):
            # The last sample of a stride is the first of the next.
            steps = step * torch.arange(first, first + STRIDE + 1, device=near.device)
            t = torch.minimum(near[live, None] + steps, far[live, None])
            start = origin if origin.ndim == 1 else origin[live]
            d = -self.value(_at(start, t, rays[live]).reshape(-1, 3)).reshape(t.shape)
            hit, secant, k = _first_crossing(t, d)
            at = torch.where(hit, secant, t.gather(1, k)[:, 0])
            d = d.gather(1, k)[:, 0]
            nearer = hit | (d < closest[live])
            crossed[live] = hit
            place[live] = torch.where(nearer, at, place[live])
            closest[live] = torch.where(nearer, d, closest[live])
            live = live[~hit & (t[:, -1] < far[live])]
            first += STRIDE
        return crossed, place, closest

    def tensors(self) -> dict[str, Tensor]:
        decoder = {f"decoder.{k}": v for k, v in self.decoder.state_dict().items()}
        layers = [layer.tensors() for layer in (self.strands, self.skin) if layer is not None]
        parts = {"distance": self.distance, "warp": self.warp, "planes": self.planes}
        return parts | decoder | {name: t for layer in layers for name, t in layer.items()}

    def metadata(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "bounds": self.bounds.tolist(),
            "metres_per_unit": self.metres_per_unit,
            "axes": "x to the subject's left, y up, z out of the face",
            "planes": PLANES[len(self.planes)],
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
            Strands.from_saved(tensors),
            Skin.from_saved(tensors),
        )

    def to(self, device: torch.device | str) -> HeadField:
        for name in ("distance", "warp", "planes", "bounds"):
            setattr(self, name, getattr(self, name).to(device))
        self.decoder.to(device)
        self.strands = None if self.strands is None else self.strands.to(device)
        self.skin = None if self.skin is None else self.skin.to(device)
        return self


def _at(origin: Tensor, t: Tensor, rays: Tensor) -> Tensor:
    """Points [N, S, 3] at places t [N, S] along rays [N, 3] from origin [3] or [N, 3]."""
    return torch.addcmul(origin.view(-1, 1, 3), t[..., None], rays[:, None])


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

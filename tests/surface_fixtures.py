"""Small analytic fields for the tests of the surface room (no weights, no network)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from engine.cameras import Camera


def _ellipsoid(p: torch.Tensor, centre: tuple, radii: tuple) -> torch.Tensor:
    """A good approximation of the signed distance to an ellipsoid, negative inside."""
    q = p - torch.tensor(centre) + 1e-6
    r = torch.tensor(radii)
    k0 = (q / r).norm(dim=-1)
    return k0 * (k0 - 1) / (q / r**2).norm(dim=-1)


def _union(a: torch.Tensor, b: torch.Tensor, k: float) -> torch.Tensor:
    h = (0.5 + 0.5 * (b - a) / k).clamp(0, 1)
    return b + (a - b) * h - k * h * (1 - h)


def sphere(p: torch.Tensor) -> torch.Tensor:
    return p.norm(dim=-1) - 0.12


def two_lobes(p: torch.Tensor) -> torch.Tensor:
    return _union(
        _ellipsoid(p, (-0.06, 0.0, 0.0), (0.08, 0.08, 0.08)),
        _ellipsoid(p, (0.07, 0.03, 0.0), (0.06, 0.06, 0.06)),
        0.02,
    )


def head(p: torch.Tensor) -> torch.Tensor:
    """A bust with a nose, lips, ears, eye sockets and a neck that leaves the box."""
    q = torch.stack([p[:, 0].abs(), p[:, 1], p[:, 2]], -1)
    d = _ellipsoid(q, (0, 0.035, -0.015), (0.076, 0.09, 0.098))
    d = _union(d, _ellipsoid(q, (0, -0.03, 0.025), (0.058, 0.085, 0.066)), 0.025)
    d = _union(d, _ellipsoid(q, (0, -0.2, -0.03), (0.052, 0.2, 0.052)), 0.02)
    d = _union(d, _ellipsoid(q, (0, -0.25, -0.03), (0.19, 0.09, 0.085)), 0.03)
    d = _union(d, _ellipsoid(q, (0, -0.005, 0.096), (0.013, 0.026, 0.02)), 0.012)
    d = _union(d, _ellipsoid(q, (0, -0.055, 0.086), (0.024, 0.009, 0.011)), 0.006)
    d = _union(d, _ellipsoid(q, (0.079, -0.005, -0.02), (0.009, 0.032, 0.02)), 0.006)
    socket = _ellipsoid(q, (0.031, 0.022, 0.097), (0.018, 0.012, 0.016))
    return -_union(-d, socket, 0.012)


def ring(p: torch.Tensor) -> torch.Tensor:
    """The head with a loop of hair: genus one."""
    q = p - torch.tensor((0.0, 0.125, -0.02))
    xy = torch.stack([(q[:, :2].norm(dim=-1) - 0.035), q[:, 2]], -1).norm(dim=-1) - 0.01
    return _union(head(p), xy, 0.008)


def debris(p: torch.Tensor) -> torch.Tensor:
    """The head with a floating crumb and a cavity inside."""
    d = torch.minimum(head(p), _ellipsoid(p, (0.15, 0.15, 0.0), (0.02, 0.02, 0.02)))
    return torch.maximum(d, -_ellipsoid(p, (0, 0.03, 0), (0.03, 0.03, 0.03)))


@dataclass
class Render:
    image: torch.Tensor
    depth: torch.Tensor
    alpha: torch.Tensor


class AnalyticField:
    """A signed distance function as a Field; `density` makes it a saturating density instead."""

    def __init__(self, sdf=head, density: bool = False) -> None:
        self.sdf, self.density = sdf, density
        self.bounds = torch.tensor([[-0.2, -0.2, -0.2], [0.2, 0.2, 0.2]])
        self.metres_per_unit = 1.0
        self.level = 10.0 if density else 0.0
        self.evaluations = 0

    def value(self, points: torch.Tensor) -> torch.Tensor:
        self.evaluations += len(points)
        d = self.sdf(points)
        return 20 * torch.sigmoid(-d * 400) if self.density else -d

    def grid(self, low, step, cells, check) -> None:
        """No faster way than point by point."""

    def color(self, points: torch.Tensor) -> torch.Tensor:
        """Skin, hair on top and behind, red lips, blue eyes."""
        x, y, z = points[:, 0].abs(), points[:, 1], points[:, 2]
        skin = torch.tensor([0.78, 0.58, 0.48]).expand(len(points), 3)
        shade = 0.85 + 0.15 * torch.sin(y * 150)[:, None] * 0.3
        hair = torch.sigmoid((y - 0.055 - 0.6 * z + (z > 0.02) * 0.03) * 300)[:, None]
        hair = torch.where((y > -0.06)[:, None], hair, torch.zeros_like(hair))
        lips = torch.sigmoid(-_ellipsoid(points, (0, -0.055, 0.09), (0.024, 0.009, 0.02)) * 1500)
        q = torch.stack([x, y, z], -1)
        eyes = torch.sigmoid(-_ellipsoid(q, (0.031, 0.022, 0.085), (0.012, 0.006, 0.02)) * 1500)
        c = skin * shade
        c = torch.lerp(c, torch.tensor([0.25, 0.15, 0.09]).expand_as(c), hair)
        c = torch.lerp(c, torch.tensor([0.7, 0.25, 0.25]).expand_as(c), lips[:, None])
        return torch.lerp(c, torch.tensor([0.2, 0.3, 0.5]).expand_as(c), eyes[:, None]).clamp(0, 1)

    def render(self, camera: Camera, check=lambda: None) -> Render:
        """Sphere tracing; what lies outside the bounds is cut."""
        origin, dirs = camera.rays()
        d = torch.from_numpy(dirs.reshape(-1, 3)).float()
        o = torch.from_numpy(origin).float().expand_as(d)
        inv = 1 / torch.where(d.abs() < 1e-9, torch.full_like(d, 1e-9), d)
        t0, t1 = (self.bounds[0] - o) * inv, (self.bounds[1] - o) * inv
        near = torch.minimum(t0, t1).amax(1)
        far = torch.maximum(t0, t1).amin(1)
        t, hit = near.clone(), torch.zeros(len(d), dtype=torch.bool)
        live = torch.nonzero(far > near)[:, 0]
        for _ in range(96):
            if not len(live):
                break
            s = self.sdf(o[live] + d[live] * t[live, None])
            done = s < 2e-4
            hit[live[done]] = True
            live = live[~done]
            t[live] += s[~done] * 0.9
            live = live[t[live] < far[live]]
        image = torch.zeros_like(d)
        if hit.any():
            image[hit] = self.color(o[hit] + d[hit] * t[hit, None])
        forward = torch.from_numpy(camera.cam2world[:3, 2]).float()
        h, w = camera.height, camera.width
        depth = torch.where(hit, t * (d @ forward), torch.zeros_like(t))
        return Render(image.view(h, w, 3), depth.view(h, w), hit.float().view(h, w))


def numpy_distance(sdf, points: np.ndarray) -> np.ndarray:
    return sdf(torch.from_numpy(np.asarray(points, np.float32))).numpy()

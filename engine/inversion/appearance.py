"""Colours from one portrait: w+ refined, then the generator tuned around that pivot.

Pivotal tuning (Roich et al. 2021) at known geometry: the photo's pixels are points on the surface,
so a step renders nothing: it makes the planes, reads them at the visible surface and compares.
Elsewhere on the head the tuned generator is held to the pivot's colours in the photo's tone, so
that unseen sides stay a head.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from engine.cameras import Camera
from engine.device import Compute
from engine.fields.head import HeadField
from engine.headspace.lattice import sample
from engine.inversion.optim import Adam
from engine.systems.head.model import HeadGenerator

HELD_POINTS = 6000  # a step, for the hold on unseen surface
NEAR = 0.006  # metres: a surface point within this of one that the photo shows is shown
GRAZING = 0.1, 0.6  # cosines of the angle of view: pixels below say nothing, above all
MATCH_STEPS, MATCH_RATE = 14, 0.25


@dataclass
class Seen:
    """What one picture shows of the surface: canonical [M, 3], colour [M, 3] in 0..1, weight [M]
    (matte and viewing angle), and index [S, S] into them (-1 where nothing is seen)."""

    canonical: Tensor
    colour: Tensor
    weight: Tensor
    index: Tensor

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.canonical.numpy())

    def near(self, points: Tensor, reach: float = NEAR) -> tuple[Tensor, Tensor]:
        """Of canonical points [N, 3]: the weight [N] of the nearest point seen, 0 where none is
        within `reach` (metres), and its number [N]."""
        away, nearest = self._tree.query(points.numpy(), distance_upper_bound=reach)
        met = torch.from_numpy(np.isfinite(away))
        nearest = torch.from_numpy(nearest).clamp_max(len(self.weight) - 1)
        return self.weight[nearest] * met, nearest


@dataclass
class Target:
    """What tuning aims at: the photo where it sees the surface; canonical points everywhere
    [N, 3] with the colours expected there [N, 3], which hold as far as it does not; whether hair
    among those has the photo's texture."""

    seen: Seen
    everywhere: Tensor
    expected: Tensor
    textured: bool = False

    @cached_property
    def hidden(self) -> Tensor:
        """1 at the points of `everywhere` that the photo does not show, 0 where it does [N]."""
        return 1 - visibility(self.everywhere, self.seen)

    def loss(
        self, colours: Callable[[Tensor], Tensor], hold: float, rng: torch.Generator
    ) -> Tensor:
        """photo_loss of `colours` (canonical points [N, 3] -> [N, 3]) where the photo sees, and
        `hold` times their drift from the expected at some random points where it does not."""
        some = torch.randint(len(self.everywhere), (HELD_POINTS,), generator=rng)
        colour = colours(torch.cat([self.seen.canonical, self.everywhere[some]]))
        shown, elsewhere = colour.split([len(self.seen.canonical), HELD_POINTS])
        drift = (elsewhere - self.expected[some]).abs().sum(1)
        return photo_loss(shown, self.seen) + hold * (self.hidden[some] * drift).mean()


@torch.no_grad()
def see(field: HeadField, camera: Camera, picture: Tensor, alpha: Tensor) -> Seen:
    """Surface points behind the pixels of picture [S, S, 3] (0..1) with matte alpha [S, S]."""
    origin, directions = camera.rays()
    origin = torch.tensor(origin, dtype=torch.float32)
    rays = torch.tensor(directions.reshape(-1, 3), dtype=torch.float32)
    near, far = field.box_span(origin, rays)
    hit = (far > near).nonzero()[:, 0]
    hit = hit[alpha.reshape(-1)[hit] > 0.3]
    place, least = [], []
    for part in hit.split(16384):
        t, d = field.find_surface(origin, rays[part], near[part], far[part])
        place.append(origin + t[:, None] * rays[part])
        least.append(d)
    place, met = torch.cat(place), torch.cat(least) <= 0
    place, hit = place[met], hit[met]
    step = 0.002
    offsets = torch.eye(3) * step
    slope = torch.stack([field.value(place - o) - field.value(place + o) for o in offsets], 1)
    normal = F.normalize(slope, dim=1)
    facing = -(normal * rays[hit]).sum(1)
    # Pixels at the matte's edge mix in the background.
    solid = -F.max_pool2d(-alpha[None, None], 5, 1, 2)[0, 0].reshape(-1)[hit]
    square = ((facing - GRAZING[0]) / (GRAZING[1] - GRAZING[0])).clamp(0, 1)
    weight = square * square * (3 - 2 * square) * solid.clamp(0, 1)
    index = torch.full((camera.height * camera.width,), -1, dtype=torch.long)
    index[hit] = torch.arange(len(hit))
    canonical = place + sample(field.warp, place, field.bounds)
    return Seen(
        canonical, picture.reshape(-1, 3)[hit], weight, index.reshape(camera.height, camera.width)
    )


@torch.no_grad()
def surface_points(field: HeadField, count: int, seed: int = 0) -> Tensor:
    """Random canonical points on the whole surface [count, 3]."""
    p = surface_places(field, count, seed)
    return p + sample(field.warp, p, field.bounds)


@torch.no_grad()
def surface_places(field: HeadField, count: int, seed: int = 0) -> Tensor:
    """Random points on the whole surface [count, 3], in the head's own space: grid nodes near it,
    moved onto it along the gradient."""
    generator = torch.Generator().manual_seed(seed)
    r = field.distance.shape[0]
    step = float(field.bounds[1, 0] - field.bounds[0, 0]) / (r - 1)
    near = (field.distance.abs() < step).reshape(-1).nonzero()[:, 0]
    picked = near[torch.randint(len(near), (count,), generator=generator)]
    x, y, z = picked % r, picked // r % r, picked // (r * r)
    p = field.bounds[0] + torch.stack([x, y, z], 1).float() * step
    offsets = torch.eye(3) * step
    for _ in range(2):
        slope = torch.stack([field.value(p + o) - field.value(p - o) for o in offsets], 1)
        p = p + field.value(p)[:, None] * -F.normalize(slope, dim=1) * 0.9
    return p


def photo_loss(colour: Tensor, seen: Seen) -> Tensor:
    """Weighted Charbonnier of colours [M, 3] plus that of differences between neighbour pixels."""
    difference = colour - seen.colour
    total = (seen.weight * (difference.square().sum(1) + 1e-5).sqrt()).sum() / seen.weight.sum()
    for a, b in ((seen.index[:, 1:], seen.index[:, :-1]), (seen.index[1:], seen.index[:-1])):
        both = (a >= 0) & (b >= 0)
        i, j = a[both], b[both]
        w = torch.minimum(seen.weight[i], seen.weight[j])
        total = total + 0.7 * (w * (difference[i] - difference[j]).abs().sum(1)).sum() / w.sum()
    return total


def expected_colours(
    colour: Tensor, covered: Tensor, seen: Seen, seen_colour: Tensor, seen_covered: Tensor
) -> Tensor:
    """What colours unseen surface should have: the generator's, in the photo's tone.

    colour [N, 3] and covered [N] (0 bare skin .. 1 under hair): the generator's at points
    everywhere; seen_colour, seen_covered: the same at the photo's points. Hair and skin are matched
    apart: the mean log ratio of photo to generator, then hue, and hair's contrast, drawn towards
    the photo's own means, since one photo says nothing about casts and shadows elsewhere.
    """
    luma = torch.tensor([0.299, 0.587, 0.114])
    matched = []
    for bare, (own, contrast) in ((True, (0.3, 0.95)), (False, (0.3, 0.75))):
        weight = seen.weight * ((seen_covered < 0.5) == bare)
        if weight.sum() < 150:  # too little to go by
            matched.append(colour)
            continue
        share = (weight / weight.sum())[:, None]
        ratio = (share * ((seen.colour + 0.04).log() - (seen_colour + 0.04).log())).sum(0).exp()
        toned = ((colour + 0.04) * ratio - 0.04).clamp(0, 1)
        mean = (share * seen.colour).sum(0)
        level = ((toned @ luma + 0.02) / (mean @ luma)) ** contrast
        matched.append((own * toned + (1 - own) * level[:, None] * mean).clamp(0, 1))
    return torch.lerp(matched[0], matched[1], covered[:, None])


def _colours(generator: HeadGenerator, planes: Tensor, points: Tensor) -> Tensor:
    """Of canonical points [N, 3] with planes [1, 4, C, P, P]: [N, 3]."""
    return generator(planes, points[None])[0][0]


def refine_latent(
    generator: HeadGenerator,
    ws: Tensor,
    seen: Seen,
    steps: int,
    compute: Compute,
    report: Callable[[float], None] = lambda fraction: None,
    hair: Tensor | None = None,
) -> Tensor:
    """w+ [1, n, w] moved towards the photo, kept near the encoder's. hair: as the generator takes
    it. Few steps are large ones: five come as far as thirty."""
    if not steps:
        return ws
    rate = min(0.1, max(0.02, 0.5 / steps))
    warm = min(5, -(-steps // 3))
    start, ws = ws.detach(), ws.detach().clone().requires_grad_()
    optimiser = Adam([{"params": [ws], "lr": rate}])
    generator.requires_grad_(False)
    for step in range(steps):
        report(step / steps)
        share = min(1.0, (step + 1) / warm, 2 * (1 - step / steps))
        optimiser.param_groups[0]["lr"] = rate * share
        with compute.autocast():
            planes = generator.planes(ws, hair)
        colour = _colours(generator, planes, seen.canonical)
        loss = photo_loss(colour, seen) + 0.02 * (ws - start).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return ws.detach()


def tune(
    generator: HeadGenerator,
    ws: Tensor,
    target: Target,
    steps: int,
    compute: Compute,
    report: Callable[[float], None] = lambda fraction: None,
    seed: int = 0,
    hair: Tensor | None = None,
) -> HeadGenerator:
    """A copy of the generator tuned to the photo at the pivot `ws`. hair: as the generator takes
    it.

    Surface that the photo does not show is held to the expected colours.
    """
    tuned = copy.deepcopy(generator).requires_grad_(True)
    if not steps:
        return tuned.requires_grad_(False)
    optimiser = Adam([{"params": list(tuned.parameters()), "lr": 2e-3}], betas=(0.9, 0.99))
    rng = torch.Generator().manual_seed(seed)
    for step in range(steps):
        report(step / steps)
        optimiser.param_groups[0]["lr"] = 2e-3 * min(1.0, (step + 1) / 8, 1.6 * (1 - step / steps))
        with compute.autocast():
            planes = tuned.planes(ws, hair)
        loss = target.loss(partial(_colours, tuned, planes), 0.6, rng)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return tuned.requires_grad_(False)


def sharpen(
    generator: HeadGenerator,
    planes: Tensor,
    target: Target,
    steps: int,
    report: Callable[[float], None] = lambda fraction: None,
    seed: int = 0,
) -> Tensor:
    """Planes [1, 4, C, P, P] moved directly towards the photo, decoder fixed: the detail that the
    generator's convolutions do not reach. Offsets are smooth (total variation) and small, and
    surface that the photo does not show keeps the expected colours."""
    if not steps:
        return planes
    offset = torch.zeros_like(planes).requires_grad_()
    optimiser = Adam([{"params": [offset], "lr": 0.03}], betas=(0.9, 0.99))
    rng = torch.Generator().manual_seed(seed)
    for step in range(steps):
        report(step / steps)
        optimiser.param_groups[0]["lr"] = 0.03 * min(1.0, (step + 1) / 8, 1.6 * (1 - step / steps))
        loss = target.loss(partial(_colours, generator, planes + offset), 0.8, rng)
        rough = sum(
            (offset.narrow(a, 1, offset.shape[a] - 1) - offset.narrow(a, 0, offset.shape[a] - 1))
            .abs()
            .mean()
            for a in (3, 4)
        )
        loss = loss + 0.02 * rough + 0.002 * offset.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return (planes + offset).detach()


def match(
    generator: HeadGenerator,
    planes: Tensor,
    points: Tensor,
    wanted: Tensor,
    weight: Tensor | None = None,
    check: Callable[[], None] = lambda: None,
    side: int = 0,
    steps: int = MATCH_STEPS,
) -> Tensor:
    """Planes [1, 4, C, P, P] whose colours at canonical points [N, 3] come near those wanted
    [N, 3], by weight [N]. Deterministic; the offset is smooth, so detail stays: it has `side`
    texels, 0 for half of the planes'."""
    with torch.enable_grad():
        half = side or planes.shape[-1] // 2
        offset = torch.zeros(*planes.shape[1:3], half, half, requires_grad=True)
        optimiser = Adam([{"params": [offset], "lr": MATCH_RATE}], betas=(0.8, 0.95))
        for step in range(steps):
            check()
            optimiser.param_groups[0]["lr"] = MATCH_RATE * min(1.0, 1.5 * (1 - step / steps))
            colour = _colours(generator, planes + _finer(offset, planes)[None], points)
            far = ((colour - wanted).square().sum(1) + 1e-5).sqrt()
            loss = far.mean() if weight is None else (weight * far).sum() / weight.sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return planes + _finer(offset.detach(), planes)[None]


def _finer(offset: Tensor, planes: Tensor) -> Tensor:
    return F.interpolate(offset, planes.shape[-2:], mode="bilinear", align_corners=False)


def visibility(points: Tensor, seen: Seen, cell: float = NEAR) -> Tensor:
    """1 where the photo shows a canonical point [N, 3] well, within `cell` metres; less where it
    shows it at a slant or at the matte's edge; 0 where it does not."""
    return (2 * seen.near(points, cell)[0]).clamp(0, 1)

"""Head shape and camera from one aligned portrait: landmarks first, then the silhouette.

The linear head space keeps every step a whole head (a Gaussian prior on its coefficients); hair is
a convex mix of known masses plus a smooth, bounded residual that follows the matte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.headspace import lattice
from engine.headspace.space import HeadSpace, smooth_union
from engine.inversion import pose as poses
from engine.inversion.optim import Adam
from engine.portrait.perception import CLASSES

RESIDUAL = 26  # nodes a side of the residual lattice
FACE = slice(17, 68)  # landmarks of brows, nose, eyes, mouth
JAW = slice(0, 17)
SKIN, HAIR = CLASSES.index("skin"), CLASSES.index("hair")


@dataclass
class Shape:
    """identity [Ki], expression [Ke], hair weights [styles] (convex), offset (metres, fuller
    positive), residual [1, r, r, r] metres over the canonical box, pose [6]."""

    identity: Tensor
    expression: Tensor
    hair: Tensor
    offset: Tensor
    residual: Tensor
    pose: Tensor


class _LandmarkError:
    """How far a head's landmarks fall from where the picture has them [84, 2] (0..1), each trusted
    by its spread [84]; the jaw's, which slide along the outline, by `jaw` of that."""

    def __init__(self, space: HeadSpace, landmarks: Tensor, spread: Tensor, jaw: float) -> None:
        self.landmarks, self.rest = landmarks, space.landmarks(space.mean)
        self.identity, self.expression = (
            (basis[:, space.landmark_index] * space.landmark_weight[..., None])
            .sum(2)
            .permute(1, 2, 0)  # [84, 3, K]
            for basis in (space.identity, space.expression)
        )
        trust = torch.zeros(84)
        trust[FACE], trust[JAW] = 1.0, jaw
        self.trust = trust / spread.clamp(0.006, 0.05)

    def __call__(self, identity: Tensor, expression: Tensor, pose: Tensor) -> Tensor:
        """The trusted sum of distances (rounded near zero)."""
        points = self.rest + self.identity @ identity + self.expression @ expression
        error = (poses.project(points, pose) - self.landmarks).norm(dim=1)
        return (self.trust * (error.square() + 1e-6).sqrt()).sum()


def fit_landmarks(
    space: HeadSpace,
    start: Shape,
    landmarks: Tensor,
    spread: Tensor,
    steps: int = 200,
    check: Callable[[], None] = lambda: None,
) -> Shape:
    """Moves coefficients and camera so that the head's landmarks fall on `landmarks` [84, 2]
    (0..1 of the picture), each trusted by its `spread` [84]."""
    marks = _LandmarkError(space, landmarks, spread, jaw=0.4)
    identity = start.identity.clone().requires_grad_()
    expression = start.expression.clone().requires_grad_()
    pose = start.pose.clone().requires_grad_()
    optimiser = Adam(
        [{"params": [identity, expression], "lr": 0.03}, {"params": [pose], "lr": 0.004}]
    )
    for step in range(steps):
        check()
        for group in optimiser.param_groups:
            group.setdefault("base", group["lr"])
            group["lr"] = group["base"] * min(1.0, 2.0 * (1 - step / steps))
        loss = marks(identity, expression, pose)
        loss = loss + 0.5 * (identity - start.identity).square().sum()
        loss = loss + 0.12 * identity.square().sum() + 0.05 * expression.square().sum()
        loss = loss + 0.2 * (expression - start.expression).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return replace(
        start,
        identity=identity.detach().clamp(-3, 3),
        expression=expression.detach().clamp(-4, 4),
        pose=pose.detach(),
    )


class Canonical:
    """Maps points of a head with given coefficients to canonical space; differentiable."""

    def __init__(self, space: HeadSpace, resolution: int = 48) -> None:
        self.space = space
        self.spread = lattice.Spread(space.mean, space.bounds, resolution)

    def forward_lattice(self, identity: Tensor, expression: Tensor) -> Tensor:
        return lattice.blur(self.spread(self.space.displacement(identity, expression)))

    def __call__(
        self, forward: Tensor, points: Tensor, start: Tensor | None = None, steps: int = 4
    ) -> Tensor:
        """Canonical places of `points`; `start`: a guess of them."""
        bounds = self.space.bounds
        with torch.no_grad():
            start = None if start is None else start - points
        b = lattice.settle(forward, points, bounds, steps, start)
        return points - lattice.sample(forward, points + b, bounds)


def distance_at(
    space: HeadSpace, canonical: Tensor, mass: Tensor, residual: Tensor, learned: Tensor
) -> Tensor:
    """The head's distance at canonical points [N, 3]: skin joined with hair."""
    return smooth_union(*skin_and_hair(space, canonical, mass, residual, learned))


@torch.no_grad()
def learned_lattice(
    space: HeadSpace, start: Shape, learned: Callable[[Tensor], Tensor], resolution: int = 48
) -> Tensor:
    """The generator's residual as a smooth canonical lattice [1, L, L, L] in metres.

    learned: canonical points [N, 3] -> residual in -1..1 of the bound. It was taught on surfaces
    only: values far from one mean nothing and would make floaters, so they are weighed down, and
    what is left is smoothed over a few nodes.
    """
    q = lattice.nodes(resolution, space.bounds)
    mass = space.hair(start.hair, start.offset)
    nothing = torch.zeros_like(space.residual_bound[None])
    d = distance_at(space, q, mass, start.residual, nothing)
    weight = torch.exp(-((d / 0.006) ** 2))
    value = torch.zeros_like(d)
    near = weight > 1e-3
    bound = lattice.sample(space.residual_bound[None], q[near], space.bounds)[:, 0]
    value[near] = bound * learned(q[near])
    shape = (1, resolution, resolution, resolution)
    total = lattice.blur((weight * value).reshape(shape), 3)
    return total / (lattice.blur(weight.reshape(shape), 3) + 0.03)


def skin_and_hair(
    space: HeadSpace, canonical: Tensor, mass: Tensor, residual: Tensor, learned: Tensor
) -> tuple[Tensor, Tensor]:
    """Distances [N] to the bare skin and to the hair: its mass, moved by the bounded residual, so
    that the outline follows the photo's, and by what the generator has learned (a lattice, see
    learned_lattice). The face stays the head space's: small errors there would tear at lips."""
    skin = lattice.sample(space.skin_distance[None], canonical, space.bounds)[:, 0]
    hair = lattice.sample(mass, canonical, space.bounds)[:, 0]
    moved = lattice.sample(residual, canonical, space.bounds)[:, 0]
    bound = lattice.sample(space.residual_bound[None], canonical, space.bounds)[:, 0]
    more = lattice.sample(learned, canonical, space.bounds)[:, 0]
    return skin, hair + bound * torch.tanh(moved / bound) + more


def fit_silhouette(
    space: HeadSpace,
    start: Shape,
    head: np.ndarray,
    labels: np.ndarray,
    ignore: np.ndarray,
    landmarks: Tensor,
    spread: Tensor,
    learned: Tensor,
    steps: int = 90,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Shape:
    """Follows the matte and the hairline.

    head float32 [S, S] in 0..1: the head's matte; labels uint8 [S, S]: CLASSES of the picture;
    ignore bool [S, S]: pixels that decide nothing (garment, beyond the photo). Rays through the
    head must meet the surface, others must pass it: hinge losses on each ray's least distance, so
    a step needs few points. Where a ray first meets the head, hair lies over skin if the picture
    shows hair there, and under it if it shows skin.
    """
    generator = torch.Generator().manual_seed(seed)
    places, inside, weight, kind = _ray_sample(head, labels, ignore, generator)
    canonical = Canonical(space)
    marks = _LandmarkError(space, landmarks, spread, jaw=0.0)  # the outline speaks for the jaw
    identity = start.identity.clone().requires_grad_()
    logits = (start.hair.clamp_min(1e-3)).log().requires_grad_()
    offset = start.offset.clone().requires_grad_()
    residual = start.residual.clone().requires_grad_()
    pose = start.pose.clone().requires_grad_()
    optimiser = Adam(
        [
            {"params": [identity], "lr": 0.03},
            {"params": [logits], "lr": 0.05},
            {"params": [offset], "lr": 0.0004},
            {"params": [residual], "lr": 0.0012},
            {"params": [pose], "lr": 0.0015},
        ]
    )
    on_head = depth = guess = None
    for step in range(steps):
        check()
        forward = canonical.forward_lattice(identity, start.expression)
        mass = space.hair(logits.softmax(0), offset)
        origin, directions = poses.rays(pose, places)
        if step % 12 == 0:
            with torch.no_grad():
                least, first, met = _meet(
                    space, canonical, forward, mass, residual, learned, origin, directions
                )
                on_head = (met & (kind > 0)).nonzero()[:, 0]
                depth = torch.cat([least[0], first[0][on_head]])
                guess = torch.cat([least[1], first[1][on_head]])
        along = torch.cat([directions, directions[on_head]])
        q = canonical(forward, origin + depth[:, None] * along, guess, steps=1)
        skin, hair = skin_and_hair(space, q, mass, residual, learned)
        n = len(places)
        d = smooth_union(skin[:n], hair[:n])
        hinge = torch.where(inside, F.relu(d + 0.0015), F.relu(0.0015 - d))
        loss = (weight * hinge).sum() / weight.sum() * 400
        if len(on_head):
            cover = skin[n:] - hair[n:]  # positive where hair lies over the skin
            wrong = torch.where(kind[on_head] == HAIR, F.relu(0.002 - cover), F.relu(0.003 + cover))
            loss = loss + 120 * wrong.clamp(max=0.02).mean()
        loss = loss + 0.02 * marks(identity, start.expression, pose)
        loss = loss + 0.01 * (identity - start.identity).square().sum()
        loss = loss + 0.06 * roughness(residual) + 400 * residual.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return replace(
        start,
        identity=identity.detach().clamp(-3, 3),
        hair=logits.detach().softmax(0),
        offset=offset.detach(),
        residual=residual.detach(),
        pose=pose.detach(),
    )


def roughness(x: Tensor) -> Tensor:
    """Mean square second difference of a lattice [1, r, r, r], in units that suit metres."""
    total = x.new_zeros(())
    for axis in (1, 2, 3):
        n = x.shape[axis]
        bent = x.narrow(axis, 2, n - 2) - 2 * x.narrow(axis, 1, n - 2) + x.narrow(axis, 0, n - 2)
        total = total + bent.square().mean()
    return total * 1e6


def _ray_sample(
    head: np.ndarray,
    labels: np.ndarray,
    ignore: np.ndarray,
    generator: torch.Generator,
    size: int = 128,
    count: int = 3500,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Places [N, 2], inside [N], weight [N], kind [N] (HAIR, SKIN or 0): all pixels near the
    outline and the hairline, some of the others."""

    def small(x: np.ndarray) -> Tensor:
        return F.interpolate(
            torch.from_numpy(x.astype(np.float32))[None, None], (size, size), mode="area"
        )[0, 0]

    def edge(mask: Tensor, reach: int) -> Tensor:
        k = (mask[None, None].float(), (~mask)[None, None].float())
        a, b = (F.max_pool2d(m, 2 * reach + 1, 1, reach)[0, 0] > 0 for m in k)
        return a & b

    alpha, drop = small(head), small(ignore) > 0.3
    inside = alpha > 0.5
    hair, skin = small(labels == HAIR), small(labels == SKIN)
    kind = torch.where(hair > 0.8, HAIR, torch.where(skin > 0.8, SKIN, 0)) * inside
    score = torch.rand(size, size, generator=generator)
    score = score + edge(inside, 6).float() + 0.7 * (edge(hair > 0.5, 3) & inside).float()
    score[drop] = -1
    picked = score.flatten().argsort(descending=True)[:count]
    picked = picked[score.flatten()[picked] >= 0]
    y, x = picked // size, picked % size
    places = (torch.stack([x, y], 1).float() + 0.5) / size
    sure = (2 * alpha.flatten()[picked] - 1).abs()  # half-covered pixels say little
    return places, inside.flatten()[picked], sure, kind.flatten()[picked]


Found = tuple[Tensor, Tensor]  # depth [N] along the rays and the canonical points there [N, 3]


def _meet(
    space: HeadSpace,
    canonical: Canonical,
    forward: Tensor,
    mass: Tensor,
    residual: Tensor,
    learned: Tensor,
    origin: Tensor,
    directions: Tensor,
    samples: int = 56,
) -> tuple[Found, Found, Tensor]:
    """Along each ray: where the distance is least, where the head is first met, and whether."""
    middle = -(origin * directions).sum(1)  # nearest to the head's origin
    t = middle[:, None] + torch.linspace(-0.2, 0.2, samples)
    points = (origin + t[..., None] * directions[:, None]).reshape(-1, 3)
    q = canonical(forward, points).reshape(*t.shape, 3)
    d = distance_at(space, q.reshape(-1, 3), mass, residual, learned).reshape(t.shape)

    def at(k: Tensor) -> Found:
        return t.gather(1, k)[:, 0], q.gather(1, k[..., None].expand(-1, 1, 3))[:, 0]

    inside = d < 0.001
    return (at(d.argmin(1, keepdim=True)), at(inside.int().argmax(1, keepdim=True)), inside.any(1))


@torch.no_grad()
def bake(
    space: HeadSpace,
    shape: Shape,
    learned: Tensor,
    resolution: int = 176,
    check: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """The head's distance on a grid [R, R, R] and its warp lattice [3, 64, 64, 64].

    learned: the generator's residual, from learned_lattice.
    Fine values are computed near the surface only; elsewhere a coarse grid is interpolated.
    """
    warp = space.warp(shape.identity, shape.expression)
    # A finer, smoothed copy of the mass: its coarse grid would show as facets.
    mass = space.hair(shape.hair, shape.offset)
    finer = [2 * n for n in mass.shape[1:]]
    mass = F.interpolate(mass[None], finer, mode="trilinear", align_corners=True)[0]
    mass = lattice.blur(mass, 3)

    def evaluate(points: Tensor) -> Tensor:
        check()
        q = points + lattice.sample(warp, points, space.bounds)
        return distance_at(space, q, mass, shape.residual, learned)

    coarse_size = resolution // 2
    coarse = torch.cat(
        [evaluate(p) for p in lattice.nodes(coarse_size, space.bounds).split(1 << 18)]
    )
    coarse = coarse.reshape(1, coarse_size, coarse_size, coarse_size)
    fine = F.interpolate(coarse[None], (resolution,) * 3, mode="trilinear", align_corners=True)[
        0, 0
    ]
    flat = fine.reshape(-1)
    step = float(space.bounds[1, 0] - space.bounds[0, 0]) / (coarse_size - 1)
    near = (flat.abs() < 1.8 * step).nonzero()[:, 0]
    points = lattice.nodes(resolution, space.bounds)
    for part in near.split(1 << 18):
        flat[part] = evaluate(points[part])
    return flat.reshape((resolution,) * 3), warp

"""Head shape and camera from one aligned portrait: landmarks first, then the silhouette.

The linear head space keeps every step a whole head, and what the networks usually get wrong, and
together (their measured error), says which heads are likely.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.headspace.space import HeadSpace, smooth_union
from engine.inversion import pose as poses
from engine.inversion.beard import SPREAD, USUAL, Beard
from engine.inversion.beyond import Beyond
from engine.inversion.hair import thickness
from engine.inversion.optim import Adam
from engine.inversion.shape import Canonical, Shape, distance_at, hair_mass, skin_and_hair
from engine.portrait.align import OUTER
from engine.portrait.perception import CLASSES

FACE = slice(17, 68)  # landmarks of brows, nose, eyes, mouth
JAW = slice(0, 17)
OUTER_RAYS = 1200  # at most, beyond the picture
SKIN, HAIR = CLASSES.index("skin"), CLASSES.index("hair")
LANDMARKS = 0.3  # weight of a trusted distance against the prior: neighbours err together
PRIOR = 0.03  # weight of the numbers' prior against the outline
BEARD = 0.002  # weight of the usual length of beards
FULLER = -0.008, 0.003  # metres, where hair is as thick as usual: the material's thin and full hair


class _LandmarkError:
    """How far a head's landmarks fall from where the picture has them [84, 2] (0..1), each trusted
    by its spread [84]; the jaw's, which slide along the outline, by `jaw` of that."""

    def __init__(self, space: HeadSpace, landmarks: Tensor, spread: Tensor, jaw: float) -> None:
        self.landmarks = landmarks
        self.rest, self.identity, self.expression = space.fixed_landmarks()
        trust = torch.zeros(84)
        trust[FACE], trust[JAW] = 1.0, jaw
        self.trust = trust / spread.clamp(0.006, 0.05)

    def apart(self, identity: Tensor, expression: Tensor, pose: Tensor) -> Tensor:
        """From the picture's landmarks to the head's [84, 2]."""
        points = self.rest + self.identity @ identity + self.expression @ expression
        return poses.project(points, pose) - self.landmarks

    def slope(self, identity: Tensor, expression: Tensor, pose: Tensor) -> Tensor:
        """Derivative of apart() by all numbers [84, 2, K]."""
        points = self.rest + self.identity @ identity + self.expression @ expression
        turn = poses.rotation(pose)
        seen = points @ turn + poses.translation(pose)
        basis = torch.cat([self.identity, self.expression], 2)
        moved = torch.einsum("lck,cd->ldk", basis, turn)
        ahead = seen[:, 2:, None]
        by_shape = poses.FOCAL * (moved[:, :2] - seen[:, :2, None] / ahead * moved[:, 2:]) / ahead
        step = 1e-3 * torch.eye(6)  # central differences: the camera has six numbers only
        a, b = (poses.project(points, pose + sign * step) for sign in (1, -1))
        return torch.cat([by_shape, ((a - b) / 2e-3).permute(1, 2, 0)], 2)

    def __call__(self, identity: Tensor, expression: Tensor, pose: Tensor) -> Tensor:
        """The trusted sum of distances (rounded near zero)."""
        return (self.trust * _rounded(self.apart(identity, expression, pose))).sum()


def _rounded(apart: Tensor) -> Tensor:
    """Lengths of vectors [N, 2], smooth at zero."""
    return (apart.square().sum(1) + 1e-6).sqrt()


def fit_landmarks(
    space: HeadSpace,
    start: Shape,
    landmarks: Tensor,
    spread: Tensor,
    error: Tensor,
    check: Callable[[], None] = lambda: None,
    steps: int = 6,
) -> Shape:
    """Moves coefficients and camera so that the head's landmarks fall on `landmarks` [84, 2]
    (0..1 of the picture), each trusted by its `spread` [84].

    error [K, K]: how wrong identity, expression and pose of `start` usually are, a factor of their
    covariance (see engine.portrait.perception.Refine): what is usually right stays, and what errs
    together moves together. Gauss-Newton steps on that Gaussian prior and the distances, not their
    squares, of the landmarks (by reweighting: Holland and Welsch 1977), so that a wrong landmark
    pulls no harder than a right one.
    """
    marks = _LandmarkError(space, landmarks, spread, jaw=0.4)
    sizes = [len(start.identity), len(start.expression), len(start.pose)]
    before = torch.cat([start.identity, start.expression, start.pose])

    number = torch.zeros_like(before)  # in units of the error: its prior is N(0, 1)
    for _ in range(steps):
        check()
        parts = (before + error @ number).split(sizes)
        slope, off = marks.slope(*parts) @ error, marks.apart(*parts)
        weight = LANDMARKS * marks.trust / _rounded(off)
        normal = torch.einsum("lck,l,lcm->km", slope, weight, slope) + torch.eye(len(number))
        pull = torch.einsum("lck,l,lc->k", slope, weight, off) + number
        number = number - torch.linalg.solve(normal, pull)
    identity, expression, pose = (before + error @ number).split(sizes)
    return replace(
        start, identity=identity.clamp(-3, 3), expression=expression.clamp(-4, 4), pose=pose
    )


def fit_silhouette(
    space: HeadSpace,
    start: Shape,
    head: np.ndarray,
    labels: np.ndarray,
    ignore: np.ndarray,
    landmarks: Tensor,
    spread: Tensor,
    learned: Tensor,
    error: Tensor,
    steps: int = 90,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
    outer: Beyond | None = None,
    beard: Beard | None = None,
) -> Shape:
    """Follows the matte and the hairline.

    head float32 [S, S] in 0..1: the head's matte; labels uint8 [S, S]: CLASSES of the picture;
    ignore bool [S, S]: pixels that decide nothing (garment, beyond the photo). Rays through the
    head must meet the surface, others must pass it: hinge losses on each ray's least distance, so
    a step needs few points. Where a ray first meets the head, hair lies over skin if the picture
    shows hair there, and under it if it shows skin. error: as in fit_landmarks; outer: what the
    photo shows beyond the picture; beard: its length is fitted, too.
    """
    generator = torch.Generator().manual_seed(seed)
    rays = _ray_sample(head, labels, ignore, generator)
    if outer is not None:
        more = _ray_sample(outer.head, outer.labels, outer.ignore, generator, count=OUTER_RAYS)
        more = (0.5 + OUTER * (more[0] - 0.5), *more[1:])
        rays = tuple(torch.cat(pair) for pair in zip(rays, more, strict=True))
    places, inside, weight, kind = rays
    canonical = Canonical(space)
    marks = _LandmarkError(space, landmarks, spread, jaw=0.0)  # the outline speaks for the jaw
    sizes = [len(start.identity), len(start.expression), len(start.pose)]
    before = torch.cat([start.identity, start.expression, start.pose])
    number = torch.zeros_like(before).requires_grad_()  # in units of the error
    style = hair_mass(space, start)
    fuller = torch.zeros(()).requires_grad_()
    thick = thickness(space, style)
    residual = start.residual.clone().requires_grad_()
    length = torch.tensor(USUAL).requires_grad_()

    def mass_of(fuller: Tensor, length: Tensor) -> Tensor:
        mass = style - fuller.clamp(*FULLER) * thick
        return mass if beard is None else beard.on(mass, length)

    optimiser = Adam(
        [
            {"params": [number], "lr": 0.03},
            {"params": [fuller], "lr": 0.0012},
            {"params": [residual], "lr": 0.0012},
            {"params": [length], "lr": 0.0012},
        ]
    )
    on_head = depth = guess = None
    for step in range(steps):
        check()
        identity, expression, pose = (before + error @ number).split(sizes)
        forward = canonical.forward_lattice(identity, expression)
        mass = mass_of(fuller, length)
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
        loss = loss + 0.02 * marks(identity, expression, pose) + PRIOR * number.square().sum()
        loss = loss + 0.06 * roughness(residual) + 400 * residual.square().mean()
        if beard is not None:
            loss = loss + BEARD * ((length - USUAL) / SPREAD).square()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    identity, expression, pose = (before + error @ number.detach()).split(sizes)
    return replace(
        start,
        identity=identity.clamp(-3, 3),
        expression=expression.clamp(-4, 4),
        offset=start.offset + fuller.detach().clamp(*FULLER),
        residual=residual.detach(),
        pose=pose,
        mass=mass_of(fuller.detach(), length.detach()),
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

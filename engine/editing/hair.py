"""How a head's hair changes: its distance by the difference of two known masses of hair, and the
strands drawn on it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.editing.shape import on_grid
from engine.fields.head import HeadField
from engine.fields.strands import Strands
from engine.headspace import lattice
from engine.headspace.space import HeadSpace, smooth_union
from engine.inversion.appearance import match, surface_places
from engine.inversion.unseen import under_hair
from engine.networks.planes import sample_planes
from engine.systems.head.strands import add_strands

UNION = 0.003  # metres: over what the head's skin and hair are joined, see smooth_union
COVER = 0.002, 0.001  # metres of hair that hide the skin, and how softly
LEAST = 0.002  # of the weights: hair styles that change by less do not
GRID = 96  # nodes along the box where only colours are asked for
POINTS = 6000  # on the surface
SIDE = 48  # texels of what is added to the planes there: smooth, since points are few
FEWEST = 50  # of them to tell a colour by
FRESH = 0.002, 0.006  # metres: surface so near to the old one is the same, so far from it new
THIN = 0.001, 0.004  # metres of hair that show the skin, that hide it
FLOOR = 0.04  # added before logarithms


class HairChange:
    """From hair weights [styles] to others of one head space. smooth: at what cost: finer masses
    have no facets."""

    def __init__(self, space: HeadSpace, before: Tensor, after: Tensor, smooth: bool) -> None:
        self.space = space
        masses = torch.cat([space.hair(before), space.hair(after)])
        if smooth:
            finer = [2 * n for n in masses.shape[1:]]
            masses = F.interpolate(masses[None], finer, mode="trilinear", align_corners=True)[0]
            masses = lattice.blur(masses, 3)
        self.masses = masses

    def distance(self, old: Tensor, canonical: Tensor) -> Tensor:
        """The head's distance [N] at canonical points [N, 3] where it was `old` [N].

        The old hair's own distance, with all that was fitted to a photo, follows from the union's:
        skin - hair is u for (UNION + u)^2 / (4 UNION) = skin - union, where hair shows at all.
        """
        bounds = self.space.bounds
        skin = lattice.sample(self.space.skin_distance[None], canonical, bounds)[:, 0]
        before, after = lattice.sample(self.masses, canonical, bounds).unbind(1)
        over = skin - old
        u = torch.where(over > UNION, over, 2 * (UNION * over.clamp_min(0)).sqrt() - UNION)
        hair = torch.where(over > 0, skin - u, torch.maximum(before, skin + UNION))
        new = smooth_union(skin, hair + after - before)
        # Where nothing changes the old value stays, to the last digit.
        return old + new - smooth_union(skin, hair)

    def strands(self, old: Strands) -> Strands:
        """Strands where there is hair: gone with it, and drawn on hair that grows."""
        side, bounds = old.amount.shape[-1], self.space.bounds
        q = lattice.nodes(side, bounds)
        skin = lattice.sample(self.space.skin_distance[None], q, bounds)
        thick = skin - lattice.sample(self.masses, q, bounds)
        before, after = torch.sigmoid((thick - COVER[0]) / COVER[1]).T.reshape(2, side, side, side)
        kept = old.amount[0] * (after / before.clamp_min(0.05)).clamp(0, 1)
        return Strands(
            (kept + (after - before)).clamp(0, 1)[None].where((after > before)[None], kept[None]),
            old.strength,
            old.tint,
        )


def changed(before: Tensor, after: Tensor) -> bool:
    """Whether hair weights [styles] differ enough to see."""
    return float((after - before).abs().sum()) > LEAST


class Colours:
    """A head's own colours of hair and skin, for surface that an edit uncovers or lets grow."""

    def __init__(self, space: HeadSpace, base: HeadField) -> None:
        self.space, self.base = space, base
        _, canonical, skin = self._surface(base)
        colour = self._decoded(base.planes[None], canonical[None])[0][0]
        cover = under_hair(canonical, skin)
        x, y, z = canonical.T
        face = (cover < 0.1) & (z > 0.055) & (y > -0.08) & (y < 0.06) & (x.abs() < 0.06)
        hair = cover > 0.9
        self.skin = colour[face].median(0).values if face.sum() > FEWEST else None
        self.hair = colour[hair].mean(0) if hair.sum() > FEWEST else None

    def _surface(self, field: HeadField) -> tuple[Tensor, Tensor, Tensor]:
        """Points on a surface [N, 3], the same in canonical space, and their distance to the bare
        skin [N]."""
        places = surface_places(field, POINTS)
        canonical = places + lattice.sample(field.warp, places, field.bounds)
        skin = lattice.sample(self.space.skin_distance[None], canonical, field.bounds)[:, 0]
        return places, canonical, skin

    def _decoded(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        box = float(self.base.bounds[1, 0])
        return self.base.decoder(sample_planes(planes, points / box))

    @torch.no_grad()
    def agreed(
        self, planes: Tensor, change: HairChange, check: Callable[[], None] = lambda: None
    ) -> Tensor:
        """Planes [4, C, P, P] of the changed head with the head's own colours where its surface is
        new: what has grown is hair, what lies bare below the hairline is skin, a shorn scalp keeps
        hair's colour. What looks like it already stays."""
        if self.skin is None or self.hair is None:
            return planes
        base = self.base
        distance = self.changed_distance(change)
        grown = HeadField(distance, base.warp, planes, base.decoder, base.bounds)
        places, canonical, skin = self._surface(grown)
        moved = -base.value(places)  # outwards
        fresh = smoothstep(moved.abs(), *FRESH)
        now = self._decoded(planes[None], canonical[None])[0][0]
        # 0 hair's colour .. 1 skin's
        axis = (self.skin + FLOOR).log() - (self.hair + FLOOR).log()
        away = (now + FLOOR).log() - (self.hair + FLOOR).log()
        like_skin = (away @ axis) / axis.square().sum().clamp_min(0.05)
        as_hair = torch.lerp(now, self.hair, smoothstep(like_skin, 0.15, 0.6)[:, None])
        as_skin = torch.lerp(now, self.skin, smoothstep(1 - like_skin, 0.3, 0.8)[:, None])
        _, y, z = canonical.T
        scalp = smoothstep(y - 0.03 - 0.72 * z, -0.025, 0.0)
        cover = torch.maximum(smoothstep(skin, *THIN), scalp)
        cover = torch.maximum(cover, smoothstep(moved, 0.0, FRESH[0]))
        wanted = torch.lerp(as_skin, as_hair, cover[:, None])
        wanted = torch.lerp(now, wanted, fresh[:, None])
        planes = match(self._decoded, planes[None], canonical, wanted, None, check, SIDE)[0]
        if base.strands is None:  # the sampler's are part of the planes
            hair = canonical[cover > 0.9]
            before, after = (
                add_strands(planes, base.decoder, hair, self.space, mass[None])
                for mass in change.masses
            )
            planes = planes + (after - before)
        return planes

    def changed_distance(self, change: HairChange) -> Tensor:
        """The head's distance with other hair, its shape as it is."""
        base = self.base

        def evaluate(points: Tensor) -> Tensor:
            old = lattice.sample(base.distance[None], points, base.bounds)[:, 0]
            canonical = points + lattice.sample(base.warp, points, base.bounds)
            return change.distance(old, canonical)

        return on_grid(evaluate, GRID, base.bounds)


def smoothstep(x: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)

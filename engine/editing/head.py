"""A head field opened for editing: sampled or inverted, of the built-in model.

Changes are applied as differences, so that an inverted head keeps what was fitted to its photo:
the shape by a displacement (shape.py), hair by the difference of two hair masses (hair.py), colours
by the difference of the generator's planes, added to the field's own. What a direction does is what
it does to sampled heads (systems/head/directions.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.editing import hair as hairs
from engine.editing.photo import Edited
from engine.editing.planes import PlaneChanges
from engine.editing.shape import Displacements, on_grid, total
from engine.errors import WeightsError
from engine.fields.base import Origin
from engine.fields.head import HeadField
from engine.fields.skin import Skin
from engine.headspace import lattice
from engine.inversion.appearance import match, surface_points
from engine.networks.planes import sample_planes
from engine.sampling.builtin import BuiltInSampler
from engine.systems.head.directions import Directions
from engine.systems.head.prior import Parts

GRID, SMALL_GRID = 176, 96  # nodes along the box: a head's own, a preview's
CHUNK = 1 << 18  # points at a time
POINTS = 12000  # on the surface, to tint planes of another kind at
DARK = 0.04  # added before ratios of colours are taken


@dataclass(frozen=True)
class Edit:
    """amounts by direction, those that are not 0; the codes' parts before and after."""

    amounts: dict[str, float]
    before: Parts
    after: Parts

    @property
    def grows(self) -> bool:
        """Whether its hair changes."""
        return hairs.changed(self.before.hair, self.after.hair)


class HeadEditor:
    """One head, with what its edits share kept. The field given is never changed."""

    def __init__(self, field: HeadField, sampler: BuiltInSampler, directions: Directions) -> None:
        """Raises WeightsError for a head without a code of this model."""
        if field.origin is None:
            raise WeightsError(
                "This head holds no latent code, so it cannot be edited.",
                "Make it again with this version of Triplane.",
            )
        self.base, self.directions = field, directions
        self.model, self.prior = sampler.model, sampler.prior
        self.code = field.origin.code.float()
        try:
            self.parts = self.prior.unpack(self.code)
        except ValueError as error:
            raise WeightsError("The head's latent code is not the built-in model's.") from error
        self.moves = Displacements(self.model.space, field.warp, field.distance)
        self._foreign = field.info.get("model") != self.model.config.get("name", "")
        self._planes = PlaneChanges(self._change, directions)
        self._rest: Tensor | None = None
        self._colours: hairs.Colours | None = None

    def edit(self, amounts: Mapping[str, float]) -> Edit:
        """Raises ParameterError for unknown names and amounts outside their range."""
        after = self.directions.apply(self.code, amounts)
        some = {name: float(a) for name, a in amounts.items() if a}
        return Edit(some, self.parts, self.prior.unpack(after))

    @torch.no_grad()
    def edited(
        self,
        amounts: Mapping[str, float],
        quick: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> Edited:
        """The edited head. quick: for a small picture: a coarser grid, planes from those of one
        direction at a time. Raises what edit() raises."""
        base, edit = self.base, self.edit(amounts)
        back = self.displacement(edit)
        check()
        change = self._hair_change(edit, not quick)
        distance = self._distance(back, change, SMALL_GRID if quick else GRID, check)
        warp = base.warp if back is None else self._warp(back)
        check()
        colours = self._planes.quick if quick else self._planes.exact
        added = colours(edit.amounts, check)
        planes = base.planes if added is None else base.planes + added
        strands = base.strands
        if strands is not None and change is not None:
            strands = change.strands(strands)
        skin = base.skin if added is None else self._skin(planes, edit)
        made = HeadField(
            distance, warp, planes, base.decoder, base.bounds, self._info(edit), strands, skin
        )
        recipe = {**base.origin.recipe, "edited": dict(edit.amounts)}
        made.origin = Origin(self.directions.apply(self.code, amounts), recipe)
        return Edited(made, back)

    def displacement(self, edit: Edit) -> Tensor | None:
        """From the edited head's points to where they were: a lattice [3, L, L, L]; None where no
        point moves."""
        moves = {}
        for name in edit.amounts:
            parts = self._row(name)
            if parts.identity.any() or parts.expression.any():
                moves[name] = self.moves.of(name, parts.identity, parts.expression)
        moved = total(moves, edit.amounts)
        return None if moved is None else self.moves.back(moved)

    def _row(self, name: str) -> Parts:
        """A direction's parts, as they are."""
        identity, expression, styles, _, _ = self.prior.sizes
        row = self.directions[name]
        return Parts(row[0, :identity], row[1, :expression], row[2, :styles], row[3:])

    def _distance(
        self,
        back: Tensor | None,
        change: hairs.HairChange | None,
        resolution: int,
        check: Callable[[], None],
    ) -> Tensor:
        base, bounds = self.base, self.base.bounds
        if back is None and change is None:
            return base.distance

        def evaluate(points: Tensor) -> Tensor:
            out = []
            for part in points.split(CHUNK):
                check()
                if back is not None:
                    part = part + lattice.sample(back, part, bounds)
                old = lattice.sample(base.distance[None], part, bounds)[:, 0]
                if change is not None:
                    canonical = part + lattice.sample(base.warp, part, bounds)
                    old = change.distance(old, canonical)
                out.append(old)
            return torch.cat(out)

        return on_grid(evaluate, resolution, bounds)

    def _warp(self, back: Tensor) -> Tensor:
        """The edited head's warp to canonical space."""
        nodes, bounds = self.moves.nodes, self.base.bounds
        flat = back.reshape(3, -1).T
        moved = flat + lattice.sample(self.base.warp, nodes + flat, bounds)
        return moved.T.reshape(back.shape).contiguous()

    def _generated(self, parts: Parts) -> Tensor:
        """The generator's planes of a code, as many and as large as the field's [n, C, P, P] where
        they are of one kind."""
        planes = self.model.generator.planes(parts.ws[None], parts.hair[None])[0]
        if self._foreign:
            return planes
        if len(self.base.planes) > len(planes):  # one side plane for each side
            planes = torch.cat([planes[:3], planes[2:]])
        if planes.shape[-1] != self.base.planes.shape[-1]:
            size = self.base.planes.shape[-2:]
            planes = F.interpolate(planes, size, mode="bilinear", align_corners=False)
        return planes

    def _hair_change(self, edit: Edit, smooth: bool) -> hairs.HairChange | None:
        if not edit.grows:
            return None
        return hairs.HairChange(self.model.space, edit.before.hair, edit.after.hair, smooth)

    def _change(self, amounts: Mapping[str, float], check: Callable[[], None]) -> Tensor | None:
        """What is added to the planes; None for nothing."""
        edit = self.edit(amounts)
        if not edit.grows and torch.equal(edit.before.ws, edit.after.ws):
            return None
        base = self.base
        if self._rest is None:
            self._rest = self._generated(self.parts)
        change = self._generated(edit.after) - self._rest
        check()
        planes = self._tinted(change, check) if self._foreign else base.planes + change
        grown = self._hair_change(edit, smooth=False)
        if grown is not None:
            planes = self._own_colours().agreed(planes, grown, check)
        return planes - base.planes

    def _own_colours(self) -> hairs.Colours:
        if self._colours is None:
            self._colours = hairs.Colours(self.model.space, self.base)
        return self._colours

    def _skin(self, planes: Tensor, edit: Edit) -> Skin | None:
        """The fine skin that goes with changed planes, of a head that has some."""
        if self.base.skin is None:
            return None
        mass, before, after = self.model.space.hair(edit.after.hair), edit.before, edit.after
        look = self.model.generator, planes, self.model.space, mass, after.identity
        return self.prior.faces.skin(*look, self._own_colours().hair, before.identity)

    def _tinted(self, change: Tensor, check: Callable[[], None]) -> Tensor:
        """The field's planes in the colours of a change of the generator's planes, for a field
        whose planes mean something else: its colours times the generator's ratio, fitted."""
        base, box = self.base, float(self.base.bounds[1, 0])

        def decoded(planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
            return base.decoder(sample_planes(planes, points / box))

        points = surface_points(base, POINTS)
        before, after = (
            self.model.generator(planes[None], points[None])[0][0]
            for planes in (self._rest, self._rest + change)
        )
        own = decoded(base.planes[None], points[None])[0][0]
        wanted = ((own + DARK) * (after + DARK) / (before + DARK) - DARK).clamp(0, 1)
        return match(decoded, base.planes[None], points, wanted, None, check)[0]

    def _info(self, edit: Edit) -> dict:
        """The field's info with the coefficients moved."""
        info = dict(self.base.info)
        if "coefficients" in info:
            moved = {}
            for key, values in info["coefficients"].items():
                change = getattr(edit.after, key) - getattr(edit.before, key)
                moved[key] = [round(a + float(b), 5) for a, b in zip(values, change, strict=True)]
            info["coefficients"] = moved
        return info

"""The preset *instant*: from a photo to a head field in one pass of networks, nothing fitted.

Perception says shape and camera, the matte what belongs to the head, and the small LRM
(engine/systems/lrm/head.py) paints the head's five views and moves its hair, which outline.py then
brings to the picture's outline in one step of arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.cameras import Camera
from engine.checkpoints.default import DefaultModel
from engine.device import Compute
from engine.fields.head import HeadField
from engine.fields.strands import Strands
from engine.headspace import lattice
from engine.headspace.space import HeadSpace
from engine.inversion import pose, shape
from engine.inversion.appearance import Target, surface_points
from engine.inversion.beard import USUAL, beard_of
from engine.inversion.colours import Fitted, covered_by_hair, see_photo, strands_of
from engine.inversion.cut import QUICK, cut_out, without_glasses
from engine.inversion.hair import likely_mass
from engine.inversion.outline import pictures, to_outline
from engine.inversion.reconstruct import (
    CROP,
    HAIR,
    Reconstruction,
    encode,
    first_guess,
    perceive,
    tidy_labels,
    trusted_pixels,
)
from engine.portrait.align import Aligned
from engine.portrait.perception import CLASSES
from engine.systems.lrm.head import HeadLrm
from engine.systems.lrm.lift import SIZE, lift, surface

FINE = 2  # times finer than the network's are the planes: the picture's own detail
LATTICE = 56  # nodes a side of the lattice that moves hair
SEEN, POINTS = 96, 8000  # to know where strands belong: pixels of the photo, points of the surface
FAINTER = 0.6
BAND = 0.024  # metres from the prior's surface beyond which nothing is moved

Report = Callable[[float, str], None]


@torch.no_grad()
def planes_of(
    lrm: HeadLrm, canonical: shape.Canonical, guess: shape.Shape, crop: Tensor, classes: Tensor
) -> Tensor:
    """The planes [1, 5, C, P, P] of a crop [1, 3, S, S] in 0..1 whose matte, skin and hair are
    classes [1, 3, S, S]; P = FINE * SIZE."""
    space = canonical.space
    surfaces = [surface(space, shape.hair_mass(space, guess))]
    forward = [canonical.forward_lattice(guess.identity, guess.expression)]
    small = [F.interpolate(x, (SIZE, SIZE), mode="area") for x in (crop, classes)]
    coarse = lift(surfaces, forward, guess.pose[None], *small, space.bounds)
    maps = lrm.maps(torch.cat(small, 1), coarse.stack())
    # The planes' texels are about as wide as pixels of a picture of this size.
    side = FINE * SIZE
    medium = [F.interpolate(x, (side, side), mode="area") for x in (crop, classes)]
    fine = lift(surfaces, forward, guess.pose[None], *medium, space.bounds, FINE)
    return lrm.planes(maps, fine.colour, fine.seen, fine.share)


@torch.no_grad()
def hair_moved(lrm: HeadLrm, space: HeadSpace, guess: shape.Shape, planes: Tensor) -> Tensor:
    """How far the LRM moves the hair, metres, as a smooth canonical lattice [1, L, L, L]."""
    q = lattice.nodes(LATTICE, space.bounds)
    mass = lattice.sample(shape.hair_mass(space, guess), q, space.bounds)[:, 0]
    skin = lattice.sample(space.skin_distance[None], q, space.bounds)[:, 0]
    near = torch.minimum(mass, skin).abs() < BAND
    value = torch.zeros_like(mass)
    bound = lattice.sample(space.residual_bound[None], q[near], space.bounds)[:, 0]
    value[near] = bound * lrm.decode(planes, q[near][None])[1][0]
    return lattice.blur(value.reshape(1, LATTICE, LATTICE, LATTICE))


def reconstruct_instant(
    model: DefaultModel,
    lrm: HeadLrm,
    aligned: Aligned,
    compute: Compute,
    report: Report = lambda fraction, step: None,
    preview: Callable[[HeadField, Camera], None] = lambda field, camera: None,
    check: Callable[[], None] = lambda: None,
) -> Reconstruction:
    """The whole way from an aligned crop to a field.

    report, preview: as of engine.inversion.reconstruct.reconstruct. Raises ReconstructionError if
    no head stands out in the photo.
    """
    report(0.0, "reading the portrait")
    seen = perceive(model, aligned.crop, compute)
    report(0.1, "cutting out the head")
    cut = cut_out(aligned, seen, check, QUICK)
    report(0.5, "painting the head")
    guess = first_guess(model, seen)
    labels, mass = tidy_labels(cut.labels), likely_mass(model.space, guess.hair)
    unknown = ~aligned.valid | cut.clothes
    beard = beard_of(model.space, guess, *pictures(cut.alpha, labels == HAIR, unknown)[1:])
    guess = replace(guess, mass=mass if beard is None else beard.on(mass, torch.tensor(USUAL)))
    crop = torch.from_numpy(aligned.crop).permute(2, 0, 1)[None].float() / 255
    belief = F.interpolate(
        seen.classes.float().softmax(1), (CROP, CROP), mode="bilinear", align_corners=False
    )
    skin, hair, glasses = (
        belief[:, CLASSES.index(name)][:, None] for name in ("skin", "hair", "glasses")
    )
    # Behind glasses is a head that the picture does not show.
    alpha = torch.from_numpy(cut.alpha)[None, None].float() * (1 - glasses)
    classes = torch.cat([alpha, skin, hair], 1)
    canonical = shape.Canonical(model.space)
    planes = planes_of(lrm, canonical, guess, crop, classes)
    check()
    report(0.7, "building the field")
    moved = hair_moved(lrm, model.space, guess, planes)
    shown = pictures(cut.alpha, hair[0, 0].numpy(), unknown)
    moved = moved + to_outline(model.space, guess, canonical, moved, *shown)
    distance, warp = shape.bake(model.space, guess, moved, check=check)
    info = {"model": "instant", "version": model.config.get("version")}
    info["coefficients"] = guess.coefficients()
    field = HeadField(distance, warp, planes[0], lrm.decoder, model.space.bounds, info)
    camera = pose.to_camera(guess.pose, CROP)
    trust = without_glasses(trusted_pixels(cut, labels, aligned.valid), cut)
    ws = encode(model, aligned.crop, cut.alpha, compute)
    marks = seen.landmarks[0].float(), seen.spread[0].float()
    head = Fitted(field, camera, cut, labels, trust, guess, moved, ws, *marks)
    field.strands = _strands(model, head, aligned)
    preview(field, camera)
    return Reconstruction(field, camera, cut, guess, trust, ws)


@torch.no_grad()
def _strands(model: DefaultModel, head: Fitted, aligned: Aligned) -> Strands | None:
    """Strands on hair that the photo does not show, fainter than on a head that is fitted: what is
    under them is smoother."""
    shown = see_photo(head, aligned, SEEN)
    everywhere = surface_points(head.field, POINTS)
    covered = covered_by_hair(model, head, everywhere)
    found = strands_of(head, aligned, Target(shown, everywhere, everywhere), covered)
    if found is not None:
        found.strength = FAINTER * found.strength
    return found

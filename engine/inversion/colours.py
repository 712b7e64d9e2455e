"""Colours of a head whose shape and camera are known: what every recipe is put together from.

The steps that move colours are in appearance.py, what continues them where no photo shows anything
in unseen.py; here they meet the model and the fitted head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.cameras import Camera
from engine.checkpoints.default import DefaultModel
from engine.device import Compute
from engine.errors import ReconstructionError
from engine.fields.head import HeadField
from engine.fields.strands import Strands
from engine.inversion import appearance, exemplar, shape, unseen
from engine.inversion.relight import Known, normals, relit
from engine.portrait.align import Aligned
from engine.portrait.matte import Matte
from engine.portrait.perception import CLASSES
from engine.systems.head.model import HeadGenerator

HAIR = CLASSES.index("hair")
QUICK_POINTS, POINTS = 10000, 40000  # of the whole surface, for a quick fit and for others
QUICK_SEEN = 6000  # of the photo


@dataclass
class Fitted:
    """A head in the encoder's colours: its field, the camera of the aligned crop, the matte and its
    tidied labels uint8 [S, S], how far each pixel may colour the head [S, S] in 0..1, its shape,
    the generator's residual of the distance (shape.learned_lattice), w+ [1, n, w], and the
    landmarks [84, 2] that the network saw in the crop (0..1), with their spread [84]."""

    field: HeadField
    camera: Camera
    matte: Matte
    labels: np.ndarray
    trust: np.ndarray
    shape: shape.Shape
    learned: Tensor
    ws: Tensor
    landmarks: Tensor
    spread: Tensor

    @property
    def hair(self) -> Tensor:
        """The weights of the hair styles [1, styles]: better known from the shape than from w+."""
        return self.shape.hair[None]


def see_photo(head: Fitted, aligned: Aligned, size: int) -> appearance.Seen:
    """What the aligned photo shows of the head, at size x size pixels. Raises ReconstructionError
    where they do not meet."""
    picture = torch.from_numpy(aligned.crop).permute(2, 0, 1)[None].float() / 255
    picture = F.interpolate(picture, (size, size), mode="area")[0].permute(1, 2, 0)
    trust = torch.from_numpy(head.trust)[None, None].float()
    trust = F.interpolate(trust, (size, size), mode="area")[0, 0]
    seen = appearance.see(head.field, head.camera.resized(size, size), picture, trust)
    if len(seen.colour) < 0.005 * size * size:
        raise ReconstructionError(
            "The fitted head does not lie on the photo's.",
            "Place the five points by hand and try again.",
        )
    return seen


def planes_of(
    generator: HeadGenerator, ws: Tensor, hair: Tensor | None, compute: Compute
) -> Tensor:
    """The generator's planes [1, 4, C, P, P] of w+ [1, n, w]; hair: as the generator takes it."""
    with torch.no_grad(), compute.autocast():
        return generator.planes(ws, hair).float()


def sided(planes: Tensor) -> Tensor:
    """The generator's planes [1, 4, C, P, P] with a side plane for each side [1, 5, C, P, P]: what
    one of a head's sides shows is no longer on the other too."""
    return torch.cat([planes[:, :3], planes[:, 2:]], 1) if planes.shape[1] == 4 else planes


@torch.no_grad()
def target_of(
    model: DefaultModel,
    head: Fitted,
    planes: Tensor,
    seen: appearance.Seen,
    count: int,
    seed: int,
) -> tuple[appearance.Target, Tensor]:
    """The photo's colours, and what the generator's planes [1, 4, C, P, P] and the photo together
    say of everywhere else (at `count` points); and how far these lie under hair [count]."""
    everywhere = appearance.surface_points(head.field, count, seed)
    known = known_of(model, head, planes, seen, everywhere)
    expected = relit(known)
    fine = exemplar.detail(seen, known.seen_covered)
    if fine is not None:
        hidden = 1 - appearance.visibility(everywhere, seen)
        expected = exemplar.textured(everywhere, expected, known.covered * hidden, fine)
    return appearance.Target(seen, everywhere, expected, fine is not None), known.covered


@torch.no_grad()
def known_of(
    model: DefaultModel,
    head: Fitted,
    planes: Tensor,
    seen: appearance.Seen,
    everywhere: Tensor,
) -> Known:
    """What is known of canonical surface points [N, 3], see target_of()."""
    field, n = head.field, len(everywhere)
    points = torch.cat([everywhere, seen.canonical])
    colour = model.generator(planes, points[None])[0][0]
    covered = covered_by_hair(model, head, points)
    toned = appearance.expected_colours(colour, covered, seen, colour[n:], covered[n:])
    # On skin the mean of the two guesses errs less than either; hair's light is the generator's.
    toned = colour + 0.5 * (1 - covered[:, None]) * (toned - colour)
    expected = unseen.continued(
        everywhere, toned[:n], covered[:n], seen, toned[n:], covered[n:], field.bounds
    )
    normal = normals(field, points)
    return Known(
        everywhere,
        normal[:n],
        colour[:n],
        expected,
        covered[:n],
        seen,
        normal[n:],
        colour[n:],
        covered[n:],
    )


def covered_by_hair(model: DefaultModel, head: Fitted, points: Tensor) -> Tensor:
    """How far canonical surface points [N, 3] are hair to the eye [N], see unseen.under_hair."""
    mass = shape.hair_mass(model.space, head.shape)
    skin, hair = shape.skin_and_hair(model.space, points, mass, head.shape.residual, head.learned)
    return unseen.under_hair(points, skin - hair)


def strands_of(
    head: Fitted, aligned: Aligned, target: appearance.Target, covered: Tensor
) -> Strands | None:
    """Strands for the hair that the photo does not show; covered [N]: of target_of()."""
    camera = head.camera
    pixel = float(np.linalg.norm(camera.position) / (camera.intrinsics[0, 0] * camera.width))
    in_photo = (head.labels == HAIR) & (head.trust > 0.9)
    strands = unseen.strands(
        target.everywhere, covered, target.seen, head.field.bounds, aligned.crop, in_photo, pixel
    )
    if strands is not None and target.textured:
        strands.strength = strands.strength * torch.tensor(exemplar.STRANDS)
    return strands


def quick_planes(
    model: DefaultModel,
    planes: Tensor,
    target: appearance.Target,
    check: Callable[[], None] = lambda: None,
    steps: int = appearance.MATCH_STEPS,
) -> Tensor:
    """The planes [1, 5, C, P, P] with the photo's colours where it sees, the expected ones
    elsewhere, broadly."""
    seen = target.seen
    few = torch.arange(0, len(seen.colour), max(1, len(seen.colour) // QUICK_SEEN))
    # Texels that no point falls on would be left speckled.
    points = torch.cat([target.everywhere, seen.canonical[few]])
    wanted = torch.cat([target.expected, seen.colour[few]])
    weight = torch.cat([target.hidden, seen.weight[few]])
    return appearance.match(
        model.generator, sided(planes), points, wanted, weight, check, steps=steps
    )

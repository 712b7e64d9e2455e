"""The light on what one photo does not show: a small network's answer.

Rules carry a photo's colours on (unseen.py), but how light falls on the other side they do not
know. A linear fit of what the photo shows to the direction in which it faces (the first two bands
of spherical harmonics: Ramamoorthi and Hanrahan 2001, Basri and Jacobs 2003) says where the light
comes from, for skin and for hair. From that, and from what generator, rules and photo say of a
point and of its mirror image, a network of three layers says how much lighter or darker it is than
the rules expect; hue stays theirs. It has learned on synthetic heads that are known from all sides
(engine/training/train_relight.py), point by point: it knows no shape and no face, so there is
little that a photo could lead it astray with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.errors import WeightsError
from engine.fields.head import HeadField
from engine.headspace.lattice import sample
from engine.inversion.appearance import Seen
from engine.inversion.unseen import FLOOR, LEAST_SEEN, MIRROR

PATH = Path(__file__).resolve().parents[1] / "weights" / "relight.safetensors"
WIDTH = 48  # of the network's layers
STEEP = 0.005  # ridge on the light's direction: a face shows half of all directions
SURE = 300  # pixels' weight of skin or hair, to go by their mean
MOST = 0.7  # of the logarithm of how much lighter a point gets, or darker
FAR_OFF = 3.0  # of a clue, in spreads, and in logarithms: more counts as that
STEP = 0.002  # metres, for normals


@dataclass
class Known:
    """What is known of surface at canonical points [N, 3]: the field's normals there [N, 3]; the
    generator's colours [N, 3], and those that the rules of unseen.py expect; covered [N]: 0 bare
    skin .. 1 under hair. Of the photo: what it shows, and there the field's normals [M, 3], the
    generator's colours [M, 3] and covered [M]."""

    points: Tensor
    normals: Tensor
    colour: Tensor
    expected: Tensor
    covered: Tensor
    seen: Seen
    seen_normals: Tensor
    seen_colour: Tensor
    seen_covered: Tensor


def normals(field: HeadField, canonical: Tensor) -> Tensor:
    """Outward unit normals [N, 3] of a field's surface at canonical points [N, 3] on it, in the
    field's own space."""
    places = canonical
    for _ in range(4):
        places = canonical - sample(field.warp, places, field.bounds)
    offsets = STEP * torch.eye(3)
    slope = [field.value(places - o) - field.value(places + o) for o in offsets]
    return F.normalize(torch.stack(slope, 1), dim=1)


def light(values: Tensor, directions: Tensor, weight: Tensor, wanted: Tensor) -> Tensor:
    """Values [M, C] at normals [M, 3], weighted [M], as a linear function of the normal, at other
    normals [N, 3]: [N, C]. Where normals vary little, the mean."""
    mean = (weight[:, None] * values).sum(0) / weight.sum()
    basis = F.pad(directions, (1, 0), value=1.0)
    weighted = weight[:, None] * basis
    ridge = STEEP * weight.sum() * torch.tensor([1e-3, 1.0, 1.0, 1.0])
    fit = torch.linalg.solve(basis.T @ weighted + torch.diag(ridge), weighted.T @ (values - mean))
    return F.pad(wanted, (1, 0), value=1.0) @ fit + mean


def clues(known: Known) -> Tensor:
    """What the network is told of each point [N, CLUES]. Colours are logarithms, mostly to the
    generator's own, since what a photo says of those is what carries over."""
    k, seen, n = known, known.seen, len(known.points)
    covered, own = k.covered[:, None], _log(k.colour)
    shown, off = _log(seen.colour), _log(seen.colour) - _log(k.seen_colour)
    told = [covered, k.normals, own, _log(k.expected) - own]
    tones = []
    for share in (1 - k.seen_covered, k.seen_covered):  # skin, hair
        weight = seen.weight * share
        total = weight.sum()
        sure = (total / SURE).clamp(max=1)
        tones.append(((weight[:, None] * off).sum(0) / total.clamp_min(1)).clamp(-1, 1) * sure)
        mean = (weight[:, None] * shown).sum(0) / total.clamp_min(1)
        told.append((mean - own) * sure)
        both = torch.cat([off, shown], 1)
        lit = total >= LEAST_SEEN
        told.append(light(both, k.seen_normals, weight, k.normals) if lit else own.new_zeros(n, 6))
    skin, hair = tones
    told += [torch.lerp(skin, hair, covered), torch.lerp(hair, skin, covered)]
    belief, nearest = seen.near(k.points * MIRROR)
    belief, alike = belief[:, None], covered - k.seen_covered[nearest][:, None]
    told += [belief, belief * off[nearest], belief * (shown[nearest] - own), belief * alike]
    return torch.cat(told, 1).clamp(-FAR_OFF, FAR_OFF)


def _log(colour: Tensor) -> Tensor:
    return (colour.clamp(0, 1) + FLOOR).log()


CLUES = 1 + 3 * 3 + 2 * 9 + 6 + 8  # numbers of a point, see clues()


class Relight(nn.Module):
    """clues -> the logarithm of how much lighter than expected points are [N, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(CLUES))
        self.register_buffer("spread", torch.ones(CLUES))
        self.layers = nn.Sequential(
            nn.Linear(CLUES, WIDTH), nn.SiLU(), nn.Dropout(0.1), nn.Linear(WIDTH, WIDTH), nn.SiLU(),
            nn.Linear(WIDTH, 1),
        )  # fmt: skip

    def forward(self, told: Tensor, expected: Tensor) -> Tensor:
        """Colours [N, 3] of points with such clues [N, CLUES] of which the rules expect others."""
        usual = ((told - self.mean) / self.spread).clamp(-FAR_OFF, FAR_OFF)
        lighter = (MOST * torch.tanh(self.layers(usual) / MOST)).exp()
        return ((expected + FLOOR) * lighter - FLOOR).clamp(0, 1)


@lru_cache(maxsize=1)
def load_relight(path: Path = PATH) -> Relight:
    """In evaluation mode, gradients off. Raises WeightsError if the file is missing, damaged or of
    another layout."""
    net = Relight()
    try:
        net.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise WeightsError(
            "The weights for light on unseen sides cannot be read.", "Install the extension again."
        ) from error
    return net.eval().requires_grad_(False)


@torch.no_grad()
def relit(known: Known) -> Tensor:
    """The colours [N, 3] that the points have, as far as one photo tells."""
    return load_relight()(clues(known), known.expected)

"""Sharp faces for heads that no photo lends one: a book of training faces in canonical space.

What a generator draws of a face is soft: its planes have a texel every 1.6 mm, and eyes are not
quite at the same place on any two of its training pictures. Canonical space, though, puts
everybody's eyes at the same place, so the faces of some training heads, unwrapped sharply
(engine/training/prior_faces.py), fit every head. A sampled head takes the nearest one, by age, sex,
tone and brows, in the tone that its own planes have; brows and eyes are another's than the rest.
Never an average of many: near the middle between two faces one fades into the other, so that
animations do not jump. Beards are drawn where the planes of a man are dark about the mouth, in his
hair's colour.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from engine.errors import WeightsError
from engine.fields.skin import AXIS, COLUMNS, ROWS, Skin, directions
from engine.headspace.lattice import sample
from engine.headspace.space import HeadSpace
from engine.systems.head.model import HeadGenerator

FLOOR = 0.02  # added to colours before logarithms are taken
LIGHT = -3.3, 0.05  # range of a face's logarithm of brightness, as bytes
HUE = -0.9, 0.9  # of red's and blue's to it
TRAITS = ("male", "years", "tone", "warmth", "beard", "brows")
SPREAD = torch.tensor([0.22, 11.0, 0.14, 0.12, 0.1, 0.1])  # of traits: what counts alike
BELOW, ABOVE = (1.0, 1.0, 1.0, 1.0, 0.0, 0.0), (1.0, 1.0, 1.0, 0.5, 0.0, 1.0)  # weight of traits
BEARDED = -0.07, -0.3  # of the trait: none above, a full beard below
OF_MEN = 0.4, 0.6  # of the trait: no beard below, some above
CHANCE, CHANCES = 0.7, 4  # what else decides: as many numbers of identity, of this weight
FADE = 0.15  # of distance: a face so much farther than the nearest has no part
SOFT = 5  # cells of COARSE texels: how broadly tones are compared, standard deviation
COARSE = 8
COVER = 0.0015, 0.001  # metres of hair over the skin that hide the face, and how softly
GAIN = 1.6  # of the logarithm, at most
SHAPES = {
    "light": 3, "hue": 4, "traits": 2, "radius": 3, "shown": 2, "beard": 2, "follow": 2
}  # fmt: skip


class Faces:
    """light uint8 [K, ROWS, COLUMNS], hue uint8 [K, 2, ROWS / 2, COLUMNS / 2]: the faces, see
    pack(); traits [K, T], see TRAITS; radius [1, ROWS, COLUMNS] (metres): where canonical skin is,
    see fields.skin; shown uint8 [ROWS, COLUMNS]: how much of it faces show, at most; beard the
    same: how much hair grows there on a full beard; follow [1 + Ki, 2]: male and years from 1 and
    the identity's coefficients."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        """Raises WeightsError if a tensor is missing or does not fit."""
        for name, dims in SHAPES.items():
            if name not in tensors or tensors[name].ndim != dims:
                raise WeightsError(f"The faces' weights lack a usable '{name}'.")
        self.light, self.hue = tensors["light"], tensors["hue"]
        self.traits, self.radius = tensors["traits"].float(), tensors["radius"].float()
        self.shown, self.beard = (tensors[name].float() / 255 for name in ("shown", "beard"))
        self.follow = tensors["follow"].float()
        count = len(self.light)
        if (
            self.light.shape[1:] != (ROWS, COLUMNS)
            or self.hue.shape != (count, 2, ROWS // 2, COLUMNS // 2)
            or self.traits.shape != (count, len(TRAITS))
            or self.radius.shape != (1, ROWS, COLUMNS)
            or not self.shown.shape == self.beard.shape == (ROWS, COLUMNS)
        ):
            raise WeightsError("The faces' weights do not fit together.")

    @cached_property
    def regions(self) -> Regions:
        return Regions(places(self.radius))

    @cached_property
    def _chances(self) -> Tensor:
        """Where the faces are among the numbers that identity gives [K, CHANCES]."""
        numbers = np.random.RandomState(5).standard_normal((len(self.light), CHANCES))
        return torch.from_numpy(numbers).float()

    def face(self, weights: Tensor) -> Tensor:
        """The mix [3, ROWS, COLUMNS] of faces by weights [K]: logarithms of colours."""
        out = torch.zeros(3, ROWS, COLUMNS)
        for k in weights.nonzero()[:, 0].tolist():
            out += weights[k] * unpack(self.light[k], self.hue[k])
        return out

    def choose(self, traits: Tensor, identity: Tensor, matter: tuple[float, ...]) -> Tensor:
        """Weights [K], nearly always of one, by traits [T] and identity [Ki]; matter: how much each
        trait counts. Continuous in both."""
        away = (self.traits - traits) / SPREAD
        near = (away.square() * torch.tensor(matter)).sum(1)
        mix = np.random.RandomState(6).standard_normal((len(identity), CHANCES))
        mixed = identity @ torch.from_numpy(mix / len(mix) ** 0.5).float() * 2
        near = (near + CHANCE * (self._chances - mixed).square().sum(1) / 2).sqrt()
        share = (1 - (near - near.min()) / FADE).clamp_min(0).square()
        return share / share.sum()

    @torch.no_grad()
    def skin(
        self, generator: HeadGenerator, planes: Tensor, space: HeadSpace, mass: Tensor,
        identity: Tensor, hair: Tensor | None, was: Tensor | None = None,
    ) -> Skin:  # fmt: skip
        """The fine skin of a head with planes [4, C, P, P], hair's mass [1, d, d, d] (see
        HeadSpace.hair) and identity [Ki]; hair: its colour [3], None on a bald head; was: the
        identity before an edit, so that what is left to chance stays."""
        regions, half = self.regions, (ROWS // 2, COLUMNS // 2)
        points = F.avg_pool2d(places(self.radius).permute(2, 0, 1), 2).flatten(1).T
        own = generator(planes[None], points[None])[0][0].T.reshape(1, 3, *half)
        bare = torch.sigmoid((sample(mass, points, space.bounds)[:, 0] + COVER[0]) / COVER[1])
        own, bare = (
            F.interpolate(x, (ROWS, COLUMNS), mode="bilinear", align_corners=False)
            for x in (own, bare.reshape(1, 1, *half))
        )
        own, shown = own[0].clamp_min(0.0), bare[0] * self.shown
        log = (own + FLOOR).log()
        person = torch.cat([torch.ones(1), identity]) @ self.follow
        chance = identity if was is None else was
        traits = torch.cat([person, regions.traits(log, shown[0])])
        below, above = (self.face(self.choose(traits, chance, matter)) for matter in (BELOW, ABOVE))
        # Both in the head's own tone, compared where skin is plain: beards and lips are the face's.
        weight = shown * regions.plain
        below, above = (face + smooth(log - face, weight) for face in (below, above))
        face = torch.lerp(below, above, regions.above)
        face = self._bearded(face, traits, chance, hair)
        shade = ((face.exp() - FLOOR).clamp(0.004, 1) / own.clamp_min(0.01)).log()
        return Skin(shade.clamp(-2 * GAIN, GAIN) * shown, self.radius)

    def _bearded(
        self, face: Tensor, traits: Tensor, identity: Tensor, hair: Tensor | None
    ) -> Tensor:
        """A face [3, ROWS, COLUMNS] with the beard that its head's traits [T] ask for."""
        ramps = ((traits[TRAITS.index(n)] - low) / (high - low)
                 for n, (low, high) in (("beard", BEARDED), ("male", OF_MEN)))  # fmt: skip
        full = float(torch.stack([ramp.clamp(0, 1) for ramp in ramps]).prod())
        if not full:
            return face
        if hair is None:
            hair = 0.3 * traits[TRAITS.index("tone")].exp() * torch.tensor([1.15, 1.0, 0.85])
        style = torch.sigmoid(4 * identity[1:7].sum() - 4)  # some have a goatee
        area = self.beard * torch.lerp(torch.ones(()), self.regions.goatee, style)
        strands = hairs()
        cover = (area * (0.35 + 0.75 * full) + 0.2 * (area - area.square()) * strands) * (
            1 + 0.22 * strands * (1.3 - full)
        )
        colour = (0.62 * hair + FLOOR).log()[:, None, None] + 0.15 * strands
        return torch.lerp(face, colour, cover.clamp(0, 0.93) * full**0.5)


@lru_cache(maxsize=1)
def hairs() -> Tensor:
    """Noise of unit spread [ROWS, COLUMNS]: short hairs that hang down."""
    numbers = np.random.RandomState(7).standard_normal((2, ROWS, COLUMNS))
    fine, broad = (gaussian_filter(n, s) for n, s in zip(numbers, ((2.0, 0.55), (5.0, 1.6))))
    both = fine / fine.std() + 0.6 * broad / broad.std()
    return torch.from_numpy(both / both.std()).float()


class Regions:
    """Parts of the unwrapped face, 0..1 [ROWS, COLUMNS]: plain skin, without brows, eyes, lips and
    where beards grow; the brows; where beards grow; what a goatee has of those; and above:
    brows and eyes with what is round them."""

    def __init__(self, places: Tensor) -> None:
        """places [ROWS, COLUMNS, 3]: the texels' canonical places."""
        x, y, z = places.unbind(-1)
        across = x.abs()
        brows = _box(y, 0.029, 0.045) * _box(across, 0.012, 0.055) * _box(z, 0.04, 1)
        eyes = _box(y, 0.004, 0.054) * _box(across, -1, 0.062) * _box(z, 0.03, 1)
        lips = _box(-_oval(x / 0.027, (y + 0.0505) / 0.0105), -1, 1, 0.2)
        low = _box(y, -0.1, -0.022) * (1 - _box(y, -0.026, 0) * _box(across, -1, 0.017))
        jaw = _box(y, -0.1, 0.0) * _box(z, -1, 0.055)
        self.brows = brows
        self.beard = low * (1 - lips) * _box(z, 0.03, 1) * _box(across, -1, 0.055)
        plain = (1 - torch.maximum(torch.maximum(eyes, low), jaw)).clamp(0, 1)
        # pictures of skin have a hairline at the temples
        self.temples = _box(y, 0.025, 1, 0.02) * _box(z, -1, 0.04, 0.02)
        self.plain = plain * _box(z, 0.0, 1, 0.02) * (1 - self.temples)
        self.lips, self.eyes = lips, eyes
        self.goatee = _box(-_oval(x / 0.031, (y + 0.06) / 0.033), -1, 1, 0.2)
        self.above = _box(y, 0.0, 0.068, 0.012) * _box(across, -1, 0.066, 0.012)

    def traits(self, log: Tensor, shown: Tensor) -> Tensor:
        """tone, warmth, beard and brows, see TRAITS, of logarithms of colours [3, ROWS, COLUMNS];
        shown [ROWS, COLUMNS]: where they are known."""
        plain, beard, brows = (
            (log * (w * shown + 1e-6)).sum((1, 2)) / (w * shown + 1e-6).sum()
            for w in (self.plain, self.beard, self.brows)
        )
        tone = plain.mean()
        others = plain[0] - plain[2], beard.mean() - tone, brows.mean() - tone
        return torch.stack([tone, *others])


def _oval(x: Tensor, y: Tensor) -> Tensor:
    return torch.sqrt(x * x + y * y)


def _box(x: Tensor, low: float, high: float, soft: float = 0.004) -> Tensor:
    """1 within low .. high, 0 beyond `soft` outside."""
    t = torch.minimum(x - low, high - x) / soft + 1
    t = t.clamp(0, 1)
    return t * t * (3 - 2 * t)


def places(radius: Tensor) -> Tensor:
    """Canonical places [ROWS, COLUMNS, 3] of the skin at distances from the axis [1, ROWS,
    COLUMNS]."""
    around, up = directions()
    x, z = (radius[0] * d for d in around.T)
    return torch.stack([x, up[:, None].expand_as(x), z + AXIS], -1)


def smooth(log: Tensor, weight: Tensor) -> Tensor:
    """Logarithms [3, ROWS, COLUMNS] blurred broadly where weight [1, ROWS, COLUMNS] says that they
    count, and carried on from there to where they do not."""
    total, mass = (F.avg_pool2d(x[None], COARSE) for x in (log * weight, weight))
    reach = 3 * SOFT
    kernel = torch.exp(-((torch.arange(-reach, reach + 1) / SOFT) ** 2) / 2)
    both = torch.cat([total, mass], 1)[0][:, None]
    for shape in ((1, -1), (-1, 1)):
        k = kernel.reshape(1, 1, *shape)
        both = F.conv2d(both, k, padding=(k.shape[2] // 2, k.shape[3] // 2))
    everywhere = (log * weight).sum((1, 2)) / weight.sum().clamp_min(1e-6)
    few = 0.05  # where nothing near counts, the mean of all that does
    mean = (both[:3, 0] + few * everywhere[:, None, None]) / (both[3, 0] + few)
    return F.interpolate(mean[None], (ROWS, COLUMNS), mode="bilinear", align_corners=False)[0]


def pack(log: Tensor) -> tuple[Tensor, Tensor]:
    """A face's logarithms of colours [3, ROWS, COLUMNS] as bytes: brightness [ROWS, COLUMNS], and
    red and blue to it at half as many texels [2, ROWS / 2, COLUMNS / 2]."""
    light = log.mean(0)
    hue = F.avg_pool2d((log[0::2] - light)[None], 2)[0]
    return tuple(
        ((x - low) / (high - low) * 255 + 0.5).clamp(0, 255).byte()
        for x, (low, high) in ((light, LIGHT), (hue, HUE))
    )


def unpack(light: Tensor, hue: Tensor) -> Tensor:
    """Inverse of pack()."""
    light, hue = (
        x.float() / 255 * (high - low) + low for x, (low, high) in ((light, LIGHT), (hue, HUE))
    )
    size = light.shape[-2:]
    hue = F.interpolate(hue[None], size, mode="bilinear", align_corners=False)[0]
    red, blue = hue + light
    return torch.stack([red, 3 * light - red - blue, blue])

"""What one photo does not show: colours and strands that go on from what it does.

Skin and hair are continued apart. What the photo says of the generator's colours holds broadly for
all of the head, and near the border of what is seen in detail (normalised convolution, Knutsson and
Westin 1993, on a lattice); where the other half of the head is seen it is mirrored, most of all on
skin; neck and hair have the hue that skin and hair have in the photo, and hair gets strands as
light, dark and wide as there.

How much of each was measured on held-out heads: what is hidden has a light of its own, and the
generator, which has learned how heads are lit, knows more of it than the photo's other parts do.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from engine.fields.strands import WIDTHS, Strands
from engine.headspace import lattice
from engine.inversion.appearance import Seen

CELLS = 40  # of the lattices along the box: 1 cm
RUN_ON = 3  # times colours are blurred on it: about 3 cm
BROAD = 25  # times, for what holds for the whole head
BELIEVED, ON_NECK = 0.7, 1.2  # of the broad difference, and of that on the neck
HUE, HAIR_HUE = 0.8, 0.9  # of the photo's skin's hue on the neck, and of its hair's on hair
LOCAL = 0.3  # of the difference that is left near the border
MIRROR = torch.tensor([-1.0, 1.0, 1.0])  # to the other half of the head
MIRRORED_HAIR = 0.25  # of the mirror image, where that is hair
FLOOR = 0.04  # added before logarithms, so that black hair does not rule them
LUMA = torch.tensor([0.299, 0.587, 0.114])
LEAST_SEEN = 100  # pixels' weight of skin or hair, to go by them
THIN = 0.004, 0.001  # metres: hair that does not count, in general and on the scalp
STRAY = 0.3  # of the neck: less hair than this on it is none
USUAL = (0.05, 0.06, 0.07, 0.07, 0.05)  # strands where the photo shows too little hair
FEWEST = 1500  # pixels of hair to measure them on
# Undoes four fifths of what a difference of two blurs takes from an octave (measured on strands
# that were drawn): invented lines are better a little faint. The broad ones are given still less,
# since light and shade are broad too.
GAIN = (2.3, 2.3, 1.9, 1.3, 0.8)
EAR = 1.25, 1.6  # times hair's usual brightness: from, and by then no hair
LEAST, MOST = 0.05, 0.2  # spread of all strands together


def neck(points: Tensor) -> Tensor:
    """1 at canonical points [N, 3] below jaw and nape, 0 above: [N]."""
    y, z = points[:, 1], points[:, 2]
    line = -0.048 - 0.8 * z.clamp(0, 0.085)
    return ((line - y) / 0.02).clamp(0, 1)


def jaw(points: Tensor) -> Tensor:
    """1 at canonical points [N, 3] on the side of the jaw, behind the face and below the ears."""
    x, y, z = points.unbind(1)
    ear = ((x.abs() - 0.062) / 0.008).clamp(0, 1) * ((y + 0.045) / 0.01).clamp(0, 1)
    side = ((0.05 - z) / 0.03).clamp(0, 1) * (z / 0.02).clamp(0, 1)
    return side * ((0.01 - y) / 0.02).clamp(0, 1) * (1 - ear)


def features(points: Tensor) -> Tensor:
    """1 at canonical points [N, 3] of the face's front, where brows, eyes and mouth are, 0 on
    temples, cheeks' sides and all else: [N]."""
    x, _, z = points.unbind(1)
    return ((z - 0.03) / 0.02).clamp(0, 1) * ((0.055 - x.abs()) / 0.01).clamp(0, 1)


def smooth(values: Tensor, weight: Tensor, points: Tensor, bounds: Tensor, times: int) -> Tensor:
    """The lattice [C + 1, CELLS, CELLS, CELLS] of values [N, C] at points [N, 3] times their
    weights [N], and of the weights themselves, blurred."""
    unit = (points - bounds[0]) / (bounds[1] - bounds[0])
    at = (unit * (CELLS - 1) + 0.5).long().clamp(0, CELLS - 1)
    flat = (at[:, 2] * CELLS + at[:, 1]) * CELLS + at[:, 0]
    rows = torch.cat([values * weight[:, None], weight[:, None]], 1)
    total = rows.new_zeros(CELLS**3, rows.shape[1]).index_add_(0, flat, rows)
    return lattice.blur(total.T.reshape(-1, CELLS, CELLS, CELLS), times)


def run_on(
    values: Tensor,
    weight: Tensor,
    at: Tensor,
    points: Tensor,
    bounds: Tensor,
    times: int = RUN_ON,
) -> Tensor:
    """Differences or log ratios [M, 3], known with weights [M] at places [M, 3], continued to
    points [N, 3]: as they are near by, fading to 0 some centimetres away, the farther the more
    `times` they are blurred."""
    grid = smooth(values, weight, at, bounds, times)
    got = lattice.sample(grid, points, bounds)
    most = float(grid[-1].max())
    return got[:, :-1] / (got[:, -1:] + 0.01 * most + 1e-9)


def continued(
    points: Tensor,
    expected: Tensor,
    covered: Tensor,
    seen: Seen,
    seen_expected: Tensor,
    seen_covered: Tensor,
    bounds: Tensor,
) -> Tensor:
    """The colours [N, 3] of canonical surface points that go on from the photo's.

    expected [N, 3]: the generator's there; covered [N]: 0 bare skin .. 1 under hair; seen_expected,
    seen_covered: the same at the photo's points.
    """
    count = len(points)
    both = torch.cat([points, seen.canonical])
    bare, seen_bare = 1 - covered, 1 - seen_covered
    # What generator and photo disagree about goes on, skin and hair apart.
    broad = torch.zeros_like(both)
    for share, seen_share in ((bare, seen_bare), (covered, seen_covered)):
        weight = seen.weight * seen_share
        if weight.sum() >= LEAST_SEEN:
            off = run_on(seen.colour - seen_expected, weight, seen.canonical, both, bounds, BROAD)
            broad = broad + torch.cat([share, seen_share])[:, None] * off
    below = torch.lerp(torch.tensor(BELIEVED), torch.tensor(ON_NECK), neck(points) * bare)
    expected = (expected + below[:, None] * broad[:count]).clamp(0, 1)
    expected = calm(points, expected, covered, seen, seen_covered)
    expected = without_ears(points, expected, covered)
    toned = (seen_expected + BELIEVED * broad[count:]).clamp(0, 1)
    out, seen_log = expected, (seen.colour + FLOOR).log()
    residual = LOCAL * (seen_log - (toned + FLOOR).log()).clamp(-0.8, 0.8)
    for share, seen_share, darkest in (
        (bare, seen_bare, -0.2),  # darker skin is hair that the shape has not
        (covered, seen_covered, -0.8),
    ):
        weight = seen.weight * seen_share
        if weight.sum() < LEAST_SEEN:
            continue
        ratio = run_on(residual.clamp_min(darkest), weight, seen.canonical, points, bounds)
        out = out + share[:, None] * ((expected + FLOOR) * ratio.exp() - FLOOR - expected)
    # The other half of the head, where that is seen.
    belief, nearest = seen.near(points * MIRROR)
    alike = (1 - 2 * (covered - seen_covered[nearest]).abs()).clamp_min(0)
    light = (expected + FLOOR) / (toned[nearest] + FLOOR)
    mirrored = seen.colour[nearest] * light.clamp(0.5, 2).sqrt()
    # What is dark there and not here, on bare skin beside the features, is the other half's hair.
    ratio = (mirrored @ LUMA + FLOOR) / (out @ LUMA + FLOOR)
    dark = ((0.85 - ratio) / 0.15).clamp(0, 1) * bare * (1 - features(points))
    share = belief * alike * (1 - dark) * (bare + MIRRORED_HAIR * covered)
    return torch.lerp(out, mirrored, share[:, None]).clamp(0, 1)


def calm(
    points: Tensor, expected: Tensor, covered: Tensor, seen: Seen, seen_covered: Tensor
) -> Tensor:
    """Expected colours [N, 3] with the bare neck in the hue of the photo's skin, hair in that of
    its hair, and without the dark between jaw and ear: stains there are shadows of hair and of
    clothes that are not the photo's. Light and dark stay, a shadow for the most part."""
    bare = 1 - covered
    below = neck(points) * bare
    weight = seen.weight * (seen_covered > 0.5)
    if weight.sum() >= LEAST_SEEN:
        hair = (weight[:, None] * seen.colour).sum(0) / weight.sum()
        hued = (expected @ LUMA)[:, None] * hair / (hair @ LUMA).clamp_min(0.01)
        expected = torch.lerp(expected, hued, (HAIR_HUE * covered)[:, None])
    weight = seen.weight * (seen_covered < 0.5)
    if weight.sum() < 150 or (below > 0.5).sum() < 50:
        return expected
    face = (weight[:, None] * seen.colour).sum(0) / weight.sum()
    light = face @ LUMA
    hue, luma = face / light, expected @ LUMA
    lit = (luma + 0.02).maximum(0.7 * light)[:, None] * hue
    out = torch.lerp(expected, lit, (0.7 * bare * jaw(points))[:, None])
    return torch.lerp(out, luma[:, None] * hue, (HUE * below)[:, None])


def ears(points: Tensor) -> Tensor:
    """1 at canonical points [N, 3] where ears are, 0 some centimetres away: [N]."""
    x, y, z = points.unbind(1)
    side = ((x.abs() - 0.055) / 0.01).clamp(0, 1)
    return side * ((0.06 - y.abs()) / 0.02).clamp(0, 1) * ((0.055 - z.abs()) / 0.02).clamp(0, 1)


def without_ears(points: Tensor, expected: Tensor, covered: Tensor) -> Tensor:
    """Expected colours [N, 3] with hair over the ears that is much lighter than most of it in
    hair's usual colour: there the generator paints the ears. points, covered: see continued()."""
    hair = expected[covered > 0.5]
    if len(hair) < 50:
        return expected
    usual = hair.median(0).values
    lighter = (expected @ LUMA + FLOOR) / (usual @ LUMA + FLOOR)
    share = ((lighter - EAR[0]) / (EAR[1] - EAR[0])).clamp(0, 1) * covered
    share = share * ears(points)
    return torch.lerp(expected, (EAR[0] * usual).clamp(0, 1), share[:, None])


def under_hair(points: Tensor, thickness: Tensor) -> Tensor:
    """How far canonical surface points [N, 3] with hair of a thickness [N] (metres, negative where
    skin lies over it) are hair to the eye: 0 bare .. 1 covered [N].

    Away from the scalp, hair thinner than some millimetres is skin with a shadow on it; and a lock
    or two on the neck are none, but what a mix of hair styles leaves there.
    """
    _, y, z = points.unbind(1)
    scalp = ((y - 0.03 - 0.72 * z) / 0.02).clamp(0, 1)  # above hairline, ears and nape
    least = torch.lerp(torch.tensor(THIN[0]), torch.tensor(THIN[1]), scalp)
    covered, below = torch.sigmoid((thickness - least) / 0.001), neck(points)
    stray = (below * covered).sum() < STRAY * below.sum()
    return covered * (1 - below) if stray else covered


def strands(
    points: Tensor,
    covered: Tensor,
    seen: Seen,
    bounds: Tensor,
    crop: np.ndarray,
    hair: np.ndarray,
    pixel: float,
) -> Strands | None:
    """Strands like the photo's on hair that the photo does not show, None for a head without hair.

    points [N, 3], covered [N]: canonical surface points all over, see continued(). crop uint8
    [S, S, 3], hair bool [S, S]: the photo and its pixels of hair, `pixel` metres wide.
    """
    if (covered > 0.5).float().mean() < 0.01:
        return None
    belief = seen.near(points)[0]
    unseen = 1 - ((belief - 0.15) / 0.6).clamp(0, 1)
    grid = smooth((covered * unseen)[:, None], torch.ones(len(points)), points, bounds, 1)
    amount = grid[:1] / grid[1:].clamp_min(1e-3)
    return Strands(amount, *measure(crop, hair, pixel))


def measure(crop: np.ndarray, hair: np.ndarray, pixel: float) -> tuple[Tensor, Tensor]:
    """Strength [len(WIDTHS)] and tint [3] of strands, see fields.strands.Strands, from the pixels
    of hair bool [S, S] in a picture uint8 [S, S, 3], `pixel` metres wide."""
    inside = ndimage.binary_erosion(hair, iterations=3)
    if inside.sum() < FEWEST:
        return torch.tensor(USUAL), torch.ones(3)
    rows, columns = ndimage.find_objects(hair.astype(np.uint8))[0]
    hair, inside = hair[rows, columns], inside[rows, columns]
    picture = crop[rows, columns].astype(np.float32) / 255
    colour = np.log(np.concatenate([picture @ LUMA.numpy()[:, None], picture], 2) + FLOOR)
    # An octave is what is lost from one blur to the next.
    sigmas = [width / pixel / 9 for width in (*WIDTHS, 2 * WIDTHS[-1])]
    blurred = [_mean(colour[..., 0], hair, sigma) for sigma in sigmas]
    octaves = [np.abs(fine - broad)[inside] for fine, broad in zip(blurred, blurred[1:])]
    strength = [gain * float(np.percentile(octave, 68)) for gain, octave in zip(GAIN, octaves)]
    strength = torch.tensor(strength)
    if WIDTHS[0] < 2.5 * pixel:  # finer than the picture
        strength[0] = 0.8 * strength[1]
    total = float(strength.norm())
    strength = strength * (min(max(total, LEAST), MOST) / max(total, 1e-6))
    light = (colour[..., 0] - blurred[-1])[inside]
    tint = [
        float((light * (colour[..., k] - _mean(colour[..., k], hair, sigmas[-1]))[inside]).sum())
        for k in (1, 2, 3)
    ]
    return strength, (torch.tensor(tint) / (float(light @ light) + 1e-6)).clamp(0.6, 1.5)


def _mean(x: np.ndarray, mask: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean of x over the mask."""
    weight = mask.astype(np.float32)
    total = ndimage.gaussian_filter(x * weight, sigma, truncate=2.5)
    return total / np.maximum(ndimage.gaussian_filter(weight, sigma, truncate=2.5), 1e-3)

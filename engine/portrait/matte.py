"""The matte of a head: how much of each pixel of the crop is head, soft along the hair.

Three steps. The network's coarse classes are sharpened by the picture's colours (segment.py). The
boundary that comes out is widened to a band, more where there is hair; inside the band alpha is
solved for by closed-form matting (Levin, Lischinski, Weiss 2008: alpha is locally a linear function
of colour), held by what the colours of the sure neighbours on both sides suggest: once for the
person before the background, once for the head before all the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

from engine.portrait.segment import BACKGROUND, GARMENT, GLASSES, HAIR, SKIN, resize, segment

SKIN_BAND, HAIR_BAND = 0.006, 0.022  # half width of the unknown band, as a part of the crop's side
EPSILON = 1e-5  # regularises the local colour fits (Levin et al.)
SAMPLE_SCALES = (0.012, 0.04)  # how far sure neighbours lend their colours, part of the side
SAMPLE_TRUST, PRIOR_TRUST = 0.02, 0.002  # beside local linearity, whose weights are about 1

HEAD = (SKIN, HAIR, GLASSES)


@dataclass(frozen=True)
class Matte:
    """What belongs to the head.

    alpha: float32 [S, S] 0..1, the head: skin (neck included), hair and glasses, without garment.
    person: float32 [S, S] 0..1, head and garment.
    labels: uint8 [S, S], the likeliest class: an index into segment.CLASSES.
    glasses: float32 [S, S] 0..1, frames and dark lenses.
    """

    alpha: np.ndarray
    person: np.ndarray
    labels: np.ndarray
    glasses: np.ndarray

    @property
    def clothes(self) -> np.ndarray:
        """bool [S, S]: the person without the head, which may hide some of it."""
        return (self.person > 0.5) & ~(self.alpha > 0.5)


def matte(
    crop: np.ndarray,
    probability: np.ndarray,
    alpha: np.ndarray | None = None,
    valid: np.ndarray | None = None,
    check: Callable[[], None] = lambda: None,
) -> Matte:
    """The matte of an aligned crop.

    crop: uint8 [S, S, 3], S a multiple of 256. probability: float [5, h, w], a network's answer for
    segment.CLASSES, coarse and imperfect. alpha: uint8 [S, S], the photo's own alpha: it then
    decides between person and background. valid: bool [S, S], the photo itself; outside it the
    matte is zero and no colours are learnt.
    """
    size = crop.shape[0]
    opaque = None if alpha is None else alpha.astype(np.float32) / 255
    belief = segment(crop, probability, valid, opaque, check)
    belief = _one_head(belief)
    check()
    soft = resize(belief, size)
    labels = soft.argmax(0).astype(np.uint8)
    hair = ndimage.maximum_filter(labels == HAIR, size=int(2 * HAIR_BAND * size) | 1)
    width = size * (SKIN_BAND + (HAIR_BAND - SKIN_BAND) * ndimage.gaussian_filter(hair * 1.0, 4))
    image = crop.astype(np.float64) / 255
    if opaque is not None:
        person = opaque
    else:
        person = soft_edge(image, labels != BACKGROUND, 1 - soft[BACKGROUND], width)
    check()
    head = soft_edge(image, np.isin(labels, HEAD), 1 - soft[BACKGROUND] - soft[GARMENT], width)
    head = np.minimum(head, person)
    if valid is not None:
        person, head = person * valid, head * valid
        labels = np.where(valid, labels, BACKGROUND).astype(np.uint8)
    return Matte(
        head.astype(np.float32), person.astype(np.float32), labels, soft[GLASSES] * (head > 0.5)
    )


def _one_head(belief: np.ndarray) -> np.ndarray:
    """Belief [5, n, n] changed where the likeliest class contradicts that there is one head, in one
    piece without holes, and one person around it; everywhere else it keeps its softness."""
    labels = belief.argmax(0)
    head = _filled(_largest(np.isin(labels, HEAD)), belief[BACKGROUND])
    pieces, _ = ndimage.label((labels != BACKGROUND) | head)
    person = _filled(np.isin(pieces, np.unique(pieces[head])) & (pieces > 0), belief[BACKGROUND])
    # Someone else's face, or a hand, counts as garment where it touches and else as background.
    out = belief.copy()
    for region, classes in ((head, HEAD), (person & ~head, (GARMENT,)), (~person, (BACKGROUND,))):
        wrong = region & ~np.isin(labels, classes)
        for c in range(len(out)):
            out[c][wrong] = out[c][wrong] + 1e-3 if c in classes else 0
    return out / out.sum(0)


def _filled(mask: np.ndarray, background: np.ndarray) -> np.ndarray:
    """A mask without its holes, but for large ones that surely show background: between a curl and
    the neck, say."""
    holes, count = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
    out = mask.copy()
    for hole in range(1, count + 1):
        inside = holes == hole
        if inside.mean() < 0.002 or background[inside].mean() < 0.9:
            out |= inside
    return out


def _largest(mask: np.ndarray) -> np.ndarray:
    pieces, count = ndimage.label(mask)
    if count == 0:
        return mask
    return pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])


def soft_edge(
    image: np.ndarray, inside: np.ndarray, prior: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """Alpha [S, S] of a region: 1 deep inside, 0 well outside, solved for where the boundary is
    nearer than width [S, S] pixels. image: [S, S, 3] 0..1. prior: [S, S], a rough answer."""
    if inside.all() or not inside.any():
        return inside.astype(np.float64)
    distance = ndimage.distance_transform_edt(inside) + ndimage.distance_transform_edt(~inside)
    unknown = distance <= width
    sampled, trust = _sampled_alpha(image, inside & ~unknown, ~inside & ~unknown)
    pull = np.where(unknown, PRIOR_TRUST + SAMPLE_TRUST * trust, 100.0)
    mixed = (PRIOR_TRUST * prior + SAMPLE_TRUST * trust * sampled) / (
        PRIOR_TRUST + SAMPLE_TRUST * trust
    )
    target = np.where(unknown, mixed, inside * 1.0)
    return _closed_form(image, unknown, target, pull)


def _sampled_alpha(
    image: np.ndarray, inside: np.ndarray, outside: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Alpha from where a pixel's colour lies between those of its sure neighbours, and how far to
    trust it (0..1: how well the two sides' colours can be told apart)."""
    size = image.shape[0]
    half = size // 2  # the neighbours' colours vary slowly
    facts = np.concatenate([np.ones((1, size, size)), image.transpose(2, 0, 1)])
    facts = np.concatenate([facts, (image**2).sum(-1)[None]])
    sides = []
    for mask in (inside, outside):
        held = resize(facts * mask, half)
        total = np.zeros_like(held)
        # The wider neighbourhood only serves where the narrower one holds nothing.
        for scale, share in zip(SAMPLE_SCALES, (1.0, 1e-3), strict=True):
            blur = (0, scale * half, scale * half)
            total += share * ndimage.gaussian_filter(held, blur, truncate=3)
        total = resize(total / (total[0] + 1e-12), size)
        mean = total[1:4].transpose(1, 2, 0)
        sides.append((mean, (total[4] - (mean**2).sum(-1)).clip(0)))
    (front, front_spread), (back, back_spread) = sides
    line = front - back
    length = (line**2).sum(-1)
    alpha = ((image - back) * line).sum(-1) / (length + 1e-6)
    return alpha.clip(0, 1), length / (length + front_spread + back_spread + 0.01)


def _closed_form(
    image: np.ndarray, unknown: np.ndarray, target: np.ndarray, pull: np.ndarray
) -> np.ndarray:
    """Minimise alpha' L alpha + sum pull (alpha - target)^2 over the unknown pixels, L being the
    matting Laplacian of 3 x 3 windows; other pixels keep their target."""
    size = image.shape[0]
    near = ndimage.binary_dilation(unknown, np.ones((3, 3)))
    near[[0, -1]] = near[:, [0, -1]] = False  # window centres: whole windows only
    rows, columns = np.nonzero(near)
    offset = np.array([(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
    y, x = rows[:, None] + offset[:, 0], columns[:, None] + offset[:, 1]
    pixel = y * size + x
    colour = image[y, x]
    colour = colour - colour.mean(1, keepdims=True)
    covariance = np.einsum("nki,nkj->nij", colour, colour) / 9 + EPSILON / 9 * np.eye(3)
    # The affinity of two pixels of a window: (1 + c_i C^-1 c_j) / 9.
    reach = np.linalg.solve(covariance, colour.transpose(0, 2, 1))
    affinity = (1 + np.einsum("nki,nij->nkj", colour, reach)) / 9

    used = np.unique(pixel)
    place = np.zeros(size * size, dtype=np.int32)
    place[used] = np.arange(len(used))
    local = place[pixel]
    n = len(used)
    i, j = np.repeat(local, 9, 1).ravel(), np.tile(local, (1, 9)).ravel()
    laplacian = sparse.coo_matrix((-affinity.ravel(), (i, j)), shape=(n, n)).tocsr()
    laplacian += sparse.diags(np.bincount(local.ravel(), minlength=n).astype(float))
    weight, wanted = pull.ravel()[used], target.ravel()[used]
    system = laplacian + sparse.diags(weight)
    jacobi = sparse.diags(1 / system.diagonal())
    solved, _ = cg(system, weight * wanted, x0=wanted, rtol=1e-4, maxiter=300, M=jacobi)
    out = target.copy()
    out.ravel()[used] = np.where(unknown.ravel()[used], solved, wanted)
    return out.clip(0, 1)

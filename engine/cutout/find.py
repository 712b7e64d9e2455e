"""Where the object of a photo is, told by the picture alone: no network, no download.

The border of the picture shows background, so its colours are learnt first (a mixture of Gaussians,
after a smooth change of light across the picture has been taken away); what they do not explain is
the first guess of the object. From then on both sides learn their own colours, and the evidence is
smoothed along, not across, the picture's edges: GrabCut's alternation (Rother, Kolmogorov, Blake
2004) with the random walker with priors (Grady 2005) in place of the graph cut, because it gives
probabilities and one sparse linear system. At last the boundary becomes soft by closed-form matting
(portrait/matte.py).

A shadow is background of the same hue, only darker. Where the object has colours that no shadow
explains, what shadow does explain is taken for one.

Works on pictures stretched to a square: no step here needs square pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from engine.errors import PhotoError
from engine.portrait.matte import soft_edge
from engine.portrait.segment import lab, mixture, resize, walk

ROUNDS = (128, 128, 128, 128, 256)  # sides of the square on which both sides learn, one a round
FINEST = 1024  # side of the square on which the boundary is made soft, at most
RING = 0.04  # width of the border that shows background, part of the side
PULL = 0.1  # of the evidence beside the neighbours
COMPONENTS = 6, 5  # Gaussians in the colours of background and object
ANY = float(-np.log(100.0 * 120.0 * 120.0 * 10.0))  # log density of "any colour whatever"
LIMIT = 6.0  # log odds that one pixel's colour may claim at most
SHADES = (0.85, 0.72, 0.6, 0.48, 0.38)  # of the background's light that is left in a shadow
BLUER = (0.0, 8.0, 16.0)  # in Lab's b: shadows are lit by the sky; for a shadow that takes all
SHADOW = 1.5, 3.0  # log odds that a shadow costs: any, and more the darker it is
OWN = 0.4  # part of the first guess that no shadow explains, from which on shadows are believed in
TEXTURE = 1.0  # weight of local contrast beside the three colour channels
BAND = 0.006  # half width of the soft boundary, part of the side

SMALLEST, LARGEST = 0.004, 0.93  # part of the picture that an object covers
SPECK, SECOND = 0.02, 0.3  # parts of the largest piece: dirt; another object
APART = 0.03  # part of the side from which on a piece is not the largest one's
ROUND_THE_BORDER = 0.6  # part of the border that an object may touch
PLAIN = 3.5  # how far the colours on both sides of the outline differ at least, in Lab
SURE = 0.9  # certainty below which a picture is too cluttered for colours to decide

MASK = "Give a mask: a picture that is white where the object is."


@dataclass(frozen=True)
class Found:
    """alpha: float32 [H, W] 0..1, the object; certainty: float 0..1, how clearly it stands out."""

    alpha: np.ndarray
    certainty: float


def find_object(rgb: np.ndarray, check: Callable[[], None] = lambda: None) -> Found:
    """The one object of a photo. rgb: uint8 [H, W, 3], display sRGB. check: called between steps,
    may raise to cancel; about two seconds on one core.

    Raises PhotoError when nothing stands out from the background, or several things do.
    """
    picture = Image.fromarray(rgb)
    belief, shadows = None, False
    for side in ROUNDS:
        check()
        small = picture.resize((side, side), Image.Resampling.BOX)
        look = _Look(lab(np.asarray(small).astype(np.float32) / 255).transpose(2, 0, 1))
        if belief is None:
            evidence, shadows = _first_look(look)
        else:
            evidence = _evidence(look, resize(belief, side), shadows)
        belief = walk(look.colour, evidence, PULL)[0]
    solid = _one_object(belief > 0.5)
    certainty = float(np.abs(belief - 0.5).mean() * 2)
    _check_stands_out(look.colour, solid, certainty)
    check()
    side = min(FINEST, max(rgb.shape[:2])) // 2 * 2
    fine = np.asarray(picture.resize((side, side), Image.Resampling.BOX)).astype(np.float64) / 255
    # What the pieces' rules have changed is no longer the belief's to say.
    belief = np.where(solid == (belief > 0.5), belief, solid * 1.0)
    prior = resize(belief, side)
    alpha = soft_edge(fine, prior > 0.5, prior, np.full((side, side), BAND * side))
    check()
    height, width = rgb.shape[:2]
    sized = Image.fromarray(alpha.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    return Found(np.asarray(sized).clip(0, 1), certainty)


class _Look:
    """A picture as the mixtures see it. colour: float32 [3, n, n], Lab."""

    def __init__(self, colour: np.ndarray) -> None:
        self.colour, self.n = colour, colour.shape[-1]
        self.sides = _ring(self.n)
        self._trend = _gradient(colour, self.sides > 0)
        mean = ndimage.uniform_filter(colour[0], 5)
        spread = ndimage.uniform_filter(colour[0] ** 2, 5) - mean**2
        self._texture = TEXTURE * np.sqrt(spread.clip(0))

    def features(self, left: float = 1.0, bluer: float = 0.0) -> np.ndarray:
        """[n * n, 4]: Lab without the light's smooth change, and local contrast; as it would be
        had a shadow not taken all but this part of the light, and made it bluer."""
        colour = self.colour
        if left < 1:  # Lab goes with the cube root of the light
            colour = np.stack([colour[0] + 16, colour[1], colour[2]]) * left ** (-1 / 3)
            colour[0] -= 16
            colour[2] += bluer * (1 - left)
        rows = np.concatenate([colour - self._trend, self._texture[None]])
        return rows.reshape(4, -1).T.astype(np.float64)

    def densities(self, weights: np.ndarray, components: int, shadows: bool) -> np.ndarray:
        """Log density [1 or 2, n, n] of what holds the weights [n * n]; the second with what
        shadows do to it."""
        shades = [(left, bluer) for left in SHADES for bluer in BLUER] if shadows else []
        rows = [self.features(*shade) for shade in ((1.0, 0.0), *shades)]
        given = np.concatenate([weights, np.zeros((len(rows) - 1) * len(weights))])
        log = mixture(np.concatenate(rows), given, components).reshape(len(rows), self.n, self.n)
        if not shadows:
            return log
        cost = SHADOW[0] + SHADOW[1] * (1 - np.array([left for left, _ in shades]))
        return np.stack([log[0], np.maximum(log[0], (log[1:] - cost[:, None, None]).max(0))])


def _ring(n: int) -> np.ndarray:
    """int [n, n]: 1 to 4 on the border's sides (top, bottom, left, right), 0 inside."""
    width = max(int(RING * n + 0.5), 2)
    sides = np.zeros((n, n), int)
    sides[:, :width], sides[:, -width:] = 3, 4
    sides[:width], sides[-width:] = 1, 2
    return sides


def _gradient(colour: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """The smooth change (a polynomial of second degree) of colour [3, n, n] that its border shows,
    where such a change explains most of what the border's colours vary; else 0."""
    n = colour.shape[-1]
    y, x = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j]
    basis = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], -1)
    rows = basis[ring]
    out = np.zeros_like(colour)
    for channel in range(3):
        values = colour[channel][ring].astype(np.float64)
        weights = np.ones(len(values))
        for _ in range(5):  # Cauchy's weights: what stands on the border shall not bend the fit
            root = np.sqrt(weights)[:, None]
            fit = np.linalg.lstsq(rows * root, values * root[:, 0], rcond=None)[0]
            residual = values - rows @ fit
            scale = max(1.5 * float(np.median(np.abs(residual))), 0.5)
            weights = 1 / (1 + (residual / (2 * scale)) ** 2)
        spread = float(np.median(np.abs(values - np.median(values))))
        if np.median(np.abs(residual)) < 0.6 * spread:
            out[channel] = basis @ fit - np.median(values)
    return out


def _first_look(look: _Look) -> tuple[np.ndarray, bool]:
    """Evidence [2, n, n] (object, background), sum 1: what the border's colours do not explain.
    And whether shadows are to be reckoned with."""
    n, flat = look.n, look.sides.ravel()
    features = look.features()
    # What only one side of the border shows is the object, reaching beyond the picture.
    weight = (flat > 0) * 1.0
    for side in range(1, 5):
        others, there = np.flatnonzero((flat > 0) & (flat != side)), np.flatnonzero(flat == side)
        rows = np.concatenate([others, there])
        known = np.arange(len(rows)) < len(others)
        density = mixture(features[rows], known * 1.0, COMPONENTS[0])[~known]
        weight[there] = 1 / (1 + np.exp((ANY - density).clip(-30, 30)))
    if weight.sum() < 0.25 * (flat > 0).sum():  # nothing repeats: then all of it is background
        weight = (flat > 0) * 1.0
    lit, shaded = look.densities(weight, COMPONENTS[0], shadows=True)
    any_colour = np.full((n, n), ANY)
    without, with_shadows = (
        _posterior(any_colour, np.logaddexp(log, ANY - LIMIT)) for log in (lit, shaded)
    )
    shadows = (with_shadows[0] > 0.5).sum() > OWN * (without[0] > 0.5).sum()
    return (with_shadows if shadows else without), bool(shadows)


def _evidence(look: _Look, held: np.ndarray, shadows: bool) -> np.ndarray:
    """Evidence [2, n, n] from the colours that each side of the belief `held` [n, n] holds."""
    any_colour = np.full((look.n, look.n), ANY)
    logs = []
    for part, components, shaded in ((1 - held, COMPONENTS[0], shadows), (held, COMPONENTS[1], 0)):
        weights = part**2  # what a side holds for sure teaches it
        log = any_colour
        if weights.sum() > 0.002 * weights.size:
            log = look.densities(weights.ravel(), components, bool(shaded))[-1]
        logs.append(np.logaddexp(log, ANY))
    background, object_ = logs
    # Where things were is where they are, roughly: colours alone would also take their like
    # from the other end of the picture.
    near = ndimage.gaussian_filter(held, 0.04 * look.n, mode="nearest")
    return _posterior(object_ + np.log((near + 0.05) / (1.05 - near)), background)


def _posterior(object_: np.ndarray, background: np.ndarray) -> np.ndarray:
    """[2, n, n], sum 1, of two log densities; objects are rather in the middle than at the rim."""
    rim = np.linspace(-1, 1, len(object_))
    away = np.maximum(np.abs(rim)[:, None], np.abs(rim)[None, :])
    prior = 0.5 - 3.0 * ((away - 0.85) / 0.15).clip(0, 1) ** 2
    odds = (object_ - background).clip(-LIMIT, LIMIT) + prior
    share = 1 / (1 + np.exp(-odds))
    return np.stack([share, 1 - share])


def _one_object(mask: np.ndarray) -> np.ndarray:
    """The largest piece of mask [n, n] with what lies close to it, without specks of holes. Raises
    PhotoError if there is none, or another of about its size."""
    n = mask.shape[0]
    pieces, count = ndimage.label(ndimage.binary_opening(mask, np.ones((2, 2))) & mask)
    areas = np.bincount(pieces.ravel(), minlength=2)[1:]
    if not count or areas.max() < SMALLEST * n * n:
        raise PhotoError("Nothing in the photo stands out from its background.", MASK)
    largest = int(areas.argmax())
    body = pieces == largest + 1
    distance = ndimage.distance_transform_edt(~body)
    out = body.copy()
    for piece in np.flatnonzero(areas >= SPECK * areas[largest]):
        if piece == largest:
            continue
        here = pieces == piece + 1
        if distance[here].min() <= APART * n:
            out |= here
        elif areas[piece] >= SECOND * areas[largest]:
            raise PhotoError(
                "Two things stand out in the photo, or more.",
                "Crop it to one of them, or give a mask that is white where the object is.",
            )
    holes, count = ndimage.label(~out)
    sizes = np.bincount(holes.ravel(), minlength=1)
    small = np.flatnonzero(sizes < 0.004 * out.sum())
    return out | np.isin(holes, small[small > 0])


def _check_stands_out(colour: np.ndarray, solid: np.ndarray, certainty: float) -> None:
    """Raises PhotoError where the division is not worth trusting."""
    rim = np.concatenate([solid[0], solid[-1], solid[:, 0], solid[:, -1]])
    inner = solid & ~ndimage.binary_erosion(solid, iterations=4, border_value=1)
    outer = ndimage.binary_dilation(solid, iterations=4) & ~solid
    step = np.zeros(3)
    if inner.any() and outer.any():
        step = np.abs(np.median(colour[:, inner], 1) - np.median(colour[:, outer], 1))
    all_of_it = solid.mean() > LARGEST or rim.mean() > ROUND_THE_BORDER
    if all_of_it or step.max() < PLAIN or certainty < SURE:
        raise PhotoError("The object cannot be told from its background.", MASK)

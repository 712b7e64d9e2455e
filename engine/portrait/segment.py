"""Sharpen a coarse segmentation of a head crop by the picture's own colours.

A network trained on rendered heads knows where a head is, but not exactly where this one ends. So
its answer is taken as a blurred prior, each class learns its colours from the pixels that it holds
(a mixture of Gaussians), and the product of both is smoothed along, not across, the picture's
edges: the random walker with priors (Grady 2005), one sparse linear system. A few rounds of these
let the boundary move to where the colours change.

numpy and scipy; pictures of 256 pixels a side take about a second on one core.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

CLASSES = ("background", "skin", "hair", "garment", "glasses")
BACKGROUND, SKIN, HAIR, GARMENT, GLASSES = range(5)

COMPONENTS = (6, 4, 5, 5)  # Gaussians in the colours of background, skin, hair, garment
# How far the network's boundaries may be off: (blur as a part of the picture's side, share).
PRIOR_BLURS = ((0.015, 0.4), (0.04, 0.3), (0.09, 0.3))
DOUBT = 0.03  # how often the network is wrong altogether
COLOUR_TRUST = 0.8  # neighbouring pixels are no independent witnesses
COLOUR_LIMIT = 6.0  # log odds that one pixel's colour may claim at most
TEXTURE_WEIGHT = 1.5  # of local contrast (hair!) beside the three colour channels
ROUNDS = ((128, 0.1), (128, 0.1), (128, 0.1), (256, 0.1))  # (side, pull of the evidence)
_FLAT = -np.log(100.0 * 120.0 * 120.0 * 10.0)  # log density of "any colour whatever"


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65), float32 [..., 3], of display sRGB, float [..., 3] in 0..1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
         [0.0193339, 0.1191920, 0.9503041]]
    )  # fmt: skip
    xyz = linear @ (to_xyz / to_xyz.sum(1, keepdims=True)).T
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    parts = [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])]
    return np.stack(parts, -1).astype(np.float32)


def resize(planes: np.ndarray, side: int) -> np.ndarray:
    """float32 [..., side, side] of [..., H, W]: averaged when shrinking, bilinear when growing."""
    height, width = planes.shape[-2:]
    if height % side == 0 and width % side == 0:
        shape = (*planes.shape[:-2], side, height // side, side, width // side)
        return planes.reshape(shape).mean((-3, -1), dtype=np.float32)
    v = np.clip((np.arange(side) + 0.5) * height / side - 0.5, 0, height - 1)
    u = np.clip((np.arange(side) + 0.5) * width / side - 0.5, 0, width - 1)
    return _along(_along(planes, v, -2), u, -1).astype(np.float32)


def _along(planes: np.ndarray, at: np.ndarray, axis: int) -> np.ndarray:
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, planes.shape[axis] - 1)
    share = (at - low).reshape((-1, 1) if axis == -2 else (-1,))
    return np.take(planes, low, axis) * (1 - share) + np.take(planes, high, axis) * share


def segment(
    crop: np.ndarray,
    probability: np.ndarray,
    usable: np.ndarray | None = None,
    opaque: np.ndarray | None = None,
    check: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Refined probabilities of CLASSES, float32 [5, 256, 256], sum 1.

    crop: uint8 [S, S, 3], S a multiple of 256. probability: float [5, h, w], the network's.
    usable: bool [S, S], the pixels to learn colours from (the photo itself, not its mirror image).
    opaque: float [S, S] 0..1, the photo's own alpha, which then alone decides what is background.
    """
    colour = lab(crop.astype(np.float32) / 255).transpose(2, 0, 1)
    prior = _prior(probability)
    belief = None
    for side, pull in ROUNDS:
        check()
        small = resize(colour, side)
        weight = np.ones((side, side)) if usable is None else resize(usable.astype(float), side)
        here = _known_background(resize(prior, side), opaque, side)
        held = here if belief is None else resize(belief, side)
        belief = walk(small, _evidence(small, held, here, weight, opaque is None), pull)
        belief = _known_background(belief, opaque, side)
    return _with_glasses(belief, probability)


def _prior(probability: np.ndarray) -> np.ndarray:
    """Four classes (glasses stand before skin), blurred, with room for doubt."""
    p = np.asarray(probability, dtype=np.float32)
    four = np.stack([p[BACKGROUND], p[SKIN] + p[GLASSES], p[HAIR], p[GARMENT]])
    side = p.shape[-1]
    four = sum(
        share * ndimage.gaussian_filter(four, (0, blur * side, blur * side), mode="nearest")
        for blur, share in PRIOR_BLURS
    )
    return (1 - DOUBT) * four / four.sum(0).clip(1e-6) + DOUBT / 4


def _known_background(belief: np.ndarray, opaque: np.ndarray | None, side: int) -> np.ndarray:
    if opaque is None:
        return belief
    solid = resize(opaque, side)
    out = belief.copy()
    out[BACKGROUND] = 0
    out = (out + 1e-4) / (out + 1e-4).sum(0) * solid
    out[BACKGROUND] = 1 - solid
    return out


def _evidence(
    colour: np.ndarray, held: np.ndarray, prior: np.ndarray, weight: np.ndarray, backed: bool
) -> np.ndarray:
    """Prior times colour likelihood, [4, side, side], sum 1. `backed`: the background is learnt."""
    mean = ndimage.uniform_filter(colour[0], 5)
    spread = ndimage.uniform_filter(colour[0] ** 2, 5) - mean**2
    texture = TEXTURE_WEIGHT * np.sqrt(spread.clip(0))
    features = np.concatenate([colour, texture[None]]).reshape(4, -1).T.astype(np.float64)
    likelihood = np.empty((4, len(features)))
    for c, components in enumerate(COMPONENTS):
        # Squared: pixels that the class holds for sure teach it, doubtful ones hardly do.
        weights = (held[c] ** 2 * weight).ravel()
        likelihood[c] = _FLAT
        if weights.sum() > 0.002 * len(features) and (backed or c != BACKGROUND):
            density = mixture(features, weights, components)
            likelihood[c] = np.logaddexp(density, _FLAT)
    likelihood -= likelihood.max(0)
    likelihood = (COLOUR_TRUST * likelihood).clip(-COLOUR_LIMIT)
    log = np.log(prior.clip(1e-6)) + likelihood.reshape(prior.shape)
    odds = np.exp(log - log.max(0))
    return odds / odds.sum(0)


def mixture(features: np.ndarray, weights: np.ndarray, components: int) -> np.ndarray:
    """Log density [N] at features [N, D] of a mixture of Gaussians fitted to them with weights [N].

    Starts from splitting the widest cluster along its longest axis (Orchard and Bouman 1991), then
    a few rounds of expectation and maximisation: no random numbers, the same answer every time.
    """
    some = weights > 0.01 * weights.max()
    x, w = features[some], weights[some]
    member = np.zeros(len(x), dtype=int)
    for new in range(1, components):
        stats = [_gaussian(x, w * (member == c)) for c in range(new)]
        widest = max(range(new), key=lambda c: stats[c][0] * np.linalg.eigvalsh(stats[c][2])[-1])
        _, mean, covariance = stats[widest]
        axis = np.linalg.eigh(covariance)[1][:, -1]
        member[(member == widest) & ((x - mean) @ axis > 0)] = new
    share = np.eye(components)[member]
    for _ in range(3):
        stats = [_gaussian(x, w * share[:, c]) for c in range(components)]
        log = _log_densities(x, stats, w.sum())
        share = np.exp(log - np.logaddexp.reduce(log, 1, keepdims=True))
    stats = [_gaussian(x, w * share[:, c]) for c in range(components)]
    return np.logaddexp.reduce(_log_densities(features, stats, w.sum()), 1)


def _gaussian(x: np.ndarray, w: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    total = w.sum() + 1e-9
    mean = w @ x / total
    centred = x - mean
    covariance = (centred * w[:, None]).T @ centred / total
    return total, mean, covariance + 4.0 * np.eye(x.shape[1])  # two units: noise, and few pixels


def _log_densities(x: np.ndarray, stats: list, total: float) -> np.ndarray:
    out = np.empty((len(x), len(stats)))
    for c, (weight, mean, covariance) in enumerate(stats):
        factor = np.linalg.cholesky(covariance)
        z = np.linalg.solve(factor, (x - mean).T)
        norm = np.log(np.diag(factor)).sum() + 0.5 * x.shape[1] * np.log(2 * np.pi)
        out[:, c] = np.log(weight / total) - norm - 0.5 * (z**2).sum(0)
    return out


def walk(colour: np.ndarray, evidence: np.ndarray, pull: float) -> np.ndarray:
    """Evidence [C, n, n] smoothed along the edges of colour [3, n, n]: the random walker. pull: the
    weight of the evidence beside a neighbour's."""
    n = colour.shape[-1]
    index = np.arange(n * n).reshape(n, n)
    pairs, weights = [], []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        a = (slice(0, n - dy), slice(max(0, -dx), n - max(0, dx)))
        b = (slice(dy, n), slice(max(0, dx), n + min(0, dx)))
        step = ((colour[:, *a] - colour[:, *b]) ** 2).sum(0) / (dy + abs(dx))
        pairs.append(np.stack([index[a].ravel(), index[b].ravel()]))
        weights.append(step.ravel())
    pair, step = np.concatenate(pairs, 1), np.concatenate(weights)
    weight = np.exp(-step / (2 * step.mean() + 1e-6)) + 1e-3
    link = sparse.coo_matrix((weight, (pair[0], pair[1])), shape=(n * n, n * n)).tocsr()
    link = link + link.T
    degree = np.asarray(link.sum(1)).ravel()
    system = (sparse.diags(degree + pull) - link).tocsr()
    jacobi = sparse.diags(1 / (degree + pull))
    out = np.empty_like(evidence)
    for c in range(len(evidence)):
        flat = evidence[c].ravel()
        out[c] = cg(system, pull * flat, x0=flat, rtol=1e-3, maxiter=200, M=jacobi)[0].reshape(n, n)
    out = out.clip(1e-6)
    return out / out.sum(0)


def _with_glasses(belief: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The fifth class again: the share of the head that the network saw as glasses."""
    side = belief.shape[-1]
    p = resize(np.asarray(probability, dtype=np.float32), side)
    head = (p[SKIN] + p[HAIR] + p[GLASSES]).clip(1e-6)
    share = p[GLASSES] / head
    skin, hair = belief[SKIN] * (1 - share), belief[HAIR] * (1 - share)
    glasses = (belief[SKIN] + belief[HAIR]) * share
    return np.stack([belief[BACKGROUND], skin, hair, belief[GARMENT], glasses]).astype(np.float32)

"""Hair on unseen sides in the photo's own texture.

The photo's hair is unrolled: the angle round the crown's vertical across, the way from the crown
down (as strands run, see fields/strands.py). What is broad there is left to the colours that are
expected anyway; the detail goes on behind the border of what is seen as its mirror image, to and
fro, so that it meets the border without a seam. The simplest of the exemplar methods (Efros and
Leung 1999; Wei et al. 2009 survey them), and the only one that cannot garble a curl.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from engine.fields.strands import CROWN, TOP
from engine.inversion.appearance import Seen

COLUMNS, ROWS = 384, 224  # cells of the unrolled hair, 1.3 to 1.6 mm wide and high
LONGEST = 0.36  # metres from the crown down to the last row
SURE = 0.5  # weight from which the photo's hair is taken
SHORTEST = 12  # cells: narrower stretches of hair are too little to repeat
BROAD = 5.0  # cells: standard deviation of what is not detail
STRENGTH, FAR, REACH = 0.7, 0.4, 45.0  # of the detail at the border; of that far away, in cells
# What is left of strands by their width where detail is drawn: it has the broad ones itself.
STRANDS = (0.55, 0.55, 0.35, 0.25, 0.25)
MEET = 8.0  # cells over which the two sides' textures cross at the back
MOST = 0.5  # of the logarithm: brighter or darker specks are no hair
FLOOR = 0.04


def unrolled(points: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row (fractions of cells) of canonical points [N, 3] on the unrolled hair; the
    front is the middle column."""
    x, y, z = points.unbind(1)
    radius = torch.sqrt(x.square() + (z - CROWN).square())
    column = (torch.atan2(x, z - CROWN) / math.tau + 0.5) * COLUMNS - 0.5
    return column, (radius + TOP - y) / LONGEST * ROWS - 0.5


def detail(seen: Seen, covered: Tensor) -> Tensor | None:
    """The detail of the photo's hair all round [ROWS, COLUMNS, 3]: the logarithm of colours over
    their broad mean. covered [M]: how far the photo's points are hair. None for too little hair."""
    use = (covered > 0.5) & (seen.weight > 0.3 * SURE)
    if use.sum() < 400:
        return None
    column, row = (x[use].numpy() for x in unrolled(seen.canonical))
    weight = seen.weight[use].numpy()
    values = (seen.colour[use].numpy() + FLOOR).clip(1e-3)
    total = np.zeros((ROWS + 1, COLUMNS, 4))
    # Bilinear, so that pixels wider than a cell leave few holes.
    for i, u in ((0, 1 - row % 1), (1, row % 1)):
        for j, v in ((0, 1 - column % 1), (1, column % 1)):
            r = np.floor(row).astype(int).clip(0, ROWS - 1) + i
            c = (np.floor(column).astype(int) + j) % COLUMNS
            share = weight * u * v
            np.add.at(total, (r, c), np.concatenate([np.log(values) * share[:, None],
                                                     share[:, None]], 1))  # fmt: skip
    total = _mean(total[:ROWS], 0.7)
    mass = total[..., 3]
    known = mass > 0.25 * np.median(mass[mass > 0.02])
    known = ndimage.binary_erosion(ndimage.binary_closing(known, iterations=2), iterations=1)
    log = total[..., :3] / np.maximum(mass, 1e-6)[..., None]
    broad = _mean(np.concatenate([log * known[..., None], known[..., None]], 2), BROAD)
    fine = (log - broad[..., :3] / np.maximum(broad[..., 3:], 1e-3)) * known[..., None]
    return _repeated(STRENGTH * fine.clip(-MOST, MOST).astype(np.float32), known)


def _mean(x: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean over rows and columns, which go round."""
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode=("nearest", "wrap", "nearest"))


def _repeated(fine: np.ndarray, known: np.ndarray) -> Tensor | None:
    """Detail [ROWS, COLUMNS, 3], known in some cells, gone on with in every row."""
    out = np.zeros_like(fine)
    filled = []
    for row in range(ROWS):
        stretch = _stretches(known[row])
        if stretch:
            out[row] = _go_on(fine[row], stretch)
            filled.append(row)
    if not filled:
        return None
    for row in set(range(ROWS)) - set(filled):  # below: as above, upside down
        away = min(filled, key=lambda r: abs(r - row))
        turned = 2 * away - row
        out[row] = out[turned if turned in filled else away]
    return torch.from_numpy(out)


def _stretches(known: np.ndarray) -> list[tuple[int, int]]:
    """First and last cells of what is known in a row, without the narrow ones."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], known.astype(np.int8), [0]])))
    return [(a, b - 1) for a, b in edges.reshape(-1, 2) if b - a >= SHORTEST]


def _go_on(fine: np.ndarray, stretches: list[tuple[int, int]]) -> np.ndarray:
    """A row of detail [COLUMNS, 3] with its gaps filled from the stretches on both sides."""
    out = fine.copy()
    n = len(stretches)
    for k in range(n):
        (a, b), (c, d) = stretches[k], stretches[(k + 1) % n]
        gap = np.arange(b + 1, c + (COLUMNS if k == n - 1 else 0))
        if not len(gap):
            continue
        left, right = (
            stretch * (FAR + (1 - FAR) * np.exp(-away / REACH))[:, None]
            for stretch, away in (
                (fine[b - _to_and_fro(gap - b - 1, b - a + 1)], gap - b),
                (fine[c + _to_and_fro(gap[-1] - gap, d - c + 1)], gap[-1] + 1 - gap),
            )
        )
        share = ((gap - gap.mean()) / MEET + 0.5).clip(0, 1)[:, None]
        # As strong where they cross as elsewhere.
        size = np.sqrt(share**2 + (1 - share) ** 2)
        out[gap % COLUMNS] = (left * (1 - share) + right * share) / size
    return out


def _to_and_fro(k: np.ndarray, length: int) -> np.ndarray:
    """0, 1 .. length - 1, length - 1 .. 1, 0, 0, 1 ..."""
    k = k % (2 * length)
    return np.where(k < length, k, 2 * length - 1 - k)


def textured(points: Tensor, colour: Tensor, amount: Tensor, fine: Tensor) -> Tensor:
    """Colours [N, 3] at canonical points [N, 3] with the detail of detail(), by amount [N]."""
    column, row = unrolled(points)
    row = row.clamp(0, ROWS - 1.001)
    i, j = row.floor().long(), column.floor().long()
    u, v = (row - i)[:, None], (column - j)[:, None]
    a, b = j % COLUMNS, (j + 1) % COLUMNS
    got = torch.lerp(
        torch.lerp(fine[i, a], fine[i, b], v), torch.lerp(fine[i + 1, a], fine[i + 1, b], v), u
    )
    return ((colour + FLOOR) * (amount[:, None] * got).exp() - FLOOR).clamp(0, 1)

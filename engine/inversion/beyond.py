"""What the photo shows of a head beyond its crop: full hair does not always fit in the square.

Only the outline is wanted there, so a wider square is read at half the size, and only where hair
runs over the crop's edge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from engine.checkpoints.default import DefaultModel
from engine.device import Compute
from engine.inversion.perceive import look_at
from engine.portrait.align import OUTER, Aligned
from engine.portrait.matte import Matte, matte
from engine.portrait.perception import CLASSES

SKIN, HAIR = CLASSES.index("skin"), CLASSES.index("hair")
TOUCHES = 0.03  # of the crop's side: hair along the edge that is worth a look beyond
AGREES = 0.85  # IoU of both mattes inside the crop, or the wider one is of something else


@dataclass(frozen=True)
class Beyond:
    """The square OUTER times as wide as the crop, about the same middle: head float32 [S, S] in
    0..1, labels uint8 [S, S], ignore bool [S, S], as engine.inversion.fit.fit_silhouette takes them
    of the crop; what the crop shows, or lies below it, is ignored."""

    head: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray


def runs_over(aligned: Aligned, cut: Matte) -> bool:
    """Whether hair meets the crop's upper edge or one of its sides, and the photo goes on there."""
    if aligned.outer is None:
        return False
    hair = (cut.alpha > 0.5) & (cut.labels == HAIR) & aligned.valid
    return any(edge.mean() > TOUCHES for edge in (hair[0], hair[:, 0], hair[:, -1]))


def beyond(
    model: DefaultModel,
    aligned: Aligned,
    cut: Matte,
    compute: Compute,
    check: Callable[[], None] = lambda: None,
) -> Beyond | None:
    """The head beyond the crop; None where it ends inside, or where the wider square is read as
    something else than the crop is."""
    if not runs_over(aligned, cut):
        return None
    outer, size = aligned.outer, len(aligned.outer.crop)
    classes = look_at(model.space, model.perception, outer.crop, compute).classes
    belief = classes.float().softmax(1)[0].numpy()
    wide = matte(outer.crop, belief, alpha=outer.alpha, valid=outer.valid, check=check)
    # The crop's place in the wider square.
    low = round(size * (1 - 1 / OUTER) / 2)
    inner = slice(low, size - low)
    side = size - 2 * low
    known = torch.from_numpy(cut.alpha)[None, None]
    known = F.interpolate(known, (side, side), mode="area")[0, 0].numpy() > 0.5
    seen = wide.alpha[inner, inner] > 0.5
    if (known & seen).sum() < AGREES * (known | seen).sum():
        return None
    # Next to clothes and shoulders nothing is sure, and the body goes on where the bust is cut.
    unsure = ndimage.binary_dilation(wide.clothes | (wide.labels == SKIN), iterations=size // 64)
    ignore = ~outer.valid | unsure
    ignore[inner, inner] = True
    ignore[size - low :] = True
    return Beyond(wide.alpha, wide.labels, ignore)

"""The head's matte of an aligned crop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from engine.errors import ReconstructionError
from engine.portrait.align import Aligned
from engine.portrait.matte import Matte, matte
from engine.portrait.perception import Perception

QUICK = 256  # pixels a side: two to four times quicker than the crop's own


def cut_out(
    aligned: Aligned,
    seen: Perception,
    check: Callable[[], None] = lambda: None,
    size: int = 0,
) -> Matte:
    """The head's matte at the crop's size; found at `size` pixels a side (a divisor of the crop's),
    0 for all of them. Raises ReconstructionError if no head stands out in the photo."""
    classes = seen.classes.float().softmax(1)[0].numpy()
    full = len(aligned.crop)
    if size in (0, full):
        cut = matte(aligned.crop, classes, alpha=aligned.alpha, valid=aligned.valid, check=check)
    else:
        cut = _larger(_small(aligned, classes, size, check), full, aligned.valid)
    if cut.alpha.mean() < 0.03:
        raise ReconstructionError(
            "The head could not be told from the background.",
            "Use a photo with a plainer background, or one with the background cut out.",
        )
    return cut


def _small(aligned: Aligned, classes: np.ndarray, size: int, check: Callable[[], None]) -> Matte:
    factor = len(aligned.crop) // size

    def smaller(x: np.ndarray) -> np.ndarray:
        blocks = x.reshape(size, factor, size, factor, *x.shape[2:]).astype(np.float32)
        return blocks.mean((1, 3))

    alpha = None if aligned.alpha is None else (smaller(aligned.alpha) + 0.5).astype(np.uint8)
    return matte(
        (smaller(aligned.crop) + 0.5).astype(np.uint8),
        classes,
        alpha=alpha,
        valid=smaller(aligned.valid) > 0.99,
        check=check,
    )


def _larger(cut: Matte, size: int, valid: np.ndarray) -> Matte:
    def larger(x: np.ndarray) -> np.ndarray:
        big = F.interpolate(
            torch.from_numpy(x)[None, None], (size, size), mode="bilinear", align_corners=False
        )
        return big[0, 0].numpy() * valid

    factor = size // len(cut.alpha)
    labels = cut.labels.repeat(factor, 0).repeat(factor, 1)
    labels[~valid] = 0
    return Matte(larger(cut.alpha), larger(cut.person), labels)

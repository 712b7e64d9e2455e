"""The head's matte of an aligned crop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from engine.errors import ReconstructionError
from engine.portrait.align import Aligned
from engine.portrait.matte import Matte, matte
from engine.portrait.perception import Perception

QUICK = 256  # pixels a side: two to four times quicker than the crop's own
GLASSES = 0.0025  # of the crop's pixels from which they are a pair, not a doubt about a brow
RIM = 5  # pixels: as much as a pair's edge darkens


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
    return Matte(larger(cut.alpha), larger(cut.person), labels, larger(cut.glasses))


def has_glasses(cut: Matte) -> bool:
    """Whether the photo shows glasses that can be told from the face: thin metal ones cannot."""
    return bool((cut.glasses > 0.5).mean() > GLASSES)


def without_glasses(trust: np.ndarray, cut: Matte) -> np.ndarray:
    """How far pixels may colour the head [S, S] in 0..1, of which `trust` is so before what hides
    it: glasses are an object of their own, and would be carried round the head."""
    if not has_glasses(cut):
        return trust
    seen = ndimage.grey_dilation(cut.glasses, RIM)
    return (trust * (1 - np.clip(2 * seen - 0.3, 0, 1))).astype(np.float32)

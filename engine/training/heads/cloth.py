"""Pictures of cloth, grey and about 1 on average, to be tinted."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SIZE = 128


def cloths() -> dict[str, np.ndarray]:
    """RGBA float32 [128, 128, 4] by name; they tile."""
    rng = np.random.default_rng(8)
    i, j = np.indices((SIZE, SIZE)) / SIZE
    noise = [ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), s, mode="wrap") for s in (1, 9)]
    noise = 0.04 * noise[0] / noise[0].std() + 0.015 * noise[1] / noise[1].std()
    wave = np.abs(((j * 8) % 1) - 0.5)
    knit = 0.8 + 0.35 * np.abs(np.sin(np.pi * (i * 16 + wave * 1.4))) * (0.4 + 1.2 * wave)
    across, down = ((x * 4) % 1 < 0.42 for x in (i, j))
    twill = 1 + 0.10 * np.sin(2 * np.pi * (i + j) * 24)
    grey = {
        "plain": 1 + 0.4 * noise,
        "knit": knit / knit.mean() + noise,
        "stripes": np.where((i * 4) % 1 < 0.45, 0.45, 1.25) + noise,
        "checks": (1.3 - 0.42 * across - 0.42 * down) + noise,
        "denim": twill + 1.2 * noise,
    }
    out = {}
    for name, g in grey.items():
        a = np.ones((SIZE, SIZE, 4), np.float32)
        a[..., :3] = np.clip(g, 0.1, 1.8)[..., None]
        out[name] = a
    return out

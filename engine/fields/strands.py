"""Strands of hair on a head field: light and dark lines that run from the crown outwards and down.

A head's planes have a texel every 3 mm, which leaves hair that no photo shows a smooth mass. Hair
has structure at every width from a lock to a strand, so it is drawn procedurally: noise over the
angle round the crown's vertical, fine across the hair's flow and long along it, an octave at a
time, each as strong as its width in millimetres asks for. Being a function of the canonical place,
it is the same in the field's pictures and in textures baked from it, at any resolution.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from engine.headspace.lattice import sample

WIDTHS = (0.0015, 0.003, 0.006, 0.012, 0.024)  # metres from line to line, an octave each
CROWN = -0.035  # metres: z of the vertical from which hair runs outwards
TOP = 0.125  # metres: height of the crown
LEVELS = range(1, 10)  # 2^k lines round the head
ROWS = 256  # of the noise along the flow
LONG = 9.0, 0.02, 0.06  # lines are this many times longer than wide, from .. to metres
WAVE, WAVE_LENGTH = 0.0022, 0.03  # metres: how far lines sway, and over what length
PREFIX, PARTS = "strands.", ("amount", "strength", "tint")
WHORL, WHORL_REACH = 1.2, 0.02  # radians by which hair turns at the crown, fading over metres


@lru_cache(maxsize=2)
def _noise(device: torch.device) -> Tensor:
    """[ROWS, 2^10] independent normal numbers, the same on every machine."""
    rng = np.random.RandomState(20)
    numbers = rng.standard_normal((ROWS, 2 << LEVELS[-1])).astype(np.float32)
    return torch.from_numpy(numbers).to(device)


def _smooth_noise(u: Tensor, v: Tensor, columns: int, row: int) -> Tensor:
    """Noise of about unit spread at [N] places, of period `columns` in u."""
    table = _noise(u.device)
    left, low = u.floor(), v.floor()
    s, t = u - left, v - low
    s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
    left, low = left.long() % columns, (low.long() + row) % ROWS
    right, high = (left + 1) % columns, (low + 1) % ROWS
    below = torch.lerp(table[low, left], table[low, right], s)
    above = torch.lerp(table[high, left], table[high, right], s)
    return 1.5 * torch.lerp(below, above, t)  # interpolation takes a third of the spread


def lines(canonical: Tensor, strength: Tensor) -> Tensor:
    """Light (positive) and dark at canonical points [N, 3], in metres: [N], of about the spread
    sqrt(sum(strength^2)); strength [len(WIDTHS)]: the share of each width."""
    x, y, z = canonical.unbind(1)
    radius = torch.sqrt(x.square() + (z - CROWN).square()).clamp_min(1e-4)
    angle = torch.atan2(x, CROWN - z)  # 0 at the back
    along = radius + (TOP - y)
    angle = angle + WHORL * torch.exp(-radius / WHORL_REACH)
    sway = _smooth_noise(angle * (16 / math.tau), along / WAVE_LENGTH, 16, 7)
    angle = angle + sway * WAVE / radius.clamp_min(0.02)
    total = torch.zeros_like(x)
    octaves = len(WIDTHS)
    padded = torch.cat([strength.new_zeros(1), strength.square(), strength.new_zeros(1)])
    for k in LEVELS:
        # Between two widths on the list, energy is shared.
        width = (math.tau * radius / (1 << k)).log2() - math.log2(WIDTHS[0]) + 1
        i = width.floor().clamp(0, octaves).long()
        energy = torch.lerp(padded[i], padded[i + 1], (width - i).clamp(0, 1))
        energy = energy * ((width > 0) & (width < octaves + 1))
        factor, least, most = LONG
        length = min(max(factor * math.tau * 0.08 / (1 << k), least), most)
        columns = 2 << k
        noise = _smooth_noise(angle * (columns / math.tau), along / length, columns, 23 * k)
        total = total + energy.sqrt() * noise
    return total


class Strands:
    """amount [1, L, L, L] in 0..1 over the canonical box: where strands are drawn; strength
    [len(WIDTHS)]: spread of the logarithm of brightness, by width of the lines; tint [3]: how much
    each colour takes part (about 1)."""

    def __init__(self, amount: Tensor, strength: Tensor, tint: Tensor) -> None:
        """Raises ValueError if shapes do not fit."""
        if amount.ndim != 4 or strength.shape != (len(WIDTHS),) or tint.shape != (3,):
            raise ValueError("the strands' tensors have unexpected shapes")
        self.amount, self.strength, self.tint = amount, strength, tint

    def factor(self, canonical: Tensor, bounds: Tensor) -> Tensor:
        """What colours at canonical points [N, 3] are multiplied by: [N, 3]."""
        amount = sample(self.amount, canonical, bounds)[:, 0]
        out = torch.ones_like(canonical)
        some = (amount > 0.01).nonzero()[:, 0]
        if len(some):
            shade = lines(canonical[some], self.strength) * amount[some]
            out[some] = torch.exp(shade[:, None] * self.tint)
        return out

    def tensors(self) -> dict[str, Tensor]:
        """By the names under which a field's file holds them."""
        return {PREFIX + name: getattr(self, name) for name in PARTS}

    @classmethod
    def from_saved(cls, tensors: dict[str, Tensor]) -> Strands | None:
        """Of a field's tensors: None where they hold no strands. Raises ValueError if some lack."""
        parts = [tensors.get(PREFIX + name) for name in PARTS]
        if all(part is None for part in parts):
            return None
        if any(part is None for part in parts):
            raise ValueError("some of the strands' tensors are missing")
        return cls(*(part.float() for part in parts))

    def to(self, device: torch.device | str) -> Strands:
        return Strands(self.amount.to(device), self.strength.to(device), self.tint.to(device))

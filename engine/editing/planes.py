"""What an edit adds to a field's planes; for previews put together from whole amounts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor

from engine.systems.head.directions import Directions

Check = Callable[[], None]
Change = Callable[[Mapping[str, float], Check], Tensor | None]
KEPT = 12  # directions at whole amounts; planes in half precision are some 12 MB each


class PlaneChanges:
    """change: of given amounts, what is added to the planes, or None for nothing: the generator's
    own, exact and slow."""

    def __init__(self, change: Change, directions: Directions) -> None:
        self.exact = change
        self._directions = directions
        self._known: dict[tuple[str, float], Tensor | None] = {}

    def quick(self, amounts: Mapping[str, float], check: Check) -> Tensor | None:
        """The same but for rounding, each direction by itself, and straight from one whole amount
        to the next: of the built-in model nine tenths of what the generator does (measured)."""
        out: Tensor | None = None
        for name, amount in amounts.items():
            low, high = self._directions.ranges[name]
            step = 1.0 if amount > 0 else -1.0
            near = step * math.floor(abs(amount))
            far = min(max(near + step, low), high)
            share = (amount - near) / (far - near) if far != near else 0.0
            for knot, weight in ((near, 1 - share), (far, share)):
                part = self._at(name, knot, check) if knot and weight else None
                if part is not None:
                    part = part.float()
                    out = part.mul_(weight) if out is None else out.add_(part, alpha=weight)
        return out

    def _at(self, name: str, amount: float, check: Check) -> Tensor | None:
        key = name, amount
        if key not in self._known:
            while len(self._known) >= KEPT:
                del self._known[next(iter(self._known))]
            made = self.exact({name: amount}, check)
            self._known[key] = None if made is None else made.half()
        return self._known[key]

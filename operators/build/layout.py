"""Where many heads stand. Plain numbers: nothing of Blender."""

from __future__ import annotations

import math


def places(how: str, count: int, spacing: float) -> list[tuple[float, float, float]]:
    """(x, y, turn about z in radians) of `count` heads around the origin, all on the floor.

    how: 'LINE' along x; 'GRID' of nearly square shape, filled row by row from the front left;
    'CIRCLE', all looking outwards, the first towards -y. spacing: metres between neighbours.
    A head that is not turned looks along -y.
    """
    if how == "CIRCLE" and count > 1:
        radius = max(spacing / (2 * math.sin(math.pi / count)), spacing / 2)
        turns = [2 * math.pi * i / count for i in range(count)]
        return [(radius * math.sin(t), -radius * math.cos(t), t) for t in turns]
    columns = count if how != "GRID" else math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    left, front = -(columns - 1) / 2, -(rows - 1) / 2
    spots = (divmod(i, columns) for i in range(count))
    return [((left + x) * spacing, (front + y) * spacing, 0.0) for y, x in spots]

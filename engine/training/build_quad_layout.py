"""The quad template's topology: a box of quads with rings round eye, mouth and ear; left half.

The half is a cube without its floor, unrolled: front, side and back are columns of quads, the top
closes them. Where an opening belongs, a rectangle of quads is taken out and rings of quads run from
its border inwards, so that every opening has even loops round it and just four poles of five edges,
at the rectangle's corners. A ring is closed by a grid of quads where the skin closes (the ear's
hollow, the ends of the bags behind eye and lips).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

FRONT, SIDE, ROWS = 12, 12, 28  # columns of the front's half and of the side, rows
EYE = (2, 10, 18, 22)  # columns and rows of the rectangle; on the front
MOUTH = (0, 6, 8, 12)
EAR = (4, 9, 13, 21)  # on the side; columns from the back
LID, CREASE = 4, 3  # which ring round the eye is the lid's edge, its crease
LIP, VERMILION = 5, 3  # which ring round the mouth is where the lips meet, where red begins
EYE_RINGS, MOUTH_RINGS, EAR_RINGS = LID + 4, LIP + 4, 6


@dataclass
class Layout:
    """nodes: a key for each vertex; quads int [F, 4], counter-clockwise from outside; rings[name]:
    lists of vertices for 'eye', 'mouth', 'ear', ring 0 the rectangle's border; the eye's run from
    the inner corner over the top, the mouth's from the middle below over the corner to above."""

    nodes: list[Hashable] = field(default_factory=list)
    quads: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), int))
    rings: dict[str, list[list[int]]] = field(default_factory=dict)
    part: np.ndarray = field(default_factory=lambda: np.zeros(0, int))  # of each quad: see PARTS


PARTS = ("skin", "ear", "lid", "socket", "mouth")


class _Builder:
    def __init__(self) -> None:
        self.index: dict[Hashable, int] = {}
        self.quads: list[list[int]] = []
        self.part: list[int] = []

    def node(self, key: Hashable) -> int:
        return self.index.setdefault(key, len(self.index))

    def quad(self, keys: list[Hashable], part: str) -> None:
        self.quads.append([self.node(k) for k in keys])
        self.part.append(PARTS.index(part))


def half() -> Layout:
    """The left half. A node's key is ('box', x, y, z) with the front at z = SIDE, or
    (opening, ring, number), or (opening, 'cap', i, j)."""
    b = _Builder()

    def front(x: int, y: int) -> Hashable:
        return ("box", x, y, SIDE)

    def side(z: int, y: int) -> Hashable:
        return ("box", FRONT, y, z)

    def within(x: int, y: int, rectangle: tuple[int, int, int, int]) -> bool:
        return rectangle[0] <= x < rectangle[1] and rectangle[2] <= y < rectangle[3]

    for y in range(ROWS):
        for x in range(FRONT):
            if not within(x, y, EYE) and not within(x, y, MOUTH):
                b.quad([front(x, y), front(x + 1, y), front(x + 1, y + 1), front(x, y + 1)], "skin")
            back = [("box", *c, 0) for c in ((x + 1, y), (x, y), (x, y + 1), (x + 1, y + 1))]
            b.quad(back, "skin")
        for z in range(SIDE):
            if not within(z, y, EAR):
                b.quad([side(z + 1, y), side(z, y), side(z, y + 1), side(z + 1, y + 1)], "skin")
    for x in range(FRONT):
        for z in range(SIDE):
            c = ((x, z + 1), (x + 1, z + 1), (x + 1, z), (x, z))
            b.quad([("box", i, ROWS, k) for i, k in c], "skin")

    x0, x1, y0, y1 = EYE
    mid = (y0 + y1) // 2
    eye = [front(x0, y) for y in range(mid, y1)] + [front(x, y1) for x in range(x0, x1)]
    eye += [front(x1, y) for y in range(y1, y0, -1)] + [front(x, y0) for x in range(x1, x0, -1)]
    eye += [front(x0, y) for y in range(y0, mid)]
    x0, x1, y0, y1 = MOUTH
    mouth = [front(x, y0) for x in range(x0, x1)] + [front(x1, y) for y in range(y0, y1)]
    mouth += [front(x, y1) for x in range(x1, x0 - 1, -1)]
    # From the upper front corner backwards, down, forwards and up again.
    z0, z1, y0, y1 = EAR
    ear = [side(z, y1) for z in range(z1, z0, -1)] + [side(z0, y) for y in range(y1, y0, -1)]
    ear += [side(z, y0) for z in range(z0, z1)] + [side(z1, y) for y in range(y0, y1)]

    rings: dict[str, list[list[Hashable]]] = {}
    for name, border, count, closed in (
        ("eye", eye, EYE_RINGS, True),
        ("mouth", mouth, MOUTH_RINGS, False),
        ("ear", ear, EAR_RINGS, True),
    ):
        loops = [border] + [[(name, r, i) for i in range(len(border))] for r in range(1, count + 1)]
        rings[name] = loops
        for r in range(count):
            part = {
                "eye": "skin" if r < LID else ("lid" if r == LID else "socket"),
                "mouth": "skin" if r < LIP else "mouth",
                "ear": "ear",
            }[name]
            for i in range(len(border) if closed else len(border) - 1):
                k = (i + 1) % len(border)
                a = [loops[r][i], loops[r][k], loops[r + 1][k], loops[r + 1][i]]
                b.quad(a if name == "mouth" else a[::-1], part)
    # Clockwise loops from outside (eye, ear) have their grids counted the same way round.
    n = EYE[3] - EYE[2]
    turned = rings["eye"][-1][n // 2 :] + rings["eye"][-1][: n // 2]
    _cap(b, "eye", turned, EYE[1] - EYE[0], n, "socket")
    _cap(b, "ear", rings["ear"][-1], EAR[1] - EAR[0], EAR[3] - EAR[2], "ear")
    _open_cap(b, rings["mouth"][-1], MOUTH[1] - MOUTH[0], MOUTH[3] - MOUTH[2])
    layout = Layout(list(b.index), np.array(b.quads), {}, np.array(b.part))
    layout.rings = {k: [[b.index[n] for n in ring] for ring in r] for k, r in rings.items()}
    return layout


def _cap(b: _Builder, name: str, loop: list, m: int, n: int, part: str) -> None:
    """Fill a loop of 2 (m + n) nodes, clockwise from a corner, m along the first side."""
    grid: dict[tuple[int, int], Hashable] = {
        (i, j): (name, "cap", i, j) for i in range(1, m) for j in range(1, n)
    }
    path = [(i, 0) for i in range(m)] + [(m, j) for j in range(n)]
    path += [(i, n) for i in range(m, 0, -1)] + [(0, j) for j in range(n, 0, -1)]
    grid |= dict(zip(path, loop, strict=True))
    for i in range(m):
        for j in range(n):
            c = [grid[i, j], grid[i, j + 1], grid[i + 1, j + 1], grid[i + 1, j]]
            b.quad(c, part)


def _open_cap(b: _Builder, loop: list, m: int, n: int) -> None:
    """The mouth's: a grid of m columns from the middle, n rows, whose left side is the middle."""
    grid = {(i, j): ("mouth", "cap", i, j) for i in range(m) for j in range(1, n)}
    path = [(i, 0) for i in range(m)] + [(m, j) for j in range(n)]
    path += [(i, n) for i in range(m, -1, -1)]
    grid |= dict(zip(path, loop, strict=True))
    for i in range(m):
        for j in range(n):
            b.quad([grid[i, j], grid[i + 1, j], grid[i + 1, j + 1], grid[i, j + 1]], "mouth")

"""The sheet of views: pictures in a grid, with margins and labels, and where each of them lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LABEL_SHARE = 0.07  # of a tile's height: the strip under it that holds its label
SMALLEST_LABEL = 14  # pixels
GREY = (128, 128, 128)


@dataclass(frozen=True)
class Tile:
    """Where a picture lies: x, y of its upper left corner, width and height, in pixels."""

    row: int
    column: int
    x: int
    y: int
    width: int
    height: int


def lay_out(
    sizes: list[tuple[int, int]], columns: int, margin: int, labels: bool
) -> tuple[list[Tile], tuple[int, int]]:
    """Tiles for pictures of these (width, height)s, row by row, and the sheet's (width, height).

    All cells are as large as the largest picture; smaller ones stand in the middle. margin: pixels
    between cells and round the sheet.
    """
    wide, tall = (max(side) for side in zip(*sizes))
    strip = label_height(tall) if labels else 0
    tiles = []
    for i, (width, height) in enumerate(sizes):
        row, column = divmod(i, columns)
        x = margin + column * (wide + margin) + (wide - width) // 2
        y = margin + row * (tall + strip + margin) + (tall - height) // 2
        tiles.append(Tile(row, column, x, y, width, height))
    rows = tiles[-1].row + 1
    used = min(columns, len(sizes))
    return tiles, (margin + used * (wide + margin), margin + rows * (tall + strip + margin))


def label_height(tall: int) -> int:
    """Of the strip under a cell of that height, in pixels."""
    return max(SMALLEST_LABEL + 6, round(tall * LABEL_SHARE))


def compose(
    pictures: list[np.ndarray],
    tiles: list[Tile],
    size: tuple[int, int],
    background: tuple[int, int, int] | None = None,
    names: list[str] | None = None,
) -> np.ndarray:
    """The sheet, uint8 [H, W, 4], straight alpha.

    pictures: uint8 [h, w, 4], straight alpha, as large as their tiles. background: a colour, or
    None for none at all. names: labels under the tiles, for which lay_out has left room.
    """
    sheet = Image.new("RGBA", size, (*(background or (0, 0, 0)), 255 if background else 0))
    cell = max(tile.height for tile in tiles)
    strip = label_height(cell)
    font = ImageFont.load_default(max(SMALLEST_LABEL, round(strip * 0.55)))
    draw = ImageDraw.Draw(sheet)
    for i, (picture, tile) in enumerate(zip(pictures, tiles, strict=True)):
        if background is None:
            # Nothing lies below: pasting keeps the pixels as they are.
            sheet.paste(Image.fromarray(picture), (tile.x, tile.y))
        else:
            sheet.alpha_composite(Image.fromarray(picture), (tile.x, tile.y))
        if names is not None:
            bottom = tile.y + (cell + tile.height) / 2
            middle = tile.x + tile.width / 2, bottom + strip / 2
            draw.text(middle, names[i], (*_ink(background), 255), font, anchor="mm")
    return np.asarray(sheet)


def _ink(background: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """A colour that can be read on the background; grey can be on nearly any."""
    if background is None:
        return GREY
    light = np.dot(background, (0.299, 0.587, 0.114))
    return (40, 42, 46) if light > 120 else (225, 226, 228)

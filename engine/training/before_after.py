"""Two results of one photo below each other:

    python -m engine.training.before_after BEFORE AFTER --out PICTURE

BEFORE and AFTER are folders of `python -m engine reconstruct`; the textured row of their sheets is
what is shown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from engine.surface.export import encode_png, write_whole
from engine.surface.sheet import GAP, LABEL, PAPER

WIDE = 1600  # pixels of the picture


def textured_row(folder: Path) -> np.ndarray:
    """The first row of a folder's sheet, uint8 [h, w, 3], with its headings and without the name of
    the row."""
    sheet = np.asarray(Image.open(folder / "sheet.png").convert("RGB"))
    tile = (sheet.shape[0] - LABEL - GAP) // 3 - GAP  # three rows
    return sheet[: LABEL + tile, LABEL:]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    rows = [textured_row(args.before), textured_row(args.after)[LABEL:]]
    between = np.full((GAP, rows[0].shape[1], 3), PAPER, np.uint8)
    both = np.concatenate([rows[0], between, rows[1]])
    size = WIDE, round(both.shape[0] * WIDE / both.shape[1])
    small = Image.fromarray(both).resize(size, Image.Resampling.LANCZOS)
    write_whole({args.out: encode_png(np.asarray(small))})


if __name__ == "__main__":
    main()

"""A contact sheet of random heads, one row each, to judge by eye.

    python -m engine.training.heads.sheet --seeds 0 12 --out sheet.png

The row: three input views, then eight target views, on grey.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from engine.training.heads.dataset import sample
from engine.training.heads.pack import Pack
from engine.training.heads.scene import Studio
from engine.training.heads.textures import Atlas

GREY = (150, 160, 170)


def row(head: dict[str, np.ndarray]) -> np.ndarray:
    """The pictures of one head side by side, uint8 [176, W, 3]."""
    size = head["input_rgba"].shape[1]
    targets = np.concatenate([head["target_rgb"], head["target_alpha"][..., None]], -1)
    out = []
    for picture in [*head["input_rgba"], *targets]:
        a = picture[..., 3:] / 255.0
        flat = np.full((size, picture.shape[1], 3), GREY, np.uint8)
        flat[: len(picture)] = picture[..., :3] * a + np.array(GREY) * (1 - a)
        out.append(flat)
    return np.concatenate(out, 1)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A contact sheet of random heads.")
    parser.add_argument("--seeds", type=int, nargs=2, required=True, metavar=("FIRST", "END"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    pack = Pack(args.pack)
    studio = Studio(Atlas(pack))
    rows = [row(sample(pack, studio, seed)) for seed in range(*args.seeds)]
    Image.fromarray(np.concatenate(rows)).save(args.out)


if __name__ == "__main__":
    main()

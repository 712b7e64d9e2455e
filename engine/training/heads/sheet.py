"""Contact sheets of random heads, to judge by eye.

    python -m engine.training.heads.sheet --seeds 2000 2064 --out docs/images/heads.png
    python -m engine.training.heads.sheet --rows --seeds 2000 2012 --out rows.png

The first: one portrait a head before a background, eight in a row. With --rows: three input views
and eight target views of each head, on grey.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from engine.cameras import orbit
from engine.training.heads.backgrounds import backgrounds
from engine.training.heads.build import build_head, head_rng
from engine.training.heads.dataset import sample
from engine.training.heads.pack import Pack
from engine.training.heads.scene import Scene, Studio
from engine.training.heads.studio_light import studio_light
from engine.training.heads.textures import Atlas
from engine.training.heads.views import TARGET_FOV, distance

GREY = (150, 160, 170)
SIZE, IN_A_ROW = 160, 8  # of the portraits


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


def portrait(pack: Pack, studio: Studio, seed: int, material: int | None) -> np.ndarray:
    """The head of a seed from near the front before a background, uint8 [SIZE, SIZE, 3]."""
    head = build_head(pack, seed, material)
    rng = head_rng(seed, 3)
    scene = Scene(studio, head, studio_light(rng))
    yaw, pitch = np.radians([np.clip(rng.normal() * 18, -50, 50), rng.normal() * 6])
    radius = distance(0.38, TARGET_FOV)
    camera = orbit(yaw, pitch, radius, TARGET_FOV, (0, -0.005, 0), 2 * SIZE, 2 * SIZE)
    rgba = scene.view(camera, dressed=True).rgba.astype(np.float32) / 255
    behind = backgrounds(rng, 1, 2 * SIZE)[0]
    flat = rgba[..., :3] * rgba[..., 3:] + behind * (1 - rgba[..., 3:])
    return flat.reshape(SIZE, 2, SIZE, 2, 3).mean((1, 3)) * 255


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A contact sheet of random heads.")
    parser.add_argument("--seeds", type=int, nargs=2, required=True, metavar=("FIRST", "END"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", action="store_true", help="all views of each head")
    parser.add_argument("--material", type=int, choices=(1, 2), help="default: by seed")
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    pack = Pack(args.pack)
    studio = Studio(Atlas(pack))
    seeds = range(*args.seeds)
    if args.rows:
        rows = [row(sample(pack, studio, seed, args.material)) for seed in seeds]
    else:
        heads = [portrait(pack, studio, seed, args.material) for seed in seeds]
        heads += [np.zeros_like(heads[0])] * (-len(heads) % IN_A_ROW)
        rows = [np.concatenate(heads[i : i + IN_A_ROW], 1) for i in range(0, len(heads), IN_A_ROW)]
    Image.fromarray(np.concatenate(rows).astype(np.uint8)).save(args.out, optimize=True)


if __name__ == "__main__":
    main()

"""Data for training radiance fields and splats: views of heads with cameras, masks and depth.

    python make_dataset.py OUT [--heads 3] [--views 100] [--size 512]
    blender --background --python make_dataset.py -- OUT

A folder a head; nerfstudio and instant-ngp read its transforms.json, COLMAP its sparse/0. What is
there already is not made again.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from start import api, arguments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the first head")
    parser.add_argument("--views", type=int, default=100, help="a head")
    parser.add_argument("--size", type=int, default=512, help="pixels")
    given = parser.parse_args(arguments())
    for seed in range(given.seed, given.seed + given.heads):
        head = api.sample(seed=seed, faces=20000, texture_size=512)
        made = head.dataset(given.out / f"head_{seed}", views=given.views, size=given.size)
        print(f"Head {seed}: {made}", flush=True)
        head.remove()


main()

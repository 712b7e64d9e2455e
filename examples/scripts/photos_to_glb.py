"""Every photo of a folder becomes a .glb and a sheet of views.

    python photos_to_glb.py PHOTOS OUT [--preset fast]
    blender --background --python photos_to_glb.py -- PHOTOS OUT

What is in OUT already is not made again. Photos that cannot be used are listed at the end, and make
the exit status 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from start import api, arguments

KINDS = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--preset", choices=("fast", "balanced", "best"), default="fast")
    parser.add_argument("--faces", type=int, default=20000)
    parser.add_argument("--texture", type=int, default=1024, help="pixels")
    parser.add_argument("--size", type=int, default=256, help="of a sheet's views, pixels")
    given = parser.parse_args(arguments())
    failed = []
    photos = sorted(p for p in given.photos.iterdir() if p.suffix.lower() in KINDS)
    for number, photo in enumerate(photos, 1):
        model, sheet = given.out / f"{photo.stem}.glb", given.out / f"{photo.stem}.png"
        if model.is_file() and sheet.is_file():
            continue
        print(f"{number} of {len(photos)}: {photo.name}", flush=True)
        try:
            head = api.reconstruct(
                photo, preset=given.preset, faces=given.faces, texture_size=given.texture
            )
        except api.Error as error:
            failed.append(f"{photo.name}: {error}")
            continue
        head.export(model)
        head.sheet(sheet, size=given.size, captions=True)
        head.remove()  # or the scene would fill up
    for line in failed:
        print(f"Left out: {line}", file=sys.stderr)
    return 1 if failed else 0


sys.exit(main())

"""What difficult photos end in, and what the quality score says of each:

    python -m engine.training.hard_photos --out docs/images/quality.png

The example photo as it is, and spoilt in ways that photos are: each one's crop, the head that
*fast* makes of it through the photo's camera and from 45 degrees, and the score. Warnings are
printed. The five points are those of the unspoilt photo, as if placed by hand, since the detector
finds no face in most of these.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from engine import device
from engine.checkpoints.default import load_default
from engine.errors import TriplaneError
from engine.inversion.compare import around, picture
from engine.inversion.evidence import measure
from engine.inversion.quality import judge
from engine.inversion.reconstruct import CROP, PRESETS, reconstruct
from engine.portrait.align import align
from engine.portrait.detect import detect_faces
from engine.portrait.image import Photo, load_photo
from engine.surface.export import encode_png
from engine.surface.sheet import contact_sheet

PHOTO = Path(__file__).resolve().parents[2] / "examples" / "astronaut.png"
SIDE, TILE = 45.0, 144  # degrees, pixels
Spoilt = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> picture uint8 and five points


def spoilt(rgb: np.ndarray, points: np.ndarray) -> Spoilt:
    """The photo in many ways; points [5, 2]."""
    size = float(np.linalg.norm(points[3:].mean(0) - points[:2].mean(0)))
    left, top = (points.mean(0) - size).astype(int)
    right, low = (points.mean(0) + 1.4 * size).astype(int)
    eyes, mouth = int(points[:2, 1].mean()), int(points[3:, 1].mean())
    middle = int(points[2, 0])
    image = Image.fromarray(rgb)

    def covered(rows: slice, columns: slice, colour: tuple[int, int, int]) -> np.ndarray:
        out = rgb.copy()
        out[rows, columns] = colour
        return out

    painted = image
    for _ in range(3):
        painted = painted.filter(ImageFilter.ModeFilter(9))
    few = image.resize((image.width // 8, image.height // 8), Image.Resampling.BOX)
    edge = slice(left, right)
    cut = np.ascontiguousarray(rgb[:, middle:])
    pictures = {
        "as it is": rgb,
        "a mask": covered(slice((eyes + mouth) // 2, low), edge, (90, 140, 200)),
        "half covered": covered(slice(top - 20, low), slice(middle, right), (60, 60, 60)),
        "eyes covered": covered(slice(eyes - 14, eyes + 14), edge, (5, 5, 5)),
        "painted": np.asarray(painted),
        "a negative": 255 - rgb,
        "out of focus": np.asarray(image.filter(ImageFilter.GaussianBlur(9))),
        "grey": np.repeat(rgb.mean(-1, keepdims=True).astype(np.uint8), 3, -1),
        "dark": (rgb * 0.12).astype(np.uint8),
    }
    out = {name: (made, points) for name, made in pictures.items()}
    out["64 pixels"] = np.asarray(few), points / 8
    out["ends in the face"] = cut, points - np.array([middle, 0])
    out["points beside the face"] = rgb, points + np.array([1.5, 0.8]) * size
    return out


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", type=Path, default=PHOTO)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    model, compute = load_default(), device.choose("cpu", threads=1)
    rgb = load_photo(args.photo).rgb
    tiles, names = [], []
    for name, (made_of, points) in spoilt(rgb, detect_faces(rgb)[0].points).items():
        aligned = align(Photo(made_of, None, args.photo), points, CROP, model.config["widen"])
        crop = np.asarray(Image.fromarray(aligned.crop).resize((TILE, TILE), Image.Resampling.BOX))
        try:
            made = reconstruct(
                model, aligned, PRESETS["fast"], compute, lambda f, s: None, lambda f, c: None
            )
        except TriplaneError as error:
            print(f"{name}: {error.sentence}", flush=True)
            tiles.append(np.concatenate([crop, np.full((TILE, 2 * TILE, 3), 212, np.uint8)], 1))
            names.append(f"{name}: no head")
            continue
        found = judge(measure(model, aligned, made, compute, points))
        cameras = made.camera.resized(TILE, TILE), around(made.field, SIDE, TILE)
        shown = [picture(made.field, camera, lambda: None)[0] for camera in cameras]
        tiles.append(np.concatenate([crop, *shown], 1))
        names.append(f"{name}: {found.score:.0%}")
        print(f"{name}: {found.score:.2f}", *found.warnings, sep="\n  ", flush=True)
    args.out.write_bytes(encode_png(contact_sheet(tiles, names, columns=3)))


if __name__ == "__main__":
    main()

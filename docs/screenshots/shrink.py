"""Screenshots to pictures for the documents: the driver's files, with a palette, well compressed.

python docs/screenshots/shrink.py FROM TO
"""

import sys
from pathlib import Path

from PIL import Image

NAMES = ("panel-before", "panel-during", "panel-after", "camera", "points", "preferences")
WIDTH = 1280  # pixels at most
BYTES = 400_000


def shrink(source: Path, target: Path) -> int:
    """Write `source` to `target` with 256 colours; returns its bytes."""
    with Image.open(source) as image:
        picture = image.convert("RGB")
    if picture.width > WIDTH:
        height = round(picture.height * WIDTH / picture.width)
        picture = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
    palette = picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
    palette.save(target, optimize=True)
    return target.stat().st_size


if __name__ == "__main__":
    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        size = shrink(Path(sys.argv[1], f"{name}.png"), out / f"{name}.png")
        print(f"{name}.png {size / 1000:.0f} kB")
        assert size <= BYTES, "too large for a document"

"""Screenshots to pictures for the documents: the driver's files, small enough.

python docs/screenshots/shrink.py FROM TO
"""

import sys
from pathlib import Path

from PIL import Image

NAMES = (
    *(
        "panel-before",
        "panel-during",
        "panel-after",
        "camera",
        "points",
        "preferences",
    ),  # driver.py
    *("gallery", "seed-head", "between", "many", "models"),  # seeds.py
    *("object-panel", "object-download"),  # objects.py
    *("edit-panel", "edit-drag"),  # edit.py
)
WIDTH = 1280  # pixels at most
BYTES = 400_000


def shrink(source: Path, target: Path) -> int:
    """Write `source` to `target`, in full colour where that is small enough; returns its bytes."""
    with Image.open(source) as image:
        picture = image.convert("RGB")
    if picture.width > WIDTH:
        height = round(picture.height * WIDTH / picture.width)
        picture = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
    picture.save(target, optimize=True)
    if target.stat().st_size > BYTES:
        colours = picture.quantize(256, Image.Quantize.MEDIANCUT, kmeans=3)
        picture.quantize(palette=colours).save(target, optimize=True)
    return target.stat().st_size


if __name__ == "__main__":
    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        if not Path(sys.argv[1], f"{name}.png").exists():
            continue  # of the other driver
        size = shrink(Path(sys.argv[1], f"{name}.png"), out / f"{name}.png")
        print(f"{name}.png {size / 1000:.0f} kB")
        assert size <= BYTES, "too large for a document"

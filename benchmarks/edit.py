"""Pictures a second while a slider is dragged: `edit_preview` through the client, as Blender asks.

    .venv/bin/python benchmarks/edit.py --photo examples/astronaut.png --json

Makes a head (of a seed, or of a photo in the preset `fast`), then drags one slider after the other
and several together, each picture asked for when the one before has arrived. Prints pictures a
second (of the median time) by what is dragged, after the first picture of each slider, whose time
is told apart: a direction's planes and displacement are computed when it is first touched. On a
machine that does other things at the same time, --processor tells what a picture costs: seconds of
one core, in this process, without the way to the worker and back (some milliseconds).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from machine import processor  # noqa: E402

from engine.client import EngineClient, EngineSettings  # noqa: E402

DRAGS = {
    "smile": ("smile",),
    "age": ("age",),
    "hair length": ("hair length",),
    "all at once": ("age", "smile", "jaw", "nose width", "skin tone"),
}


def drag(client: EngineClient, head: Path, names: tuple[str, ...], frames: int, size: int) -> dict:
    """Seconds of the first picture, and of the others their median and slowest tenth."""
    seconds = []
    for amount in np.linspace(-0.45, 0.95, frames):
        edits = ", ".join(f"{name}={amount:.3f}" for name in names)
        start = time.perf_counter()
        client.run_blocking("edit_preview", {"field": str(head), "edits": edits, "size": size})
        seconds.append(time.perf_counter() - start)
    # The slider passes 0: both of a direction's sides are met for the first time.
    rest = np.array(seconds[1:])
    return {
        "first_s": round(seconds[0], 3),
        "per_second": round(1 / float(np.median(rest)), 1),
        "slowest_tenth_s": round(float(np.quantile(rest, 0.9)), 3),
    }


def processor_seconds(head: Path, names: tuple[str, ...], frames: int, size: int) -> dict:
    """Of one core, a picture (median) and the first one."""
    import torch

    from engine import jobs
    from engine.jobs.base import Context

    torch.set_num_threads(1)
    job, seconds = jobs.load("edit_preview"), []
    for amount in np.linspace(0.05, 0.95, frames):
        edits = ", ".join(f"{name}={amount:.3f}" for name in names)
        given = job.checked({"field": str(head), "edits": edits, "size": size})
        start = time.process_time()
        job.run(given, Context())
        seconds.append(time.process_time() - start)
    picture = float(np.median(seconds[1:]))
    return {
        "first_s": round(seconds[0], 3),
        "core_s": round(picture, 3),
        "per_second": round(1 / picture, 1),
    }


def strip(head: Path, path: Path, size: int) -> None:
    """Pictures of the edited fields: every direction at -1, 0 and 1, as far as its range goes."""
    from engine.editing.open import open_head
    from engine.jobs.result_stages import on_grey
    from engine.sampling.open import PLAIN
    from engine.surface.export import encode_png
    from engine.surface.sheet import contact_sheet

    editor, sampler = open_head(head, "", "", PLAIN)
    camera, pictures, names = sampler.camera(20, 0, size), [], []
    inner = slice(size // 12, -size // 12), slice(size // 5, -size // 5)
    for name, (low, high) in editor.directions.ranges.items():
        for amount in (max(low, -1.0), 0.0, min(high, 1.0)):
            seen = editor.edited({name: amount}).field.render(camera)
            pictures.append(on_grey(seen.image, seen.alpha)[inner])
            names.append(f"{name} {amount:+g}" if amount else name)
    path.write_bytes(encode_png(contact_sheet(pictures, names, 6)))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", default="", help="a head of this photo instead of a seed's")
    parser.add_argument("--head", type=Path, help="a field file instead")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--processor", action="store_true", help="seconds of one core instead")
    parser.add_argument("--sheet", type=Path, help="draw every direction into this PNG instead")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.sheet:
        strip(args.head, args.sheet, 300)
        return
    with tempfile.TemporaryDirectory() as folder:
        log = str(Path(folder) / "engine.log")
        client = EngineClient(EngineSettings(sys.executable, str(ROOT), log))
        try:
            head = args.head
            if head is None:
                small = {"faces": 4000, "texture_size": 256}
                if args.photo:
                    given = {"photo": args.photo, "preset": "fast", **small}
                    made = client.run_blocking("reconstruct", given)
                else:
                    made = client.run_blocking("sample", {"heads": str(args.seed), **small})
                head = Path(folder) / "head.safetensors"
                head.write_bytes(made["arrays"]["field"].tobytes())
            timed = processor_seconds if args.processor else partial(drag, client)
            found = {
                name: timed(head, names, args.frames, args.size) for name, names in DRAGS.items()
            }
        finally:
            client.close()
    facts = {"machine": processor(), "load": os.getloadavg()[0], "size": args.size, "drags": found}
    if args.json:
        print(json.dumps(facts, indent=1))
        return
    print(facts["machine"], f"load {facts['load']:.1f}")
    for name, row in found.items():
        print(f"{name}: {row['per_second']} a second (first {row['first_s']} s)")


if __name__ == "__main__":
    main()

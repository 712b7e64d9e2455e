"""EG3D: the original reference implementation against ours. Same weights, machine and run.

    python benchmarks/eg3d.py --parity ../shared/parity [--original PATH] [--rounds 2]

PATH is a checkout of the original (its folder with `training/` in it); it stays outside the
repository, and without it its columns are empty. Weights are the parity pack's seeded ones. Each
side runs in processes of its own, in turns; the table takes the median of all rounds. The rows that
compute in float32 are compared number by number, the meshes by their distance. Writes
benchmarks/eg3d.md and prints it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from machine import processor

HERE = Path(__file__).resolve().parent
ROWS = {  # row: (name, the original's row, target as a share of it or in seconds)
    "image_float32": ("512² image, new w, float32", "image_float32", "≤ 1/3"),
    "image_default": ("512² image, new w, default precision", "image_float32", "≤ 1/6"),
    "view_float32": ("further 512² view, float32", "view_float32", "≤ 1/6"),
    "view_default": ("further 512² view, default precision", "view_float32", "≤ 1/6"),
    "mesh256": ("mesh at 256³, level 10", "mesh256", "≤ 5 s"),
    "mesh512": ("mesh at 512³, level 10", "mesh512", "≤ 20 s"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parity", type=Path, required=True, help="folder of the parity packs")
    parser.add_argument("--original", type=Path, help="the original's folder with training/ in it")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    found: dict[str, list[dict]] = {"ours": [], "original": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.rounds):
            for side in ("original", "ours"):
                if side == "ours" or args.original:
                    # The original's mesh takes minutes: once is enough.
                    meshes = number == 0 or side == "ours"
                    found[side].append(_run(side, args, Path(folder), meshes))
        agreement = _agreement(Path(folder)) if args.original else {}
    text = _table(found, agreement, args)
    (HERE / "eg3d.md").write_text(text, encoding="utf-8")
    print(text)


def _run(side: str, args: argparse.Namespace, folder: Path, meshes: bool) -> dict:
    """One side once, in a fresh process: seconds and memory of each row."""
    from engine.process import ENVIRONMENT

    command = [sys.executable, str(HERE / "eg3d_side.py"), side, str(args.parity), str(folder)]
    command += [str(args.threads), "meshes" if meshes else "images", str(args.original or "")]
    environment = dict(os.environ, OMP_WAIT_POLICY="PASSIVE", OMP_NUM_THREADS=str(args.threads))
    if side == "ours":  # as our worker is started; the original as its users start it
        environment |= ENVIRONMENT
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def _agreement(folder: Path) -> dict[str, str]:
    """How far our results are from the original's, row by row."""
    ours, theirs = np.load(folder / "ours.npz"), np.load(folder / "original.npz")
    out = {}
    for row, other in (
        ("image_float32", "image_float32"),
        ("image_default", "image_float32"),
        ("view_float32", "view_float32"),
        ("view_default", "view_float32"),
    ):
        difference = np.abs(ours[row].astype(np.float64) - theirs[other])
        out[row] = f"mean {difference.mean():.1e}, max {difference.max():.1e} of range 2"
    for size in (256, 512):
        row = f"mesh{size}"
        if f"{row}_vertices" in theirs:
            out[row] = _mesh_agreement(ours, theirs, row, size)
    return out


def _mesh_agreement(ours, theirs, row: str, size: int) -> str:
    from eg3d_side import components, distances

    v, f = ours[f"{row}_vertices"], ours[f"{row}_faces"]
    w, g = theirs[f"{row}_vertices"], theirs[f"{row}_faces"]
    voxel = 1 / (size - 1)
    there, back = distances(w, v, f) / voxel, distances(v, w, g) / voxel
    labels = components(len(w), g)
    count, own = int(labels.max()) + 1, int(components(len(v), f).max()) + 1
    lost = sum(there[labels == i].min() > 1 for i in range(count))
    return (
        f"mean distance {there.mean():.3f} / {back.mean():.3f} voxels there / back; "
        f"components {count} and {own}, lost {lost}"
    )


def _table(found: dict[str, list[dict]], agreement: dict, args: argparse.Namespace) -> str:
    import torch

    from engine import __version__

    lines = [
        "# EG3D: the original against ours",
        "",
        "Made by `python benchmarks/eg3d.py --parity ../shared/parity --original PATH`, seeded",
        "weights of the FFHQ 512-128 configuration, medians in seconds.",
        "",
        f"Machine: {processor()}, {args.threads} threads, {platform.system()}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, Triplane {__version__}; "
        f"default precision here: {found['ours'][0]['precision']}.",
        "",
        "| work | original | ours | ratio | target | agreement |",
        "| --- | ---: | ---: | ---: | --- | --- |",
    ]
    for row, (name, other, target) in ROWS.items():
        own = _median(found["ours"], row)
        base = _median(found["original"], other)
        note = " (extrapolated)" if base and row == "mesh512" else ""
        ratio = f"1/{base / own:.1f}" if base and own else ""
        shown = f"{base:.1f}{note}" if base else ""
        lines.append(
            f"| {name} | {shown} | {own:.2f} | {ratio} | {target} | {agreement.get(row, '')} |"
        )
    lines += ["", "| memory (peak resident, MB) | original | ours |", "| --- | ---: | ---: |"]
    for key, name in (
        ("memory_start", "Python and torch imported"),
        ("memory_model", "model opened"),
        ("memory_image", "after images"),
        ("memory_mesh256", "after the mesh at 256³"),
        ("memory_mesh512", "after the mesh at 512³"),
    ):
        row = [_median(found[side], key) for side in ("original", "ours")]
        cells = " | ".join("" if x is None else f"{x:.0f}" for x in row)
        lines.append(f"| {name} | {cells} |")
    steps = ", ".join(f"{name} {x:.2f} s" for name, x in found["ours"][0]["steps"].items())
    lines += ["", f"Where our time goes (one run): {steps}."]
    return "\n".join(lines) + "\n"


def _median(runs: list[dict], row: str) -> float | None:
    values = [x for run in runs for x in _listed(run.get(row))]
    return statistics.median(values) if values else None


def _listed(value) -> list[float]:
    return [] if value is None else value if isinstance(value, list) else [value]


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    main()

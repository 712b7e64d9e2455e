"""Writes the tables of docs/figures.md from engine/weights/metrics.json.

python -m engine.training.figures
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARKS = "<!-- metrics: written by engine.training.figures -->", "<!-- end of metrics -->"
NAMES = {  # of the variants in evaluate.py
    "encoder": "encoder only",
    "instant": "*instant*",
    "fast": "*fast*",
    "w+": "+ w+",
    "pivotal": "+ pivotal tuning",
    "balanced": "+ planes: *balanced*",
    "best": "*best*",
}
# figure: (what it is called, which of evaluate.summary's numbers, digits)
ROWS = {
    "camera": ("camera, degrees", "median", 1),
    "landmarks_3d": ("landmarks in space, % of the eyes' distance", "median", 1),
    "landmarks_2d": ("landmarks in the portrait, %", "median", 1),
    "face_depth_mean": ("depth of the face, mm", "median", 1),
    "face_normal": ("normals of the face, degrees", "mean", 1),
    "depth": ("depth of everything, mm", "median", 1),
    "psnr_45": ("PSNR within 45 degrees, dB", "mean", 2),
    "psnr_all": ("PSNR over all yaws, dB", "mean", 2),
    "ssim_45": ("SSIM within 45 degrees", "mean", 3),
    "ssim_all": ("SSIM over all yaws", "mean", 3),
    "iou_45": ("IoU of masks within 45 degrees", "mean", 3),
    "iou_all": ("IoU of masks over all yaws", "mean", 3),
    "photo_psnr": ("PSNR in the portrait itself, dB", "mean", 1),
    "seconds": ("processor seconds, without surface and bake", "median", 1),
}


def held_out_table(found: dict[str, dict]) -> str:
    """found: of metrics.json's `held_out`. One column a variant; the 10th and 90th percentiles in
    brackets."""
    variants = [v for v in NAMES if v in found]
    lines = [
        "| | | " + " | ".join(NAMES[v] for v in variants) + " |",
        "| --- | --- |" + " --- |" * len(variants),
    ]
    for key, (name, which, digits) in ROWS.items():
        cells = []
        for v in variants:
            x = found[v][key]
            middle, low, high = (f"{x[k]:.{digits}f}" for k in (which, "p10", "p90"))
            cells.append(f"{middle} ({low} to {high})")
        lines.append(f"| {name} | {which} | " + " | ".join(cells) + " |")
    heads = " | ".join(str(found[v]["heads"]) for v in variants)
    lines.append(f"| heads | | {heads} |")
    return "\n".join(lines)


def samples_table(found: dict[str, dict]) -> str:
    """found: of metrics.json's `samples`."""
    names = {"training": "rendered training heads (as good as it gets)"}
    lines = [
        "| | heads | Frechet distance | precision | recall |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, x in found.items():
        lines.append(
            f"| {names.get(kind, f'heads from seeds, {kind}')} | {x['heads']} |"
            f" {x['frechet']:.3f} | {x['precision']:.2f} | {x['recall']:.2f} |"
        )
    return "\n".join(lines)


def rewritten(text: str, tables: str, marks: tuple[str, str] = MARKS) -> str:
    """A document with what lies between the marks replaced. Raises ValueError without marks."""
    start, end = (text.find(mark) for mark in marks)
    if not 0 <= start < end:
        raise ValueError("the document lacks the marks")
    return text[: start + len(marks[0])] + "\n\n" + tables + "\n\n" + text[end:]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metrics", type=Path, default=ROOT / "engine/weights/metrics.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/figures.md")
    args = parser.parse_args(argv)
    found = json.loads(args.metrics.read_text())
    tables = [held_out_table(found["held_out"])]
    if found.get("samples"):
        tables.append(samples_table(found["samples"]))
    made_by = found["made_by"]
    tables.append(f"Weights `{made_by['weights'][:12]}`, code `{made_by['code'][:12]}`.")
    args.page.write_text(rewritten(args.page.read_text(), "\n\n".join(tables)))


if __name__ == "__main__":
    main()

"""Writes the tables of docs/inversion.md from engine/weights/inversion.json.

python -m engine.training.compare_page
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from engine.inversion.methods import METHODS
from engine.training.figures import ROOT, rewritten

MARKS = (
    "<!-- inversion: written by engine.training.compare_page -->",
    "<!-- end of inversion -->",
)
# figure: (what it is called, digits, the better end)
COLUMNS = {
    "psnr": ("PSNR, dB", 2, max),
    "ssim": ("SSIM", 3, max),
    "features": ("features", 3, min),
    "depth": ("depth, mm", 1, min),
}


def region_table(found: dict[str, dict], yaw: str) -> str:
    """One yaw: a row a method; hidden and visible pixels, outline and seconds. The best of a column
    is bold. found: method -> yaw -> compare_table.summary."""
    rows = {m: found[m][yaw] for m in (*METHODS, "auto") if yaw in found.get(m, {})}
    shown, columns = [], []
    for region in ("hidden", "visible"):
        for figure, (name, digits, best) in COLUMNS.items():
            shown.append(f"{region}: {name}")
            columns.append((lambda x, r=region, f=figure: x[r][f]["mean"], digits, best))
    lines = [
        "| | " + " | ".join([*shown, "IoU", "seconds"]) + " |",
        "| --- |" + " --- |" * (len(shown) + 2),
    ]
    columns.append((lambda x: x["all"]["iou"]["mean"], 3, max))
    columns.append((lambda x: x["seconds"]["median"], 1, None))
    cells = {method: [] for method in rows}
    for value, digits, best in columns:
        texts = {method: f"{value(row):.{digits}f}" for method, row in rows.items()}
        end = None if best is None else f"{best(value(row) for row in rows.values()):.{digits}f}"
        for method, text in texts.items():
            cells[method].append(f"**{text}**" if text == end else text)
    for method, row in cells.items():
        label = METHODS[method].label if method in METHODS else "*auto*"
        lines.append(f"| {label} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def gain_table(gains: dict) -> str:
    """What WarpGAN's recipe gains in hidden regions, a row a yaw. gains: of
    compare_table.hidden_gain."""
    others = [m for m in (*METHODS, "auto") if any(m in row for row in gains.values())]
    labels = [METHODS[m].label if m in METHODS else "*auto*" for m in others]
    lines = ["| yaw | " + " | ".join(labels) + " |", "| --- |" + " --- |" * len(others)]
    for yaw, row in gains.items():
        cells = [
            f"{row[m]['gain']:+.2f} ± {row[m]['error']:.2f} ({row[m]['better']:.0%})"
            if m in row else ""
            for m in others
        ]  # fmt: skip
        lines.append(f"| {yaw} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pages(found: dict) -> str:
    """Everything between the marks."""
    table, parts = found["table"], []
    first = next(iter(table.values()))
    for yaw, row in first.items():
        count = row["heads"]
        plural = "portraits" if count != 1 else "portrait"
        parts.append(f"Seen from {yaw} degrees, {count} {plural}:")
        parts.append(region_table(table, yaw))
    if found.get("hidden_gain_of_warpgan"):
        parts.append(
            "What WarpGAN's recipe gains over the others in hidden regions on the same portraits, "
            "PSNR in dB (mean, its standard error, and the share of portraits where it is better):"
        )
        parts.append(gain_table(found["hidden_gain_of_warpgan"]))
    made_by = found["made_by"]
    parts.append(
        f"Preset *{made_by['preset']}*, weights `{made_by['weights'][:12]}`, code "
        f"`{made_by['code'][:12]}`."
    )
    if found.get("note"):
        parts.append(found["note"])
    return "\n\n".join(parts)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, default=ROOT / "engine/weights/inversion.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/inversion.md")
    args = parser.parse_args(argv)
    text = pages(json.loads(args.table.read_text()))
    args.page.write_text(rewritten(args.page.read_text(), text, MARKS))


if __name__ == "__main__":
    main()

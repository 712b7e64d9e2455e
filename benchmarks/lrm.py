"""TripoSR and OpenLRM: the original code against ours. Same weights, machine and run.

    python benchmarks/lrm.py --parity ../shared/parity --python PYTHON --triposr PATH --openlrm PATH

PYTHON: an interpreter that has what the originals need (torch, transformers 4.35.0, einops,
omegaconf, huggingface_hub, trimesh, accelerate, PyMCubes); PATHs: checkouts of their repositories.
They stay outside ours; without a PATH its columns are empty. Weights are the parity packs' seeded
ones, written as the published files and added to a models folder first. Each side runs in processes
of its own, in turns; the table takes the median of all rounds. The originals run without
torch.compile, which OpenLRM asks for and which takes minutes of its own to begin with.
Needs 8 GB of disk in --folder. Writes benchmarks/lrm.md and prints it.
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
NAMES = {"triposr": "TripoSR", "openlrm": "OpenLRM obj-base-1.1"}
ROWS = (  # name, ours, the original's, target
    ("scene code, float32", "code_float32", "code", "≤ 1/2"),
    ("scene code, default precision", "code_default", "code", "≤ 1/4"),
    ("mesh at 256³", "mesh", "mesh", "≤ 1/8"),
    ("frame of 288²", "frame", "frame", ""),
    ("model opened, float32", "open_float32", "open", ""),
    ("model opened, default precision", "open_default", "open", ""),
)
MEMORY = (  # name, ours, the original's, target
    ("after the scene code, default precision", "memory_default", "memory_code", "≤ 60 %"),
    ("after the mesh", "memory_mesh", "memory_mesh", "≤ 60 %"),
    ("after the frame", "memory_frame", "memory_frame", "≤ 2 GB"),
    ("after the scene code, float32", "memory_float32", "memory_code", "≤ 60 %"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parity", type=Path, required=True, help="folder of the parity packs")
    parser.add_argument("--python", default=sys.executable, help="the originals' interpreter")
    parser.add_argument("--triposr", type=Path, help="TripoSR's repository")
    parser.add_argument("--openlrm", type=Path, help="OpenLRM's repository")
    parser.add_argument("--models", default="triposr,openlrm", help="which, separated by commas")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, help="for files that are made (a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = args.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        found: dict[str, dict] = {}
        for model in args.models.split(","):
            if not (folder / "models" / f"{model}.safetensors").is_file():
                _run("prepare", model, args, folder)
            sides: dict[str, list[dict]] = {"original": [], "ours": []}
            for _ in range(args.rounds):
                if getattr(args, model):
                    sides["original"].append(_run("original", model, args, folder))
                for side in ("ours", "ours-float32"):
                    sides["ours"].append(_run(side, model, args, folder))
            found[model] = {**sides, "agreement": _agreement(model, folder, sides)}
        text = _table(found, args)
    (HERE / "lrm.md").write_text(text, encoding="utf-8")
    print(text)


def _run(side: str, model: str, args: argparse.Namespace, folder: Path) -> dict:
    """One side once, in a fresh process: seconds and memory of each row."""
    from engine.process import ENVIRONMENT

    python = args.python if side == "original" else sys.executable
    command = [python, str(HERE / "lrm_side.py"), side, model, str(folder), str(args.parity), "2"]
    command += [str(getattr(args, model) or "")]
    environment = dict(os.environ, OMP_WAIT_POLICY="PASSIVE", OMP_NUM_THREADS=str(args.threads))
    if side == "original":
        environment["TORCHDYNAMO_DISABLE"] = "1"
    else:  # as our worker is started; the original as its users start it
        environment |= ENVIRONMENT
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def _agreement(model: str, folder: Path, sides: dict[str, list[dict]]) -> dict[str, str]:
    """How far our results are from the original's, row by row."""
    if not sides["original"]:
        return {}
    ours, full, theirs = (
        np.load(folder / f"{side}-{model}.npz") for side in ("ours", "ours-float32", "original")
    )
    ours = {**ours, **full}
    out = {}
    for row in ("code_float32", "code_default"):
        difference = np.abs(ours[row].astype(np.float64) - theirs["code"])
        rms, spread = np.sqrt((difference**2).mean()), theirs["code"].std()
        out[row] = f"rms {rms:.1e}, max {difference.max():.1e} of {spread:.1f}"
    out["mesh"] = f"{int(ours['faces'])} and {int(theirs['faces'])} faces"
    return out


def _table(found: dict[str, dict], args: argparse.Namespace) -> str:
    import torch

    from engine import __version__

    first = next(iter(found.values()))["ours"][0]
    lines = [
        "# TripoSR and OpenLRM: the originals against ours",
        "",
        "Made by `python benchmarks/lrm.py --parity ../shared/parity --python PYTHON",
        "--triposr PATH --openlrm PATH`, seeded weights, medians in seconds; in brackets processor",
        "seconds, which a busy machine changes less. The originals without torch.compile.",
        "",
        f"Machine: {processor()}, {args.threads} threads, {platform.system()}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, Triplane {__version__}; "
        f"default precision here: {first['precision']}.",
    ]
    for model, runs in found.items():
        lines += ["", f"## {NAMES[model]}", ""]
        lines += ["| work | original | ours | ratio | target | agreement |"]
        lines += ["| --- | ---: | ---: | ---: | --- | --- |"]
        for name, row, other, target in ROWS:
            own, base = _medians(runs["ours"], row), _medians(runs["original"], other)
            if own is None:
                continue
            ratios = "" if base is None else f"1/{base[0] / own[0]:.1f} (1/{base[1] / own[1]:.1f})"
            note = runs["agreement"].get(row, "")
            lines += [f"| {name} | {_both(base)} | {_both(own)} | {ratios} | {target} | {note} |"]
        lines += ["", "| peak resident memory, MB | original | ours | share | target |"]
        lines += ["| --- | ---: | ---: | ---: | --- |"]
        for name, row, other, target in MEMORY:
            own = max((run[row] for run in runs["ours"] if row in run), default=None)
            base = max((run[other] for run in runs["original"] if other in run), default=None)
            if own is not None:
                share = "" if base is None else f"{100 * own / base:.0f} %"
                shown = "" if base is None else f"{base:.0f}"
                lines += [f"| {name} | {shown} | {own:.0f} | {share} | {target} |"]
    return "\n".join(lines) + "\n"


def _medians(runs: list[dict], row: str) -> tuple[float, float] | None:
    values = [pair for run in runs for pair in run.get(row, [])]
    if not values:
        return None
    return statistics.median(v[0] for v in values), statistics.median(v[1] for v in values)


def _both(pair: tuple[float, float] | None) -> str:
    return "" if pair is None else f"{pair[0]:.2f} ({pair[1]:.2f})"


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    main()

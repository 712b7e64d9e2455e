"""All ways to invert a portrait, compared on held-out synthetic heads:

    python -m engine.training.compare_table --count 100 --yaws 0 20 45 --methods all \\
        --out engine/weights/inversion.json
    python -m engine.training.compare_page     # writes the tables of docs/inversion.md

One portrait in (512 pixels, on a random background, with the true five points), the other sides as
truth (engine/training/regions.py), separately where the portrait shows the surface and where it
does not. As one portrait leaves size, distance and origin open, a similarity on the landmarks
brings each result to the true head first, as in evaluate.py.

A head's portraits come one after the other, each with all methods, so that a run that is stopped
(--minutes) has compared all methods on the same portraits. What is done lies in --work, by weights
and code.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine import device
from engine.checkpoints import default
from engine.inversion import methods, reconstruct
from engine.inversion.methods import METHODS
from engine.inversion.reconstruct import PRESETS, Reconstruction
from engine.portrait.align import align
from engine.training.evaluate import digest
from engine.training.heads.dataset import HELD_OUT
from engine.training.heads.pack import Pack
from engine.training.metrics import similarity, spread
from engine.training.prior_data import template_mean
from engine.training.regions import GREY, REGIONS, YAWS, Case, case, compare_regions
from engine.training.truth import PORTRAIT, Truths

FIGURES = ("psnr", "ssim", "features", "depth", "iou")
# What the figures depend on, beside the weights.
CODE = ("cameras.py", "checkpoints/default.py", "fields/*.py", "headspace/*.py", "inversion/*.py",
        "networks/*.py", "portrait/*.py", "systems/head/*.py", "systems/warpgan/*.py",
        "training/regions.py", "training/truth.py", "training/metrics.py",
        "training/heads/*.py")  # fmt: skip
UNUSED = ("compare.py", "quality.py", "evidence.py", "edit.py")  # of inversion/
_state: dict = {}


class OneFit:
    """In fit_head's place: the shape, which the methods fit alike, is fitted once a portrait, and
    `spared` are the processor seconds that the others would have spent on it."""

    def __init__(self) -> None:
        self.spared = 0.0
        self._fit, self._last = reconstruct.fit_head, None
        for module in (reconstruct, methods):
            module.fit_head = self

    def __call__(self, model, aligned, silhouette, compute, report, seed=0, check=lambda: None):
        given = aligned, silhouette, seed
        if self._last is None or any(a is not b for a, b in zip(given, self._last[0])):
            begun = time.process_time()
            head = self._fit(model, aligned, silhouette, compute, report, seed, check)
            self._last = given, head, time.process_time() - begun
        else:
            self.spared += self._last[2]
        head = self._last[1]
        return replace(head, field=copy.copy(head.field))  # methods give it planes of their own


def start(pack_path: str | None, mean: np.ndarray, work: Path, preset: str) -> None:
    """Of a worker."""
    torch.set_num_threads(1)
    model = default.load_default()
    _state.update(
        model=model,
        truths=Truths(model.space, Pack(pack_path), mean),
        compute=device.choose("cpu", threads=1),
        work=work,
        steps=PRESETS[preset],
        one_fit=OneFit(),
    )


def compare(made: Reconstruction, given: Case) -> tuple[list[dict], np.ndarray]:
    """A head's figures: [{yaw, region: {figure: value}}], a view each, and the views, true above
    made, uint8."""
    model = _state["model"]
    vertices = model.space.vertices(made.shape.identity, made.shape.expression)
    marks = model.space.landmarks(vertices).numpy().astype(float)
    to_true = similarity(marks, given.truth.landmarks)
    scale = float(np.cbrt(np.linalg.det(to_true[:3, :3])))
    back = np.linalg.inv(to_true)
    rows, columns = [], []
    for yaw, true, visible in zip(YAWS, given.truth.views, given.visible, strict=True):
        pose = back @ true.camera.cam2world
        pose[:3, :3] *= scale
        seen = made.field.render(replace(true.camera, cam2world=pose))
        image = (seen.image + (1 - seen.alpha[..., None]) * GREY).numpy()
        depth = seen.depth.numpy() * scale
        rows.append({"yaw": yaw} | compare_regions(
            model.perception, true, visible, image, seen.alpha.numpy(), depth
        ))  # fmt: skip
        solid = true.alpha[..., None]
        picture = true.rgb * solid + GREY * (1 - solid)
        dimmed = np.where((true.head & ~visible)[..., None], 0.6 * picture, picture)
        columns.append(np.concatenate([dimmed, image]))
    return rows, (np.concatenate(columns, 1).clip(0, 1) * 255).astype(np.uint8)


def evaluate(job: tuple[str, int, int]) -> dict:
    """One portrait by one method: {seed, yaw, method, seconds (of the processor), views}, also
    written to the work folder with a picture; hidden pixels of the truth are dimmed there."""
    method, seed, yaw = job
    name = method.replace("+", "plus")
    path = _state["work"] / f"{name}-{seed}-{yaw}.json"
    if path.exists():
        return json.loads(path.read_text())
    if _state.get("case", (None,))[0] != (seed, yaw):
        given = case(_state["truths"], seed, yaw)
        points, widen = given.truth.points, _state["model"].config["widen"]
        aligned = align(given.truth.photo, points, PORTRAIT, widen)
        _state["case"] = (seed, yaw), given, aligned
    (_, given, aligned), one_fit = _state["case"], _state["one_fit"]
    begun, one_fit.spared = time.process_time(), 0.0
    made = methods.invert(method, _state["model"], aligned, _state["steps"], _state["compute"])
    seconds = time.process_time() - begun + one_fit.spared
    with torch.no_grad():
        rows, picture = compare(made, given)
    crop = Image.fromarray(aligned.crop).resize((picture.shape[0],) * 2, Image.Resampling.BOX)
    Image.fromarray(np.concatenate([np.asarray(crop), picture], 1)).save(path.with_suffix(".png"))
    figures = {"seed": seed, "yaw": yaw, "method": method, "seconds": seconds, "views": rows}
    path.with_suffix(".tmp").write_text(json.dumps(figures))
    path.with_suffix(".tmp").replace(path)
    return figures


def summary(rows: list[dict]) -> dict:
    """Of the rows of one method and yaw: heads, seconds and, by region, each figure's mean, median
    and percentiles over heads of its mean over the views."""
    out: dict = {"heads": len(rows), "seconds": spread([row["seconds"] for row in rows])}
    for region in REGIONS:
        out[region] = {}
        for figure in FIGURES:
            heads = []
            for row in rows:
                values = [v[region][figure] for v in row["views"] if figure in v.get(region, {})]
                values = [x for x in values if np.isfinite(x)]
                heads += [float(np.mean(values))] if values else []
            if heads:
                out[region][figure] = spread(heads)
    return out


def tables(rows: list[dict]) -> dict:
    """method -> yaw -> summary, over the portraits that every method has done."""
    done: dict[tuple[int, int], set] = {}
    for row in rows:
        done.setdefault((row["seed"], row["yaw"]), set()).add(row["method"])
    names = list(dict.fromkeys(row["method"] for row in rows))
    whole = {key for key, some in done.items() if len(some) == len(names)}
    out: dict = {}
    for method in names:
        for yaw in sorted({yaw for _, yaw in whole}):
            part = [
                row for row in rows
                if row["method"] == method and row["yaw"] == yaw and (row["seed"], yaw) in whole
            ]  # fmt: skip
            out.setdefault(method, {})[str(yaw)] = summary(part)
    return out


def code_digest() -> str:
    engine = Path(__file__).resolve().parents[1]
    sources = [p for some in CODE for p in engine.glob(some)]
    return digest([p for p in sources if p.name not in UNUSED or p.parent.name != "inversion"])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="held-out heads")
    parser.add_argument("--yaws", type=int, nargs="+", default=[0, 20, 45], help="degrees")
    parser.add_argument("--methods", nargs="+", default=["all"], choices=[*METHODS, "auto", "all"])
    parser.add_argument("--preset", default="balanced", choices=list(PRESETS))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing after")
    parser.add_argument("--work", type=Path, default=Path("build/training/compare"))
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    names = [*METHODS, "auto"] if "all" in args.methods else args.methods
    weights = sorted(default.PATH.parent.glob("*.safetensors"))
    weights = [p for p in weights if p.stem in ("head", "svinet")]
    made_by = {"weights": digest(weights), "code": code_digest(), "preset": args.preset}
    folder = f"{made_by['weights'][:12]}-{made_by['code'][:12]}-{args.preset}"
    work = args.work / folder
    work.mkdir(parents=True, exist_ok=True)
    mean_file = args.work / "mean.npy"
    if not mean_file.exists():
        print("the template's mean (a minute or two, once)", flush=True)
        np.save(mean_file, template_mean(Pack(args.pack), 2000))
    jobs = [(seed, yaw) for seed in range(HELD_OUT, HELD_OUT + args.count) for yaw in args.yaws]
    settings = args.pack, np.load(mean_file), work, args.preset
    begun, rows = time.monotonic(), []
    with ProcessPoolExecutor(args.workers, get_context("spawn"), start, settings) as pool:
        for first in range(0, len(jobs), args.workers):
            if time.monotonic() - begun > 60 * args.minutes:
                break
            part = [(m, *job) for job in jobs[first : first + args.workers] for m in names]
            for row in pool.map(evaluate, part, chunksize=len(names)):
                rows.append(row)
                print(row["seed"], row["yaw"], row["method"], brief(row), flush=True)
            if args.out:
                write(args.out, {"made_by": made_by, "views": YAWS, "table": tables(rows)})
    print("pictures:", work)


def brief(row: dict) -> str:
    """A line about a row."""
    parts = [f"{row['seconds']:.1f} s"]
    for region in REGIONS:
        values = [v[region]["psnr"] for v in row["views"] if region in v]
        parts.append(f"{region} {np.mean(values):.2f} dB" if values else f"{region} -")
    return ", ".join(parts)


def write(path: Path, out: dict) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(out, indent=1) + "\n")
    temporary.replace(path)


if __name__ == "__main__":
    main()

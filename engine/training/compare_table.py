"""All ways to invert a portrait, compared on held-out synthetic heads:

    python -m engine.training.compare_table --count 100 --yaws 0 20 45 --methods all \\
        --out engine/weights/inversion.json
    python -m engine.training.compare_page     # writes the tables of docs/inversion.md

One portrait in (512 pixels, on a random background, with the true five points), the other sides as
truth (engine/training/regions.py), separately where the portrait shows the surface and where it
does not. As one portrait leaves size, distance and origin open, a similarity on the landmarks
brings each result to the true head first, as in evaluate.py.

Every head has its turn with one of the yaws before any has it with the next, and a portrait is done
with all methods, so that a run that is stopped (--minutes) has compared all methods on the same
portraits of as many heads as there was time for. What is done lies in --work, by weights and code.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine import device
from engine.checkpoints import default
from engine.inversion import appearance, methods, reconstruct
from engine.inversion.methods import METHODS
from engine.inversion.reconstruct import PRESETS, Reconstruction
from engine.portrait.align import align
from engine.training.evaluate import digest
from engine.training.heads.dataset import HELD_OUT
from engine.training.heads.pack import Pack
from engine.training.metrics import brought, scale_of, spread
from engine.training.prior_data import kept_mean
from engine.training.regions import (
    GREY,
    REGIONS,
    YAWS,
    Case,
    case,
    compare_regions,
    to_true,
)
from engine.training.truth import PORTRAIT, Truths

FIGURES = ("psnr", "ssim", "features", "depth", "iou")
# What the figures depend on, beside the weights.
CODE = ("cameras.py", "checkpoints/default.py", "fields/*.py", "headspace/*.py", "inversion/*.py",
        "networks/*.py", "portrait/*.py", "systems/head/*.py", "systems/warpgan/*.py",
        "training/regions.py", "training/truth.py", "training/metrics.py",
        "training/heads/*.py")  # fmt: skip
UNUSED = ("compare.py", "quality.py", "evidence.py", "edit.py")  # of inversion/
_state: dict = {}


class Once:
    """In place of what the methods share: computed once a portrait, and `spared` are the processor
    seconds that the others would have spent on it."""

    def __init__(self) -> None:
        self.spared = 0.0
        self._fit, self._refine = reconstruct.fit_head, appearance.refine_latent
        self._fitted, self._refined = None, None
        reconstruct.fit_head = methods.fit_head = self.fit_head
        appearance.refine_latent = self.refine_latent

    def fit_head(self, model, aligned, silhouette, *others, **named):
        """The shape, which the methods fit alike."""
        known = self._fitted and self._fitted[0] is aligned and self._fitted[1] == silhouette
        if known:
            self.spared += self._fitted[3]
        else:
            begun = time.process_time()
            head = self._fit(model, aligned, silhouette, *others, **named)
            self._fitted = aligned, silhouette, head, time.process_time() - begun
        head = self._fitted[2]
        return replace(head, field=copy.copy(head.field))  # methods give it planes of their own

    def refine_latent(self, generator, ws, seen, steps, *others, **named):
        """w+ moved to the photo, from which tunings start."""
        key = ws, seen.canonical, seen.colour, torch.tensor(steps)
        if self._refined and all(map(torch.equal, key, self._refined[0])) and steps:
            self.spared += self._refined[2]
        else:
            begun = time.process_time()
            refined = self._refine(generator, ws, seen, steps, *others, **named)
            if not steps:
                return refined
            self._refined = key, refined, time.process_time() - begun
        return self._refined[1]


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
        once=Once(),
    )


def compare(made: Reconstruction, given: Case) -> tuple[list[dict], np.ndarray]:
    """A head's figures: [{yaw, region: {figure: value}}], a view each, and the views, true above
    made, uint8."""
    model = _state["model"]
    there = to_true(model.space, made.shape, given.truth)
    scale, back = scale_of(there), np.linalg.inv(there)
    rows, columns = [], []
    for yaw, true, visible in zip(YAWS, given.truth.views, given.visible, strict=True):
        seen = made.field.render(brought(true.camera, back))
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


def portraits(first: int, count: int, yaws: list[int]) -> list[tuple[int, int]]:
    """(seed, yaw) of `count` heads from seed `first` on, from every yaw: all heads once, the yaws
    in turn, then all with the next."""
    turns = range(len(yaws))
    return [(first + i, yaws[(i + turn) % len(yaws)]) for turn in turns for i in range(count)]


def evaluate_all(names: list[str], seed: int, yaw: int) -> list[dict]:
    """One portrait by several methods, see evaluate()."""
    return [evaluate(name, seed, yaw) for name in names]


def evaluate(method: str, seed: int, yaw: int) -> dict:
    """One portrait by one method: {seed, yaw, method, seconds (of the processor), views}, also
    written to the work folder with a picture; hidden pixels of the truth are dimmed there."""
    name = method.replace("+", "plus")
    path = _state["work"] / f"{name}-{seed}-{yaw}.json"
    if path.exists():
        return json.loads(path.read_text())
    if _state.get("case", (None,))[0] != (seed, yaw):
        given = case(_state["truths"], seed, yaw)
        points, widen = given.truth.points, _state["model"].config["widen"]
        aligned = align(given.truth.photo, points, PORTRAIT, widen)
        _state["case"] = (seed, yaw), given, aligned
    (_, given, aligned), once = _state["case"], _state["once"]
    begun, once.spared = time.process_time(), 0.0
    made = methods.invert(method, _state["model"], aligned, _state["steps"], _state["compute"])
    seconds = time.process_time() - begun + once.spared
    with torch.no_grad():
        rows, picture = compare(made, given)
    crop = Image.fromarray(aligned.crop).resize((picture.shape[0],) * 2, Image.Resampling.BOX)
    Image.fromarray(np.concatenate([np.asarray(crop), picture], 1)).save(path.with_suffix(".png"))
    figures = {"seed": seed, "yaw": yaw, "method": method, "seconds": seconds, "views": rows}
    path.with_suffix(".tmp").write_text(json.dumps(figures))
    path.with_suffix(".tmp").replace(path)
    return figures


def of_head(row: dict, region: str, figure: str) -> float:
    """A portrait's figure of a region: the mean over the views that have it, NaN if none has."""
    values = [v[region][figure] for v in row["views"] if figure in v.get(region, {})]
    values = [x for x in values if np.isfinite(x)]
    return float(np.mean(values)) if values else float("nan")


def summary(rows: list[dict]) -> dict:
    """Of the rows of one method and yaw: heads, seconds and, by region, each figure's mean, median
    and percentiles over heads of its mean over the views."""
    out: dict = {"heads": len(rows), "seconds": spread([row["seconds"] for row in rows])}
    for region in REGIONS:
        out[region] = {}
        for figure in FIGURES:
            heads = [of_head(row, region, figure) for row in rows]
            heads = [x for x in heads if np.isfinite(x)]
            if heads:
                out[region][figure] = spread(heads)
    return out


def compared(rows: list[dict]) -> list[dict]:
    """The rows of the portraits that every method has done."""
    done: dict[tuple[int, int], set] = {}
    for row in rows:
        done.setdefault((row["seed"], row["yaw"]), set()).add(row["method"])
    count = len({row["method"] for row in rows})
    return [row for row in rows if len(done[row["seed"], row["yaw"]]) == count]


def tables(rows: list[dict]) -> dict:
    """method -> yaw -> summary, over the portraits that every method has done."""
    rows, out = compared(rows), {}
    for method in dict.fromkeys(row["method"] for row in rows):
        for yaw in sorted({row["yaw"] for row in rows}):
            part = [row for row in rows if row["method"] == method and row["yaw"] == yaw]
            out.setdefault(method, {})[str(yaw)] = summary(part)
    return out


def hidden_gain(rows: list[dict], method: str) -> dict:
    """yaw -> another method -> what `method` gains over it in hidden regions on the same portraits:
    {gain: dB of PSNR, error: of that mean (its standard deviation over portraits by the root of
    their number), better: share of portraits}."""
    rows, found = compared(rows), {}
    for row in rows:
        value = of_head(row, "hidden", "psnr")
        if np.isfinite(value):
            found.setdefault(str(row["yaw"]), {}).setdefault(row["method"], {})[row["seed"]] = value
    out: dict = {}
    for yaw in sorted(found, key=int):
        mine = found[yaw].get(method, {})
        for other, theirs in found[yaw].items():
            gains = np.array([mine[seed] - x for seed, x in theirs.items() if seed in mine])
            if other != method and len(gains) > 1:
                out.setdefault(yaw, {})[other] = {
                    "gain": round(float(gains.mean()), 3),
                    "error": round(float(gains.std(ddof=1) / np.sqrt(len(gains))), 3),
                    "better": round(float((gains > 0).mean()), 3),
                }
    return out


def code_digest() -> str:
    engine = Path(__file__).resolve().parents[1]
    sources = [p for some in CODE for p in engine.glob(some)]
    return digest([p for p in sources if p.name not in UNUSED or p.parent.name != "inversion"])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=HELD_OUT, help="seed of the first head")
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
    weights = [p for p in weights if p.stem in ("head", "relight", "svinet")]
    made_by = {"weights": digest(weights), "code": code_digest(), "preset": args.preset}
    folder = f"{made_by['weights'][:12]}-{made_by['code'][:12]}-{args.preset}"
    work = args.work / folder
    work.mkdir(parents=True, exist_ok=True)
    mean = kept_mean(args.work / "mean.npy", args.pack, 2000)
    settings = args.pack, mean, work, args.preset
    begun, rows = time.monotonic(), []
    with ProcessPoolExecutor(args.workers, get_context("spawn"), start, settings) as pool:
        todo = portraits(args.first, args.count, args.yaws)
        jobs = [pool.submit(evaluate_all, names, *job) for job in todo]
        for job in as_completed(jobs):
            for row in job.result():
                rows.append(row)
                print(row["seed"], row["yaw"], row["method"], brief(row), flush=True)
            if args.out:
                table, gain = tables(rows), hidden_gain(rows, "warpgan")
                found = {"made_by": made_by, "views": YAWS, "table": table}
                write(args.out, found | {"hidden_gain_of_warpgan": gain})
            if time.monotonic() - begun > 60 * args.minutes:
                pool.shutdown(cancel_futures=True)
                break
    print("pictures:", work)


def brief(row: dict) -> str:
    """A line about a row."""
    parts = [f"{row['seconds']:.1f} s"]
    for region in REGIONS:
        value = of_head(row, region, "psnr")
        parts.append(f"{region} {value:.2f} dB" if np.isfinite(value) else f"{region} -")
    return ", ".join(parts)


def write(path: Path, out: dict) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(out, indent=1) + "\n")
    temporary.replace(path)


if __name__ == "__main__":
    main()

"""All figures of the shipped model, in one command:

    python -m engine.training.evaluate --count 64 --workers 2 --out engine/weights/metrics.json

Held-out heads (seeds from 1,000,000 on) are made on the fly; each one's portrait, 512 pixels on a
random background, goes through the same code as a photo, but for the face detector (which is not
made for drawings): the five points are the true ones. One portrait leaves size and distance open,
and where the head's origin is, so a similarity on the 84 landmarks brings the result to the true
head before anything is compared. `compare` and engine/training/features.py say what each figure is.

It can be stopped and started again: what is done lies in --work, by weights and code. Write the
table in docs/figures.md anew with `python -m engine.training.figures`.
"""

from __future__ import annotations

import argparse
import hashlib
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
from engine.cameras import Camera
from engine.checkpoints import default
from engine.checkpoints.instant import load_instant
from engine.inversion.instant import reconstruct_instant
from engine.inversion.reconstruct import PRESETS, Reconstruction, encode_only, reconstruct
from engine.portrait.align import Aligned, align
from engine.portrait.image import Photo
from engine.sampling.builtin import BuiltInSampler
from engine.surface.metrics import iou, psnr
from engine.training import features
from engine.training.heads.dataset import HELD_OUT
from engine.training.heads.pack import Pack
from engine.training.heads.views import FRONTAL_TARGETS
from engine.training.metrics import (
    brought,
    camera_error,
    depth_normals,
    landmark_error,
    mask_box,
    moved,
    normal_error,
    scale_of,
    similarity,
    spread,
    ssim,
)
from engine.training.prior_data import kept_mean
from engine.training.regions import GREY, on_grey
from engine.training.truth import PORTRAIT, Truth, Truths, View

BALANCED = PRESETS["balanced"]
INSTANT = "instant"
# None: the networks' answers alone, see encode_only.
VARIANTS = {
    "encoder": None,
    INSTANT: INSTANT,  # a system of its own, see engine/inversion/instant.py
    "fast": PRESETS["fast"],
    "w+": replace(BALANCED, tuning=0, planes=0),
    "pivotal": replace(BALANCED, planes=0),
    "balanced": BALANCED,
    "best": PRESETS["best"],
}
USUAL = ("encoder", INSTANT, "fast", "w+", "pivotal", "balanced")
FRONTAL = 45.0  # degrees of yaw
CHUNK = 16  # heads whose features are kept together
JUMP = 0.015  # metres between a pixel's neighbours: an edge of the true face, which has no normal
# What the figures depend on.
CODE = ("cameras.py", "checkpoints/default.py", "checkpoints/instant.py", "fields/*.py",
        "headspace/*.py", "inversion/*.py", "networks/*.py", "portrait/*.py", "sampling/*.py",
        "systems/head/*.py", "systems/lrm/head.py", "systems/lrm/lift.py", "training/*.py",
        "training/heads/*.py", "weights/instant.safetensors",
        "weights/numbers.safetensors")  # fmt: skip
_state: dict = {}


def start(weights: Path, pack_path: str | None, mean: np.ndarray, work: Path) -> None:
    """Of a worker."""
    torch.set_num_threads(1)
    model = default.load_default(weights)
    _state.update(
        model=model,
        truths=Truths(model.space, Pack(pack_path), mean),
        compute=device.choose("cpu", threads=1),
        work=work,
    )


def compare_view(true: View, camera: Camera, made: Reconstruction, scale: float) -> dict:
    """One view's figures, and `image`, the made head on grey (see compare)."""
    seen = made.field.render(camera)
    alpha = seen.alpha.numpy()
    image = (seen.image + (1 - seen.alpha[..., None]) * GREY).numpy()
    picture = on_grey(true)
    mine = (alpha > 0.5) & ~true.beyond
    box = mask_box(true.head)
    inside = ~true.beyond[box]
    hushed = np.where(true.beyond[..., None], picture, image)
    depth = seen.depth.numpy() * scale
    off = np.abs(depth - true.depth) * 1e3
    face = true.face & mine
    k = camera.intrinsics
    normals, good = depth_normals(true.depth, true.face, k, JUMP)
    mine_normals, also = depth_normals(depth, mine, k)
    turned = normal_error(normals, mine_normals)[good & also]
    return {
        "yaw": true.yaw,
        "psnr": psnr(image[box], picture[box], inside),
        "psnr_head": psnr(image, picture, true.head),
        "ssim": ssim(hushed[box], picture[box]),
        "iou": iou(mine, true.head),
        "depth": float(off[mine & true.head].mean()) if (mine & true.head).any() else np.nan,
        "face_depth": off[face],
        "face_normal": turned,
        "image": image,
        "picture": picture,
    }


def compare(made: Reconstruction, truth: Truth, aligned: Aligned) -> tuple[dict, np.ndarray]:
    """Figures of one head, and its views: true above made.

    Of each of eight views at 128 x 128 that the model has not seen (two frontal ones, six from
    anywhere round the head):
    psnr (dB), ssim: over the smallest box around the true head, both heads before mid grey; pixels
        that show the true body beyond the bust's cut are left out (grey in both, for ssim);
    psnr_head: over the true head's pixels only;
    iou: of the true head's mask and where the made one covers more than half a pixel;
    depth (mm): mean absolute difference along the camera's z where both are.
    Of the face (bare skin in front of the ears, see truth.py) in the views within 45 degrees of
    yaw: face_depth_mean, face_depth_median (mm); face_normal (mean, degrees) between the normals of
    both depth maps, at the scale of their pixels (3.4 mm).
    landmarks_3d, landmarks_2d (% of the distance between the outer corners of the eyes): the 68
        usual points, after the similarity; and in the portrait.
    camera (degrees): rotation between the estimated camera, brought to the true head's frame by
        that similarity, and the true one, both turned to look at the head's origin.
    photo_psnr (dB): the made head in the portrait itself at 128 x 128, over the true head's pixels.
    """
    space = _state["model"].space
    marks = made.shape.landmarks(space).numpy().astype(float)
    there = similarity(marks, truth.landmarks)
    scale, back = scale_of(there), np.linalg.inv(there)
    rows, views = [], []
    for true in truth.views:
        views.append(compare_view(true, brought(true.camera, back), made, scale))
        rows.append(np.concatenate([views[-1].pop("picture"), views[-1].pop("image")]))
    near = [v for v in views if abs(v["yaw"]) <= FRONTAL]
    off = np.concatenate([v["face_depth"] for v in near] or [[]])
    turned = np.concatenate([v["face_normal"] for v in near] or [[]])
    camera = truth.camera.transformed_image(aligned.to_crop, PORTRAIT, PORTRAIT)
    figures = {
        "landmarks_3d": landmark_error(moved(there, marks), truth.landmarks),
        "landmarks_2d": landmark_error(
            made.camera.resized(PORTRAIT, PORTRAIT).project(marks)[0],
            camera.project(truth.landmarks)[0],
        ),
        "camera": camera_error(made.camera, camera, there),
        "face_depth_mean": float(off.mean()) if len(off) else np.nan,
        "face_depth_median": float(np.median(off)) if len(off) else np.nan,
        "face_normal": float(turned.mean()) if len(turned) else np.nan,
        "photo_psnr": _photo_psnr(made, truth, aligned),
        "views": [{k: v for k, v in view.items() if np.isscalar(v)} for view in views],
    }
    picture = (np.concatenate(rows, 1).clip(0, 1) * 255).astype(np.uint8)
    return figures, picture


def _photo_psnr(made: Reconstruction, truth: Truth, aligned: Aligned) -> float:
    size = truth.views[0].head.shape[0]
    mask = Photo(np.repeat(truth.shown[..., None], 3, 2), None, "")
    shown, photo = (
        np.asarray(Image.fromarray(x).resize((size, size), Image.BOX)) / 255.0
        for x in (align(mask, truth.points, PORTRAIT, _widen()).crop, aligned.crop)
    )
    seen = made.field.render(made.camera.resized(size, size))
    image = (seen.image + (1 - seen.alpha[..., None]) * GREY).numpy()
    return psnr(image.astype(float), photo, shown[..., 0] > 0.9)


def _widen() -> float:
    return _state["model"].config["widen"]


def evaluate(job: tuple[str, int]) -> dict:
    """One head with one variant: its figures, also written to the work folder with a picture."""
    variant, seed = job
    path = _state["work"] / f"{variant}-{seed}.json"
    if path.exists():
        return json.loads(path.read_text())
    if _state.get("truth") is None or _state["truth"].seed != seed:
        _state["truth"] = _state["truths"](seed)
    model, truth, compute = _state["model"], _state["truth"], _state["compute"]
    aligned = align(truth.photo, truth.points, PORTRAIT, model.config["widen"])
    begun = time.process_time()
    if VARIANTS[variant] is None:
        made = encode_only(model, aligned, compute)
    elif variant == INSTANT:
        made = reconstruct_instant(model, load_instant(), aligned, compute)
    else:
        made = reconstruct(model, aligned, VARIANTS[variant], compute,
                           lambda f, s: None, lambda f, c: None)  # fmt: skip
    seconds = time.process_time() - begun
    figures, views = compare(made, truth, aligned)
    crop = Image.fromarray(aligned.crop).resize((views.shape[0], views.shape[0]), Image.BOX)
    Image.fromarray(np.concatenate([np.asarray(crop), views], 1)).save(path.with_suffix(".png"))
    figures = {"seed": seed, "seconds": seconds, **figures}
    path.with_suffix(".tmp").write_text(json.dumps(figures))
    path.with_suffix(".tmp").replace(path)
    return figures


def measure_features(job: tuple[str, int, int]) -> np.ndarray:
    """Features of the heads first .. end of a set (see features.py), kept in the work folder."""
    kind, first, end = job
    path = _state["work"] / f"features-{kind}-{first}-{end}.npy"
    if not path.exists():
        sampler = BuiltInSampler(model=_state["model"])
        temporary = path.with_suffix(".tmp.npy")
        seeds = range(first, end)
        np.save(temporary, features.head_features(kind, seeds, _state["truths"], sampler))
        temporary.replace(path)
    return np.load(path)


def summary(rows: list[dict]) -> dict[str, dict]:
    """Means, medians and percentiles over heads (of views: over views), by the names in compare;
    _45: over the views within 45 degrees of yaw; _all: over the six with yaws from the whole
    circle. depth: over those six."""
    out = {}
    plain = ("camera", "landmarks_3d", "landmarks_2d", "face_depth_mean", "face_depth_median",
             "face_normal", "photo_psnr", "seconds")  # fmt: skip
    for name in plain:
        out[name] = spread([row[name] for row in rows])
    near = [v for row in rows for v in row["views"] if abs(v["yaw"]) <= FRONTAL]
    around = [v for row in rows for v in row["views"][FRONTAL_TARGETS:]]
    for name in ("psnr", "ssim", "psnr_head", "iou"):
        out[f"{name}_45"] = spread([v[name] for v in near])
        out[f"{name}_all"] = spread([v[name] for v in around])
    out["depth"] = spread([v["depth"] for v in around])
    return {"heads": len(rows), **out}


def worst_first(rows: list[dict]) -> list[int]:
    """Seeds by their mean psnr over the six views round the head."""
    score = {r["seed"]: np.mean([v["psnr"] for v in r["views"][FRONTAL_TARGETS:]]) for r in rows}
    return sorted(score, key=score.get)


def digest(paths: list[Path]) -> str:
    """Of files' contents, and names for all but one."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(path.name.encode() if len(paths) > 1 else b"")
        total.update(path.read_bytes())
    return total.hexdigest()


def sheet(work: Path, variant: str, seeds: list[int], path: Path) -> None:
    """Some heads' pictures below each other."""
    pictures = [np.asarray(Image.open(work / f"{variant}-{s}.png")) for s in seeds]
    Image.fromarray(np.concatenate(pictures)).save(path)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=64, help="held-out heads")
    parser.add_argument("--first", type=int, default=HELD_OUT, help="seed of the first of them")
    parser.add_argument("--variants", nargs="*", default=list(USUAL), choices=list(VARIANTS))
    parser.add_argument("--samples", type=int, default=256, help="heads from seeds; 0 for none")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--weights", type=Path, default=default.PATH)
    parser.add_argument("--work", type=Path, default=Path("build/training/evaluate"))
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    engine = Path(__file__).resolve().parents[1]
    sources = [p for some in CODE for p in engine.glob(some)]
    made_by = {"weights": digest([args.weights]), "code": digest(sources)}
    work = args.work / f"{made_by['weights'][:12]}-{made_by['code'][:12]}"
    work.mkdir(parents=True, exist_ok=True)
    mean = kept_mean(args.work / "mean.npy", args.pack, 2000)
    settings = (args.weights, args.pack, mean, work)
    out = {"made_by": made_by, "held_out": {}}
    with ProcessPoolExecutor(args.workers, get_context("spawn"), start, settings) as pool:
        # A head's variants follow each other: its truth is made once.
        seeds = range(args.first, args.first + args.count)
        jobs = [(v, s) for s in seeds for v in args.variants]
        rows: dict[str, list[dict]] = {v: [] for v in args.variants}
        chunk = max(1, len(args.variants))
        for (variant, seed), row in zip(jobs, pool.map(evaluate, jobs, chunksize=chunk)):
            rows[variant].append(row)
            brief = {k: round(row[k], 2) for k in ("camera", "landmarks_3d", "face_depth_mean")}
            score = np.mean([v["psnr"] for v in row["views"][FRONTAL_TARGETS:]])
            print(seed, variant, json.dumps(brief | {"psnr": round(float(score), 2)}), flush=True)
        for variant in args.variants:
            out["held_out"][variant] = summary(rows[variant])
            order = worst_first(rows[variant])
            sheet(work, variant, order[:6], work / f"worst-{variant}.png")
            sheet(work, variant, list(seeds)[:6], work / f"first-{variant}.png")
        if args.samples:
            starts = range(0, args.samples, CHUNK)
            parts = [(k, a, min(a + CHUNK, args.samples)) for k in features.SETS for a in starts]
            found: dict[str, list] = {kind: [] for kind in features.SETS}
            for part, rows_of in zip(parts, pool.map(measure_features, parts)):
                found[part[0]].append(rows_of)
                print("features of", *part, flush=True)
            out["samples"] = features.distances({k: np.concatenate(v) for k, v in found.items()})
    text = json.dumps(out, indent=1)
    print(text)
    print("pictures:", work)
    if args.out:
        temporary = args.out.with_suffix(".tmp")
        temporary.write_text(text + "\n")
        temporary.replace(args.out)


if __name__ == "__main__":
    main()

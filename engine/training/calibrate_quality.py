"""How much each disagreement counts in the quality score (engine/inversion/quality.py):

    python -m engine.training.calibrate_quality --count 15 --out engine/weights/quality.json

Held-out synthetic heads (seeds from FIRST on) go through the usual code as *fast* makes them: once
as they are, once with what cameras do (degrade.py), and a few times spoilt in ways of SPOILS that
no photo should be. The true head says whether what came out is usable. The score is a logistic
regression on the evidence, each figure as its distance from clean portraits' median in their
spreads, between 0 and quality.FAR, with weights that are never negative: a disagreement cannot
speak for a head. Fitted on two heads in three; the report is about the others.

Rows are kept in --work as they come, so that it can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from scipy import ndimage, optimize

from engine import device
from engine.checkpoints import default
from engine.errors import TriplaneError
from engine.inversion import evidence, quality
from engine.inversion.reconstruct import CROP, PRESETS, Reconstruction, encode_only, reconstruct
from engine.portrait.align import Aligned, align
from engine.portrait.image import Photo
from engine.training.data import _background
from engine.training.degrade import degrade
from engine.training.heads.dataset import HELD_OUT
from engine.training.heads.pack import Pack
from engine.training.metrics import camera_error, landmark_error, moved, similarity
from engine.training.prior_data import template_mean
from engine.training.truth import Truth, Truths

FIRST = HELD_OUT + 60  # the first ones are evaluate.py's; from + 100 on they are of material 2
# What still counts as usable: about twice what clean portraits' heads are off.
LANDMARKS, CAMERA, COLOUR = 7.5, 9.0, 0.14  # % of the eyes' distance, degrees, rms in 0..1
# Figures of the evidence in the score; -1: bad when small.
SIGNS = {
    "points": 1, "marks": 1, "spread": 1, "mirror": 1, "doubt": 1, "foreign": 1, "unlike": 1,
    "outline": 1, "likeness": 1, "shape": 1, "yaw": 1, "outside": 1, "pixels": -1, "detail": -1,
    "light": -1,
}  # fmt: skip
UNFITTED = "unfitted"  # a clean portrait by the encoder alone
HOLD = 0.02  # on the squares of the weights
WIDTH = 0.3  # least spread, of the median
Spoilt = tuple[np.ndarray, np.ndarray]  # picture uint8 [H, W, 3] and five points [5, 2]
Spoil = Callable[[np.ndarray, np.ndarray, np.random.Generator], Spoilt]


def _size(points: np.ndarray) -> float:
    """From the eyes to the mouth, about."""
    return float(np.linalg.norm(points[3:].mean(0) - points[:2].mean(0)))


def _photo(rgb: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> Spoilt:
    x = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
    x = degrade(x, rng)[0][0].permute(1, 2, 0).numpy()
    return (x * 255).astype(np.uint8), points + rng.normal(size=(5, 2)) * 0.03 * _size(points)


def _blur(rgb: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> Spoilt:
    sigma = _size(points) * rng.uniform(0.05, 0.5)
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(sigma))), points


def _small(rgb: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> Spoilt:
    n = int(rng.uniform(24, 90))
    few = Image.fromarray(rgb).resize((n, n), Image.BOX)
    return np.asarray(few), points * n / len(rgb)


def _box(rgb: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> Spoilt:
    size, middle = _size(points), points.mean(0)
    v, u = np.indices(rgb.shape[:2]) + 0.5
    angle, (x, y) = rng.uniform(0, np.pi), rng.normal(size=2) * 0.5 * size + middle
    along = (u - x) * np.cos(angle) + (v - y) * np.sin(angle)
    across = (v - y) * np.cos(angle) - (u - x) * np.sin(angle)
    w, h = rng.uniform(0.3, 1.3, 2) * size
    covered = (np.abs(along) < w) & (np.abs(across) < h)
    if rng.random() < 0.5:
        covered = (along / w) ** 2 + (across / h) ** 2 < 1
    colour = rng.uniform(0, 255, 3)
    if rng.random() < 0.4:  # a hand
        colour = np.array([217, 158, 128]) * rng.uniform(0.3, 1.05)
    shade = 1 + 0.15 * np.sin(along / size * 9)[..., None]
    return np.where(covered[..., None], (colour * shade).clip(0, 255), rgb).astype(np.uint8), points


def _levels(rgb: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> Spoilt:
    """A painting, of a kind: few colours in blobs."""
    image = Image.fromarray(rgb)
    for _ in range(int(rng.integers(1, 4))):
        image = image.filter(ImageFilter.ModeFilter(int(rng.choice([5, 7, 9]))))
    step = int(rng.choice([16, 32, 64]))
    return np.asarray(image) // step * step + step // 2, points


def _negative(rgb: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> Spoilt:
    return 255 - rgb, points


def _noise(rgb: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> Spoilt:
    noisy = rgb + rng.normal(size=rgb.shape) * rng.uniform(20, 110)
    return noisy.clip(0, 255).astype(np.uint8), points


def _off(rgb: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> Spoilt:
    """The five points where no face is: by a wrong click."""
    size, middle = _size(points), points.mean(0)
    angle, scale = rng.normal() * 0.8, np.exp(rng.normal() * 0.35)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (points - middle) @ turn.T + middle + rng.normal(size=2) * 0.5 * size
    return rgb, moved + rng.normal(size=(5, 2)) * 0.1 * size


def _cut(rgb: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> Spoilt:
    """A photo that ends in the face."""
    turns = int(rng.integers(4))
    at = int((points.mean(0) + rng.normal(size=2) * 0.6 * _size(points))[turns % 2].clip(90, 420))
    low = np.zeros(2, int)
    if turns < 2:
        low[turns] = at
    high = [at if turns - 2 == axis else len(rgb) for axis in (0, 1)]
    return np.ascontiguousarray(rgb[low[1] : high[1], low[0] : high[0]]), points - low


def _nobody(rgb: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> Spoilt:
    behind = _background(rng, 1, len(rgb))[0] * 255
    if rng.random() < 0.5:  # blotches in the face's own colours
        order = rng.permutation(64)
        cells = (
            rgb[: 8 * 64, : 8 * 64].reshape(8, 64, 8, 64, 3).swapaxes(1, 2).reshape(64, 64, 64, 3)
        )
        behind = cells[order].reshape(8, 8, 64, 64, 3).swapaxes(1, 2).reshape(512, 512, 3)
        behind = ndimage.gaussian_filter(behind.astype(float), (5, 5, 0))
    return behind.astype(np.uint8), points


def _dark(rgb: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> Spoilt:
    gain = rng.choice([rng.uniform(0.03, 0.2), rng.uniform(2.5, 6)])
    return (rgb * gain).clip(0, 255).astype(np.uint8), points


SPOILS: dict[str, Spoil] = {
    "blur": _blur, "small": _small, "box": _box, "levels": _levels, "negative": _negative,
    "noise": _noise, "off": _off, "cut": _cut, "nobody": _nobody, "dark": _dark,
}  # fmt: skip


def errors(
    model: default.DefaultModel, made: Reconstruction, truth: Truth, clean: Aligned
) -> dict[str, float]:
    """How far a head is off: landmarks_3d (%), camera (degrees), see evaluate.compare; colour: rms
    in 0..1 of the field through its camera against the unspoilt crop, over the true face."""
    marks = made.shape.landmarks(model.space).numpy().astype(float)
    there = similarity(marks, truth.landmarks)
    camera = truth.camera.transformed_image(clean.to_crop, CROP, CROP)
    hull = evidence.face_hull(camera.project(truth.landmarks[:68])[0] / CROP)
    size = len(hull)
    seen = made.field.render(made.camera.resized(size, size))
    image = (seen.image + (1 - seen.alpha[..., None]) * 0.5).numpy()
    true = np.asarray(Image.fromarray(clean.crop).resize((size, size), Image.BOX)) / 255
    return {
        "landmarks": landmark_error(moved(there, marks), truth.landmarks),
        "camera": camera_error(made.camera, camera, there),
        "colour": float(np.sqrt(((image - true)[hull] ** 2).mean())),
    }


def rows_of(model: default.DefaultModel, truths: Truths, seed: int, kinds: list[str]) -> list[dict]:
    """One head's rows: kind, errors, evidence; usable: whether the errors are small."""
    truth, rows = truths(seed), []
    compute = device.choose("cpu", threads=1)
    for number, kind in enumerate(kinds):
        rng = np.random.default_rng([seed, number])
        rgb, points = truth.photo.rgb, truth.points
        if kind not in ("clean", UNFITTED):
            rgb, points = (SPOILS | {"photo": _photo})[kind](rgb, points, rng)
        widen = model.config["widen"]
        aligned = align(Photo(rgb, None, Path()), points, CROP, widen)
        row = {"seed": seed, "kind": kind, "usable": False}
        try:
            made = encode_only(model, aligned, compute) if kind == UNFITTED else reconstruct(
                model, aligned, PRESETS["fast"], compute, lambda f, s: None, lambda f, c: None
            )  # fmt: skip
        except TriplaneError as error:
            rows.append(row | {"refused": error.sentence})
            continue
        found = evidence.measure(model, aligned, made, compute, points)
        # The same crop of the unspoilt portrait, whose pixels `small` and `cut` have moved.
        same = truth.points if kind in ("small", "cut") else points
        off = errors(model, made, truth, align(truth.photo, same, CROP, widen))
        usable = off["landmarks"] < LANDMARKS and off["camera"] < CAMERA and off["colour"] < COLOUR
        rows.append(row | {"errors": off, "evidence": asdict(found), "usable": usable})
    return rows


def fit(rows: list[dict]) -> dict:
    """The calibration (see quality.calibration) of rows of heads."""
    rows = [row for row in rows if "evidence" in row]
    seen = [quality.Evidence(**row["evidence"]) for row in rows]
    good = [e for e, row in zip(seen, rows) if row["kind"] in ("clean", "photo") and row["usable"]]
    usual = {}
    for name, sign in SIGNS.items():
        values = sign * np.array([getattr(e, name) for e in good])
        middle, end = np.nanpercentile(values, [50, 95])
        # Real photos differ more from one another than rendered portraits do.
        usual[name] = [sign * middle, sign * max(end - middle, WIDTH * abs(middle), 0.01)]
    usual = {name: [float(f"{x:.4g}") for x in pair] for name, pair in usual.items()}
    off = np.array([list(quality.deviations(e, usual).values()) for e in seen])
    bad = np.array([not row["usable"] for row in rows], float)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        risk = off @ x[1:] + x[0]
        slope = 1 / (1 + np.exp(-risk)) - bad
        value = (np.logaddexp(0, risk) - bad * risk).mean() + HOLD * (x[1:] ** 2).sum()
        inner = (off * slope[:, None]).mean(0) + 2 * HOLD * x[1:]
        return float(value), np.concatenate([[slope.mean()], inner])

    start = np.concatenate([[-1.0], np.full(off.shape[1], 0.2)])
    bounds = [(None, None)] + [(0, None)] * off.shape[1]
    found = optimize.minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    weights = {name: round(float(w), 3) for name, w in zip(usual, found[1:])}
    return {"usual": usual, "weights": weights, "bias": round(float(found[0]), 3)}


def report(rows: list[dict], learned: dict) -> dict:
    """Of rows that it was not fitted on: how often a head is usable by its score, and how often
    the score is right, where it says above or below quality.DOUBTFUL; by kind: the mean score and
    the share of usable heads."""
    rows = [row for row in rows if "evidence" in row]
    score = np.array([quality.score(quality.Evidence(**r["evidence"]), learned) for r in rows])
    usable = np.array([row["usable"] for row in rows])
    out = {"rows": len(rows), "right": float(((score > quality.DOUBTFUL) == usable).mean())}
    for low, high in ((0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.01)):
        part = usable[(score >= low) & (score < high)]
        out[f"usable, scores {low:g} to {min(high, 1):g}"] = [int(part.sum()), len(part)]
    kinds = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of = np.array([row["kind"] == kind for row in rows])
        kinds[kind] = [int(of.sum()), float(score[of].mean()), float(usable[of].mean())]
    out["kinds: heads, mean score, share usable"] = {
        kind: [round(x, 2) for x in found] for kind, found in kinds.items()
    }
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in out.items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=15, help="heads, six rows each")
    parser.add_argument("--work", type=Path, default=Path("build/training/quality.jsonl"))
    parser.add_argument("--out", type=Path, default=quality.PATH)
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    args.work.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(x) for x in args.work.read_text().splitlines()] if args.work.exists() else []
    known = {row["seed"] for row in rows}
    model, truths = default.load_default(), None
    with args.work.open("a") as file:
        for k in range(args.count):
            seed = FIRST + (k // 2 if k % 2 else 40 + k // 2)  # of both materials
            if seed in known:
                continue
            if truths is None:
                torch.set_num_threads(1)
                pack = Pack(args.pack)
                truths = Truths(model.space, pack, template_mean(pack, 2000))
            some = np.random.default_rng(seed).permutation(list(SPOILS))[:3]
            new = rows_of(model, truths, seed, ["clean", UNFITTED, "photo", *map(str, some)])
            rows += new
            file.write("".join(json.dumps(row) + "\n" for row in new))
            file.flush()
            print(seed, [(row["kind"], row["usable"]) for row in new], flush=True)
    held = [row for row in rows if row["seed"] % 3 == 0]
    learned = fit([row for row in rows if row["seed"] % 3])
    learned["rows"] = len(rows)
    learned["held_out"] = report(held, learned)
    args.out.write_text(json.dumps(learned, indent=1) + "\n")
    print(json.dumps(learned, indent=1))


if __name__ == "__main__":
    main()

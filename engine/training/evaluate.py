"""Measures the shipped model on held-out synthetic heads.

    python -m engine.training.evaluate --heads DIR --presets fast balanced --count 64 --sheet x.png

Every head's portrait is drawn anew at 512 pixels on a random background and goes through the same
code as a photo, but for the face detector (which is not made for drawings): the five points are
the true ones. The result is brought to the true head by a similarity on the 84 landmarks (one
portrait leaves size and distance open) and compared in the head's eight target views, which the
model has not seen, at 128 x 128: PSNR over pixels of the true head, IoU of silhouettes, absolute
depth error where both are, in millimetres. Shoulders beyond the bust are left out.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine import device
from engine.cameras import Camera, from_eg3d
from engine.checkpoints.default import load_default
from engine.inversion.reconstruct import CROP, PRESETS, Reconstruction, reconstruct
from engine.portrait.align import align
from engine.portrait.image import Photo
from engine.training.data import _background, five_points
from engine.training.heads.build import build_head, head_rng
from engine.training.heads.dataset import HELD_OUT, SHARD, load_shard, shard_path
from engine.training.heads.lighting import random_light
from engine.training.heads.pack import Pack
from engine.training.heads.scene import Scene, Studio
from engine.training.heads.textures import Atlas
from engine.training.heads.views import TARGET_EXTENT, TARGET_FOV, distance, input_camera

_state: dict = {}


def _start(pack_path: str | None) -> None:
    torch.set_num_threads(1)
    pack = Pack(pack_path)
    _state.update(pack=pack, studio=Studio(Atlas(pack)), model=load_default(),
                  compute=device.choose("cpu", threads=1))  # fmt: skip


def portrait(seed: int) -> tuple[Photo, np.ndarray]:
    """The head's first input view at 512 pixels on a random background, and its five points."""
    head = build_head(_state["pack"], seed)
    rng = head_rng(seed, 1)
    scene = Scene(_state["studio"], head, random_light(rng))
    camera = input_camera(rng).resized(CROP, CROP)
    rgba = scene.view(camera, dressed=True).rgba.astype(np.float32) / 255
    behind = _background(np.random.default_rng(seed), 1, CROP)[0]
    rgb = rgba[..., :3] * rgba[..., 3:] + behind * (1 - rgba[..., 3:])
    points = five_points(camera.project(head.landmarks)[0])
    return Photo((rgb * 255).astype(np.uint8), None, f"{seed}"), points


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The 4x4 similarity that brings points [N, 3] onto others (Umeyama 1991)."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    out = np.eye(4)
    out[:3, :3] = (s * sign).sum() / (a**2).sum() * (u * sign) @ vt
    out[:3, 3] = target.mean(0) - out[:3, :3] @ source.mean(0)
    return out


def compare(made: Reconstruction, shard: dict, prep: dict, i: int) -> tuple[dict, np.ndarray]:
    """Figures of one head, and its views: true above made."""
    space = _state["model"].space
    vertices = space.vertices(made.shape.identity, made.shape.expression)
    to_true = similarity(space.landmarks(vertices).numpy().astype(float), shard["landmarks"][i])
    scale = np.cbrt(np.linalg.det(to_true[:3, :3]))
    back = np.linalg.inv(to_true)
    rows, figures = [], {"psnr": [], "iou": [], "depth mm": []}
    for view in range(8):
        true = from_eg3d(shard["target_camera"][i, view], 128, 128)
        pose = back @ true.cam2world
        pose[:3, :3] *= scale
        seen = made.field.render(Camera(pose, true.intrinsics, 128, 128))
        alpha = seen.alpha.numpy()
        image = (seen.image + (1 - seen.alpha[..., None]) * 0.5).numpy()
        known = (prep["place"][i, view] != 0).any(-1)
        beyond = (shard["target_alpha"][i, view] > 127) & ~known
        rgb = shard["target_rgb"][i, view].astype(np.float32) / 255
        error = ((image - rgb)[known] ** 2).mean()
        figures["psnr"].append(-10 * np.log10(max(error, 1e-9)))
        mine = (alpha > 0.5) & ~beyond
        figures["iou"].append((mine & known).sum() / max(1, (mine | known).sum()))
        depth = seen.depth.numpy() * scale - distance(TARGET_EXTENT, TARGET_FOV)
        both = mine & known
        wrong = np.abs(depth - shard["target_depth"][i, view].astype(np.float32))[both]
        figures["depth mm"].append(wrong.mean() * 1e3 if both.any() else np.nan)
        true_image = np.where(known[..., None], rgb, 0.5)
        rows.append(np.concatenate([true_image, image]))
    views = (np.concatenate(rows, 1).clip(0, 1) * 255).astype(np.uint8)
    return {k: float(np.nanmean(v)) for k, v in figures.items()}, views


def evaluate(job: tuple[Path, int, str]) -> tuple[str, dict, np.ndarray]:
    """One head with one preset."""
    folder, k, preset = job
    shard = load_shard(shard_path(folder, HELD_OUT + k // SHARD * SHARD))
    prep = load_shard(folder / f"prep_{HELD_OUT + k // SHARD * SHARD:08d}.npz")
    model, i = _state["model"], k % SHARD
    photo, points = portrait(HELD_OUT + k)
    aligned = align(photo, points, CROP, model.config["widen"])
    start = time.process_time()
    made = reconstruct(model, aligned, PRESETS[preset], _state["compute"],
                       lambda f, s: None, lambda f, c: None)  # fmt: skip
    seconds = time.process_time() - start
    figures, views = compare(made, shard, prep, i)
    crop = np.asarray(Image.fromarray(aligned.crop).resize((256, 256)))
    return preset, figures | {"cpu s": seconds}, np.concatenate([crop, views], 1)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=Path, required=True)
    parser.add_argument("--presets", nargs="+", default=["fast", "balanced"], choices=list(PRESETS))
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--sheet", type=Path, help="folder for a sheet a preset")
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    with ProcessPoolExecutor(args.workers, get_context("spawn"), _start, (args.pack,)) as pool:
        for preset in args.presets:
            jobs = [(args.heads, k, preset) for k in range(args.count)]
            done, pictures = [], []
            for _, figures, views in pool.map(evaluate, jobs):
                done.append(figures)
                pictures.append(views)
                mean = {k: round(float(np.mean([d[k] for d in done])), 3) for k in figures}
                print(preset, len(done), json.dumps(mean), flush=True)
            if args.sheet:
                args.sheet.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.concatenate(pictures[:10])).save(args.sheet / f"{preset}.png")


if __name__ == "__main__":
    main()

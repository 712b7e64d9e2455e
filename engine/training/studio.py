"""Studio pictures: training people sat for a portrait, seen sharply from all round.

    python -m engine.training.studio --out DIR --seeds 0 1500 [--workers 2]

The shards of heads/dataset.py teach the encoder what photos are like: any light, turned necks, open
mouths, 128 pixels. What nobody should meet in a *new* head does not belong in the pictures that the
discriminator calls real, and 128 pixels (3.4 mm each) teach no eye. So the same people, tidied as
for the prior (prior_data.tidy: one even light, closed lips, no glasses, no dyed hair), are seen
once more at 256 pixels of 1.5 mm, from the camera's orbit that sampled heads are shown from.
Cameras come from a random stream of their own, so the seeds' heads stay what they are.

Shard studio_SSSSSSSS.npz (uncompressed, 4.1 MB a head), first axis = head:

    seed       int64   [n]
    identity   float32 [n, 64], expression float32 [n, 20]   head space coefficients
    hair       uint8   [n]      index of the hair weight;  male bool [n]
    input      uint8   [n, 128, 128, 4]     aligned portrait of the first view: RGB times the head's
                                            mask, and the mask: the encoder's input
    rgb        uint8   [n, 4, 256, 256, 3]  display sRGB, straight alpha
    place      int16   [n, 4, 256, 256, 3]  canonical position of each pixel's surface in SKIN_UNIT
                                            metres, 0 where no head is
    direction  float32 [n, 4, 3]            unit vector from the head to the camera
"""

from __future__ import annotations

import argparse
import math
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from engine.cameras import Camera, orbit
from engine.checkpoints.default import PATH, load_default
from engine.headspace import lattice
from engine.portrait.align import alignment_matrix
from engine.sampling.builtin import EXTENT, FOV, PIVOT
from engine.training.build_headspace import bust_cut
from engine.training.data import SIZE, WIDEN, five_points
from engine.training.heads.build import build, head_rng
from engine.training.heads.dataset import SKIN_UNIT, stacked, write_shard
from engine.training.heads.pack import Pack
from engine.training.heads.parts import HAIR, SKIN
from engine.training.heads.sampler import sample_params
from engine.training.heads.scene import Scene, View
from engine.training.heads.views import distance
from engine.training.prior_data import Sitting, kept_mean, natural, tidy

SHARD, VIEWS, PIXELS = 50, 4, 256
STREAM = 40  # of head_rng
# Yaw (low, high degrees, either side) of the views after the first, which is near frontal.
ROUND = ((22, 70), (70, 125), (125, 180))


def cameras(rng: np.random.Generator) -> list[Camera]:
    """One near the front, then one from each part of the circle."""
    yaws = [float(np.clip(rng.normal() * 13, -28, 28))]
    yaws += [float(rng.uniform(*span) * rng.choice((-1, 1))) for span in ROUND]
    pitches = np.clip(rng.normal(size=VIEWS) * [5, 7, 9, 9], -25, 25)
    radius = distance(EXTENT, FOV)
    return [
        orbit(math.radians(y), math.radians(p), radius, FOV, PIVOT, PIXELS, PIXELS)
        for y, p in zip(yaws, pitches, strict=True)
    ]


def _portrait(view: View, camera: Camera, landmarks: np.ndarray) -> np.ndarray:
    """The encoder's input [SIZE, SIZE, 4] of a view, uint8."""
    m = alignment_matrix(five_points(camera.project(landmarks)[0]), SIZE, WIDEN)
    centres = np.arange(SIZE, dtype=np.float32) + 0.5
    grid = np.stack([*np.meshgrid(centres, centres), np.ones((SIZE, SIZE))], -1)
    grid = (grid @ np.linalg.inv(m)[:2].T / PIXELS * 2 - 1).astype(np.float32)
    mask = np.isin(view.labels, (SKIN, HAIR)) * (view.rgba[..., 3:] / np.float32(255))[..., 0]
    source = np.concatenate([view.rgba[..., :3] * mask[..., None], 255 * mask[..., None]], -1)
    source = torch.from_numpy(source.astype(np.float32)).permute(2, 0, 1)[None]
    got = F.grid_sample(source, torch.from_numpy(grid)[None], align_corners=False)[0]
    return (got.permute(1, 2, 0) + 0.5).clamp(0, 255).byte().numpy()


def sit(sitting: Sitting, seed: int) -> dict[str, np.ndarray] | None:
    """All arrays of one person, without the head axis; None if the hair is dyed."""
    params = tidy(sample_params(sitting.pack, head_rng(seed, 0)))
    if not natural(params):
        return None
    head = build(sitting.pack, params)
    identity, expression, style = sitting.describe(head)
    space = sitting.model.space
    scene = Scene(sitting.studio, head, sitting.light)
    moving = space.displacement(torch.from_numpy(identity), torch.from_numpy(expression))
    forward = lattice.blur(sitting.spread(moving))
    taken = cameras(head_rng(seed, STREAM))
    views = [scene.view(camera, dressed=False) for camera in taken]
    place = np.zeros((VIEWS, PIXELS, PIXELS, 3), np.int16)
    for k, (view, camera) in enumerate(zip(views, taken, strict=True)):
        mask = (view.rgba[..., 3] > 127) & (view.depth > 0)
        origin, directions = camera.rays()
        d = directions[mask]
        t = view.depth[mask] / (d @ camera.cam2world[:3, 2])
        p = torch.from_numpy((origin + d * t[:, None]).astype(np.float32))
        q = (p + lattice.settle(forward, p, space.bounds, 4)).numpy()
        q[bust_cut(q).ravel() >= 0.002] = 0  # the shoulders are no part of a head
        place[k][mask] = np.clip(np.rint(q / SKIN_UNIT), -32767, 32767)
    return {
        "seed": np.int64(seed),
        "identity": identity,
        "expression": expression,
        "hair": np.uint8(style),
        "male": np.bool_(params["gender"] > 0.5),
        "input": _portrait(views[0], taken[0], head.landmarks),
        "rgb": np.stack([v.rgba[..., :3] for v in views]),
        "place": place,
        "direction": np.stack([-c.cam2world[:3, 2] for c in taken]).astype(np.float32),
    }


_worker: dict = {}


def _start(pack_path: str | None, mean: np.ndarray, weights: Path) -> None:
    torch.set_num_threads(1)
    _worker["sitting"] = Sitting(load_default(weights), Pack(pack_path), mean)


def _shard(job: tuple[Path, int, int]) -> str:
    folder, first, end = job
    path = folder / f"studio_{first:08d}.npz"
    if path.exists():
        return f"{path.name} is there"
    start = time.process_time()
    heads = [h for seed in range(first, end) if (h := sit(_worker["sitting"], seed)) is not None]
    write_shard(path, stacked(heads))
    return f"{path.name}: {(time.process_time() - start) / len(heads):.2f} cpu-s a head"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs=2, required=True, metavar=("FIRST", "END"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--mean-heads", type=int, default=2000, help="as --heads of the head space")
    parser.add_argument("--weights", type=Path, default=PATH, help="whose head space counts")
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    mean = kept_mean(args.out / "mean.npy", args.pack, args.mean_heads)
    first, end = args.seeds
    jobs = [(args.out, s, min(s + SHARD, end)) for s in range(first, end, SHARD)]
    start = (args.pack, mean, args.weights)
    with ProcessPoolExecutor(args.workers, get_context("spawn"), _start, start) as pool:
        for line in pool.map(_shard, jobs):
            print(line, flush=True)


if __name__ == "__main__":
    main()

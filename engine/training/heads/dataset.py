"""Writes shards of random heads with pictures of them.

    python -m engine.training.heads.dataset --out DIR --seeds A B [--workers 2] [--material 2]

Material 2 has hats, make-up, wrinkles, studio light and more (`extras`); seeds 0..1999 and
1,000,000..1,000,099 are made with material 1 unless asked, as they always were.
Seeds A (included) to B (excluded), in shards of 100 heads; a complete shard is not made again.
By convention seeds from HELD_OUT on are never trained with. Shard `heads_SSSSSSSS.npz`
(uncompressed), first axis = head, n heads:

    seed             int64   [n]
    input_rgba       uint8   [n, 3, 176, 176, 4]  straight alpha, display sRGB, all dressed
    input_class      uint8   [n, 3, 176, 176]     0 nothing, 1 skin, 2 hair, 3 garment, 4 glasses
    input_landmarks  float32 [n, 3, 84, 2]        pixels, u right, v down, centres at +0.5
    input_camera     float32 [n, 3, 25]           cam2world 16, normalised intrinsics 9 (OpenCV)
    target_rgb       uint8   [n, 8, 128, 128, 3]  straight alpha, no garment, no glasses
    target_alpha     uint8   [n, 8, 128, 128]
    target_depth     float16 [n, 8, 128, 128]     metres along camera z minus the camera's distance
                                                  to the origin; valid where alpha >= 128, else 0
    target_class     uint8   [n, 8, 128, 128]     0, 1, 2 as above
    target_camera    float32 [n, 8, 25]
    skin             int16   [n, 7604, 3]         posed, in units of SKIN_UNIT metres
    neutral          int16   [n, 7604, 3]         the same head and frame without its expression
    eyes             int16   [n, 512, 3]          outer shells of the eyeballs
    landmarks        float32 [n, 84, 3]           metres
    hair             uint8   [n]                  index into the pack's styles, 10 = bald
    params           str     [n]                  JSON of the sampled parameters
"""

from __future__ import annotations

import argparse
import json
import os
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from engine.cameras import Camera
from engine.training.heads.build import Head, build_head, head_rng
from engine.training.heads.extras import material_of
from engine.training.heads.lighting import random_light
from engine.training.heads.pack import Pack
from engine.training.heads.sampler import BALD
from engine.training.heads.scene import Scene, Studio
from engine.training.heads.studio_light import studio_light
from engine.training.heads.textures import Atlas
from engine.training.heads.views import (
    FRONTAL_TARGETS,
    INPUTS,
    TARGET_EXTENT,
    TARGET_FOV,
    TARGETS,
    distance,
    input_camera,
    target_camera,
)

SHARD = 100
HELD_OUT = 1_000_000
SKIN_UNIT = 2e-5
LIMIT = np.iinfo(np.int16).max


def _packed(points: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(points / SKIN_UNIT), -LIMIT, LIMIT).astype(np.int16)


@dataclass(frozen=True)
class Lit:
    """A seed's head in its light. rng: what its cameras are drawn from, the inputs' first."""

    head: Head
    scene: Scene
    rng: np.random.Generator
    material: int

    def input_camera(self) -> Camera:
        """The next random camera of an input."""
        return input_camera(self.rng, self.material)


def lit_head(pack: Pack, studio: Studio, seed: int, material: int | None = None) -> Lit:
    """material: 1, 2 or None for the seed's own (see `build.person`)."""
    material = material or material_of(seed)
    head = build_head(pack, seed, material)
    rng = head_rng(seed, 1 if material == 1 else 3)
    light = random_light(rng) if material == 1 else studio_light(rng)
    return Lit(head, Scene(studio, head, light), rng, material)


def inputs_of(lit: Lit) -> dict[str, np.ndarray]:
    """The `input_` arrays of a head, by the names in this module's docstring, without the head
    axis."""
    cameras = [lit.input_camera() for _ in range(INPUTS)]
    views = [lit.scene.view(camera, dressed=True) for camera in cameras]
    marks = np.stack([c.project(lit.head.landmarks)[0] for c in cameras])
    return {
        "input_rgba": np.stack([v.rgba for v in views]),
        "input_class": np.stack([v.labels for v in views]),
        "input_landmarks": marks.astype(np.float32),
        "input_camera": np.stack([c.to_eg3d() for c in cameras]),
    }


def hair_index(params: dict, hairs: Sequence[str]) -> int:
    """The index of a head's hair among the head space's hair weights: the pack's styles, then
    those mirrored, then bald."""
    if params["hair"] == BALD:
        return 2 * len(hairs)
    return hairs.index(params["hair"]) + len(hairs) * bool(params["hair_warp"]["mirror"])


def sample(
    pack: Pack, studio: Studio, seed: int, material: int | None = None
) -> dict[str, np.ndarray]:
    """Everything of one head, by the names in this module's docstring, without the head axis.
    material: 1, 2 or None for the seed's own (see `build.person`)."""
    lit = lit_head(pack, studio, seed, material)
    head, scene, rng = lit.head, lit.scene, lit.rng
    hair = head.params["hair"]
    out = {
        "seed": np.int64(seed),
        **inputs_of(lit),
        "skin": _packed(head.skin),
        "neutral": _packed(head.neutral),
        "eyes": _packed(head.eyes),
        "landmarks": head.landmarks,
        "hair": np.uint8(len(pack.hairs) if hair == BALD else pack.hairs.index(hair)),
        "params": np.str_(json.dumps(head.params)),
    }
    cameras = [target_camera(rng, i < FRONTAL_TARGETS) for i in range(TARGETS)]
    views = [scene.view(camera, dressed=False) for camera in cameras]
    depth = np.stack([v.depth for v in views])
    depth = np.where(depth > 0, depth - distance(TARGET_EXTENT, TARGET_FOV), 0)
    out["target_rgb"] = np.stack([v.rgba[..., :3] for v in views])
    out["target_alpha"] = np.stack([v.rgba[..., 3] for v in views])
    out["target_depth"] = depth.astype(np.float16)
    out["target_class"] = np.stack([v.labels for v in views])
    out["target_camera"] = np.stack([c.to_eg3d() for c in cameras])
    return out


def shard_path(folder: Path, first_seed: int) -> Path:
    """The file of the shard that starts at a seed."""
    return folder / f"heads_{first_seed:08d}.npz"


def load_shard(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of a shard as read-only memory maps (params in memory): random access reads only
    what is asked for."""
    out = {}
    with zipfile.ZipFile(path) as archive, open(path, "rb") as raw:
        for info in archive.infolist():
            raw.seek(info.header_offset + 26)  # lengths of the local header's name and extra field
            name, extra = (int.from_bytes(raw.read(2), "little") for _ in range(2))
            raw.seek(info.header_offset + 30 + name + extra)
            np.lib.format.read_magic(raw)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(raw)
            if fortran or info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{path} was not written by this module")
            out[info.filename.removesuffix(".npy")] = np.memmap(path, dtype, "r", raw.tell(), shape)
    return out


def stacked(heads: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of some heads as those of a shard: with the head axis."""
    return {key: np.stack([head[key] for head in heads]) for key in heads[0]}


def write_shard(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a shard, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as file:
        np.savez(file, **arrays)
    os.replace(temporary, path)


class FinishedShards:
    """All finished shards NAME_SEED.npz of a folder that a pattern fits; training seeds or held-out
    ones. items: their arrays, by name."""

    def __init__(self, folder: Path, pattern: str, held_out: bool = False) -> None:
        self.folder, self.pattern, self.held_out = folder, pattern, held_out
        self.items: list[dict[str, np.ndarray]] = []
        self._names: set[str] = set()
        self.refresh()

    def refresh(self) -> int:
        """Takes in shards that have been finished since; returns the number of heads."""
        for path in sorted(self.folder.glob(self.pattern)):
            held = int(path.stem.rpartition("_")[2]) >= HELD_OUT
            if path.name not in self._names and held == self.held_out:
                self.items.append(load_shard(path))
                self._names.add(path.name)
        return len(self)

    def __len__(self) -> int:
        return sum(len(shard["seed"]) for shard in self.items)


_worker: tuple[Pack, Studio] | None = None


def _start_worker(pack_path: str | None) -> None:
    global _worker
    pack = Pack(pack_path)
    _worker = pack, Studio(Atlas(pack))


def make_shard(folder: Path, first: int, count: int, material: int | None = None) -> float:
    """Makes one shard; returns processor seconds."""
    assert _worker is not None
    start = time.process_time()
    heads = [sample(*_worker, seed, material) for seed in range(first, first + count)]
    write_shard(shard_path(folder, first), stacked(heads))
    return time.process_time() - start


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Random synthetic heads as shards of arrays.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs=2, required=True, metavar=("FIRST", "END"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no shard after")
    parser.add_argument("--material", type=int, choices=(1, 2), help="default: by seed")
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    first, end = args.seeds
    todo = [s for s in range(first, end, SHARD) if not shard_path(args.out, s).exists()]
    start, done, cpu = time.monotonic(), 0, 0.0
    context = get_context("spawn")
    with ProcessPoolExecutor(args.workers, context, _start_worker, (args.pack,)) as pool:
        queue = iter(todo)
        running: dict = {}

        def start_next() -> None:
            if time.monotonic() - start > args.minutes * 60:
                return
            if (s := next(queue, None)) is not None:
                n = min(SHARD, end - s)
                running[pool.submit(make_shard, args.out, s, n, args.material)] = n

        for _ in range(args.workers):
            start_next()
        while running:
            future = next(as_completed(running))
            cpu += future.result()
            done += running.pop(future)
            start_next()
            wall = time.monotonic() - start
            print(
                f"{done} heads, {done / wall:.2f} heads/s, {cpu / done:.3f} cpu-s a head",
                flush=True,
            )


if __name__ == "__main__":
    main()

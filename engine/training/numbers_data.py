"""Portraits for the perception network's second trunk (engine/training/train_numbers.py).

    python -m engine.training.numbers_data --out DIR --seeds 800000 808000 --workers 2
    python -m engine.training.numbers_data --out DIR --seeds 820000 822400 --material 1

The numbers need no views from round the head, so a head costs 0.25 processor seconds here instead
of 0.3 and 0.2 MB instead of 1.5: the network can see many more heads than the other trainings do.

Shard numbers_SEED.npz, 20 heads of four pictures, N pictures: three as bad photos, and mirrored by
chance (engine/training/data.py: portraits), one as it is.
    picture uint8 [N, 3, 128, 128]; pose [N, 6], landmarks [N, 84, 2], identity, expression
    [N, ...], hair uint8 [N]: the truth, mirrored where the picture is
    clean bool [N]: as it is
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from engine.checkpoints.default import PATH, load_default
from engine.training.data import Portraits, portraits
from engine.training.heads.build import head_rng
from engine.training.heads.dataset import Lit, hair_index, inputs_of, lit_head, write_shard
from engine.training.heads.pack import Pack
from engine.training.prior_data import kept_mean
from engine.training.train_perception import Losses
from engine.training.truth import Truths

HEADS = 20  # of a shard
BAD = 3  # pictures of a head
STREAM = 77  # of the faults
_state: dict = {}


class OneHead:
    """One head's pictures and truth, as `portraits` takes shards."""

    def __init__(self, lit: Lit, truths: Truths) -> None:
        self.shard = {key: value[None] for key, value in inputs_of(lit).items()}
        identity, expression = truths.coefficients(lit.head.skin, lit.head.neutral)
        hair = hair_index(lit.head.params, truths.pack.hairs)
        self.prep = {
            "identity": identity.numpy()[None],
            "expression": expression.numpy()[None],
            "hair": np.array([hair], np.uint8),
        }

    def pick(self, rng: np.random.Generator) -> tuple[dict, dict, int]:
        return self.at(0)

    def at(self, index: int) -> tuple[dict, dict, int]:
        return self.shard, self.prep, 0


def arrays_of(batch: Portraits, clean: bool) -> dict:
    """Of one head's pictures, by the names at the top."""
    out = {key: value.numpy() for key, value in _state["losses"].truth(batch).items()}
    picture = ((batch.picture + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return out | {
        "hair": out["hair"].astype(np.uint8),
        "picture": picture.numpy(),
        "pose": batch.pose.numpy(),
        "landmarks": batch.landmarks.numpy(),
        "clean": np.full(len(picture), clean),
    }


def pictures_of(seed: int, material: int | None) -> list[dict]:
    """Arrays of one head's bad and clean pictures. material: None for the seed's own."""
    truths: Truths = _state["truths"]
    one = OneHead(lit_head(truths.pack, truths.studio, seed, material), truths)
    rng = head_rng(seed, STREAM)
    bad = portraits(one, BAD, rng, mirror=True)
    clean = portraits(one, 1, rng, augment=False, indices=[0])
    return [arrays_of(bad, False), arrays_of(clean, True)]


def start(weights: Path, pack_path: str | None, mean: np.ndarray) -> None:
    """Of a worker."""
    torch.set_num_threads(1)
    space = load_default(weights).space
    _state.update(losses=Losses(space), truths=Truths(space, Pack(pack_path), mean))


def make(path: Path, seeds: range, material: int | None) -> str:
    """Writes a shard if it is not there; a line about it."""
    if path.exists():
        return f"{path.name} is there"
    begun = time.process_time()
    parts = [part for seed in seeds for part in pictures_of(seed, material)]
    write_shard(path, {key: np.concatenate([p[key] for p in parts]) for key in parts[0]})
    return f"{path.name}: {(time.process_time() - begun) / len(seeds):.2f} cpu-s a head"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs=2, required=True, metavar=("FIRST", "END"))
    parser.add_argument("--material", type=int, choices=(1, 2), help="instead of the seeds' own")
    parser.add_argument("--weights", type=Path, default=PATH, help="whose head space")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    mean = kept_mean(args.out / "mean.npy", args.pack, 2000)
    first, end = args.seeds
    parts = [range(seed, min(seed + HEADS, end)) for seed in range(first, end, HEADS)]
    paths = [args.out / f"numbers_{part[0]:08d}.npz" for part in parts]
    settings = (args.weights, args.pack, mean)
    with ProcessPoolExecutor(args.workers, get_context("spawn"), start, settings) as pool:
        for line in pool.map(make, paths, parts, [args.material] * len(parts)):
            print(line, flush=True)


if __name__ == "__main__":
    main()

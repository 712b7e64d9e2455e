"""Adds to every shard of synthetic heads what training needs in canonical space.

    python -m engine.training.prepare --heads DIR --headspace headspace.safetensors [--workers 2]

Beside heads_X.npz it writes prep_X.npz (uncompressed):
    identity float32 [n, Ki], expression float32 [n, Ke]   coefficients by least squares
    hair     uint8   [n]                                    style, mirrored ones counted apart
    place    int16   [n, 8, 128, 128, 3]   canonical position of every target pixel's surface, in
                                           SKIN_UNIT metres (0 where the target is empty)
    residual float16 [n, 8, 128, 128]      the prior's distance there, metres: what is to be removed
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from engine.cameras import from_eg3d
from engine.headspace import lattice
from engine.headspace.space import HeadSpace, smooth_union
from engine.training.build_headspace import (
    Binding,
    bust_cut,
    coefficients,
    sample_pair,
    vertex_weight,
)
from engine.training.heads.dataset import SKIN_UNIT, hair_index, load_shard, write_shard
from engine.training.heads.pack import Pack
from engine.training.heads.views import TARGET_EXTENT, TARGET_FOV, TARGET_SIZE, distance

_state: dict = {}


def _start(headspace: str, pack_path: str | None, mean_heads: int) -> None:
    torch.set_num_threads(1)
    pack, space = Pack(pack_path), HeadSpace(load_file(headspace))
    cache = Path(headspace).with_suffix(".mean.npy")
    if not cache.exists():
        mean = np.mean([sample_pair(pack, seed)[0] for seed in range(mean_heads)], 0)
        np.save(cache, mean)
    mean = np.load(cache)
    v, f = space.mean.numpy(), space.faces.numpy()
    _state.update(
        pack=pack,
        space=space,
        bind=Binding(pack, mean, v, f),
        weight=vertex_weight(v),
        spread=lattice.Spread(space.mean, space.bounds, 48),
    )


def _fit(basis: torch.Tensor, data: np.ndarray) -> np.ndarray:
    found = coefficients(basis.numpy(), _state["weight"], data)
    return np.ascontiguousarray(found, dtype=np.float32)


def to_canonical(forward: torch.Tensor, points: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    """Points [N, 3] of a head to canonical space."""
    return points + lattice.settle(forward, points, bounds, 6)


def surface_points(shard: dict, i: int, view: int) -> tuple[np.ndarray, np.ndarray]:
    """World positions [M, 3] of the covered pixels of a target view, and their mask."""
    depth = shard["target_depth"][i, view].astype(np.float64)
    mask = (shard["target_alpha"][i, view] > 127) & (depth != 0)
    camera = from_eg3d(shard["target_camera"][i, view], TARGET_SIZE, TARGET_SIZE)
    origin, directions = camera.rays()
    forward = camera.cam2world[:3, 2]
    d = directions[mask]
    t = (depth[mask] + distance(TARGET_EXTENT, TARGET_FOV)) / (d @ forward)
    return origin + d * t[:, None], mask


def prepare(path: Path) -> str:
    """Makes the prep file of one shard."""
    out_path = path.with_name(path.name.replace("heads_", "prep_"))
    if out_path.exists():
        return f"{out_path.name} is there"
    shard, space, bind = load_shard(path), _state["space"], _state["bind"]
    n = len(shard["seed"])
    neutral = np.stack([bind(shard["neutral"][i] * np.float32(SKIN_UNIT)) for i in range(n)])
    moved = np.stack([bind(shard["skin"][i] * np.float32(SKIN_UNIT)) for i in range(n)]) - neutral
    identity = _fit(space.identity, neutral)
    expression = _fit(space.expression, moved)
    hair = np.empty(n, np.uint8)
    place = np.zeros((*shard["target_alpha"].shape, 3), np.int16)
    residual = np.zeros(shard["target_alpha"].shape, np.float16)
    for i in range(n):
        hair[i] = hair_index(json.loads(str(shard["params"][i])), _state["pack"].hairs)
        moving = space.displacement(torch.from_numpy(identity[i]), torch.from_numpy(expression[i]))
        forward = lattice.blur(_state["spread"](moving))
        mass = space.hair(torch.eye(space.styles)[hair[i]])
        for view in range(place.shape[1]):
            points, mask = surface_points(shard, i, view)
            q = to_canonical(forward, torch.from_numpy(points.astype(np.float32)), space.bounds)
            skin = lattice.sample(space.skin_distance[None], q, space.bounds)[:, 0]
            # The shoulders beyond the bust are no part of a head.
            kept = (bust_cut(q.numpy()) < 0.002).ravel()
            mask[mask] = kept
            q, skin = q[kept], skin[kept]
            prior = smooth_union(skin, lattice.sample(mass, q, space.bounds)[:, 0])
            place[i, view][mask] = np.clip(np.rint(q.numpy() / SKIN_UNIT), -32767, 32767)
            residual[i, view][mask] = prior.numpy()
    shapes = {"identity": identity, "expression": expression, "hair": hair}
    write_shard(out_path, shapes | {"place": place, "residual": residual})
    return f"{out_path.name}: prior is off by {np.abs(residual[residual != 0]).mean() * 1e3:.2f} mm"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=Path, required=True)
    parser.add_argument("--headspace", required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--mean-heads", type=int, default=2000, help="as --heads of the head space")
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    start = (args.headspace, args.pack, args.mean_heads)
    with ProcessPoolExecutor(args.workers, get_context("spawn"), _start, start) as pool:
        for line in pool.map(prepare, sorted(args.heads.glob("heads_*.npz"))):
            print(line, flush=True)


if __name__ == "__main__":
    main()

"""What the small LRM for heads is trained with: pictures of synthetic heads, read once.

    python -m engine.training.lrm_data --heads DIR --out DIR --pictures 2000 [--seed 0]

A head's picture goes through the same perception as a photo, faults and all, and is laid onto the
five views of the shape perceived (engine/systems/lrm/lift.py). The true head is brought to that
shape by the similarity of the landmarks and by its warp, so the network learns what to paint and
to move on the shape that it will be given. That costs more than a training step, so it is kept.
LRM's cameras (Hong et al. 2023) are the target views; LP3D's augmentation of the camera (Trevithick
et al. 2023, section 4.2: angle of view, roll, distance, off-centre crops) is in the inputs.

Shard lift_X.npz (uncompressed, 1.7 MB a picture, 50 pictures):
    views    uint8   [n, 5, 9, 128, 128]   Views.stack(), times 255
    place    float16 [n, 5, 128, 128, 3]   canonical metres of the views' texels
    picture  uint8   [n, 6, 128, 128]      colour, matte, skin, hair
    point    int16   [n, 4, 128, 128, 3]   place of every pixel's surface in four target views (two
                                           frontal ones first), SKIN_UNIT metres; 0 where none is
    colour   uint8   [n, 4, 128, 128, 3]   their colours, in the picture's tone
    space    int16   [n, 4096, 3]          points about the surface, SKIN_UNIT metres
    distance float16 [n, 4096, 4]          there: metres to the perceived skin and hair, how far
                                           hair may be moved, and to the true head (at most 2 cm)
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from engine.cameras import from_eg3d
from engine.checkpoints.default import PATH, DefaultModel, load_default
from engine.headspace import lattice
from engine.inversion.perceive import look, refined
from engine.inversion.reconstruct import first_guess
from engine.inversion.shape import Canonical, Shape
from engine.portrait.perception import Perception
from engine.systems.lrm.lift import Views, lift, mirrored, surface
from engine.training.build_headspace import bust_cut
from engine.training.data import Portraits, Shards, portraits
from engine.training.degrade import apply_tone
from engine.training.heads.dataset import HELD_OUT, SKIN_UNIT, load_shard, write_shard
from engine.training.heads.views import (
    FRONTAL_TARGETS,
    TARGET_EXTENT,
    TARGET_FOV,
    TARGET_SIZE,
    TARGETS,
    distance,
)
from engine.training.metrics import moved, similarity
from engine.training.prepare import surface_points
from engine.training.train_appearance import HEAD_CLASSES

SHARD, KEPT, POINTS = 50, 4, 4096
CLEAN = 0.4  # share of the shards whose pictures are not degraded
REACH = 0.02  # metres: distances are cut off there
BEHIND = 0.003  # metres: a point this far behind what a view shows is not seen to be free


class Reader:
    """Turns pictures with their truth into what is kept."""

    def __init__(self, model: DefaultModel) -> None:
        self.model, self.canonical = model, Canonical(model.space)

    @torch.no_grad()
    def perceive(self, batch: Portraits) -> tuple[Perception, list[Shape]]:
        """What perception says of each picture of a batch, and its shapes."""
        space, net = self.model.space, self.model.perception
        seen = refined(space, net, look(space, net, batch.picture))
        singly = [
            Perception(*(value[i : i + 1] for value in vars(seen).values()))
            for i in range(len(batch.picture))
        ]
        return seen, [first_guess(self.model, one) for one in singly]

    @torch.no_grad()
    def __call__(self, batch: Portraits, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """All arrays of a batch's pictures."""
        space = self.model.space
        seen, shapes = self.perceive(batch)
        matte = torch.isin(batch.classes, torch.tensor(HEAD_CLASSES)).float()[:, None]
        matte = F.avg_pool2d(matte, 3, 1, 1)
        classes = torch.cat([matte, seen.classes.softmax(1)[:, 1:3]], 1)
        colour = (batch.picture + 1) / 2
        surfaces = [surface(space, space.hair(s.hair, s.offset)) for s in shapes]
        forward = [self.canonical.forward_lattice(s.identity, s.expression) for s in shapes]
        pose = torch.stack([s.pose for s in shapes])
        views = lift(surfaces, forward, pose, colour, classes, space.bounds)
        out = {
            "views": _bytes(views.stack()),
            "place": views.place.half().numpy(),
            "picture": _bytes(torch.cat([colour, classes], 1)),
        }
        truth = [
            self._truth(batch, k, shapes[k], forward[k], views, rng) for k in range(len(shapes))
        ]
        return out | {name: np.stack([t[name] for t in truth]) for name in truth[0]}

    def _truth(
        self, batch: Portraits, k: int, shape: Shape, forward: Tensor, views: Views,
        rng: np.random.Generator,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        shard, prep, i = batch.heads[k]
        space, bounds = self.model.space, self.model.space.bounds
        marks = shape.landmarks(space).numpy()
        to_perceived = similarity(shard["landmarks"][i].astype(float), marks.astype(float))
        picked = [*range(FRONTAL_TARGETS)]
        picked += sorted(rng.permutation(np.arange(FRONTAL_TARGETS, TARGETS))[: KEPT - len(picked)])
        kept = np.zeros((KEPT, TARGET_SIZE, TARGET_SIZE, 3), np.int16)
        everywhere = []
        for view in range(TARGETS):
            points, mask = surface_points(shard, i, view)
            known = (prep["place"][i, view][mask] != 0).any(-1)
            mask[mask] = known
            p = _moved(to_perceived, points[known])
            q = p + lattice.settle(forward, p, bounds, 4)
            everywhere.append(q)
            if view in picked:
                kept[picked.index(view)][mask] = _packed(q)
        rgb = torch.from_numpy(shard["target_rgb"][i][picked]).float() / 255
        toned = apply_tone(rgb.reshape(1, -1, 3).transpose(1, 2), batch.tone[k : k + 1])
        colour = _bytes(toned.transpose(1, 2).reshape(rgb.shape))
        surface_of = torch.cat(everywhere)
        # Half of the points about the true surface, half about the perceived one.
        texels = views.place[k][views.solid[k] > 0]
        some = [x[torch.randint(len(x), (POINTS // 2,))] for x in (surface_of, texels)]
        near = torch.cat(some) + 0.007 * torch.randn(POINTS, 3)
        world = (near + lattice.sample(forward, near, bounds)).numpy()
        free = _free(shard, i, _moved(np.linalg.inv(to_perceived), world).numpy())
        away = cKDTree(surface_of.numpy()).query(near.numpy(), distance_upper_bound=REACH)[0]
        true = np.minimum(away, REACH) * np.where(free, 1, -1)
        # Beyond the bust's cut nothing is known.
        true[bust_cut(near.numpy()).ravel() > -0.002] = np.nan
        mass = space.hair(shape.hair, shape.offset)
        grids = (space.skin_distance[None], mass, space.residual_bound[None])
        values = [lattice.sample(grid, near, bounds)[:, 0].numpy() for grid in grids]
        return {
            "point": kept,
            "colour": colour,
            "space": _packed(near),
            "distance": np.stack([*values, true], 1).astype(np.float16),
        }


def _bytes(x: Tensor) -> np.ndarray:
    return (x.clamp(0, 1) * 255 + 0.5).byte().numpy()


def _packed(points: Tensor) -> np.ndarray:
    return np.clip(np.rint(points.numpy() / SKIN_UNIT), -32767, 32767).astype(np.int16)


def _moved(matrix: np.ndarray, points: np.ndarray) -> Tensor:
    return torch.from_numpy(moved(matrix, points).astype(np.float32))


def _free(shard: dict, i: int, points: np.ndarray) -> np.ndarray:
    """bool [N]: whether some target view of a head sees through points [N, 3] of its world."""
    free = np.zeros(len(points), bool)
    start = distance(TARGET_EXTENT, TARGET_FOV)
    for view in range(TARGETS):
        camera = from_eg3d(shard["target_camera"][i, view], TARGET_SIZE, TARGET_SIZE)
        uv, depth = camera.project(points)
        x, y = np.clip(uv.astype(int), 0, TARGET_SIZE - 1).T
        solid = shard["target_alpha"][i, view, y, x] > 127
        front = shard["target_depth"][i, view, y, x].astype(np.float32) + start
        free |= ~solid | (depth < front - BEHIND)
    return free


@dataclass(frozen=True)
class Batch:
    """Of B pictures: views [B, 5, 9, 128, 128], place [B, 5, 128, 128, 3], picture
    [B, 6, 128, 128]; point [B, 4, 128, 128, 3], colour [B, 4, 128, 128, 3] in 0..1; space
    [B, N, 3], distance [B, N, 4]: as in the shards, in metres and 0..1."""

    views: Tensor
    place: Tensor
    picture: Tensor
    point: Tensor
    colour: Tensor
    space: Tensor
    distance: Tensor


class LiftShards:
    """All finished shards of a folder; training pictures or held-out ones."""

    def __init__(self, folder: Path, held_out: bool = False) -> None:
        self.folder, self.prefix = folder, "held" if held_out else "lift"
        self.items: dict[str, dict[str, np.ndarray]] = {}
        self.refresh()

    def refresh(self) -> int:
        """Takes in shards that have been finished since; returns the number of pictures."""
        for path in sorted(self.folder.glob(f"{self.prefix}_*.npz")):
            if path.name not in self.items:
                self.items[path.name] = load_shard(path)
        return sum(len(shard["views"]) for shard in self.items.values())

    def random(self, count: int, rng: np.random.Generator) -> Batch:
        """Random pictures, every other one mirrored, their tone varied."""
        shards = list(self.items.values())
        rows = []
        for _ in range(count):
            shard = shards[rng.integers(len(shards))]
            row = _row(shard, int(rng.integers(len(shard["views"]))))
            row = _toned(row, rng)
            rows.append(mirror_image(row) if rng.random() < 0.5 else row)
        return Batch(**{key: torch.stack([r[key] for r in rows]) for key in rows[0]})

    def at(self, k: int) -> Batch:
        """The k-th picture."""
        for shard in self.items.values():
            if k < len(shard["views"]):
                return Batch(**{key: v[None] for key, v in _row(shard, k).items()})
            k -= len(shard["views"])
        raise IndexError(k)


def _row(shard: dict[str, np.ndarray], i: int) -> dict[str, Tensor]:
    row = {key: torch.from_numpy(np.array(value[i])).float() for key, value in shard.items()}
    for key in ("views", "picture", "colour"):
        row[key] /= 255
    for key in ("point", "space"):
        row[key] *= SKIN_UNIT
    return row


def mirror_image(row: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same of the head's mirror image."""
    across = torch.tensor([-1.0, 1.0, 1.0])
    out = dict(row)
    out["views"] = mirrored(row["views"])
    out["place"] = mirrored(row["place"].permute(0, 3, 1, 2)).permute(0, 2, 3, 1) * across
    out["picture"] = row["picture"].flip(-1)
    out["point"], out["space"] = row["point"] * across, row["space"] * across
    return out


def _toned(row: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
    """Picture and targets alike through another exposure and white balance."""
    gain = np.exp(rng.normal() * 0.15 + rng.normal(size=3) * 0.06)
    gamma = np.exp(rng.normal() * 0.12) * np.ones(3)
    tone = torch.from_numpy(np.stack([gain, gamma], -1).astype(np.float32))[None]
    out = dict(row)
    views = row["views"].clone()
    views[:, :3] = apply_tone(views[:, :3].transpose(0, 1)[None], tone)[0].transpose(0, 1)
    picture = row["picture"].clone()
    picture[:3] = apply_tone(picture[None, :3], tone)[0]
    flat = row["colour"].reshape(1, -1, 3).transpose(1, 2)
    colour = apply_tone(flat, tone).transpose(1, 2).reshape(row["colour"].shape)
    return out | {"views": views, "picture": picture, "colour": colour}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--held-out", type=int, default=50, help="pictures of held-out heads")
    parser.add_argument("--weights", type=Path, default=PATH, help="whose perception counts")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    reader = Reader(load_default(args.weights))
    for held, pictures in ((True, args.held_out), (False, args.pictures)):
        heads = Shards(args.heads, held_out=held)
        for first in range(0, pictures, SHARD):
            path = args.out / f"{'held' if held else 'lift'}_{args.seed:03d}{first:06d}.npz"
            count = min(SHARD, pictures - first)
            if not path.exists():
                _write(path, reader, heads, held, first, count, args.seed)


def _write(
    path: Path, reader: Reader, heads: Shards, held: bool, first: int, count: int, seed: int
) -> None:
    start = time.process_time()
    rng = np.random.default_rng([seed, HELD_OUT if held else 0, first])
    torch.manual_seed(int(rng.integers(1 << 30)))
    rows = []
    for k in range(count):
        if held:
            batch = portraits(heads, 0, rng, augment=False, indices=[first + k])
        else:
            batch = portraits(heads, 1, rng, augment=rng.random() > CLEAN)
        rows.append(reader(batch, rng))
    write_shard(path, {key: np.concatenate([r[key] for r in rows]) for key in rows[0]})
    print(f"{path.name}: {(time.process_time() - start) / count:.2f} cpu-s a picture", flush=True)


if __name__ == "__main__":
    main()

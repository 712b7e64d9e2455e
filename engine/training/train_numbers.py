"""Trains the perception network's second trunk, whose numbers count instead of the first's.

    python -m engine.training.train_numbers --data DIR --out DIR --minutes 60

Pictures from engine/training/numbers_data.py; every tenth shard (--kept) is kept back: the trunk
does not learn from it, the linear correction of its numbers does (engine/training/calibrate.py), as
it must correct what the trunk says of heads it has not seen. Starts from the perception network's
own trunk or --start. Resumable (state.pt), time-boxed, seeded. Writes numbers.safetensors (or
--to), which engine/checkpoints/default.py looks for beside the model's file, and log.txt.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.checkpoints.default import PATH, load_default, space_digest
from engine.headspace.mirror import mirror_landmarks, mirror_of, mirror_pose
from engine.headspace.space import HeadSpace
from engine.portrait.perception import PerceptionNet, Trunk
from engine.training.calibrate import calibrate
from engine.training.loop import Run
from engine.training.train_perception import Losses

WEIGHTS = {"identity": 0.3, "expression": 0.3, "hair": 0.3, "pose": 1.0, "together": 20.0}
PENALTY = 3000.0  # of the correction: what 200, 800 and 3000 leave on other heads falls
NUMBERS = ("identity", "expression", "hair", "pose")
INSIDE = 0.02  # landmarks nearer to the picture's edge, or beyond it, do not count


class Pictures:
    """All pictures of some shards in memory, with their truth; see numbers_data.py."""

    def __init__(self, paths: list[Path], space: HeadSpace) -> None:
        self.mirror = mirror_of(space)
        shards = [np.load(path) for path in paths]
        names = ("picture", "landmarks", "clean", *NUMBERS)
        self.arrays = {
            name: torch.from_numpy(np.concatenate([s[name] for s in shards])) for name in names
        }
        self.arrays["hair"] = self.arrays["hair"].long()

    def __len__(self) -> int:
        return len(self.arrays["picture"])

    def batch(self, index: Tensor, mirrored: bool = False) -> dict[str, Tensor]:
        """Pictures [B, 3, 128, 128] in -1..1, and their truth."""
        out = {name: values[index] for name, values in self.arrays.items()}
        out["picture"] = out["picture"].float() / 127.5 - 1
        if mirrored:
            out["picture"] = out["picture"].flip(-1)
            out["identity"] = out["identity"] @ self.mirror.identity
            out["expression"] = out["expression"] @ self.mirror.expression
            out["hair"] = self.mirror.hair[out["hair"]]
            out["pose"] = mirror_pose(out["pose"])
            out["landmarks"] = mirror_landmarks(out["landmarks"])
        return out


def losses_of(trunk: Trunk, losses: Losses, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of what a trunk says of a batch."""
    picture = batch["picture"].contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, numbers = trunk.encode(picture)
    marks = batch["landmarks"]
    inside = ((marks > INSIDE) & (marks < 1 - INSIDE)).all(-1)
    said = numbers.split(trunk.sizes, 1)
    return losses.of_numbers(said, batch, batch["pose"], marks, inside)


@torch.no_grad()
def evaluate(trunk: Trunk, losses: Losses, kept: Pictures, clean: bool) -> dict[str, float]:
    """Mean losses over the kept back pictures, as they are or as bad photos, and how often the
    hair's style is right and how far yaw and pitch are off (degrees, mean)."""
    total: dict[str, float] = {}
    chosen = (kept.arrays["clean"] == clean).nonzero()[:, 0]
    for index in chosen.split(40):
        batch = kept.batch(index)
        values = {k: float(v) for k, v in losses_of(trunk, losses, batch).items()}
        _, numbers = trunk.encode(batch["picture"])
        _, _, hair, pose = numbers.split(trunk.sizes, 1)
        values["style right"] = float((hair.argmax(1) == batch["hair"]).float().mean())
        off = (pose - batch["pose"])[:, :2].abs().mean(0).rad2deg()
        values |= {"yaw": float(off[0]), "pitch": float(off[1])}
        for name, value in values.items():
            total[name] = total.get(name, 0.0) + value * len(index) / len(chosen)
    return total


def write(path: Path, net: PerceptionNet, digest: str) -> None:
    """The second trunk and the correction of its numbers, whole or not at all."""
    tensors = {f"trunk.{k}": v.half() for k, v in net.second.state_dict().items()}
    tensors |= {f"refine.{k}": v.half() for k, v in net.refine.state_dict().items()}
    told = {"space": digest, "license": "CC0-1.0"}
    temporary = path.with_suffix(".tmp")
    save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, told)
    temporary.replace(path)


def trunk_of(net: PerceptionNet) -> Trunk:
    """A copy of a network's own trunk, to be trained."""
    trunk = Trunk(*net.sizes[:3])
    names = trunk.state_dict().keys()
    trunk.load_state_dict({k: v for k, v in net.state_dict().items() if k in names})
    return trunk


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--weights", type=Path, default=PATH, help="the model it belongs to")
    parser.add_argument("--start", help="trunk.safetensors to go on from")
    parser.add_argument("--to", type=Path, help="instead of numbers.safetensors in --out")
    parser.add_argument("--kept", type=int, default=10, help="one shard in so many is kept back")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=4e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    model = load_default(args.weights)
    space, losses = model.space, Losses(model.space)
    trunk = trunk_of(model.perception)
    if args.start:
        trunk.load_state_dict(load_file(args.start))
    trunk = trunk.to(memory_format=torch.channels_last).requires_grad_(True)
    paths = sorted(p for folder in args.data for p in folder.glob("numbers_*.npz"))
    kept = Pictures(paths[:: args.kept], space) if paths else ()
    if len(kept) <= len(model.perception.refine.bias):
        parser.error(f"{len(kept)} pictures kept back are too few")
    train = Pictures([p for i, p in enumerate(paths) if i % args.kept], space)
    optimiser = torch.optim.AdamW(trunk.parameters(), args.rate, (0.9, 0.98), weight_decay=0.01)
    run = Run(args.out, "trunk", trunk, copy.deepcopy(trunk).requires_grad_(False), optimiser)
    rng = np.random.default_rng([args.seed, run.step])

    with open(args.out / "log.txt", "a", buffering=1) as log:

        def report(name: str) -> None:
            for clean in (True, False):
                found = evaluate(run.average, losses, kept, clean)
                figures = " ".join(f"{k} {v:.4f}" for k, v in found.items())
                print(f"{name}, {'clean' if clean else 'bad'}: {figures}", file=log)

        report("start")
        start, saved = time.monotonic() - run.spent, time.monotonic()
        while (progress := (time.monotonic() - start) / 60 / args.minutes) < 1:
            for group in optimiser.param_groups:
                falling = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
                group["lr"] = args.rate * min(1.0, (run.step + 1) / 50) * falling
            index = torch.from_numpy(rng.choice(len(train), args.batch, replace=False))
            values = losses_of(trunk, losses, train.batch(index, rng.random() < 0.5))
            loss = sum(WEIGHTS[k] * v for k, v in values.items())
            run.update(loss, values, clip=5.0, keep=0.998)
            run.spent = time.monotonic() - start
            if run.step % 50 == 0:
                print(run.line(len(train) // 4), file=log)
            if time.monotonic() - saved > 240:
                saved = time.monotonic()
                run.save()
                report("kept back")
        run.save()
        report("final")
    net = copy.deepcopy(model.perception)
    net.second = run.average.eval()
    whole = (kept.batch(index) for index in torch.arange(len(kept)).split(40))
    calibrate(net, space, whole, PENALTY)
    with safe_open(str(args.weights), "pt") as file:
        digest = space_digest({k: file.get_tensor(k) for k in file.keys() if "space." in k})
    write(args.to or args.out / "numbers.safetensors", net, digest)


if __name__ == "__main__":
    main()

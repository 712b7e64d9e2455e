"""Trains engine.portrait.perception.PerceptionNet on synthetic portraits.

    python -m engine.training.train_perception --heads DIR --headspace headspace.safetensors \
        --out DIR --minutes 40

Resumable (state.pt in --out, tensors only), time-boxed, seeded. Writes perception.safetensors (the
averaged weights), log.txt and sheet.png (held-out heads).
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from engine.headspace.mirror import mirror_of
from engine.headspace.space import HeadSpace
from engine.inversion.perceive import project
from engine.portrait.perception import Perception, PerceptionNet
from engine.training.data import SIZE, Portraits, Shards, portraits
from engine.training.loop import Run

POSE_SCALE = torch.tensor([0.2, 0.12, 0.08, 0.03, 0.03, 0.06])


class Losses:
    """The training losses; coefficients are compared as vertices, in millimetres."""

    def __init__(self, space: HeadSpace) -> None:
        self.space, self.mirror = space, mirror_of(space)
        weight = torch.where(space.mean[:, 1] > -0.1, 1.0, 0.3)[None, :, None]
        self.gram = {}
        for name in ("identity", "expression"):
            basis = (getattr(space, name) * weight * 1e3).flatten(1)
            self.gram[name] = basis @ basis.T / space.mean.shape[0]

    def truth(self, batch: Portraits) -> dict[str, Tensor]:
        """identity, expression and hair [B, ...] of a batch, mirrored where its pictures are."""
        out = {
            k: torch.from_numpy(np.stack([p[k][i] for _, p, i in batch.heads]))
            for k in ("identity", "expression", "hair")
        }
        turned = batch.mirrored
        for k in ("identity", "expression"):
            out[k][turned] = out[k][turned] @ getattr(self.mirror, k)
        out["hair"] = out["hair"].long()
        out["hair"][turned] = self.mirror.hair[out["hair"][turned]]
        return out

    def __call__(self, got: Perception, batch: Portraits) -> dict[str, Tensor]:
        truth, n = self.truth(batch), len(got.classes)
        inside = ((batch.landmarks > 0.02) & (batch.landmarks < 0.98)).all(-1)
        out = {"classes": F.cross_entropy(got.classes, batch.classes[:n])}
        error = (got.landmarks - batch.landmarks[:n]).abs().sum(-1)
        out["landmarks"] = (error * inside[:n]).sum() / inside[:n].sum().clamp_min(1)
        # Laplace likelihood trains the spread alone: it tells the fit which points to trust.
        s = got.spread
        out["spread"] = ((error.detach() / s + 2 * s.log()) * inside[:n]).mean()
        numbers = got.identity, got.expression, got.hair, got.pose
        return out | self.of_numbers(numbers, truth, batch.pose, batch.landmarks, inside)

    def of_numbers(
        self,
        got: tuple[Tensor, ...],
        truth: dict[str, Tensor],
        pose: Tensor,
        landmarks: Tensor,
        inside: Tensor,
    ) -> dict[str, Tensor]:
        """Of identity, expression, hair and pose [B, ...] alone; truth: as from truth(); pose
        [B, 6], landmarks [B, 84, 2] and which of those count [B, 84]: the pictures' own."""
        identity, expression, hair, seen = got
        out = {}
        for name, value in (("identity", identity), ("expression", expression)):
            d = value - truth[name]
            out[name] = ((d @ self.gram[name]) * d).sum(-1).clamp_min(1e-6).sqrt().mean()
        out["hair"] = F.cross_entropy(hair, truth["hair"])
        out["pose"] = ((seen - pose).abs() / POSE_SCALE).mean()
        # Head and camera must fit together: an error of one can be undone by the other.
        apart = (project(self.space, identity, expression, seen) - landmarks).abs().sum(-1)
        out["together"] = (apart * inside).sum() / inside.sum().clamp_min(1)
        return out


def see(net: PerceptionNet, picture: Tensor) -> Perception:
    """Maps for the first half of the pictures, numbers for all: maps cost twice as much."""
    half = len(picture) // 2
    got, (_, numbers) = net(picture[:half]), net.encode(picture[half:])
    names = ("identity", "expression", "hair", "pose")
    both = {
        name: torch.cat([getattr(got, name), more])
        for name, more in zip(names, numbers.split(net.sizes, 1), strict=True)
    }
    return replace(got, **both)


WEIGHTS = {
    "classes": 1.0,
    "landmarks": 40.0,
    "spread": 0.02,
    "identity": 0.15,
    "expression": 0.15,
    "hair": 0.1,
    "pose": 0.6,
    "together": 20.0,
}


@torch.no_grad()
def evaluate(net: PerceptionNet, losses: Losses, held: Shards, count: int) -> dict[str, float]:
    """Metrics on held-out heads: landmark error in per cent of the picture's side, vertex errors
    in mm, mean IoU of skin and hair."""
    net.eval()
    rng = np.random.default_rng(7)
    total: dict[str, float] = {}
    for k in range(0, count, 20):
        batch = portraits(held, 0, rng, indices=list(range(k, min(k + 20, count))))
        got = net(batch.picture)
        values = {k: float(v) for k, v in losses(got, batch).items()}
        label = got.classes.argmax(1)
        for c, name in ((1, "IoU skin"), (2, "IoU hair")):
            a, b = label == c, batch.classes == c
            values[name] = float((a & b).sum() / (a | b).sum().clamp_min(1))
        values["style right"] = float(
            (got.hair.argmax(1) == losses.truth(batch)["hair"]).float().mean()
        )
        for name, v in values.items():
            total[name] = total.get(name, 0.0) + v * len(batch.heads) / count
    net.train()
    return total


COLOURS = np.array([[40, 40, 40], [230, 170, 140], [120, 70, 30], [60, 90, 180], [240, 240, 60]])


@torch.no_grad()
def sheet(net: PerceptionNet, held: Shards, path: Path, count: int = 12) -> None:
    """Held-out pictures, predicted classes, landmarks (green true, red predicted)."""
    net.eval()
    batch = portraits(held, 0, np.random.default_rng(3), indices=list(range(count)))
    got = net(batch.picture)
    net.train()
    rows = []
    for k in range(count):
        picture = ((batch.picture[k].permute(1, 2, 0).numpy() + 1) * 127.5).astype(np.uint8)
        marked = picture.copy()
        for points, colour in ((batch.landmarks[k], (0, 220, 0)), (got.landmarks[k], (255, 0, 0))):
            x, y = (points.numpy() * SIZE).astype(int).clip(0, SIZE - 1).T
            marked[y, x] = colour
        label = COLOURS[got.classes[k].argmax(0).numpy()].astype(np.uint8)
        rows.append(np.concatenate([picture, label, marked], 1))
    half = len(rows) // 3
    columns = [np.concatenate(rows[i * half : (i + 1) * half]) for i in range(3)]
    Image.fromarray(np.concatenate(columns, 1)).resize((SIZE * 18, SIZE * half * 2)).save(path)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=Path, required=True)
    parser.add_argument("--headspace", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--start", help="perception.safetensors to go on from")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    space = HeadSpace(load_file(args.headspace))
    losses = Losses(space)
    net = PerceptionNet(space.identity.shape[0], space.expression.shape[0], space.styles)
    if args.start:
        net.load_state_dict(load_file(args.start))
    net = net.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), args.rate, betas=(0.9, 0.99), weight_decay=1e-3)
    run = Run(args.out, "perception", net, copy.deepcopy(net), optimiser)
    train, held = Shards(args.heads), Shards(args.heads, held_out=True)
    rng = np.random.default_rng([args.seed, run.step])
    log = open(args.out / "log.txt", "a", buffering=1)
    start, saved = time.monotonic() - run.spent, time.monotonic()
    while (progress := (time.monotonic() - start) / 60 / args.minutes) < 1:
        for group in optimiser.param_groups:
            decay = 0.5 * (1 + math.cos(math.pi * max(0.0, (progress - 0.3) / 0.7)))
            group["lr"] = args.rate * min(1.0, (run.step + 1) / 100) * (0.01 + 0.99 * decay)
        batch = portraits(train, args.batch, rng, mirror=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = see(net, batch.picture.contiguous(memory_format=torch.channels_last))
        values = losses(got, batch)
        loss = sum(WEIGHTS[k] * v for k, v in values.items())
        run.update(loss, values, clip=5.0, keep=0.998)
        run.spent = time.monotonic() - start
        if run.step % 50 == 0:
            print(run.line(train.refresh()), file=log)
        if time.monotonic() - saved > 240:
            saved = time.monotonic()
            run.save()
            _report(run.average, losses, held, args.out, log, "held-out", 60)
    run.save()
    _report(run.average, losses, held, args.out, log, "final", 100)


def _report(
    net: PerceptionNet,
    losses: Losses,
    held: Shards,
    folder: Path,
    log: TextIO,
    name: str,
    count: int,
) -> None:
    held.refresh()
    if held.items:
        report = evaluate(net, losses, held, count)
        print(f"{name}: " + " ".join(f"{k} {v:.4f}" for k, v in report.items()), file=log)
        sheet(net, held, folder / "sheet.png")


if __name__ == "__main__":
    main()

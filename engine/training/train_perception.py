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
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.headspace.space import HeadSpace
from engine.portrait.perception import Perception, PerceptionNet
from engine.training.data import SIZE, Portraits, Shards, portraits

POSE_SCALE = torch.tensor([0.2, 0.12, 0.08, 0.03, 0.03, 0.06])


class Losses:
    """The training losses; coefficients are compared as vertices, in millimetres."""

    def __init__(self, space: HeadSpace) -> None:
        weight = torch.where(space.mean[:, 1] > -0.1, 1.0, 0.3)[None, :, None]
        self.gram = {}
        for name in ("identity", "expression"):
            basis = (getattr(space, name) * weight * 1e3).flatten(1)
            self.gram[name] = basis @ basis.T / space.mean.shape[0]

    def __call__(self, got: Perception, batch: Portraits) -> dict[str, Tensor]:
        truth = {
            k: torch.from_numpy(np.stack([p[k][i] for _, p, i in batch.heads]))
            for k in ("identity", "expression", "hair")
        }
        inside = ((batch.landmarks > 0.02) & (batch.landmarks < 0.98)).all(-1)
        out = {"classes": F.cross_entropy(got.classes, batch.classes)}
        error = (got.landmarks - batch.landmarks).abs().sum(-1)
        out["landmarks"] = (error * inside).sum() / inside.sum().clamp_min(1)
        # Laplace likelihood trains the spread alone: it tells the fit which points to trust.
        s = got.spread
        out["spread"] = ((error.detach() / s + 2 * s.log()) * inside).mean()
        for name in ("identity", "expression"):
            d = getattr(got, name) - truth[name]
            out[name] = ((d @ self.gram[name]) * d).sum(-1).clamp_min(1e-6).sqrt().mean()
        out["hair"] = F.cross_entropy(got.hair, truth["hair"].long())
        out["pose"] = ((got.pose - batch.pose).abs() / POSE_SCALE).mean()
        return out


WEIGHTS = {
    "classes": 1.0,
    "landmarks": 20.0,
    "spread": 0.02,
    "identity": 0.15,
    "expression": 0.15,
    "hair": 0.15,
    "pose": 0.5,
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
            (got.hair.argmax(1) == torch.tensor([int(p["hair"][i]) for _, p, i in batch.heads]))
            .float()
            .mean()
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
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    space = HeadSpace(load_file(args.headspace))
    losses = Losses(space)
    net = PerceptionNet(space.identity.shape[0], space.expression.shape[0], space.styles)
    net = net.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), args.rate, betas=(0.9, 0.99), weight_decay=1e-3)
    average = copy.deepcopy(net)
    step, spent, state_path = 0, 0.0, args.out / "state.pt"
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    train, held = Shards(args.heads), Shards(args.heads, held_out=True)
    rng = np.random.default_rng([args.seed, step])
    log = open(args.out / "log.txt", "a", buffering=1)
    start, saved, running = time.monotonic() - spent, time.monotonic(), {}
    while (progress := (time.monotonic() - start) / 60 / args.minutes) < 1:
        for group in optimiser.param_groups:
            decay = 0.5 * (1 + math.cos(math.pi * max(0.0, (progress - 0.4) / 0.6)))
            group["lr"] = args.rate * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * decay)
        batch = portraits(train, args.batch, rng)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = net(batch.picture.contiguous(memory_format=torch.channels_last))
        values = losses(got, batch)
        loss = sum(WEIGHTS[k] * v for k, v in values.items())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        if torch.isfinite(loss):
            optimiser.step()
        with torch.no_grad():
            keep = min(0.998, 1 - 1 / (step + 2))
            for a, b in zip(average.parameters(), net.parameters()):
                a.lerp_(b, 1 - keep)
        for k, v in values.items():
            running[k] = running.get(k, 0.0) * 0.95 + v.item() * 0.05
        step += 1
        if step % 50 == 0:
            heads = train.refresh()
            spent = time.monotonic() - start
            line = " ".join(
                f"{k} {v / (1 - 0.95 ** min(step, 999)):.4f}" for k, v in running.items()
            )
            print(f"{step} {spent / 60:.1f} min {heads} heads: {line}", file=log)
        if time.monotonic() - saved > 240:
            saved = time.monotonic()
            _save(args.out, net, average, optimiser, step, saved - start)
            held.refresh()
            if held.items:
                report = evaluate(average, losses, held, 60)
                print("held-out: " + " ".join(f"{k} {v:.4f}" for k, v in report.items()), file=log)
                sheet(average, held, args.out / "sheet.png")
    _save(args.out, net, average, optimiser, step, time.monotonic() - start)
    held.refresh()
    report = evaluate(average, losses, held, 100)
    print("final: " + " ".join(f"{k} {v:.4f}" for k, v in report.items()), file=log)
    sheet(average, held, args.out / "sheet.png")


def _save(folder: Path, net, average, optimiser, step: int, spent: float) -> None:
    state = {
        "net": net.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "spent": spent,
    }
    torch.save(state, folder / "state.tmp")
    (folder / "state.tmp").replace(folder / "state.pt")
    weights = {k: v.half().contiguous() for k, v in average.state_dict().items()}
    save_file(weights, folder / "perception.tmp")
    (folder / "perception.tmp").replace(folder / "perception.safetensors")


if __name__ == "__main__":
    main()

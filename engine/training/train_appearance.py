"""Trains the head generator and its encoder on synthetic heads.

    python -m engine.training.train_appearance --heads DIR --headspace headspace.safetensors \
        --out DIR --minutes 45

Supervision is on surfaces, not on rays: the heads' geometry is known, so every pixel of a target
view is a point in canonical space with a colour, and with the distance that the prior (head space
and hair style) still lacks there. Patches of pixels keep the picture's structure for gradient
losses. Resumable (state.pt, tensors only), time-boxed, seeded. Writes appearance.safetensors,
log.txt and sheet.png (held-out heads, input beside target and prediction).
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.headspace import lattice
from engine.headspace.space import HeadSpace
from engine.systems.head.model import AppearanceEncoder, HeadConfig, HeadGenerator
from engine.training.data import Portraits, Shards, apply_tone, portraits
from engine.training.heads.dataset import SKIN_UNIT
from engine.training.loop import Run

PATCH, PATCHES = 24, 8
HEAD_CLASSES = (1, 2)  # skin, hair


class Model(nn.Module):
    """Encoder and generator together."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.generator = HeadGenerator(config)
        n = self.generator.num_ws
        self.encoder = AppearanceEncoder(n, config.w_dim, config.colour_grid)

    def forward(self, picture: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Masked picture [B, 4, 128, 128], canonical points [B, N, 3] -> colour, residual, w+."""
        with torch.autocast(picture.device.type, dtype=torch.bfloat16):
            ws = self.encoder(picture.contiguous(memory_format=torch.channels_last)).float()
            planes = self.generator.planes(ws)
        colour, residual = self.generator(planes, points)
        return colour, residual, ws


def masked(batch: Portraits) -> Tensor:
    """The encoder's input: everything but the head blacked out, and the mask."""
    mask = torch.isin(batch.classes, torch.tensor(HEAD_CLASSES)).float()[:, None]
    return torch.cat([batch.picture * mask, mask], 1)


def patches(batch: Portraits, rng: np.random.Generator) -> dict[str, Tensor]:
    """Random PATCH x PATCH windows of the target views: canonical place [B, P, S, S, 3], colour
    [B, P, S, S, 3] in 0..1 with the input's tone, known [B, P, S, S], prior's error residual."""
    out: dict[str, list] = {"place": [], "colour": [], "known": [], "residual": []}
    for shard, prep, i in batch.heads:
        for _ in range(PATCHES):
            # The two frontal views count half of all: that is where people look.
            view = int(rng.integers(2) if rng.random() < 0.45 else rng.integers(8))
            y, x = (int(v) for v in rng.integers((10, 24), (128 - 24 - PATCH, 128 - 20 - PATCH)))
            window = (i, view, slice(y, y + PATCH), slice(x, x + PATCH))
            place = prep["place"][window]
            out["place"].append(place)
            out["colour"].append(shard["target_rgb"][window])
            out["known"].append((place != 0).any(-1))
            out["residual"].append(prep["residual"][window])
    b = len(batch.heads)
    stacked = {k: torch.from_numpy(np.stack(v)).unflatten(0, (b, PATCHES)) for k, v in out.items()}
    stacked["place"] = stacked["place"].float() * SKIN_UNIT
    colour = apply_tone(stacked["colour"].float().flatten(1, 3).transpose(1, 2) / 255, batch.tone)
    stacked["colour"] = colour.transpose(1, 2).reshape(stacked["place"].shape)
    stacked["residual"] = stacked["residual"].float()
    return stacked


def losses(
    colour: Tensor, residual: Tensor, ws: Tensor, truth: dict[str, Tensor], bound: Tensor
) -> dict[str, Tensor]:
    """Charbonnier colour, gradients inside the patches, residual, size of w+ offsets."""
    known = truth["known"].float()
    count = known.sum().clamp_min(1)
    colour = colour.reshape(truth["colour"].shape)
    difference = colour - truth["colour"]
    out = {"colour": (((difference**2).sum(-1) + 1e-5).sqrt() * known).sum() / count}
    gradient = colour.new_zeros(())
    for axis in (2, 3):
        pair = known.narrow(axis, 1, PATCH - 1) * known.narrow(axis, 0, PATCH - 1)
        d = difference.narrow(axis, 1, PATCH - 1) - difference.narrow(axis, 0, PATCH - 1)
        gradient = gradient + (d.abs().sum(-1) * pair).sum() / count
    out["gradient"] = gradient
    wanted = (-truth["residual"] / bound.reshape(known.shape)).clamp(-0.98, 0.98)
    error = (residual.reshape(known.shape) - wanted) * bound.reshape(known.shape) * 1e3
    out["residual"] = (error.abs() * known).sum() / count
    out["offsets"] = (ws - ws.mean(1, keepdim=True)).square().mean()
    return out


WEIGHTS = {"colour": 1.0, "gradient": 0.4, "residual": 0.08, "offsets": 0.02}


@torch.no_grad()
def evaluate(model: Model, held: Shards, count: int) -> dict[str, float]:
    """On held-out heads, at true geometry: PSNR of surface colours over all views and over the two
    frontal ones, and the prior's distance before and after the residual (mm)."""
    bound_grid, device = model.space_bound, next(model.parameters()).device
    total = {"psnr": 0.0, "psnr front": 0.0, "prior mm": 0.0, "left mm": 0.0}
    for k in range(count):
        batch = portraits(held, 0, np.random.default_rng(k), augment=False, indices=[k])
        shard, prep, i = batch.heads[0]
        known = (prep["place"][i] != 0).any(-1)
        place = torch.from_numpy(prep["place"][i][known]).float() * SKIN_UNIT
        shown = model(masked(batch).to(device), place[None].to(device))
        colour, residual = (x.cpu() for x in shown[:2])
        error = (colour[0] - torch.from_numpy(shard["target_rgb"][i][known]).float() / 255) ** 2
        front = torch.from_numpy(np.nonzero(known)[0] < 2)
        total["psnr"] += float(-10 * error.mean().log10()) / count
        total["psnr front"] += float(-10 * error[front].mean().log10()) / count
        prior = torch.from_numpy(prep["residual"][i][known]).float()
        bound = lattice.sample(bound_grid, place, model.space_bounds)[:, 0]
        total["prior mm"] += float(prior.abs().mean()) * 1e3 / count
        total["left mm"] += float((prior + residual[0] * bound).abs().mean()) * 1e3 / count
    return total


@torch.no_grad()
def sheet(model: Model, held: Shards, path: Path, count: int = 8) -> None:
    """A row a held-out head: input, then target over prediction for the eight views."""
    rows = []
    for k in range(count):
        batch = portraits(held, 0, np.random.default_rng(k), augment=False, indices=[k])
        shard, prep, i = batch.heads[0]
        known = (prep["place"][i] != 0).any(-1)
        place = torch.from_numpy(prep["place"][i][known]).float() * SKIN_UNIT
        colour, _, _ = model(masked(batch), place[None])
        shown = np.full((8, 128, 128, 3), 128, np.uint8)
        shown[known] = (colour[0].clamp(0, 1).numpy() * 255).astype(np.uint8)
        target = np.where(known[..., None], shard["target_rgb"][i], 128)
        photo = ((batch.picture[0].permute(1, 2, 0).numpy() + 1) * 127.5).astype(np.uint8)
        top = np.concatenate([photo, *target], 1)
        rows += [top, np.concatenate([photo * 0, *shown], 1)]
    Image.fromarray(np.concatenate(rows)).save(path)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=Path, required=True)
    parser.add_argument("--headspace", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", help="appearance.safetensors to go on from")
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    space = HeadSpace(load_file(args.headspace))
    model = Model(HeadConfig()).to(memory_format=torch.channels_last)
    model.space_bound, model.space_bounds = space.residual_bound[None], space.bounds
    if args.start:
        print(model.load_state_dict(load_file(args.start), strict=False))
    average = copy.deepcopy(model)
    # StyleGAN2's layers scale their own rates (equalised learning rate); the encoder's do not.
    shared = [model.generator.mean_planes]
    others = [p for p in model.generator.parameters() if p is not shared[0]]
    groups = [
        {"params": others, "scale": 1.0},
        {"params": shared, "scale": 8.0},
        {"params": model.encoder.parameters(), "scale": 0.25},
    ]
    optimiser = torch.optim.Adam(groups, args.rate, betas=(0.9, 0.99))
    run = Run(args.out, "appearance", model, average, optimiser)
    train, held = Shards(args.heads), Shards(args.heads, held_out=True)
    rng = np.random.default_rng([args.seed, run.step])
    log = open(args.out / "log.txt", "a", buffering=1)
    start, saved = time.monotonic() - run.spent, time.monotonic()
    while (progress := (time.monotonic() - start) / 60 / args.minutes) < 1:
        for group in optimiser.param_groups:
            decay = 0.5 * (1 + math.cos(math.pi * max(0.0, (progress - 0.5) / 0.5)))
            group["lr"] = (
                args.rate * group["scale"] * min(1.0, (run.step + 1) / 100) * (0.03 + 0.97 * decay)
            )
        batch = portraits(train, args.batch, rng)
        truth = patches(batch, rng)
        points = truth["place"].flatten(1, 3)
        bound = lattice.sample(space.residual_bound[None], points.flatten(0, 1), space.bounds)
        # A colour holds a little above and below its surface too.
        noisy = points + torch.randn_like(points) * 0.0015
        colour, residual, ws = model(masked(batch), noisy)
        values = losses(colour, residual, ws, truth, bound)
        loss = sum(WEIGHTS[k] * v for k, v in values.items())
        run.update(loss, values, clip=1.0, keep=0.997)
        average.generator.w_avg.lerp_(ws.detach().mean(0), 0.01 if run.step > 100 else 0.2)
        run.spent = time.monotonic() - start
        if run.step % 50 == 0:
            print(run.line(train.refresh()), file=log)
        if time.monotonic() - saved > 300:
            saved = time.monotonic()
            run.save()
            _report(average, held, args.out, log, "held-out", 16)
    run.save()
    _report(average, held, args.out, log, "final", 64)


def _report(average: Model, held: Shards, folder: Path, log, name: str, count: int) -> None:
    if not held.refresh():
        return
    average.eval()
    report = evaluate(average, held, count)
    print(f"{name}: " + " ".join(f"{k} {v:.3f}" for k, v in report.items()), file=log)
    sheet(average, held, folder / "sheet.png")


if __name__ == "__main__":
    main()

"""Trains the small LRM for heads, the *instant* preset.

    python -m engine.training.train_lrm --data DIR --out DIR --minutes 50 [--device cuda]

DIR is of lrm_data.py, whose shards may still be growing. Supervision is in space, as in
train_appearance.py: every pixel of a target view (two near the front, two from the rest of the
circle) is a point on the head with a colour; the input picture is one more view, seen by the
perceived camera; and points about the surface have a distance. Nothing is rendered: at a known
surface the rendering loss of LRM (Hong et al. 2023, equation 5) is that of the points. Resumable
(state.pt, tensors only), time-boxed, seeded. Writes instant.safetensors, log.txt and sheet.png.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import fields
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.headspace.space import smooth_union
from engine.systems.lrm.head import HeadLrm, HeadLrmConfig
from engine.training.loop import Run
from engine.training.lrm_data import Batch, LiftShards

PATCH, PATCHES = 24, 6
PHOTO, SPACE = 900, 1400  # points of a picture
WEIGHTS = {
    "colour": 1.0, "gradient": 0.4, "photo": 0.5, "distance": 0.06, "moved": 0.02,
}  # fmt: skip
FAINT = 1e-5


def predict(
    model: HeadLrm, batch: Batch, points: list[Tensor]
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Colour and residual at each of some sets of points [B, N, 3], and the planes."""
    with torch.autocast(batch.views.device.type, dtype=torch.bfloat16):
        maps = model.maps(batch.picture, batch.views)
    planes = model.planes(maps, batch.views[:, :, :3], batch.views[:, :, 6], batch.views[:, :, 7])
    colour, residual = model.decode(planes, torch.cat(points, 1))
    sizes = [p.shape[1] for p in points]
    return list(zip(colour.split(sizes, 1), residual.split(sizes, 1), strict=True)), planes


def windows(batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random windows of the target views: places and colours [B, PATCHES, S, S, 3]."""
    point, colour = [], []
    for k in range(len(batch.point)):
        for _ in range(PATCHES):
            # The two frontal views count half: that is where people look.
            view = int(rng.integers(2) if rng.random() < 0.45 else rng.integers(4))
            y, x = (int(v) for v in rng.integers((10, 24), (104 - PATCH, 108 - PATCH)))
            window = (k, view, slice(y, y + PATCH), slice(x, x + PATCH))
            point.append(batch.point[window])
            colour.append(batch.colour[window])
    shape = (len(batch.point), PATCHES, PATCH, PATCH, 3)
    return torch.stack(point).reshape(shape), torch.stack(colour).reshape(shape)


def in_picture(batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Places and colours [B, PHOTO, 3] of texels that the picture shows well."""
    out = []
    for views, place in zip(batch.views, batch.place, strict=True):
        good = (views[:, 6] > 0.5).nonzero()
        if not len(good):  # a picture without a head in it
            good = torch.zeros(1, 3, dtype=torch.long, device=views.device)
        k, y, x = good[torch.from_numpy(rng.integers(len(good), size=PHOTO))].unbind(1)
        out.append((place[k, y, x], views[k, :3, y, x]))
    return torch.stack([o[0] for o in out]), torch.stack([o[1] for o in out])


def _charbonnier(difference: Tensor) -> Tensor:
    return (difference.square().sum(-1) + FAINT).sqrt()


def losses(model: HeadLrm, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
    """Charbonnier colour and its gradient in the target views, colour in the picture itself,
    distance (mm), and how far hair is moved (share of the bound, squared)."""
    point, colour = windows(batch, rng)
    places, shown = in_picture(batch, rng)
    some = torch.from_numpy(rng.permutation(batch.space.shape[1])[:SPACE])
    space, distance = batch.space[:, some], batch.distance[:, some]
    # A colour holds a little above and below its surface too.
    flat = point.flatten(1, 3)
    sets = [flat + 0.001 * torch.randn_like(flat), places, space]
    (target, photo, about), _ = predict(model, batch, sets)
    known = (point != 0).any(-1).float()
    difference = target[0].reshape(point.shape) - colour
    count = known.sum().clamp_min(1)
    gradient = 0.0
    for axis in (2, 3):
        pair = known.narrow(axis, 1, PATCH - 1) * known.narrow(axis, 0, PATCH - 1)
        d = difference.narrow(axis, 1, PATCH - 1) - difference.narrow(axis, 0, PATCH - 1)
        gradient = gradient + (d.abs().sum(-1) * pair).sum() / count
    return {
        "colour": (_charbonnier(difference) * known).sum() / count,
        "gradient": gradient,
        "photo": _charbonnier(photo[0] - shown).mean(),
        "distance": distance_error(about[1], distance)[0],
        "moved": about[1].square().mean(),
    }


def distance_error(residual: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean error of the distance in mm with and without the residual [B, N] (-1..1), by Batch's
    distance [B, N, 4]."""
    skin, hair, bound, true = distance.unbind(-1)
    known = true.isfinite()
    limit = float(true[known].abs().max())

    def error(moved: Tensor) -> Tensor:
        made = smooth_union(skin, hair + moved).clamp(-limit, limit)
        return ((made - true.nan_to_num()).abs() * known).sum() / known.sum() * 1e3

    return error(bound * residual), error(torch.zeros_like(hair))


@torch.no_grad()
def evaluate(model: HeadLrm, held: LiftShards, count: int) -> dict[str, float]:
    """On pictures of held-out heads: PSNR of the colours of the frontal target views, and of the
    other two; distance in mm without and with what is learned."""
    total = dict.fromkeys(("front", "round", "prior mm", "mm"), 0.0)
    device = next(model.parameters()).device
    for k in range(count):
        batch = to(held.at(k), device)
        flat = batch.point.flatten(1, 3)
        known = (flat != 0).any(-1)[0]
        ((colour, _), (_, residual)), _ = predict(model, batch, [flat, batch.space])
        error = (colour - batch.colour.flatten(1, 3))[0].square().mean(-1)
        half = len(flat[0]) // 2
        for name, part in (("front", slice(half)), ("round", slice(half, None))):
            total[name] += float(-10 * error[part][known[part]].mean().log10()) / count
        after, before = distance_error(residual, batch.distance)
        total["prior mm"] += float(before) / count
        total["mm"] += float(after) / count
    return total


@torch.no_grad()
def sheet(model: HeadLrm, held: LiftShards, path: Path, count: int = 8) -> None:
    """A row a held-out head: the picture, then four target views over what was made of them."""
    rows = []
    for k in range(count):
        batch = held.at(k)
        point = batch.point[0]
        known = (point != 0).any(-1)
        made = torch.full_like(batch.colour[0], 0.5)
        made[known] = predict(model, batch, [point[known][None]])[0][0][0][0]
        target = torch.where(known[..., None], batch.colour[0], 0.5)
        photo = batch.picture[0, :3].permute(1, 2, 0)
        blank = torch.zeros_like(photo)
        rows += [torch.cat([photo, *target], 1), torch.cat([blank, *made], 1)]
    half = len(rows) // 2
    picture = torch.cat([torch.cat(rows[:half]), torch.cat(rows[half:])], 1)
    Image.fromarray((picture.clamp(0, 1) * 255).byte().numpy()).save(path)


def to(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    return Batch(**{f.name: getattr(batch, f.name).to(device) for f in fields(batch)})


def export(weights: Path, config: HeadLrmConfig, out: Path) -> None:
    """Half precision, with the configuration in the metadata: what ships."""
    tensors = {k: v.half().contiguous() for k, v in load_file(weights).items()}
    temporary = out.with_suffix(".tmp")
    save_file(tensors, temporary, {"model": json.dumps({"name": "instant"} | config.to_json())})
    temporary.replace(out)


def _groups(model: HeadLrm) -> list[dict]:
    """Shared maps learn fast, the decoder (equalised learning rate) twice as fast as the rest."""
    special = {id(model.mean): 8.0} | {id(p): 2.0 for p in model.decoder.parameters()}
    groups: dict[float, list] = {}
    for p in model.parameters():
        groups.setdefault(special.get(id(p), 1.0), []).append(p)
    return [{"params": params, "scale": scale} for scale, params in groups.items()]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=50)
    parser.add_argument("--start", help="instant.safetensors to go on from")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=7e-4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    device, config = torch.device(args.device), HeadLrmConfig()
    model = HeadLrm(config).to(device, memory_format=torch.channels_last)
    if args.start:
        model.load_state_dict({k: v.float() for k, v in load_file(args.start).items()})
    optimiser = torch.optim.Adam(_groups(model), args.rate, betas=(0.9, 0.98))
    run = Run(args.out, "instant", model, copy.deepcopy(model), optimiser)
    train, held = LiftShards(args.data), LiftShards(args.data, held_out=True)
    rng = np.random.default_rng([args.seed, run.step])
    log = open(args.out / "log.txt", "a", buffering=1)
    if not run.step:
        _report(run, held, log, "untrained", 16)
    start, saved = time.monotonic() - run.spent, time.monotonic()
    while (progress := (time.monotonic() - start) / 60 / args.minutes) < 1:
        for group in optimiser.param_groups:
            decay = 0.5 * (1 + math.cos(math.pi * max(0.0, (progress - 0.5) / 0.5)))
            warm = min(1.0, (run.step + 1) / 60)
            group["lr"] = args.rate * group["scale"] * warm * (0.02 + 0.98 * decay)
        values = losses(model, to(train.random(args.batch, rng), device), rng)
        run.update(sum(WEIGHTS[k] * v for k, v in values.items()), values, clip=1.0, keep=0.995)
        run.spent = time.monotonic() - start
        if run.step % 25 == 0:
            print(run.line(train.refresh()), file=log)
        if time.monotonic() - saved > 300:
            saved = time.monotonic()
            _save(run, config)
            _report(run, held, log, "held-out", 16)
    _save(run, config)
    _report(run, held, log, "final", 32)


def _save(run: Run, config: HeadLrmConfig) -> None:
    run.save()
    weights = run.folder / f"{run.name}.safetensors"
    export(weights, config, weights)


def _report(run: Run, held: LiftShards, log: TextIO, name: str, most: int) -> None:
    if not (count := min(held.refresh(), most)):
        return
    report = evaluate(run.average, held, count)
    print(f"{name}: " + " ".join(f"{k} {v:.3f}" for k, v in report.items()), file=log)
    on_cpu = copy.deepcopy(run.average).to("cpu")
    sheet(on_cpu, held, run.folder / "sheet.png", min(count, 8))


if __name__ == "__main__":
    main()

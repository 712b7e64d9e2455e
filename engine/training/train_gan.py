"""The adversarial stage of the head model: goes on from train_appearance's weights.

    python -m engine.training.train_gan --heads DIR --studio DIR --headspace headspace.safetensors \
        --start appearance.safetensors --out DIR --minutes 60 [--device cuda]
    torchrun --nproc-per-node 2 -m engine.training.train_gan ...

Every step: some heads in any light (heads/dataset.py, prepare.py), supervised on the raw planes as
in train_appearance; some sittings (studio.py), supervised at full sharpness; and, after the first
--warm of the time, the discriminator on these and on heads that the mapping makes up. Resumable
(state.pt, tensors only), time-boxed, seeded; each process of torchrun draws its own heads. Writes
gan.safetensors (generator.*, encoder.*, mapping.*; averaged, half precision), log.txt and sheet.png
(held-out sittings: input, truth, reconstruction, made-up appearance on the same geometry).
"""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from engine.headspace import lattice
from engine.headspace.space import HeadSpace
from engine.systems.head.discriminator import HeadDiscriminator
from engine.systems.head.model import UPRIGHT, HeadConfig, HeadGenerator
from engine.systems.head.strands import masks
from engine.training import train_appearance
from engine.training.data import Shards, portraits
from engine.training.gan import DiscriminatorStep, GeneratorStep, HeadGAN, Views
from engine.training.gan_data import StudioShards
from engine.training.loop import Run

CONFIG = HeadConfig(fine_channels=16, hair_styles=21, colour_grid=8)
WEIGHTS = {
    "colour": 1.0,
    "gradient": 0.6,
    "raw": 0.5,
    "energy": 0.5,
    "style": 0.2,
    "offsets": 0.05,
    "shift": 0.5,
    "matching": 0.08,
    "fooled": 0.03,
    "invented": 0.03,
    "wild colour": 1.0,
    "wild gradient": 0.4,
    "wild residual": 0.08,
}
# Rates against --rate: what is new learns fast, what train_appearance has taught moves little (the
# encoder has no equalised layers), planes that all heads share take large steps.
SCALES = {
    "generator.fine_mean": 8.0,
    "generator.mean_planes": 2.0,
    "generator.fine.": 1.0,
    "generator.hair.maps": 4.0,
    "generator.hair.": 1.5,
    "generator.": 0.3,
    "encoder.colour.": 0.5,
    "encoder.": 0.1,
    "mapping.": 1.0,
}
R1_GAMMA, R1_EVERY = 1.0, 8
BANK = 256  # encoded heads that the mapping is compared with in a step


@dataclass
class Batches:
    """Where batches come from. space: for the bound of the residual."""

    wild: Shards
    studio: StudioShards
    space: HeadSpace
    device: torch.device
    rng: np.random.Generator

    def draw(
        self, wild: int, studio: int, views: int
    ) -> tuple[Views, Tensor, Tensor, dict, Tensor]:
        """Views of sittings; masked wild pictures, their hair styles, the truth of their patches,
        and the residual's bound there."""
        batch = portraits(self.wild, wild, self.rng)
        truth = train_appearance.patches(batch, self.rng)
        points = truth["place"].flatten(1, 3)
        bound = lattice.sample(
            self.space.residual_bound[None], points.flatten(0, 1), self.space.bounds
        )
        truth = {k: v.to(self.device) for k, v in truth.items()}
        sittings = self.studio.random(studio, views, self.rng).to(self.device)
        picture = train_appearance.masked(batch).to(self.device)
        styles = torch.tensor([int(prep["hair"][i]) for _, prep, i in batch.heads])
        return Views(sittings), picture, styles.to(self.device), truth, bound.to(self.device)


@torch.no_grad()
def encode_all(nets: HeadGAN, studio: StudioShards, device: torch.device) -> tuple[Tensor, Tensor]:
    """Shape vectors [N, D] and encoded w+ [N, n, w] of all sittings: what the mapping learns."""
    ws = []
    for shard in studio.items:
        x = torch.from_numpy(np.array(shard["input"])).to(device).permute(0, 3, 1, 2) / 255
        x = torch.cat([x[:, :3] * 2 - x[:, 3:], x[:, 3:]], 1)
        ws += [nets.encode(part) for part in x.split(25)]
    return studio.shapes().to(device), torch.cat(ws)


@torch.no_grad()
def start_hair(generator: HeadGenerator, space: HeadSpace) -> None:
    """The hair layer's first maps: where the head space's styles have hair. Bald keeps none."""
    maps = generator.hair.maps
    for style in range(space.styles - 1):
        mass = space.hair(torch.eye(space.styles)[style])
        maps[style, :UPRIGHT] = masks(space, mass, maps.shape[-1]).to(maps)


def groups(nets: HeadGAN) -> list[dict]:
    """The optimiser's parameter groups."""
    kinds: dict[str, list] = {k: [] for k in SCALES}
    for name, p in nets.named_parameters():
        kinds[next(k for k in SCALES if name.startswith(k))].append(p)
    return [{"params": p, "scale": SCALES[k]} for k, p in kinds.items()]


@torch.no_grad()
def sheet(nets: HeadGAN, studio: StudioShards, path: Path, count: int = 6) -> None:
    """Rows of heads: truth, reconstruction, and two made-up appearances on the same geometry; four
    views each, a head a row of two rows."""
    device = next(nets.parameters()).device
    rows = []
    for k in range(count):
        heads = [(0, k)]
        views = Views(studio.batch(heads, [[0, 1, 2, 3]]).to(device))
        numbers = torch.Generator().manual_seed(k)
        z = torch.randn(2, nets.mapping.z_dim, generator=numbers).to(device)
        codes = [nets.encode(views.batch.input)]
        codes += [nets.mapping(v[None], views.batch.shape) for v in z]
        shown = [views.batch.picture]
        hair = F.one_hot(views.batch.style, CONFIG.hair_styles).float()
        hairs = [None, hair, hair]  # as photos are read, and as heads are made
        for ws, known in zip(codes, hairs, strict=True):
            shown.append(views.show(nets.generator, *nets.planes(ws, known)).picture)
        strips = [torch.cat(list(s[0]), 2) for s in shown]
        rows += [torch.cat(strips[:2], 2), torch.cat(strips[2:], 2)]
    picture = torch.cat(rows, 1).permute(1, 2, 0).clamp(-1, 1).cpu().numpy()
    Image.fromarray(((picture + 1) * 127.5).astype(np.uint8)).save(path)


class Trainer:
    """The loop's state. folder: of the run; nets and average: HeadGAN; discriminator."""

    def __init__(
        self,
        folder: Path,
        batches: Batches,
        nets: HeadGAN,
        net: HeadDiscriminator,
        rate: float,
    ) -> None:
        self.batches, self.nets, self.net, self.rate = batches, nets, net, rate
        self.average = copy.deepcopy(nets).requires_grad_(False)
        self.optimiser = torch.optim.Adam(groups(nets), rate, betas=(0.5, 0.99))
        self.judge = torch.optim.Adam(net.parameters(), rate, betas=(0.0, 0.99))
        others = {"discriminator": net, "judge": self.judge}
        self.run = Run(folder, "gan", nets, self.average, self.optimiser, others)
        for group, scale in zip(self.optimiser.param_groups, SCALES.values(), strict=True):
            group["scale"] = scale  # not those of a state from before
        self.generator_step: nn.Module = GeneratorStep(nets)
        self.discriminator_step: nn.Module = DiscriminatorStep(net)
        if dist.is_initialized():
            self.generator_step = DistributedDataParallel(self.generator_step)
            self.discriminator_step = DistributedDataParallel(self.discriminator_step)
        self.known = encode_all(self.average, batches.studio, batches.device)

    def step(self, wild: int, studio: int, views: int, adversarial: bool, share: float) -> None:
        """One step of both sides. share: of the full learning rate."""
        run, batches = self.run, self.batches
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * group["scale"] * share
        for group in self.judge.param_groups:
            group["lr"] = self.rate * share
        seen, picture, styles, truth, bound = batches.draw(wild, studio, views)
        points = truth["place"].flatten(1, 3)
        points = points + torch.randn_like(points) * 0.0015
        rows = torch.from_numpy(batches.rng.integers(len(self.known[0]), size=BANK))
        known = tuple(x[rows.to(x.device)] for x in self.known)
        self.net.requires_grad_(False)
        losses, shown, fakes = self.generator_step(
            seen, picture, styles, points, known, self.net if adversarial else None
        )
        wild_losses = train_appearance.losses(**shown, truth=truth, bound=bound)
        losses |= {f"wild {k}": v for k, v in wild_losses.items() if k != "offsets"}
        total = sum(WEIGHTS[k] * v for k, v in losses.items())
        run.update(total, losses, clip=2.0, keep=0.99)
        mean = shown["ws"].detach().mean(0)
        self.average.generator.w_avg.lerp_(mean, 0.01 if run.step > 100 else 0.2)
        if not adversarial:
            return
        self.net.requires_grad_(True)
        penalise = run.step % R1_EVERY == 0
        values = self.discriminator_step(seen, fakes, penalise)
        total = values["real"] + values["fake"]
        if penalise:
            total = total + values["r1"] * (R1_GAMMA / 2 * R1_EVERY)
        self.judge.zero_grad(set_to_none=True)
        total.backward()
        if torch.isfinite(total):
            self.judge.step()
        run.note(values)


def share_of_rate(progress: float, step: int) -> float:
    """Warms up for 50 steps; falls to a twentieth over the last 40 % of the time."""
    return min(1.0, (step + 1) / 50) * min(1.0, 0.05 + 0.95 * max(0.0, (1 - progress) / 0.4))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("heads", "studio", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--headspace", required=True)
    parser.add_argument("--start", help="appearance.safetensors or gan.safetensors to go on from")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--warm", type=float, default=0.3, help="share of the time without the GAN")
    parser.add_argument("--wild", type=int, default=4, help="heads in any light a step")
    parser.add_argument("--sittings", type=int, default=2, help="studio heads a step")
    parser.add_argument("--views", type=int, default=2, help="of each studio head")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    rank = 0
    if "RANK" in os.environ:  # started by torchrun
        dist.init_process_group("nccl" if args.device.startswith("cuda") else "gloo")
        rank = dist.get_rank()
        if args.device == "cuda":
            args.device = f"cuda:{os.environ['LOCAL_RANK']}"
    device = torch.device(args.device)
    torch.manual_seed(args.seed)
    space = HeadSpace(load_file(args.headspace))
    studio = StudioShards(args.studio, space.styles)
    shape_dim = len(space.identity) + len(space.expression) + space.styles
    nets = HeadGAN(CONFIG, shape_dim).to(device, memory_format=torch.channels_last)
    nets.space_bound, nets.space_bounds = space.residual_bound[None], space.bounds
    start_hair(nets.generator, space)
    if args.start:
        print(nets.load_state_dict(load_file(args.start), strict=False))
    net = HeadDiscriminator().to(device, memory_format=torch.channels_last)
    wild = Shards(args.heads)
    batches = Batches(wild, studio, space, device, np.random.default_rng())
    trainer = Trainer(args.out, batches, nets, net, args.rate)
    run = trainer.run
    batches.rng = np.random.default_rng([args.seed, run.step, rank])
    torch.manual_seed(args.seed + 1000 * rank + run.step)
    held = Shards(args.heads, held_out=True)
    held_studio = StudioShards(args.studio, space.styles, held_out=True)
    log = open(args.out / "log.txt", "a", buffering=1) if rank == 0 else None
    start, saved = time.monotonic() - run.spent, time.monotonic()
    adversarial = run.spent / 60 / args.minutes > args.warm
    while (progress := (time.monotonic() - start) / 60 / args.minutes) < 1:
        if dist.is_initialized():  # all stop at once
            now = torch.tensor([progress], device=device)
            dist.broadcast(now, 0)
            progress = float(now)
            if progress >= 1:
                break
        if progress >= args.warm and not adversarial:
            adversarial = True
            if log:  # what supervision alone has made, to compare with
                run.save()
                shutil.copy(args.out / "gan.safetensors", args.out / "warm.safetensors")
        share = share_of_rate(progress, run.step)
        trainer.step(args.wild, args.sittings, args.views, adversarial, share)
        run.spent = time.monotonic() - start
        if log and run.step % 10 == 0:
            print(run.line(len(studio)), file=log)
        if log and time.monotonic() - saved > 300:
            saved = time.monotonic()
            run.save()
            _report(trainer, held, held_studio, args.out, log, 16)
            wild.refresh(), studio.refresh()
            trainer.known = encode_all(trainer.average, studio, device)
    if log:
        run.save()
        _report(trainer, held, held_studio, args.out, log, 64)


def _report(trainer: Trainer, held: Shards, studio: StudioShards, folder: Path, log, count: int):
    average = trainer.average.eval()
    if held.refresh():
        report = train_appearance.evaluate(average, held, count)
        print("held-out: " + " ".join(f"{k} {v:.3f}" for k, v in report.items()), file=log)
    if studio.refresh():
        sheet(average, studio, folder / "sheet.png")


if __name__ == "__main__":
    main()

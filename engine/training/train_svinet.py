"""Trains the small inpainting network on svinet_data.py's pairs.

    python -m engine.training.train_svinet --pairs DIR --out DIR --minutes 45

Resumable (state.pt, tensors only), time-boxed, seeded; takes in shards that are finished while it
runs. Writes svinet.safetensors (averaged, half precision), log.txt and sheet.png (held-out heads:
photo, photo there with the first fill, mirrored photo there, result, truth where it is known).

Losses are WarpGAN's (arXiv 2511.08178, section 3.4) in kind, on the completed view, where pixels
are to be invented and the truth is known: L1 and its square; feature distance of our own perception
network in place of LaMa's segmentation network, whose weights cannot be had (measured in spreads of
the features, so that the paper's weights mean nothing here); a patch discriminator with R1 and
feature matching, after --warm of the time. Left out: latent consistency (our encoder reads frontal
heads only) and identity (no face recognition that may be used).
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from engine.checkpoints.default import load_default
from engine.networks.ffc import StyleConv
from engine.portrait.perception import PerceptionNet
from engine.systems.head.discriminator import Block, EqualConv
from engine.systems.warpgan.config import SMALL
from engine.systems.warpgan.inpaint import complete
from engine.systems.warpgan.network import SviNet
from engine.training.loop import Run
from engine.training.svinet_batches import Pairs, PairShards, levelled

WEIGHTS = {"l1": 4.0, "square": 40.0, "broad": 1.0, "perceptual": 10.0, "kept": 1.0,
           "matching": 1.0, "fooled": 0.05}  # fmt: skip
R1_GAMMA, R1_EVERY = 1.0, 16
LEVELS = 4  # of the perception network's features: 128 .. 16 pixels
PARTS = {45: "to 45", 75: "to 75", 110: "to 110"}  # degrees of yaw
VIEW_KEYS = ("warped", "render", "visible", "mirror", "mirror_visible", "ws")


class PatchDiscriminator(nn.Module):
    """A view and what of it is given [B, 4, S, S] -> verdicts [B, 1, S / 8, S / 8] and features
    (Isola et al. 2017); pixels are folded into channels first."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96)) -> None:
        super().__init__()
        self.enter = EqualConv(16, widths[0], 1)
        self.blocks = nn.ModuleList(Block(i, o) for i, o in zip(widths, widths[1:], strict=False))
        self.out = EqualConv(widths[-1], 1, 3, act=False)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.enter(F.pixel_unshuffle(x, 2))
        features = [x]
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return self.out(x).float(), features


def shown(net: nn.Module, pairs: Pairs) -> Tensor:
    """The completed views [B, 3, S, S], in bfloat16 arithmetic."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return complete(net, *(getattr(pairs, k) for k in VIEW_KEYS)).float()


def perceptual(net: PerceptionNet, made: Tensor, real: Tensor) -> Tensor:
    """Mean difference of features of pictures in 0..1, in spreads of the real ones'."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        both = F.avg_pool2d(torch.cat([made, real]), 2) * 2 - 1
        stack = [F.silu(net.stem(both))]
        for block in net.down[: LEVELS - 1]:
            stack.append(block(stack[-1]))
    total = made.new_zeros(())
    for x in stack:
        a, b = x.float().chunk(2)
        total = total + (a - b.detach()).abs().mean() / b.std().clamp_min(1e-3).detach()
    return total / len(stack)


def distances(made: Tensor, pairs: Pairs, features: PerceptionNet) -> tuple[dict, Tensor]:
    """Losses of completed views, and the views [B, 3, S, S] as they should be: the truth where it
    is asked for, what was made elsewhere."""
    asked = pairs.asked
    mass = asked.sum().clamp_min(1)
    error = (made - pairs.truth) * asked
    losses = {"l1": error.abs().sum() / (3 * mass)}
    # The median of what may be there is often the first fill, which L1 alone is content with.
    losses["square"] = error.square().sum() / (3 * mass)
    # Tone is broad: what sixteen pixels a side are off together counts once more.
    pooled, share = F.avg_pool2d(error, 16), F.avg_pool2d(asked, 16)
    losses["broad"] = pooled.abs().sum() / (3 * share.sum().clamp_min(1))
    # Where nobody knows the truth, and beside the head, the first fill stays what it is.
    rest = (1 - pairs.known) * torch.where(pairs.alpha > 0.5, 0.1, 1.0)
    losses["kept"] = ((made - pairs.warped).abs() * rest).mean()
    real = made.detach() + asked * (pairs.truth - made.detach())
    inside = made * asked + real * (1 - asked)
    losses["perceptual"] = perceptual(features, inside, real)
    return losses, real


class Trainer:
    """The loop's state. folder: of the run."""

    def __init__(self, folder: Path, rate: float, features: PerceptionNet) -> None:
        self.net, self.judge, self.rate = SviNet(SMALL), PatchDiscriminator(), rate
        self.average = copy.deepcopy(self.net).requires_grad_(False).eval()
        self.features = features
        # Equalised weights are of unit size: a large step elsewhere is a small one for them.
        unit = {id(p) for m in self.net.modules() if isinstance(m, StyleConv)
                for p in m.conv.parameters()}  # fmt: skip
        groups = [
            {"params": [p for p in self.net.parameters() if (id(p) in unit) == there], "scale": k}
            for there, k in ((False, 1.0), (True, 3.0))
        ]
        self.optimiser = torch.optim.Adam(groups, rate, betas=(0.5, 0.99))
        self.opponent = torch.optim.Adam(self.judge.parameters(), rate, betas=(0.0, 0.99))
        others = {"judge": self.judge, "opponent": self.opponent}
        self.run = Run(folder, "svinet", self.net, self.average, self.optimiser, others)

    def step(self, pairs: Pairs, adversarial: bool, share: float) -> None:
        """One step of both sides. share: of the full learning rate."""
        for optimiser in (self.optimiser, self.opponent):
            for group in optimiser.param_groups:
                group["lr"] = self.rate * share * group.get("scale", 1.0)
        made = shown(self.net, pairs)
        losses, real = distances(made, pairs, self.features)
        if adversarial:
            self.judge.requires_grad_(False)
            fooled, features = self._verdict(made, pairs)
            with torch.no_grad():
                _, wanted = self._verdict(real, pairs)
            losses["fooled"] = F.softplus(-fooled).mean()
            losses["matching"] = sum(
                (a.float() - b.float()).abs().mean() / b.float().std().clamp_min(1e-3)
                for a, b in zip(features, wanted, strict=True)
            )
        total = sum(WEIGHTS[k] * v for k, v in losses.items())
        self.run.update(total, losses, clip=2.0, keep=0.99)
        if adversarial:
            self._judge(made.detach(), real, pairs)

    def _verdict(self, picture: Tensor, pairs: Pairs) -> tuple[Tensor, list[Tensor]]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.judge(torch.cat([picture, pairs.visible], 1))

    def _judge(self, made: Tensor, real: Tensor, pairs: Pairs) -> None:
        self.judge.requires_grad_(True)
        loss = F.softplus(self._verdict(made, pairs)[0]).mean()
        loss = loss + F.softplus(-self._verdict(real, pairs)[0]).mean()
        self.run.note({"judge": loss})
        if self.run.step % R1_EVERY == 0:
            x = torch.cat([real, pairs.visible], 1).requires_grad_()
            (slope,) = torch.autograd.grad(self.judge(x)[0].sum(), x, create_graph=True)
            loss = loss + slope.square().sum((1, 2, 3)).mean() * (R1_GAMMA / 2 * R1_EVERY / 1024)
        self.opponent.zero_grad(set_to_none=True)
        loss.backward()
        if torch.isfinite(loss):
            self.opponent.step()

    @torch.no_grad()
    def settle(self, shards: PairShards, rng: np.random.Generator, batches: int = 12) -> None:
        """The averaged network's batch norms measured anew: they are no average of anything."""
        norms = [m for m in self.average.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean
        self.average.train()
        for _ in range(batches):
            shown(self.average, shards.random(6, rng))
        self.average.eval()


@torch.no_grad()
def evaluate(
    net: nn.Module, shards: PairShards, features: PerceptionNet
) -> dict[str, dict[str, tuple[float, float]]]:
    """Of held-out views, where pixels are invented and the truth is known, for the first fill and
    for the completed view, means over views: PSNR (dB) with the truth in its own light and in the
    fill's (levelled), and feature distance to the latter (see perceptual); by what the views are
    of."""
    found: dict[str, dict[str, list]] = {}
    for place in shards.places():
        pairs = shards.batch([place])
        asked = pairs.asked * (pairs.visible < 0.5)
        if asked.sum() < 300:
            continue
        made, mass = shown(net, pairs), 3 * asked.sum()
        side = abs(float(pairs.yaw))
        part = next((name for most, name in PARTS.items() if side < most), "behind")
        keys = ["all", part, "fitted" if bool(pairs.fitted) else "networks"]
        level = levelled(pairs).truth
        figures = {}
        for light, truth in (("own", pairs.truth), ("level", level)):
            errors = [((x - truth).square() * asked).sum() / mass for x in (pairs.warped, made)]
            figures[light] = [-10 * float(e.clamp_min(1e-9).log10()) for e in errors]
        real = pairs.warped + asked * (level - pairs.warped)
        figures["features"] = [
            float(perceptual(features, real + asked * (x - real), real))
            for x in (pairs.warped, made)
        ]
        for key in ["back"] if bool(pairs.back) else keys:
            for name, pair in figures.items():
                found.setdefault(key, {}).setdefault(name, []).append(pair)
    return {
        key: {name: tuple(np.mean(rows, 0).tolist()) for name, rows in parts.items()}
        for key, parts in sorted(found.items())
    }


@torch.no_grad()
def sheet(net: nn.Module, shards: PairShards, path: Path, count: int = 10) -> None:
    """Rows of held-out views, see the top of this file; two views a row."""
    places = shards.places()
    chosen = [places[int(k)] for k in np.linspace(0, len(places) - 1, 2 * count)]
    cells = []
    for k, i, v in chosen:
        pairs = shards.batch([(k, i, v)])
        source = torch.from_numpy(np.array(shards.items[k]["source"][i])).permute(2, 0, 1) / 255
        row = [source, pairs.warped[0], pairs.mirror[0], shown(net, pairs)[0],
               pairs.truth[0]]  # fmt: skip
        cells.append(torch.cat(row, 2))
    rows = [torch.cat(cells[k : k + 2], 2) for k in range(0, len(cells), 2)]
    picture = torch.cat(rows, 1).permute(1, 2, 0).clamp(0, 1).numpy()
    Image.fromarray((picture * 255 + 0.5).astype(np.uint8)).save(path)


def share_of_rate(progress: float, step: int) -> float:
    """Warms up for 30 steps; falls to a twentieth over the last 40 % of the time."""
    return min(1.0, (step + 1) / 30) * min(1.0, 0.05 + 0.95 * max(0.0, (1 - progress) / 0.4))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("pairs", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--warm", type=float, default=0.4, help="share of the time without the GAN")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    trainer = Trainer(args.out, args.rate, load_default().perception)
    run = trainer.run
    rng = np.random.default_rng([args.seed, run.step])
    shards, held = PairShards(args.pairs), PairShards(args.pairs, held_out=True)
    start, saved = time.monotonic() - run.spent, time.monotonic()
    with open(args.out / "log.txt", "a", buffering=1) as log:
        while (progress := (time.monotonic() - start) / 60 / args.minutes) < 1:
            share = share_of_rate(progress, run.step)
            trainer.step(shards.random(args.batch, rng), progress >= args.warm, share)
            run.spent = time.monotonic() - start
            if run.step % 10 == 0:
                print(run.line(len(shards)), file=log)
            if time.monotonic() - saved > 300:
                saved = time.monotonic()
                shards.refresh()
                _report(trainer, shards, held, args.out, rng, log)
        _report(trainer, shards, held, args.out, rng, log)


def _report(trainer: Trainer, shards: PairShards, held: PairShards, folder: Path, rng, log) -> None:
    trainer.settle(shards, rng)
    trainer.run.save()
    if held.refresh():
        for key, parts in evaluate(trainer.average, held, trainer.features).items():
            text = ", ".join(f"{k} {a:.3f} -> {b:.3f}" for k, (a, b) in parts.items())
            print(f"held-out {key}: {text}", file=log)
        sheet(trainer.average, held, folder / "sheet.png")


if __name__ == "__main__":
    main()

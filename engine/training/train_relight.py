"""Teaches the network of inversion/relight.py how light falls on what a portrait does not show:

    python -m engine.training.train_relight --data DIR --out FILE [--steps 700]

Files of relight_data.py; every fifth head is kept back, and the log says what the network gains on
those over the generator's colours and over the rules of unseen.py. What is minimised is what the
table of docs/inversion.md shows, at the surface itself: the logarithm of a view's squared error
over the pixels that the portrait hides, those where only the true head is included.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.inversion.relight import Relight, clues
from engine.training.regions import LEAST
from engine.training.relight_data import from_arrays

HEADS, PIXELS = 8, 1000  # of a step
RATE, DECAY = 2e-3, 0.3
WARM = 30  # steps
KEPT_BACK = 5
TOLERANCE = 1e-4  # squared error that is as good as none


@dataclass
class Portrait:
    """One head's hidden pixels: clues [N, CLUES], the generator's colours, the rules' and the true
    ones [N, 3], the view of each [N]; of the views, see relight_data.py: missed and count."""

    told: Tensor
    colour: Tensor
    expected: Tensor
    truth: Tensor
    view: Tensor
    missed: Tensor
    count: Tensor

    def error(self, colour: Tensor, which: Tensor | None = None) -> Tensor:
        """Mean squared error [views] of colours of all pixels, or of those numbered."""
        truth, view = (x if which is None else x[which] for x in (self.truth, self.view))
        share = len(self.truth) / max(1, len(truth))
        off = share * (colour - truth).square().sum(1)
        total = self.missed.index_add(0, view, off)
        return total[self._large] / (3 * self.count[self._large])

    @property
    def _large(self) -> Tensor:
        return self.count >= LEAST

    def psnr(self, colour: Tensor) -> float:
        """Of all pixels, mean over views, dB."""
        return float(-10 * self.error(colour).clamp_min(1e-9).log10().mean())


def read(path: Path) -> Portrait:
    with np.load(path, allow_pickle=False) as file:
        known = from_arrays(file)
        truth, missed, count = (
            torch.from_numpy(file[name].astype(np.float32)) for name in ("truth", "missed", "count")
        )
        view = torch.from_numpy(file["view"].astype(np.int64))
    return Portrait(clues(known), known.colour, known.expected, truth, view, missed, count)


def loss(net: Relight, heads: list[Portrait], generator: torch.Generator) -> Tensor:
    total = torch.zeros(())
    for number in torch.randint(len(heads), (HEADS,), generator=generator).tolist():
        head = heads[number]
        which = torch.randint(len(head.truth), (PIXELS,), generator=generator)
        made = net(head.told[which], head.expected[which])
        total = total + (head.error(made, which) + TOLERANCE).log().mean() / HEADS
    return total


@torch.no_grad()
def gains(net: Relight, heads: list[Portrait]) -> str:
    """dB over the generator and over the rules, with their standard errors."""
    net.eval()
    rows = [
        [head.psnr(x) for x in (net(head.told, head.expected), head.colour, head.expected)]
        for head in heads
    ]
    net.train()
    made, *others = np.array(rows).T
    said = [f"{(made - x).mean():+.3f} ± {(made - x).std() / len(x) ** 0.5:.3f}" for x in others]
    return f"{said[0]} over the generator, {said[1]} over the rules"


def train(heads: list[Portrait], kept: list[Portrait], steps: int, seed: int) -> Relight:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = Relight()
    told = torch.cat([head.told for head in heads])
    net.mean, net.spread = told.mean(0), told.std(0).clamp_min(1e-3)
    del told
    last = net.layers[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM) * (1 - step / steps)
        value = loss(net, heads, generator)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            print(f"step {step + 1}: {gains(net, kept)}", flush=True)
    return net.eval()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    paths = sorted(p for folder in args.data for p in folder.glob("*.npz"))
    heads = [read(p) for p in paths if int(p.stem) % KEPT_BACK]
    kept = [read(p) for p in paths if int(p.stem) % KEPT_BACK == 0]
    print(f"{len(heads)} heads, {len(kept)} kept back", flush=True)
    net = train(heads, kept, args.steps, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.out.with_suffix(".tmp")
    save_file({k: v.half().contiguous() for k, v in net.state_dict().items()}, temporary)
    temporary.replace(args.out)


if __name__ == "__main__":
    main()

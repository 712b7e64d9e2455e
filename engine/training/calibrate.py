"""Teaches a trained perception network's last step (engine.inversion.perceive.refined).

    python -m engine.training.calibrate --heads DIR --headspace headspace.safetensors \\
        --weights DIR/perception.safetensors --out DIR/perception.safetensors

Ridge regression of what the network's numbers lack on its landmarks and numbers: no gradient, a
minute of one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.headspace.space import HeadSpace
from engine.inversion.perceive import features, look
from engine.portrait.perception import PerceptionNet, Refine
from engine.training.data import Shards, portraits
from engine.training.train_perception import Losses

# Typical sizes of errors, to regress numbers of different units alike.
APART, POSE = 0.01, torch.tensor([0.05, 0.05, 0.03, 0.01, 0.01, 0.03])
RIDGE = 200.0


def ridge(x: Tensor, y: Tensor, sizes: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weight [Y, X] and bias [Y] of the least squares from x [N, X] to y [N, Y]; the penalty counts
    x in units of `sizes` [X], and leaves the bias alone."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    a, b = ((x - mean_x) / sizes).double(), (y - mean_y).double()
    solved = torch.linalg.solve(a.T @ a + penalty * torch.eye(a.shape[1], dtype=a.dtype), a.T @ b)
    weight = solved.T.float() / sizes
    return weight, mean_y - weight @ mean_x


def pictures(
    losses: Losses, train: Shards, count: int, seed: int = 5
) -> Iterator[dict[str, Tensor]]:
    """Batches of `count` degraded training pictures in all: picture [B, 3, 128, 128] in -1..1 and
    its true identity, expression and pose."""
    rng = np.random.default_rng(seed)
    for _ in range(0, count, 20):
        batch = portraits(train, 20, rng, mirror=True)
        yield losses.truth(batch) | {"picture": batch.picture, "pose": batch.pose}


@torch.no_grad()
def calibrate(
    net: PerceptionNet, space: HeadSpace, batches: Iterable[dict[str, Tensor]], penalty: float
) -> None:
    """Sets net.refine from pictures with their truth (see `pictures`): the correction by ridge
    regression, and the covariance of what it leaves."""
    inputs, lacking = [], []
    for batch in batches:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            picture = batch["picture"].contiguous(memory_format=torch.channels_last)
            seen = look(space, net, picture)
        inputs.append(features(space, seen))
        names = ("identity", "expression", "pose")
        lacking.append(torch.cat([batch[name] - getattr(seen, name) for name in names], 1))
    correct(net.refine, torch.cat(inputs), torch.cat(lacking), penalty)


@torch.no_grad()
def correct(refine: Refine, x: Tensor, y: Tensor, penalty: float) -> None:
    """Sets the correction from features [N, X] (see inversion.perceive) and what the numbers lack
    there [N, Y]."""
    sizes = torch.ones(x.shape[1])
    sizes[: 84 * 2], sizes[-6:] = APART, POSE
    weight, bias = ridge(x, y, sizes, penalty)
    refine.weight.copy_(weight)
    refine.bias.copy_(bias)
    left = (y - x @ weight.T - bias).double()
    # The regression knows these very pictures: others are a little more off.
    spare = len(x) / max(1, len(x) - x.shape[1] - 1)
    refine.error.copy_(torch.linalg.cholesky(left.T @ left / len(x) * spare))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("heads", "headspace", "weights", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--count", type=int, default=4000)
    args = parser.parse_args(argv)
    space = HeadSpace(load_file(args.headspace))
    net = PerceptionNet(space.identity.shape[0], space.expression.shape[0], space.styles)
    net.load_state_dict(load_file(args.weights))
    net = net.to(memory_format=torch.channels_last).eval()
    calibrate(net, space, pictures(Losses(space), Shards(args.heads), args.count), RIDGE)
    temporary = args.out.with_suffix(".tmp")
    save_file({k: v.half().contiguous() for k, v in net.state_dict().items()}, temporary)
    temporary.replace(args.out)


if __name__ == "__main__":
    main()

"""Sheets of heads from seeds, for the documents and for a look at a training run.

    python -m engine.training.sheets --out docs/images [--weights head.safetensors] [--prior ...]

    samples.png        64 seeds at psi 0.7, from near the front
    truncation.png     four seeds, psi 0 .. 1
    interpolation.png  between four seeds, codes on straight lines
    circle.png         eight heads, seen from eight sides

--only names some of them. Seeds are 0, 1, 2, ...: nothing is picked out.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine.checkpoints.default import PATH, load_default
from engine.sampling.base import Sampler
from engine.sampling.builtin import BuiltInSampler
from engine.systems.head.prior import PATH as PRIOR
from engine.systems.head.prior import load_prior

GREY = 90
CLOSER = 1.2  # than the sampler's own camera: a head fills its tile
FINER = 2  # rays a pixel's side
PSI = 0.7
CIRCLE = (0, 35, 80, 130, 180, -130, -80, -35)  # degrees


def views(
    sampler: Sampler, code: torch.Tensor, places: list[tuple[float, float]], size: int
) -> list[np.ndarray]:
    """Pictures uint8 [size, size, 3] of a code from (yaw, pitch)s, over grey."""
    field, out = sampler.field(code), []
    for yaw, pitch in places:
        camera = sampler.camera(yaw, pitch, FINER * size)
        closer = camera.intrinsics @ np.diag([CLOSER, CLOSER, 1.0])
        camera = replace(camera, intrinsics=closer)
        picture = sampler.picture(code, camera, field=field)
        alpha = picture.alpha[..., None] / 255.0
        shown = picture.image * alpha + GREY * (1 - alpha)
        shown = shown.reshape(size, FINER, size, FINER, 3).mean((1, 3))
        out.append((shown + 0.5).astype(np.uint8))
    return out


def grid(rows: list[list[np.ndarray]]) -> Image.Image:
    """Rows of equal pictures as one."""
    return Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows]))


def codes(sampler: Sampler, seeds: range, psi: float = PSI) -> list[torch.Tensor]:
    """The codes of some seeds."""
    return [sampler.map(sampler.z(seed), psi) for seed in seeds]


def samples(sampler: Sampler, size: int) -> Image.Image:
    """64 seeds, turned a little to both sides by turns."""
    shown = [
        views(sampler, code, [((-18, 0, 18)[k % 3], 3)], size)[0]
        for k, code in enumerate(codes(sampler, range(64)))
    ]
    return grid([shown[i : i + 8] for i in range(0, 64, 8)])


def truncation(sampler: Sampler, size: int) -> Image.Image:
    """A seed a row, psi from 0 to 1 in quarters."""
    rows = []
    for seed in range(4):
        z = sampler.z(seed)
        steps = [sampler.map(z, psi) for psi in (0.0, 0.25, 0.5, 0.75, 1.0)]
        rows.append([views(sampler, code, [(12, 3)], size)[0] for code in steps])
    return grid(rows)


def interpolation(sampler: Sampler, size: int) -> Image.Image:
    """From seed to seed, three steps between each pair."""
    ends, strip = codes(sampler, range(4)), []
    for a, b in zip(ends, ends[1:], strict=False):
        strip += [views(sampler, torch.lerp(a, b, t / 4), [(12, 3)], size)[0] for t in range(4)]
    return grid([[*strip, views(sampler, ends[-1], [(12, 3)], size)[0]]])


def circle(sampler: Sampler, size: int) -> Image.Image:
    """Eight heads from eight sides, a head a row."""
    places = [(yaw, 4.0) for yaw in CIRCLE]
    return grid([views(sampler, code, places, size) for code in codes(sampler, range(8))])


SHEETS = {
    "samples": samples,
    "truncation": truncation,
    "interpolation": interpolation,
    "circle": circle,
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=PATH)
    parser.add_argument("--prior", type=Path, default=PRIOR)
    parser.add_argument("--only", nargs="*", choices=list(SHEETS), default=list(SHEETS))
    parser.add_argument("--size", type=int, default=176)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    sampler = BuiltInSampler(load_prior(args.prior), load_default(args.weights))
    for name in args.only:
        SHEETS[name](sampler, args.size).save(args.out / f"{name}.png", optimize=True)
        print(args.out / f"{name}.png", flush=True)


if __name__ == "__main__":
    main()

"""How sharp sampled faces are, against rendered ones.

    python -m engine.training.sharpness --count 32 [--prior prior.safetensors]

Seen from the front at 256 pixels, with the sampler's own camera; the figure is the mean square of
the gradient of the logarithm of brightness within the outline of brows, nose and mouth, its median
over heads. Rendered heads are held-out people of both materials, tidied and lit like those that
the prior was made of (prior_data.py).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.spatial import ConvexHull

from engine.cameras import Camera
from engine.sampling.builtin import BuiltInSampler
from engine.systems.head.prior import PATH, load_prior
from engine.training.heads.build import build, person
from engine.training.heads.pack import Pack
from engine.training.heads.scene import Scene, Studio
from engine.training.heads.textures import Atlas
from engine.training.prior_data import even_light, tidy

FIRST = 1_000_200  # held-out, and no other figure's
INNER = slice(17, 68)  # landmarks: brows, nose, eyes, mouth
SIZE = 256
DARK = 0.05


def sharpness(rgb: np.ndarray, landmarks: np.ndarray) -> float:
    """Of a picture [S, S, 3] in 0..1 with landmarks [68.., 2] in pixels."""
    inner = landmarks[INNER]
    outline = inner[ConvexHull(inner).vertices]
    mask = Image.new("1", rgb.shape[1::-1])
    ImageDraw.Draw(mask).polygon([tuple(p) for p in outline], fill=1)
    log = np.log(rgb @ (0.299, 0.587, 0.114) + DARK)
    across, down = np.gradient(log, axis=1), np.gradient(log, axis=0)
    return float((across**2 + down**2)[np.asarray(mask)].mean())


def rendered(pack: Pack, studio: Studio, seed: int, camera: Camera) -> float:
    """The figure of a held-out person."""
    params = tidy(person(pack, seed, 1 + seed % 2))
    if "headgear" in params:
        params |= {"headgear": None, "collar": None, "earrings": None}
    head = build(pack, params)
    view = Scene(studio, head, even_light()).view(camera, dressed=False)
    return sharpness(view.rgba[..., :3] / 255.0, camera.project(head.landmarks)[0])


def sampled(sampler: BuiltInSampler, seed: int, camera: Camera) -> float:
    """The figure of a seed's head at psi 0.7."""
    code = sampler.map(sampler.z(seed), 0.7)
    parts, space = sampler.prior.unpack(code), sampler.model.space
    marks = space.landmarks(space.vertices(parts.identity, parts.expression)).double().numpy()
    picture = sampler.picture(code, camera)
    return sharpness(picture.image / 255.0, camera.project(marks)[0])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--prior", type=Path, default=PATH)
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    sampler, pack = BuiltInSampler(load_prior(args.prior)), Pack(args.pack)
    camera, studio = sampler.camera(0, 0, SIZE), Studio(Atlas(pack))
    true = [rendered(pack, studio, FIRST + k, camera) for k in range(args.count)]
    made = [sampled(sampler, k, camera) for k in range(args.count)]
    real, ours = float(np.median(true)), float(np.median(made))
    figures = {"heads": args.count, "rendered": real, "sampled": ours, "ratio": ours / real}
    print(json.dumps({k: round(v, 5) for k, v in figures.items()}))


if __name__ == "__main__":
    main()

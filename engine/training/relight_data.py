"""What one portrait says of a head and what its hidden surface looks like, for train_relight.py:

    python -m engine.training.relight_data --out DIR --seeds 500000 500400 --material 1

A training head's portrait (yaw about 0, 20 or 45 degrees to either side) is inverted as the method
*WarpGAN* does with the preset *fast*, up to the colours that it expects. Eight views of the true
head (engine/training/regions.py) then say what colour each pixel has that the portrait does not
show, wherever both heads are.

File SEED.npz, N hidden pixels and M that the portrait shows (see inversion.relight):
    points, normals, colour, expected [N, 3]; covered [N]
    shown_points, shown_colour [M, 3], shown_weight [M]: what the photo shows
    seen_normals, seen_colour [M, 3], seen_covered [M]
    truth [N, 3]; view uint8 [N]: which of the eight
    missed [8]: squared error, summed, of hidden pixels where only the true head is
    count [8]: hidden pixels of each view
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine import device
from engine.checkpoints.default import load_default
from engine.errors import ReconstructionError
from engine.fields.head import HeadField
from engine.headspace.lattice import sample
from engine.inversion import appearance, colours
from engine.inversion.cut import without_glasses
from engine.inversion.methods import OUTLINE
from engine.inversion.reconstruct import PRESETS, fit_head
from engine.inversion.relight import Known
from engine.inversion.warp import points_of
from engine.portrait.align import align
from engine.training.heads.build import head_rng
from engine.training.heads.dataset import write_shard
from engine.training.heads.pack import Pack
from engine.training.metrics import brought
from engine.training.prior_data import kept_mean
from engine.training.regions import GREY, Case, case, on_grey, to_true
from engine.training.truth import PORTRAIT, Truths

YAWS, JITTER = (0, 20, -20, 45, -45), 6  # degrees
STREAM = 43  # of head_rng
_state: dict = {}


def hidden_pixels(
    field: HeadField, there: np.ndarray, given: Case
) -> dict[str, np.ndarray]:
    """Of all views: places [N, 3] of hidden pixels on the field's surface, truth, view, missed,
    count, see the top of this file. there [4, 4]: the similarity from the true head to it."""
    places, truth, view, missed, count = [], [], [], [], []
    for k, (true, visible) in enumerate(zip(given.truth.views, given.visible, strict=True)):
        camera, picture = brought(true.camera, there), on_grey(true)
        seen = field.render(camera)
        mine = (seen.alpha.numpy() > 0.5) & ~true.beyond
        hidden = true.head & ~visible
        both = hidden & mine
        places.append(points_of(seen.depth, camera)[torch.from_numpy(both)])
        truth.append(picture[both])
        view.append(np.full(both.sum(), k, np.uint8))
        missed.append(((picture - GREY) ** 2)[hidden & ~mine].sum())
        count.append(hidden.sum())
    return {
        "places": torch.cat(places),
        "truth": np.concatenate(truth),
        "view": np.concatenate(view),
        "missed": np.array(missed),
        "count": np.array(count),
    }


def inverted(seed: int, material: int) -> dict[str, np.ndarray]:
    """A head's arrays. Raises ReconstructionError."""
    model, compute = _state["model"], _state["compute"]
    rng = head_rng(seed, STREAM)
    yaw = float(rng.choice(YAWS) + JITTER * rng.normal())
    given = case(_state["truths"], seed, yaw, material)
    aligned = align(given.truth.photo, given.truth.points, PORTRAIT, model.config["widen"])
    steps = PRESETS["fast"]
    head = fit_head(model, aligned, OUTLINE, compute, lambda part, step: None, coarse=True)
    head = replace(head, trust=without_glasses(head.trust, head.matte))
    seen = colours.see_photo(head, aligned, steps.pixels)
    ws = appearance.refine_latent(
        model.generator, head.ws, seen, steps.latent, compute, hair=head.hair
    )
    planes = colours.planes_of(model.generator, ws, head.hair, compute)
    there = to_true(model.space, head.shape, given.truth)
    out = hidden_pixels(head.field, np.linalg.inv(there), given)
    places = out.pop("places")
    points = places + sample(head.field.warp, places, head.field.bounds)
    return out | to_arrays(colours.known_of(model, head, planes, seen, points))


def to_arrays(known: Known) -> dict[str, np.ndarray]:
    """What a file keeps of it."""
    seen = known.seen
    out = {f.name: getattr(known, f.name) for f in fields(known) if f.name != "seen"}
    out |= {"shown_points": seen.canonical, "shown_colour": seen.colour}
    out["shown_weight"] = seen.weight
    return {
        name: value.numpy().astype(np.float32 if "points" in name else np.float16)
        for name, value in out.items()
    }


def from_arrays(file: Mapping[str, np.ndarray]) -> Known:
    """Inverse of to_arrays()."""

    def read(name: str) -> Tensor:
        return torch.from_numpy(file[name].astype(np.float32))

    shown = (read(f"shown_{name}") for name in ("points", "colour", "weight"))
    seen = appearance.Seen(*shown, torch.full((1, 1), -1))
    return Known(**{f.name: seen if f.name == "seen" else read(f.name) for f in fields(Known)})


def start(pack_path: str | None, mean: np.ndarray) -> None:
    """Of a worker."""
    torch.set_num_threads(1)
    model = load_default()
    _state.update(
        model=model,
        truths=Truths(model.space, Pack(pack_path), mean),
        compute=device.choose("cpu", threads=1),
    )


def make(path: Path, material: int) -> str:
    """Writes a head's file if it is not there; a line about it."""
    if path.exists():
        return f"{path.name} is there"
    begun = time.process_time()
    try:
        arrays = inverted(int(path.stem), material)
    except ReconstructionError as error:
        return f"{path.name}: {error}"
    write_shard(path, arrays)
    return f"{path.name}: {len(arrays['truth'])} pixels, {time.process_time() - begun:.1f} cpu-s"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs=2, required=True, metavar=("FIRST", "END"))
    parser.add_argument("--material", type=int, choices=(1, 2), required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    mean = kept_mean(args.out / "mean.npy", args.pack, 2000)
    paths = [args.out / f"{seed}.npz" for seed in range(*args.seeds)]
    with ProcessPoolExecutor(args.workers, get_context("spawn"), start, (args.pack, mean)) as pool:
        for line in pool.map(make, paths, [args.material] * len(paths)):
            print(line, flush=True)


if __name__ == "__main__":
    main()

"""Pairs for the inpainting network: what a recipe feeds it, and what should have been there.

    python -m engine.training.svinet_data --out DIR --seeds 0 300 [--workers 2] [--kind rendered]

A head's portrait is inverted by the fast preset or, every fourth head, by the networks alone
(`encode_only`); the field that comes out carries the photo to other cameras
(engine/inversion/warp.py), exactly as in use. The truth is the same head seen from there. A
portrait leaves a head's shape open, so the truth is first brought onto the field's own surface:
each of the field's pixels has a canonical place, the true head has one there too, and the colour
that it shows at that place is what the pixel should be; where it shows none (it lies behind
something, or the shapes disagree) nothing is asked for. So the network learns colours and leaves
shapes alone, which a field could not follow.

kind "rendered": people of the head data pack in any light; "sampled": heads of the generator itself
(WarpGAN, arXiv 2511.08178, section 3.3: generated views of one code). The last view of every head
is the photo's own: the photo carried to a new view and back (the same section's re-warp), so that
what came back is to be completed to the photo.

Shard svinet_KIND_SSSSSSSS.npz (uncompressed), n heads, V views of 256 x 256 pixels, uint8:
    seed    int64 [n];  ws float32 [n, rows, w];  source uint8 [n, 256, 256, 3] the aligned photo
    fitted  bool [n]             by the fast preset, not by the networks alone
    warped  [n, V, 256, 256, 4]  the photo there, holes filled with `render`; and how far it is seen
    render  [n, V, 256, 256, 4]  the field's view, premultiplied on black, and its alpha
    mirror  [n, V, 256, 256, 4]  as warped, of the mirrored photo
    truth   [n, V, 256, 256, 4]  colour, and 255 where it is known (0 elsewhere)
    yaw     float32 [n, V]       degrees of the view's camera
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine import device
from engine.cameras import Camera, orbit
from engine.checkpoints.default import PATH, load_default
from engine.errors import ReconstructionError
from engine.headspace import lattice
from engine.inversion import shape, warp
from engine.inversion.reconstruct import PRESETS, Reconstruction, encode_only, reconstruct
from engine.portrait.align import Aligned, align
from engine.portrait.image import Photo
from engine.sampling.builtin import EXTENT, FOV, PIVOT, BuiltInSampler
from engine.training.data import _background, five_points
from engine.training.heads.build import build_head, head_rng
from engine.training.heads.dataset import SKIN_UNIT, stacked, write_shard
from engine.training.heads.pack import Pack
from engine.training.heads.scene import Scene
from engine.training.heads.studio_light import studio_light
from engine.training.heads.views import distance, input_camera
from engine.training.metrics import brought, similarity
from engine.training.prior_data import kept_mean
from engine.training.truth import PORTRAIT, Truths

SHARD, SIZE, VIEWS = 10, 256, 11
LOOK = 320  # pixels a side of the true views: they are sampled once more
KINDS = ("rendered", "sampled")
STREAM = 41  # of head_rng
# Yaw of the views and how often each is drawn; the sides are what photos hide.
YAWS, SHARES = (30, 60, 90, 135, 180, 0), (0.18, 0.2, 0.24, 0.14, 0.14, 0.1)
DEEP = 0.01  # metres: how far the true surface may lie from the field's own at a place


@dataclass(frozen=True)
class Look:
    """A view of a person: rgb [H, W, 3] straight in 0..1, alpha [H, W], depth [H, W] along the
    camera's z (0 where nothing is)."""

    rgb: Tensor
    alpha: Tensor
    depth: Tensor


@dataclass(frozen=True)
class Person:
    """A head that is fully known. aligned: the crop of its portrait; landmarks [84, 3] metres;
    forward: the lattice of canonical space -> the head; look: its view from a camera."""

    seed: int
    aligned: Aligned
    landmarks: np.ndarray
    forward: Tensor
    look: Callable[[Camera], Look]


def rendered(truths: Truths, seed: int, widen: float, material: int | None) -> Person:
    """A person of the head data pack in any light, as a photo would show it; looked at undressed.
    material: of the head, None for the seed's own."""
    head = build_head(truths.pack, seed, material)
    rng = head_rng(seed, 3)
    scene = Scene(truths.studio, head, studio_light(rng))
    camera = input_camera(rng, 2).resized(PORTRAIT, PORTRAIT)
    rgba = scene.view(camera, dressed=True).rgba.astype(np.float32) / 255
    behind = _background(np.random.default_rng(seed), 1, PORTRAIT)[0]
    rgb = rgba[..., :3] * rgba[..., 3:] + behind * (1 - rgba[..., 3:])
    photo = Photo((rgb * 255).astype(np.uint8), None, f"{seed}")
    points = five_points(camera.project(head.landmarks)[0])

    def look(from_there: Camera) -> Look:
        view = scene.view(from_there, dressed=False)
        rgba = torch.from_numpy(view.rgba.astype(np.float32) / 255)
        return Look(rgba[..., :3], rgba[..., 3], torch.from_numpy(view.depth))

    return Person(
        seed,
        align(photo, points, PORTRAIT, widen),
        head.landmarks.astype(np.float64),
        truths.canonical(_metres(head.skin), _metres(head.neutral)),
        look,
    )


def _metres(vertices: np.ndarray) -> np.ndarray:
    """As a shard would keep them."""
    return np.rint(vertices / SKIN_UNIT).astype(np.float32) * np.float32(SKIN_UNIT)


def sampled(sampler: BuiltInSampler, seed: int, widen: float) -> Person:
    """A head of the generator before a random background."""
    model, rng = sampler.model, head_rng(seed, STREAM + 1)
    code = sampler.map(sampler.z(seed), 0.9)
    field, parts = sampler.field(code), sampler.prior.unpack(code.float())
    vertices = model.space.vertices(parts.identity.clamp(-3, 3), parts.expression.clamp(-3, 3))
    landmarks = model.space.landmarks(vertices).numpy().astype(float)
    yaw, pitch = float(np.clip(rng.normal() * 22, -70, 70)), float(rng.normal() * 8)
    camera = sampler.camera(yaw, pitch, PORTRAIT)
    seen = field.render(camera)
    behind = torch.from_numpy(_background(np.random.default_rng(seed), 1, PORTRAIT)[0])
    rgb = seen.image + behind * (1 - seen.alpha[..., None])
    # It ends at the neck, which no photo does: the matte is given, not found.
    photo = Photo(_bytes(rgb), _bytes(seen.alpha), f"{seed}")
    points = five_points(camera.project(landmarks)[0])

    def look(from_there: Camera) -> Look:
        seen = field.render(from_there)
        rgb = seen.image / seen.alpha[..., None].clamp_min(1e-3)
        return Look(rgb.clamp(0, 1), seen.alpha, seen.depth * (seen.alpha > 0.5))

    canonical = shape.Canonical(model.space)
    forward = canonical.forward_lattice(parts.identity.clamp(-3, 3), parts.expression.clamp(-3, 3))
    return Person(seed, align(photo, points, PORTRAIT, widen), landmarks, forward, look)


def cameras(rng: np.random.Generator) -> list[Camera]:
    """VIEWS - 1 views of a field from round about, as recipes ask for them."""
    picked = rng.choice(len(YAWS), VIEWS - 1, p=SHARES)
    out = []
    for k in picked:
        yaw = YAWS[k] * rng.choice((-1, 1)) + rng.normal() * 8
        pitch = rng.choice((-25, 25, 60)) if YAWS[k] == 0 else rng.normal() * 8
        radius = distance(EXTENT * math.exp(rng.normal() * 0.06), FOV)
        out.append(orbit(*np.radians([yaw, pitch]), radius, FOV, PIVOT, SIZE, SIZE))
    return out


@dataclass
class Carrier:
    """What carries a photo from its camera to others: the picture [H, W, 3] in 0..1, the field's
    depth [h, w] there and the weight [h, w] of each pixel, and the camera."""

    picture: Tensor
    depth: Tensor
    weight: Tensor
    camera: Camera

    def mirrored(self, field) -> Carrier:
        """The mirrored photo, on the field's surface as the mirrored camera sees it."""
        picture, camera = warp.mirrored(self.picture, self.camera)
        seen = field.render(camera)
        weight = self.weight.flip(1) * warp.facing(seen.depth, seen.alpha, camera)
        return Carrier(picture, seen.depth, weight, camera)

    def to(self, camera: Camera, depth: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """The photo [h, w, 3] there and how far it is seen [h, w]."""
        got = warp.forward_warp(self.picture, self.depth, self.weight, self.camera, camera)
        return got.picture, warp.visibility(got, depth, alpha, camera)


def carrier(made: Reconstruction, crop: np.ndarray) -> Carrier:
    """Of a reconstruction and its photo uint8 [512, 512, 3]."""
    camera = made.camera.resized(SIZE, SIZE)
    seen = made.field.render(camera)
    trust = torch.from_numpy(made.trust)[None, None]
    trust = F.interpolate(trust, (SIZE, SIZE), mode="area")[0, 0]
    weight = trust * warp.facing(seen.depth, seen.alpha, camera)
    return Carrier(torch.from_numpy(crop).float() / 255, seen.depth, weight, camera)


class Truthful:
    """What a person's true head shows on the surface of a field that was made of its portrait."""

    def __init__(self, person: Person, made: Reconstruction, space) -> None:
        marks = made.shape.landmarks(space).numpy().astype(float)
        self.to_true = similarity(marks, person.landmarks)
        self.person, self.field = person, made.field

    def __call__(self, camera: Camera, depth: Tensor, alpha: Tensor) -> Tensor:
        """Colour and 1 where it is known [h, w, 4] of the field's view from a camera."""
        there = brought(camera, self.to_true).resized(LOOK, LOOK)
        look = self.person.look(there)
        solid = (alpha > 0.5) & (depth > 0)
        points = warp.points_of(depth, camera)[solid]
        q = points + lattice.sample(self.field.warp, points, self.field.bounds)
        p = q + lattice.sample(self.person.forward, q, self.field.bounds)
        local = p @ p.new_tensor(there.world2cam)[:3, :3].T + p.new_tensor(there.world2cam)[:3, 3]
        k = there.intrinsics
        at = torch.stack([k[0, 0] * local[:, 0] / local[:, 2] + k[0, 2],
                          k[1, 1] * local[:, 1] / local[:, 2] + k[1, 2]], 1) * 2 - 1  # fmt: skip
        inner = -F.max_pool2d(-look.alpha[None, None], 3, 1, 1)
        maps = torch.cat([look.rgb.permute(2, 0, 1)[None], inner], 1)
        got = F.grid_sample(maps, at[None, None], align_corners=False)[0, :, 0].T
        deep = F.grid_sample(look.depth[None, None], at[None, None], "nearest", align_corners=False)
        known = (got[:, 3] > 0.98) & ((deep[0, 0, 0] - local[:, 2]).abs() < DEEP)
        out = torch.zeros(*depth.shape, 4)
        out[solid] = torch.cat([got[:, :3], known[:, None].float()], 1) * known[:, None]
        return out


def pairs(person: Person, model, compute, fitted: bool) -> dict[str, np.ndarray]:
    """All arrays of one head, by the names at the top, without the head axis."""
    aligned = person.aligned
    if fitted:
        made = reconstruct(model, aligned, PRESETS["fast"], compute, _quiet, _quiet)
    else:
        made = encode_only(model, aligned, compute)
    photo, truth = carrier(made, aligned.crop), Truthful(person, made, model.space)
    twin = photo.mirrored(made.field)
    rows, views = [], cameras(head_rng(person.seed, STREAM))
    back = head_rng(person.seed, STREAM + 2).integers(len(views))
    for k, camera in enumerate(views):
        seen = made.field.render(camera)
        row, filled, visible = _inputs(photo, twin, camera, seen)
        row["truth"] = truth(camera, seen.depth, seen.alpha)
        rows.append(row)
        if k == back:  # the photo there, carried back: the last view
            there = Carrier(filled, seen.depth, visible, camera)
    seen = made.field.render(photo.camera)
    row, _, _ = _inputs(there, there.mirrored(made.field), photo.camera, seen)
    small = F.interpolate(photo.picture.permute(2, 0, 1)[None], (SIZE, SIZE), mode="area")[0]
    own = (photo.weight > 0.2).float() * (seen.alpha > 0.9)
    row["truth"] = torch.cat([small.permute(1, 2, 0) * own[..., None], own[..., None]], 2)
    rows.append(row)
    out = {key: np.stack([_bytes(r[key]) for r in rows]) for key in rows[0]}
    backs = [c.position - np.array(PIVOT) for c in (*views, photo.camera)]
    yaws = [math.degrees(math.atan2(b[0], b[2])) for b in backs]
    return out | {
        "seed": np.int64(person.seed),
        "fitted": np.bool_(fitted),
        "ws": made.ws[0].numpy(),
        "source": _bytes(small.permute(1, 2, 0)),
        "yaw": np.array(yaws, np.float32),
    }


def _inputs(photo: Carrier, twin: Carrier, camera: Camera, seen):
    """The network's inputs of a view, the filled photo [h, w, 3] and its visibility [h, w]."""
    row, filled = {}, None
    for name, one in (("warped", photo), ("mirror", twin)):
        picture, visible = one.to(camera, seen.depth, seen.alpha)
        mixed = seen.image + visible[..., None] * (picture - seen.image)
        row[name] = torch.cat([mixed, visible[..., None]], 2)
        if filled is None:
            filled = mixed, visible
    row["render"] = torch.cat([seen.image, seen.alpha[..., None]], 2)
    return row, *filled


def _bytes(x: Tensor) -> np.ndarray:
    return (x.clamp(0, 1) * 255 + 0.5).byte().numpy()


def _quiet(*_) -> None:
    pass


_worker: dict = {}


def _start(pack_path: str | None, mean: np.ndarray, weights: Path) -> None:
    torch.set_num_threads(1)
    model = load_default(weights)
    _worker["truths"] = Truths(model.space, Pack(pack_path), mean)
    _worker["sampler"] = BuiltInSampler(model=model)
    _worker["compute"] = device.choose("cpu", threads=1)


def _shard(job: tuple[Path, str, int, int, int | None]) -> str:
    folder, kind, first, end, material = job
    path = folder / f"svinet_{kind}_{first:08d}.npz"
    if path.exists():
        return f"{path.name} is there"
    begun, model = time.process_time(), _worker["sampler"].model
    widen, heads = model.config["widen"], []
    for seed in range(first, end):
        if kind == "rendered":
            person = rendered(_worker["truths"], seed, widen, material)
        else:
            person = sampled(_worker["sampler"], seed, widen)
        try:
            heads.append(pairs(person, model, _worker["compute"], seed % 4 != 3))
        except ReconstructionError:  # too much of the head is covered
            continue
    write_shard(path, stacked(heads))
    return f"{path.name}: {(time.process_time() - begun) / len(heads):.2f} cpu-s a head"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs=2, required=True, metavar=("FIRST", "END"))
    parser.add_argument("--kind", choices=KINDS, default="rendered")
    parser.add_argument("--material", type=int, choices=(1, 2), help="of the heads")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--mean", type=Path, help="the template's mean, if it is known (mean.npy)")
    parser.add_argument("--weights", type=Path, default=PATH)
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    mean = kept_mean(args.mean or args.out / "mean.npy", args.pack, 2000)
    first, end = args.seeds
    jobs = [
        (args.out, args.kind, s, min(s + SHARD, end), args.material)
        for s in range(first, end, SHARD)
    ]
    start = (args.pack, mean, args.weights)
    with ProcessPoolExecutor(args.workers, get_context("spawn"), _start, start) as pool:
        for line in pool.map(_shard, jobs):
            print(line, flush=True)


if __name__ == "__main__":
    main()

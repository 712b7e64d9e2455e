"""Fits the prior over heads that ships beside the head model, so that it can make heads of seeds.

    python -m engine.training.build_prior --work DIR --out engine/weights/prior.safetensors \
        --heads 900 --minutes 40 --workers 2

1. people: the training seeds 0 .. --heads as the head model's own numbers (prior_data.py), kept in
   DIR/people.npz; again for the held-out seeds 1,000,000 .. 1,000,063, which only `measure` sees.
2. faces: the book of sharp faces (prior_faces.py), of the training seeds 0 .. --face-seeds.
3. prior: class means, and a low-rank basis of what is left for women and for men, in which shape
   and colour go together. Seeded; the same commands give an equal prior. `--minutes` bounds the
   first part: no head is started later, and the notes in the file say how many there were.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from engine.checkpoints.default import PATH, DefaultModel, load_default
from engine.inversion.perceive import signed
from engine.portrait.align import align, alignment_matrix
from engine.portrait.image import Photo
from engine.sampling.builtin import BuiltInSampler
from engine.systems.head.prior import HeadPrior
from engine.training import prior_data, prior_faces
from engine.training.data import SIZE, WIDEN, five_points
from engine.training.heads.build import head_rng
from engine.training.heads.dataset import HELD_OUT
from engine.training.heads.pack import Pack
from engine.training.heads.sampler import BALD, sample_params

COMPONENTS = 80
FEWEST, SHRINK = 8, 4  # heads that make a class; heads of the overall mean that join each
REFINE, TOGETHER = 16, 8  # steps of w+; heads in one go
COLOUR_MM = 3.5  # the whole spread of w+ weighs as much as so many millimetres of shape
LEFT_OUT = ("braid01",)  # its mass is full of holes
# How often a hair style is drawn, against the training heads: (women, men).
RARER = {"bald": (0.25, 0.6), "short04": (0.7, 0.7)}
PARTS = ("identity", "expression", "ws")
# New heads look friendly: of these people the expression is left out, and all have some of a smile.
SULLEN, SMILE = ("angry", "sad"), 0.45
_state: dict = {}


def _start(pack_path: str | None, mean: np.ndarray, weights: Path) -> None:
    torch.set_num_threads(1)
    _state["sitting"] = prior_data.Sitting(load_default(weights), Pack(pack_path), mean)


def _people(job: tuple[list[int], float]) -> list[dict]:
    """Some seeds' heads; none once it is too late (time.time())."""
    seeds, late = job
    if time.time() > late:
        return []
    sitting = _state["sitting"]
    people = [sitting.person(seed) for seed in seeds]
    prior_data.refine(sitting.model, people, REFINE, torch.Generator().manual_seed(seeds[0]))
    return [
        {"seed": s, "identity": p.identity, "expression": p.expression, "style": p.style,
         "male": p.male, "ws": p.ws.numpy()}
        for s, p in zip(seeds, people, strict=True)
    ]  # fmt: skip


def gather(pool: ProcessPoolExecutor, pack: Pack, first: int, count: int, late: float) -> dict:
    """People of the seeds first .. first + count, arrays by name with a first axis of heads."""
    seeds = [
        s
        for s in range(first, first + count)
        if prior_data.natural(sample_params(pack, head_rng(s, 0)))
    ]
    chunks = [seeds[i : i + TOGETHER] for i in range(0, len(seeds), TOGETHER)]
    found = [p for part in pool.map(_people, [(c, late) for c in chunks]) for p in part]
    return {key: np.stack([p[key] for p in found]) for key in found[0]}


def friendly(data: dict[str, np.ndarray], persons: list[dict]) -> dict[str, np.ndarray]:
    """People with expressions as one likes them in a portrait. persons: their parameters."""
    names = np.array([p["expression_name"] for p in persons])
    expression = np.where(np.isin(names, SULLEN)[:, None], 0, data["expression"])
    smiling = data["expression"][names == "smile"]
    expression = expression + SMILE * smiling.sum(0) / max(1, len(smiling))
    return data | {"expression": expression.astype(np.float32)}


def fit(data: dict[str, np.ndarray], model: DefaultModel, names: list[str]) -> tuple[dict, dict]:
    """The prior's tensors without the faces, and notes. names: of the hair weights' styles."""
    space = model.space
    keys = data["style"].astype(int) * 2 + data["male"]
    fewest = min(FEWEST, 2 + len(keys) // 50)  # of a trial's few heads, fewer make a class
    classes = [
        k for k in np.unique(keys) if (keys == k).sum() >= fewest and names[k // 2] not in LEFT_OUT
    ]
    kept = np.isin(keys, classes)
    which = np.searchsorted(classes, keys[kept])
    flat = np.concatenate([data[k][kept].reshape(kept.sum(), -1) for k in PARTS], 1)
    flat = flat.astype(np.float64)
    # What moves a millimetre counts alike, and colours against shape as one likes.
    move = [b.square().sum(-1).mean(1).sqrt() * 1e3 for b in (space.identity, space.expression)]
    spread = flat[:, -data["ws"][0].size :].var(0).sum() ** 0.5
    size = np.concatenate([*move, np.full(data["ws"][0].size, COLOUR_MM / spread)])
    overall = flat.mean(0)
    mean = np.stack([
        (flat[which == c].sum(0) + SHRINK * overall) / ((which == c).sum() + SHRINK)
        for c in range(len(classes))
    ])  # fmt: skip
    male = np.array(classes) % 2 == 1
    # no more than the smaller of the two groups can tell
    count = min(COMPONENTS, *(int((male[which] == man).sum()) for man in (False, True)))
    bases, explained = [], []
    for man in (False, True):  # of their own, or women would have a shadow of the men's beards
        rest = ((flat - mean[which]) * size)[male[which] == man]
        _, s, v = np.linalg.svd(rest, full_matrices=False)
        v *= np.where(v.sum(1, keepdims=True) < 0, -1, 1)  # the sign is else the library's whim
        bases.append(s[:count, None] / len(rest) ** 0.5 * v[:count] / size)
        explained.append(round(float((s[:count] ** 2).sum() / (s**2).sum()), 4))
    wanted = np.array([RARER.get(names[k // 2], (1.0, 1.0))[k % 2] for k in classes])
    share = np.bincount(which) * wanted
    share /= share.sum()
    tensors = {
        "class_share": torch.tensor(share).float(),
        "class_style": torch.tensor(np.array(classes) // 2).int(),
        "class_mean": torch.tensor(mean).half(),
        "class_basis": torch.tensor(male).int(),
        "basis": torch.tensor(np.stack(bases)).half(),
        "rest": torch.tensor(share).float(),
    }
    n, w = data["ws"].shape[1:]
    notes = {
        "heads": int(kept.sum()),
        "last_seed": int(data["seed"].max()),
        "explained": explained,
        "identity": data["identity"].shape[1],
        "expression": data["expression"].shape[1],
        "styles": space.styles,
        "ws": int(n),
        "w": int(w),
        "version": 2,
    }
    return tensors, notes


@torch.no_grad()
def statistics(model: DefaultModel, heads: list[tuple[Tensor, Tensor, Tensor]]) -> dict:
    """Means and spreads over heads (identity, expression, w+): mean distance of the vertices above
    the neck from the mean head's (mm); luma of forehead and cheeks, and of the back of the head;
    distance between random pairs of heads (mm)."""
    space = model.space
    above = space.mean[:, 1] > -0.1
    face = space.mean[(space.mean[:, 2] > 0.055) & (space.mean[:, 1].abs() < 0.06)][::7]
    back = torch.tensor([[0.0, y, z] for y, z in ((0.06, -0.13), (0.03, -0.135), (0.09, -0.1))])
    luma = torch.tensor([0.299, 0.587, 0.114])
    shapes, rows = [], []
    for identity, expression, ws in heads:
        moved = space.displacement(identity, expression)[above]
        shapes.append(moved)
        planes = model.generator.planes(ws[None])
        colour = model.generator(planes, torch.cat([face, back])[None])[0][0]
        skin, hair = colour[: len(face)].median(0).values, colour[len(face) :].mean(0)
        rows.append([
            float(moved.norm(dim=1).mean()) * 1e3, float(skin @ luma), float(skin[0] - skin[2]),
            float(hair @ luma),
        ])  # fmt: skip
    pairs = torch.randperm(len(shapes), generator=torch.Generator().manual_seed(0))
    apart = [
        float((shapes[a] - shapes[b]).norm(dim=1).mean()) * 1e3
        for a, b in zip(pairs[::2].tolist(), pairs[1::2].tolist(), strict=False)
    ]
    names = ("from mean mm", "skin luma", "skin red-blue", "hair luma")
    out = {
        name: [round(float(x), 3) for x in (c.mean(), c.std())]
        for name, c in zip(names, np.array(rows).T, strict=True)
    }
    return out | {"pairs mm": [round(float(x), 3) for x in (np.mean(apart), np.std(apart))]}


@torch.no_grad()
def recognised(sampler: BuiltInSampler, psi: float, count: int) -> dict:
    """What the perception network, which learned on other pictures, makes of sampled heads seen
    from the front: landmarks' error (percent of the picture's side), the share whose hair style it
    names (mirrored ones count as the same), the correlation of identity coefficients."""
    model, errors, styles, found = sampler.model, [], [], []
    bald = model.space.styles - 1
    for seed in range(count):
        code = sampler.map(sampler.z(seed), psi)
        parts, camera = sampler.prior.unpack(code), sampler.camera(0, 0, 256)
        picture = sampler.picture(code, camera)
        alpha = picture.alpha[..., None] / 255.0
        marks = model.space.landmarks(model.space.vertices(parts.identity, parts.expression))
        marks, _ = camera.project(marks.double().numpy())
        matrix = alignment_matrix(five_points(marks), 256, WIDEN)
        rgb = (picture.image * alpha + 110 * (1 - alpha)).astype(np.uint8)
        crop = align(Photo(rgb, None, ""), five_points(marks), 256, WIDEN).crop
        seen = model.perception(F.interpolate(signed(crop), (SIZE, SIZE), mode="area"))
        marks = (marks @ matrix[:2, :2].T + matrix[:2, 2]) / 256
        errors.append(np.abs(seen.landmarks[0].numpy() - marks).mean() * 100)
        named, true = int(seen.hair[0].argmax()), int(parts.hair.argmax())
        styles.append(named == true or (bald not in (named, true) and (named - true) % 10 == 0))
        found.append(torch.stack([seen.identity[0], parts.identity]))
    a, b = torch.stack(found, 1)[..., :8].flatten(1).double()
    together = float(torch.corrcoef(torch.stack([a, b]))[0, 1])
    return {
        "landmarks %": round(float(np.mean(errors)), 2),
        "hair style": round(float(np.mean(styles)), 3),
        "identity correlation": round(together, 3),
    }


def measure(model: DefaultModel, prior: HeadPrior, held: dict[str, np.ndarray]) -> None:
    """Prints statistics of held-out heads and of sampled ones."""
    real = [tuple(torch.from_numpy(held[k][i]) for k in PARTS) for i in range(len(held["style"]))]
    print("held-out", json.dumps(statistics(model, real)))
    for psi in (1.0, 0.7, 0.5):
        made = []
        for seed in range(200):
            z = np.random.RandomState(seed).standard_normal(prior.z_dim)
            parts = prior.unpack(prior.map(torch.from_numpy(z).float(), psi))
            made.append((parts.identity, parts.expression, parts.ws))
        print(f"psi {psi}", json.dumps(statistics(model, made)))
    print("recognised at psi 0.7", json.dumps(recognised(BuiltInSampler(prior), 0.7, 64)))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", type=int, default=900)
    parser.add_argument("--held-out", type=int, default=64, help="heads to compare with; 0: none")
    parser.add_argument("--weights", type=Path, default=PATH)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--faces", type=int, default=60, help="in the book of faces")
    parser.add_argument("--face-seeds", type=int, default=1800, help="that they are chosen from")
    parser.add_argument("--mean-heads", type=int, default=2000, help="as --heads of the head space")
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    pack, model = Pack(args.pack), load_default(args.weights)
    mean = _kept(args.work / "mean.npz", lambda: {
        "mean": prior_data.template_mean(pack, args.mean_heads)
    })["mean"]  # fmt: skip
    late = time.time() + 60 * args.minutes
    spawn = get_context("spawn")
    with ProcessPoolExecutor(args.workers, spawn, _start, (args.pack, mean, args.weights)) as pool:
        people = _kept(args.work / "people.npz", lambda: gather(pool, pack, 0, args.heads, late))
        held = args.held_out and _kept(
            args.work / "held-out.npz",
            lambda: gather(pool, pack, HELD_OUT, args.held_out, float("inf")),
        )
    persons = [sample_params(pack, head_rng(int(seed), 0)) for seed in people["seed"]]
    tensors, notes = fit(friendly(people, persons), model, [*pack.hairs, *pack.hairs, BALD])
    _start(args.pack, mean, args.weights)
    faces = _kept(
        args.work / "faces.npz",
        lambda: prior_faces.make_faces(_state["sitting"], args.face_seeds, args.faces),
    )
    notes |= {"faces": len(faces["light"]), "last_face": int(faces.pop("seeds").max())}
    years = np.array([p["years"] for p in persons])
    faces["follow"] = prior_faces.follow(people["identity"], people["male"], years)
    tensors |= {f"faces.{k}": torch.from_numpy(v) for k, v in faces.items()}
    temporary = args.out.with_suffix(".tmp")
    save_file(tensors, temporary, {"prior": json.dumps(notes, sort_keys=True), "format": "pt"})
    temporary.chmod(0o644)
    temporary.replace(args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, {json.dumps(notes)}")
    if held:
        measure(model, HeadPrior(tensors, notes), held)


def _kept(path: Path, make) -> dict[str, np.ndarray]:
    """Arrays of a file, made and written if it is not there."""
    if not path.exists():
        temporary = path.with_suffix(".tmp")
        with open(temporary, "wb") as file:
            np.savez(file, **make())
        temporary.replace(path)
    with np.load(path) as data:
        return dict(data)


if __name__ == "__main__":
    main()

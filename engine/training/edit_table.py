"""What edits do to heads, measured on the edited heads themselves: engine/weights/edits.md.

    python -m engine.training.edit_table --work build/training/edits

Heads: held-out people (seeds from 1,000,000 on), whose portraits went through the whole of `fast`,
and heads from seeds. Each is edited (engine/editing) by -1 and by 1 of every direction, within its
range, and measured as it then is; nothing is read off its code:

- lengths between landmarks of the field (where its warp has them), and what an expression does;
- skin tone and beard: colours of the field on cheeks, chin and lip;
- hair length: how far down hair reaches that lies 4 mm over the skin;
- age and gender: what our networks and the regressor of build_directions.py read off its picture;
- brows: how far their inner ends stand over the eyes' inner corners;
- likeness: distance of features of our perception network (features.py; mean over three views)
  to those of the unedited head, as a share of the mean distance between two of the heads.

What is done lies in --work, so it can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from engine import device
from engine.checkpoints.default import load_default
from engine.editing.head import HeadEditor
from engine.editing.origin import remember
from engine.fields.head import HeadField
from engine.headspace import lattice
from engine.inversion.reconstruct import PRESETS, encode, perceive, reconstruct
from engine.portrait.align import align
from engine.portrait.image import Photo
from engine.sampling.builtin import BuiltInSampler
from engine.sampling.recipe import Recipe, field_of
from engine.systems.head.directions import PATH, load_directions
from engine.training import build_directions as directions
from engine.training import features
from engine.training.data import five_points
from engine.training.directions_data import LUMA, Attributes, face_attributes, shape_attributes
from engine.training.edit_card import card
from engine.training.heads.dataset import HELD_OUT
from engine.training.heads.pack import Pack
from engine.training.truth import PORTRAIT, Truths

OUT = PATH.with_name("edits.md")
ATTRIBUTES = (*directions.ALL, "brows")
BROW_UNIT = 1.0  # millimetres
PICTURE = 256
YAWS = 0.0, 30.0, -30.0
THICK = 0.004  # metres


class Reader:
    """Measures heads as they are."""

    def __init__(self, sampler: BuiltInSampler, people: Path) -> None:
        self.sampler, self.model = sampler, sampler.model
        self.compute = device.choose("cpu", threads=1)
        with np.load(people) as file:
            found = directions.People(dict(file), self.model)
        others = found.only(slice(1, None, 2))
        regressor = directions.Regressor(others.identity, others.ws, others.known[:, :2])
        self.regressor = regressor
        self.attributes = Attributes(self.model)
        some = range(0, len(found), max(1, len(found) // 60))
        measured = directions.Measure(self.attributes, regressor)([found.parts(i) for i in some])
        measured[:, :2] = found.known[list(some), :2]
        self.units = {**directions.units(measured, measured[:, 1]), "brows": BROW_UNIT}

    @torch.no_grad()
    def __call__(self, field: HeadField, base: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
        """Attributes by name (age in years, lengths in millimetres), and features [views, D].
        base: landmarks(...) of the unedited head, from which expressions are counted."""
        marks = torch.from_numpy(self.landmarks(field))
        found = {k: float(v) for k, v in shape_attributes(marks).items()}
        found["smile"] = float(face_attributes(marks, torch.from_numpy(base))["smile"])
        found["brows"] = float(marks[[21, 22], 1].mean() - marks[[39, 42], 1].mean())
        cheeks, bearded = (
            float((field.color(self._places(field, q)) @ torch.tensor(LUMA).float()).median())
            for q in (self.attributes.cheeks, self.attributes.bearded)
        )
        found["skin tone"], found["beard"] = cheeks, 1 - bearded / max(cheeks, 1e-3)
        found["hair length"] = self._reach(field)
        found["age"], found["gender"] = self._person(field)
        views = [self.sampler.camera(yaw, 0, features.SIZE) for yaw in YAWS]
        pictures = np.stack([self._picture(field, camera)[0] for camera in views])
        return found, features.pooled(self.model.perception, pictures)

    def landmarks(self, field: HeadField) -> np.ndarray:
        """The field's landmarks [84, 3], millimetres."""
        space = self.model.space
        return (self._places(field, space.landmarks(space.mean)) * 1e3).numpy()

    def _places(self, field: HeadField, canonical: torch.Tensor) -> torch.Tensor:
        return canonical + lattice.settle(field.warp, canonical, field.bounds, 12)

    def _picture(self, field: HeadField, camera) -> tuple[np.ndarray, np.ndarray]:
        """Before grey float32 [S, S, 3], and alpha [S, S]."""
        seen = field.render(camera)
        image = seen.image + (1 - seen.alpha[..., None]) * features.GREY
        return image.clamp(0, 1).numpy(), seen.alpha.numpy()

    def _person(self, field: HeadField) -> tuple[float, float]:
        """Years and gender, as read off the picture from in front."""
        camera = self.sampler.camera(0, 0, PICTURE)
        points = five_points(camera.project(self.landmarks(field).astype(float) / 1e3)[0])
        image, alpha = self._picture(field, camera)
        crop, mask = (
            align(Photo((x * 255 + 0.5).astype(np.uint8), None, ""), points, PICTURE, self._widen())
            for x in (image, np.repeat(alpha[..., None], 3, 2))
        )
        seen = perceive(self.model, crop.crop, self.compute)
        ws = encode(self.model, crop.crop, mask.crop[..., 0] / 255.0, self.compute)
        years, gender = self.regressor(seen.identity.float().numpy(), ws.numpy())[0]
        return float(years), float(gender)

    def _widen(self) -> float:
        return self.model.config["widen"]

    def _reach(self, field: HeadField) -> float:
        """How far down hair reaches from the crown, millimetres."""
        inside = (field.distance.reshape(-1) < 0).nonzero()[:, 0]
        r, bounds = field.distance.shape[0], field.bounds
        step = (bounds[1] - bounds[0]) / (r - 1)
        at = torch.stack([inside % r, inside // r % r, inside // r**2], 1) * step + bounds[0]
        canonical = at + lattice.sample(field.warp, at, bounds)
        skin = lattice.sample(self.model.space.skin_distance[None], canonical, bounds)[:, 0]
        hair = at[skin > THICK, 1]
        if len(hair) < 100:
            return 0.0
        return float(at[:, 1].max() - hair.quantile(0.01)) * 1e3


def inverted(sampler: BuiltInSampler, truths: Truths, seed: int) -> HeadField:
    """A held-out person's head from its portrait, by the preset `fast`."""
    truth, model = truths(seed), sampler.model
    aligned = align(truth.photo, truth.points, PORTRAIT, model.config["widen"])
    made = reconstruct(
        model, aligned, PRESETS["fast"], device.choose("cpu", threads=1), lambda *_: None,
        lambda *_: None,
    )  # fmt: skip
    remember(made.field, made.shape, made.ws, model)
    return made.field


def measure(reader: Reader, field: HeadField, path: Path) -> dict:
    """Of one head: what each direction's steps do, by name and amount; kept at `path`."""
    if path.exists():
        return json.loads(path.read_text())
    known = load_directions()
    editor = HeadEditor(field, reader.sampler, known)
    calm = reader.landmarks(field)
    before, like = reader(field, calm)
    rows = []
    for name in known.names:
        low, high = known.ranges[name]
        for amount in (max(low, -1.0), min(high, 1.0)):
            edited = editor.edited({name: amount}).field
            assert isinstance(edited, HeadField)
            after, looks = reader(edited, calm)
            change = {k: (after[k] - before[k]) / reader.units[k] for k in ATTRIBUTES}
            away = float(np.linalg.norm(looks - like, axis=1).mean())
            rows.append({"name": name, "amount": amount, "change": change, "away": away})
    out = {"rows": rows, "features": like.tolist()}
    path.with_suffix(".tmp").write_text(json.dumps(out))
    path.with_suffix(".tmp").replace(path)
    return out


def apart(heads: list[dict]) -> float:
    """Mean distance between the features of two heads in the same view."""
    looks = [np.array(head["features"]) for head in heads]
    pairs = [
        np.linalg.norm(a - b, axis=1).mean() for i, a in enumerate(looks) for b in looks[i + 1 :]
    ]
    return float(np.mean(pairs))


@lru_cache(maxsize=1)
def tools(people: Path, pack: str | None) -> tuple[BuiltInSampler, Reader, Truths]:
    """What measuring takes; people: the work folder of build_directions."""
    sampler = BuiltInSampler(model=load_default())
    reader = Reader(sampler, next(iter(sorted(people.glob("people-*.npz")))))
    truths = Truths(sampler.model.space, Pack(pack), np.load(people / "mean.npy"))
    return sampler, reader, truths


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/training/edits"))
    parser.add_argument(
        "--people", type=Path, default=Path("build/training/directions"),
        help="work folder of engine.training.build_directions",
    )  # fmt: skip
    parser.add_argument("--heads", type=int, default=6, help="of each kind")
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, list[dict]] = {"photos": [], "seeds": []}
    for k in range(args.heads):
        for kind, found in kinds.items():
            path = args.work / f"{kind}-{k}.json"
            if not path.exists():
                sampler, reader, truths = tools(args.people, args.pack)
                if kind == "photos":
                    field = inverted(sampler, truths, HELD_OUT + k)
                else:
                    field = field_of(sampler, Recipe((k,)))
                measure(reader, field, path)
            found.append(json.loads(path.read_text()))
            print(path.name, flush=True)
    text = card(kinds, {k: apart(v) for k, v in kinds.items()}, ATTRIBUTES)
    args.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

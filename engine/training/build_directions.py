"""Semantic directions of the built-in head model's codes, regressed from people whose parameters
are known.

    python -m engine.training.build_directions --work build/training/directions

Makes engine/weights/directions.safetensors and its card, directions.md. The people (seeds 0 ..
--heads and the first held-out ones) are built once, in four minutes or so of one core, and kept in
--work; what depends on the weights is made anew at each run, in a minute.

Method: codes are regressed on everything known of a person together (ridge regression on
standardised covariates), so that a direction is the *partial* effect of one of them: age at equal
gender, weight and descent; a wide nose at an equal face. Then each direction is scaled so that an
amount of 1 moves the attribute that it is named after by its unit (see units), and what it still
does to attributes of another kind is taken out with their own directions (`untangle`). Attributes
are measured, never read off the code: lengths between landmarks, colours that the generator paints;
age and gender by a regressor that was trained on other people than the directions. Expressions are
composed, see directions_composed.py.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.checkpoints import default
from engine.checkpoints.default import DefaultModel
from engine.systems.head.directions import PATH
from engine.systems.head.prior import HeadPrior, Parts, load_prior
from engine.training import directions_data as data
from engine.training.directions_card import card, meaning
from engine.training.directions_composed import with_expressions, write
from engine.training.directions_data import FACE, SHAPE, Attributes
from engine.training.heads.dataset import HELD_OUT, stacked, write_shard
from engine.training.heads.pack import Pack
from engine.training.prior_data import Sitting, kept_mean

TESTED = 24  # held-out people on whom the table is measured
RIDGE = 3.0  # heads' worth
ALL = ("age", "gender", *SHAPE, "smile", "skin tone", "hair length", "beard")
LONGEST = "long01"  # the hair style that more length goes towards
# Of each direction: whose effects are taken out again.
UNTANGLED = {
    "age": ("gender", "skin tone", "beard"),
    "gender": ("age", "skin tone"),
    "skin tone": ("age", "gender", "beard"),
    "beard": ("age", "skin tone"),
}
_state: dict = {}


def _start(pack_path: str | None, mean: np.ndarray) -> None:
    torch.set_num_threads(1)
    _state["sitting"] = Sitting(default.load_default(), Pack(pack_path), mean)


def _person(seed: int) -> dict[str, np.ndarray] | None:
    return data.person(_state["sitting"], seed)


def partial(targets: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    """Slopes [K, ...] of targets [N, ...] per standard deviation of each of K covariates [N, K],
    the others held (ridge regression)."""
    x = (covariates - covariates.mean(0)) / covariates.std(0).clip(1e-6)
    y = (targets - targets.mean(0)).reshape(len(x), -1)
    slopes = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y)
    return slopes.reshape(x.shape[1], *targets.shape[1:])


class Regressor:
    """Years and gender of a code, by ridge regression on identity and the main components of w+."""

    COMPONENTS, HOLD = 40, 20.0

    def __init__(self, identity: np.ndarray, ws: np.ndarray, wanted: np.ndarray) -> None:
        flat = ws.reshape(len(ws), -1)
        self.mean = flat.mean(0)
        _, _, v = np.linalg.svd(flat - self.mean, full_matrices=False)
        self.basis = v[: self.COMPONENTS].T
        x = self._features(identity, flat)
        self.size, self.rest = x.std(0), wanted.mean(0)
        x = x / self.size
        square = x.T @ x + self.HOLD * np.eye(x.shape[1])
        self.slopes = np.linalg.solve(square, x.T @ (wanted - self.rest))

    def _features(self, identity: np.ndarray, flat: np.ndarray) -> np.ndarray:
        return np.concatenate([identity, (flat - self.mean) @ self.basis], 1)

    def __call__(self, identity: np.ndarray, ws: np.ndarray) -> np.ndarray:
        """identity [N, Ki], ws [N, n, w] -> [N, wanted]."""
        x = self._features(identity, ws.reshape(len(ws), -1))
        return x / self.size @ self.slopes + self.rest


class People:
    """Some people's codes: identity [N, Ki], expression [N, Ke], hair [N, styles], ws [N, n, w];
    known [N, 9]; tone [N] luma of the cheeks."""

    def __init__(self, found: dict[str, np.ndarray], model: DefaultModel) -> None:
        self.identity, self.expression = found["identity"], found["expression"]
        self.known = found["known"]
        self.hair = np.eye(model.space.styles, dtype=np.float32)[found["style"]]
        self.ws = data.encode(model, found["portrait"]).numpy()
        self.tone = data.skin_tones(found["portrait"])

    def __len__(self) -> int:
        return len(self.known)

    def only(self, which: slice) -> People:
        """Some of them."""
        out = object.__new__(People)
        for name, value in vars(self).items():
            setattr(out, name, value[which])
        return out

    def parts(self, i: int) -> Parts:
        """Of one person, as the sampler has them."""
        fields = self.identity[i], self.expression[i], self.hair[i], self.ws[i]
        return Parts(*(torch.from_numpy(x).float() for x in fields))


class Measure:
    """All attributes of codes as an array [N, len(ALL)]."""

    def __init__(self, attributes: Attributes, regressor: Regressor) -> None:
        self.attributes, self.regressor = attributes, regressor

    def __call__(self, codes: list[Parts]) -> np.ndarray:
        rows = [self.attributes(parts) for parts in codes]
        person = self.regressor(
            np.stack([p.identity.numpy() for p in codes]), np.stack([p.ws.numpy() for p in codes])
        )
        rest = np.array([[row[name] for name in ALL[2:]] for row in rows])
        return np.concatenate([person, rest], 1)


def raw_directions(
    prior: HeadPrior, people: People, attributes: Attributes, longest: int
) -> dict[str, Tensor]:
    """Partial effects as codes [3 + n, w], of any size, by name. longest: index of the hair
    weight that more length goes towards."""
    known = people.known
    identity, expression = (torch.from_numpy(x) for x in (people.identity, people.expression))
    measured = {k: v.numpy() for k, v in attributes.shape(identity, expression).items()}
    marks = attributes.landmarks(identity).numpy()

    def of(*names: str) -> np.ndarray:
        return np.stack([measured[k] for k in names], 1)

    zero = Parts(
        *(torch.zeros(x.shape[1:]) for x in (people.identity, people.expression, people.hair)),
        torch.zeros(people.ws.shape[1:]),
    )

    def code(**parts: np.ndarray) -> Tensor:
        given = {k: torch.from_numpy(np.ascontiguousarray(v)).float() for k, v in parts.items()}
        return prior.pack(Parts(**{**vars(zero), **given}))

    out = {}
    beard = known[:, 6:7] + known[:, 7:8] / 6  # stubble, and the root of the length
    reach = people.hair @ attributes.lengths.numpy()
    person = np.concatenate([known[:, :6], people.tone[:, None], reach[:, None], beard], 1)
    shape, colour = partial(people.identity, person), partial(people.ws, person)
    for name, k in (("age", 0), ("gender", 1)):
        out[name] = code(identity=shape[k], ws=colour[k])
    # The average face's other proportions are held as well.
    others = [marks[:, a] - marks[:, b] for a, b in ((27, 8), (36, 45), (48, 54), (19, 37))]
    others = np.stack([np.linalg.norm(d, axis=1) for d in others], 1)
    ears_to_chin = (marks[:, 8, 2] - marks[:, [0, 16], 2].mean(1))[:, None]
    held = [of(*SHAPE), others, ears_to_chin, known[:, :6]]
    slopes = partial(people.identity, np.concatenate(held, 1))
    for k, name in enumerate(SHAPE):
        out[name] = code(identity=slopes[k])
    out["smile"] = code(expression=partial(people.expression, of(*FACE))[FACE.index("smile")])
    out["skin tone"] = code(ws=colour[6])
    # Hair weights are convex: towards the longest style, and away from none. Its colours follow
    # by themselves (engine/sampling/harmony.py); what w+ has to do with length is mostly colour.
    style = np.zeros(people.hair.shape[1], np.float32)
    style[longest], style[-1] = 0.5, -0.5
    out["hair length"] = code(hair=style)
    out["beard"] = code(ws=colour[8])
    return out


def units(measured: np.ndarray, gender: np.ndarray) -> dict[str, float]:
    """What an amount of 1 means, by name, of attributes [N, len(ALL)] measured on people: one
    standard deviation over them (of a beard: over the men); of a smile: as much as the strongest
    twentieth show."""
    found = {}
    for k, name in enumerate(ALL):
        column = measured[:, k]
        if name == "smile":
            found[name] = float(np.percentile(column, 95))
        else:
            found[name] = float((column[gender > 0.5] if name == "beard" else column).std())
    return found


def response(
    measure: Measure, prior: HeadPrior, heads: list[Parts], direction: Tensor, amount: float = 1.0
) -> np.ndarray:
    """Mean change [len(ALL)] of the attributes of some heads as they go from -amount / 2 to
    amount / 2 along a direction, or from 0 to amount for a face's, which start at calm."""
    low, high = (0.0, amount) if direction[1].any() else (-amount / 2, amount / 2)
    moved = [
        measure([prior.unpack(prior.pack(p) + step * direction) for p in heads])
        for step in (low, high)
    ]
    return (moved[1] - moved[0]).mean(0)


def build(
    prior: HeadPrior,
    train: People,
    measure: Measure,
    unit: np.ndarray,
    heads: list[Parts],
    longest: int,
) -> dict[str, Tensor]:
    """Directions by name, an amount of 1 moving the own attribute of `heads` by 1 of `unit`
    [len(ALL)], and the others untangled."""
    found = raw_directions(prior, train, measure.attributes, longest)

    def effect(direction: Tensor) -> np.ndarray:
        return response(measure, prior, heads, direction) / unit

    def scaled(name: str, direction: Tensor, times: int = 2) -> Tensor:
        for _ in range(times):  # colours do not answer linearly
            direction = direction / float(effect(direction)[ALL.index(name)])
        return direction

    found = {name: scaled(name, direction, 1) for name, direction in found.items()}
    # What is of another kind is taken out with its own direction: once is nearly all of it. How
    # age and gender shape a face is what these words mean, and stays.
    before = {name: effect(direction) for name, direction in found.items()}
    for name, out in UNTANGLED.items():
        for other in out:
            found[name] = found[name] - float(before[name][ALL.index(other)]) * found[other]
        found[name] = scaled(name, found[name])
    return found


def gather(args: argparse.Namespace) -> tuple[dict, dict]:
    """Training and held-out people, from the work folder or built."""
    args.work.mkdir(parents=True, exist_ok=True)
    out = []
    settings = (args.pack, kept_mean(args.work / "mean.npy", args.pack, args.mean_heads))
    for name, seeds in (
        (f"people-{args.heads}", range(args.heads)),
        ("held-out", range(HELD_OUT, HELD_OUT + 2 * TESTED)),
    ):
        path = args.work / f"{name}.npz"
        if not path.exists():
            spawn = get_context("spawn")
            with ProcessPoolExecutor(args.workers, spawn, _start, settings) as pool:
                found = [p for p in pool.map(_person, seeds, chunksize=8) if p is not None]
            write_shard(path, stacked(found))
        with np.load(path) as data_file:
            out.append(dict(data_file))
    return out[0], {key: value[:TESTED] for key, value in out[1].items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/training/directions"))
    parser.add_argument("--out", type=Path, default=PATH)
    parser.add_argument("--heads", type=int, default=800)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--weights", type=Path, default=default.PATH)
    parser.add_argument("--mean-heads", type=int, default=2000, help="as --heads of the head space")
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    found, held = gather(args)
    model, prior = default.load_default(args.weights), load_prior()
    people, tested = People(found, model), People(held, model)
    train, others = people.only(slice(0, None, 2)), people.only(slice(1, None, 2))
    regressor = Regressor(others.identity, others.ws, others.known[:, :2])
    read = regressor(train.identity, train.ws)
    seen = [float(np.corrcoef(read[:, k], train.known[:, k])[0, 1]) for k in (0, 1)]
    print("regressor of age and gender, correlation on unseen people:", np.round(seen, 3))
    measure = Measure(Attributes(model), regressor)
    some = range(0, len(people), max(1, len(people) // 80))
    measured = measure([people.parts(i) for i in some])
    measured[:, :2] = people.known[list(some), :2]
    unit = units(measured, measured[:, 1])
    size = np.array([unit[name] for name in ALL])
    calm = [tested.parts(i) for i in range(len(tested))]
    calm = [Parts(p.identity, torch.zeros_like(p.expression), p.hair, p.ws) for p in calm]
    longest = Pack(args.pack).hairs.index(LONGEST)
    directions = build(prior, train, measure, size, calm[:8], longest)
    table = np.stack([response(measure, prior, calm, d) / size for d in directions.values()])
    said = [meaning(name, unit[name]) for name in directions]
    tensor = torch.stack(list(directions.values())).half()
    about = {
        "names": list(directions),
        "ranges": [r for _, r in said],
        "meaning": [m for m, _ in said],
        "weights": model.sha256,
        "regressor": seen,
        "seeds": args.heads,
        "version": 1,
    }
    tensor, about = with_expressions(tensor, about)
    write(tensor, about, args.out)
    text = card(about, ALL, table, len(people), TESTED)
    args.out.with_suffix(".md").write_text(text)
    print(text[text.index("| direction | age") :])


if __name__ == "__main__":
    main()

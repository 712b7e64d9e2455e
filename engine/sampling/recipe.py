"""How a head comes about: seeds and saved heads along a path, truncation, mixing; kept with the
head, so that it can be made again.

Between random vectors the path is an arc (slerp: normal vectors of many dimensions lie near a
sphere, and a straight line would leave it), between codes it is straight. Source: StyleGAN (Karras
et al. 2019) for truncation and style mixing.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from engine.errors import ParameterError, WeightsError
from engine.fields.base import Field, Origin
from engine.fields.io import load_field
from engine.sampling.base import Sampler
from engine.sampling.edits import edited

MOST_SEEDS = 1 << 32  # numpy's legacy generator, which the official seeds come from, takes no more
MOST_HEADS = 1000


@dataclass(frozen=True)
class Recipe:
    """heads: what to start from: seeds, or paths of field files that hold a code.
    at: place on the path through them, 0 at the first, 1 at the second, ... n - 1 at the last.
    space: 'z' (an arc between random vectors, seeds only) or 'w' (a line between codes).
    psi, cutoff, yaw, pitch: as in Sampler.map, for seeds; saved codes stay as they are.
    mix_seed: the seed whose rows mix_from .. mix_to (both included, -1 for the last) replace the
    head's; -1 for none.
    edits: changes along semantic directions at the end, such as "age=1" (see edits.py).
    """

    heads: tuple[int | str, ...]
    at: float = 0.0
    space: Literal["z", "w"] = "w"
    psi: float = 0.7
    cutoff: int = -1
    yaw: float = 0.0
    pitch: float = 0.0
    mix_seed: int = -1
    mix_from: int = 0
    mix_to: int = -1
    edits: str = ""

    def __post_init__(self) -> None:
        if not self.heads:
            raise ParameterError("No head is given.", "Give a seed, such as 3.")
        if len(self.heads) > MOST_HEADS:
            raise ParameterError(f"At most {MOST_HEADS} heads can be on one path.")
        for head in self.heads:
            if isinstance(head, int) and not 0 <= head < MOST_SEEDS:
                raise ParameterError(f"A seed must be from 0 to {MOST_SEEDS - 1}, not {head}.")
        if not (math.isfinite(self.at) and 0 <= self.at <= len(self.heads) - 1):
            last = len(self.heads) - 1
            raise ParameterError(f"The place on the path must be from 0 to {last}, not {self.at}.")
        if self.space == "z" and any(isinstance(head, str) for head in self.heads):
            raise ParameterError(
                "Saved heads have no random vector, so they cannot be blended in z.",
                "Blend them in w.",
            )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "heads": list(self.heads)}


def from_json(data: dict[str, Any]) -> Recipe:
    """Inverse of Recipe.to_json; further keys are ignored. Raises ParameterError."""
    try:
        known = {key: data[key] for key in Recipe.__dataclass_fields__ if key in data}
        return Recipe(**{**known, "heads": tuple(data["heads"])})
    except (KeyError, TypeError) as error:
        raise ParameterError("The recipe is damaged.") from error


def parse_heads(text: str) -> tuple[int | str, ...]:
    """Seeds and paths of saved heads from "3", "3, 9", "0-7" or "3, folder/head.safetensors"; a
    path with a comma in it is given within a JSON list. Raises ParameterError."""
    text = text.strip()
    if text.startswith("["):
        try:
            parts = [str(part) for part in json.loads(text)]
        except ValueError as error:
            raise ParameterError("The list of heads is not valid JSON.") from error
    else:
        parts = [part.strip() for part in text.split(",")]
    heads: list[int | str] = []
    for part in parts:
        first, dash, last = part.partition("-")
        if part.isdecimal():
            heads.append(int(part))
        elif dash and first.isdecimal() and last.isdecimal():
            if not 0 <= int(last) - int(first) < MOST_HEADS:
                raise ParameterError(f"The seeds {part} are no range of at most {MOST_HEADS}.")
            heads += range(int(first), int(last) + 1)
        elif part:
            heads.append(part)
    if not heads:
        raise ParameterError("No head is given.", "Give a seed, such as 3.")
    return tuple(heads)


def slerp(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    """The point at t (0: a, 1: b) of the arc between vectors [D]; lengths are blended linearly.
    Vectors that are nearly parallel or opposite (no arc is given then) are blended linearly."""
    x, y = a.double(), b.double()
    length = x.norm(), y.norm()
    if min(length) == 0:
        return torch.lerp(a, b, t)
    u, v = x / length[0], y / length[1]
    angle = torch.arccos((u @ v).clamp(-1, 1))
    sine = torch.sin(angle)
    if sine < 1e-6:
        return torch.lerp(a, b, t)
    direction = (torch.sin((1 - t) * angle) * u + torch.sin(t * angle) * v) / sine
    return (direction * torch.lerp(length[0], length[1], t)).to(a.dtype)


def saved_code(path: str, sampler: Sampler) -> torch.Tensor:
    """The code [R, W] that a field file holds. Raises WeightsError if it holds none or one of
    another model, and whatever reading the file raises."""
    origin = load_field(path).origin
    name = Path(path).name
    if origin is None:
        raise WeightsError(
            f"The head {name} holds no latent code, so it cannot be blended.",
            "Use a head that was made from a seed.",
        )
    if origin.recipe.get("sha256") != sampler.sha256:
        made_with = str(origin.recipe.get("model", "another model"))[:64]
        raise WeightsError(
            f"The head {name} was made with the model {made_with}, not with {sampler.name}.",
            "Choose the model that it was made with.",
        )
    if origin.code.ndim != 2 or len(origin.code) != len(sampler.rows):
        raise WeightsError(f"The latent code of {name} does not fit the model {sampler.name}.")
    return origin.code


def code(
    sampler: Sampler, recipe: Recipe, known: dict[int | str, torch.Tensor] | None = None
) -> torch.Tensor:
    """The latent code [R, W] of a recipe. known: takes and gives the heads' own codes, for a caller
    that walks along a path. Raises ParameterError for rows that the model has not got, and what
    saved_code and edited raise."""
    made = _blended(sampler, recipe, {} if known is None else known)
    return edited(sampler, made, recipe.edits)


def _blended(
    sampler: Sampler, recipe: Recipe, known: dict[int | str, torch.Tensor]
) -> torch.Tensor:
    """The code of a recipe before its edits."""
    first = min(int(recipe.at), max(len(recipe.heads) - 2, 0))
    t = recipe.at - first
    ends = recipe.heads[first : first + 2]
    # On a head itself the other end of the path is not even looked at.
    if t == 0 or t == 1:
        ends, t = ends[int(t) : int(t) + 1], 0.0

    def mapped(z: torch.Tensor) -> torch.Tensor:
        return sampler.map(z, recipe.psi, recipe.cutoff, recipe.yaw, recipe.pitch)

    def one(head: int | str) -> torch.Tensor:
        if head not in known:
            seed = isinstance(head, int)
            known[head] = mapped(sampler.z(head)) if seed else saved_code(head, sampler)
        return known[head]

    if len(ends) == 1:
        made = one(ends[0])
    elif recipe.space == "z":
        made = mapped(slerp(sampler.z(ends[0]), sampler.z(ends[1]), t))
    else:
        made = torch.lerp(one(ends[0]), one(ends[1]), t)
    if recipe.mix_seed < 0:
        return made
    rows = len(sampler.rows)
    start, stop = recipe.mix_from, recipe.mix_to if recipe.mix_to >= 0 else rows - 1
    if not 0 <= start <= stop < rows:
        raise ParameterError(
            f"The rows to mix must lie within 0 to {rows - 1}, not {start} to {recipe.mix_to}.",
            f"The model {sampler.name} has {rows} rows, from coarse to fine.",
        )
    made = made.clone()
    made[start : stop + 1] = mapped(sampler.z(recipe.mix_seed))[start : stop + 1]
    return made


def field_of(sampler: Sampler, recipe: Recipe, made: torch.Tensor | None = None) -> Field:
    """The field of a recipe, with its origin: what is needed to make, blend or mix it again.
    made: the recipe's code, if it is there already."""
    made = code(sampler, recipe) if made is None else made
    field = sampler.field(made)
    kept = replace(recipe, heads=tuple(_plain(head) for head in recipe.heads))
    field.origin = Origin(made, {"model": sampler.name, "sha256": sampler.sha256, **kept.to_json()})
    return field


def _plain(head: int | str) -> int | str:
    """Of a saved head only the file's name is kept: its folder is nobody else's business."""
    return head if isinstance(head, int) else Path(head).name

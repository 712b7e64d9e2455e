"""The sheet of semantic directions, a row each. Imports torch: only from inside a job's run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from engine.device import Compute
from engine.editing.open import open_head
from engine.errors import ParameterError
from engine.fields.base import Field
from engine.jobs import stages
from engine.jobs.base import Context, Result
from engine.jobs.sheet_stages import common_box, finish, place, views_of
from engine.jobs.views_stages import thumbnail
from engine.sampling import recipe as recipes
from engine.sampling.edits import directions_of
from engine.sampling.open import open_sampler
from engine.sampling.recipe import Recipe, parse_heads
from engine.systems.head.directions import Directions
from engine.views.frame import look

STEPS, MOST = 5, 2.0  # pictures in a row; the largest amount shown


def amounts(low: float, high: float) -> list[float]:
    """Evenly from the least to the most that is shown of a direction's range."""
    return [float(a) for a in np.linspace(max(low, -MOST), min(high, MOST), STEPS).round(3)]


def _head(
    head: int | str, params: dict[str, Any], compute: Compute
) -> tuple[Directions, Field, Callable[[dict[str, float]], Field]]:
    """Of a seed or a saved head: its model's directions, its field, and what gives it changed. A
    saved one is edited (engine/editing), so that one from a photo stays that one."""
    if isinstance(head, str):
        editor, _ = open_head(head, params["model"], params["models"], compute)
        return editor.directions, editor.base, lambda amounts: editor.edited(amounts).field
    sampler = open_sampler(params["model"], params["models"], compute)
    known = directions_of(sampler)
    code = recipes.code(sampler, Recipe((head,), psi=params["psi"]))
    return known, sampler.field(code), lambda amounts: sampler.field(known.apply(code, amounts))


def make_direction_sheet(params: dict[str, Any], context: Context) -> Result:
    """The job `sheet` with directions. Of the cameras the first is taken, placed as for the head
    itself, so that what changes in a row is the head."""
    heads = parse_heads(params["heads"])
    if len(heads) != 1:
        raise ParameterError("A sheet of directions shows one head.", "Give one seed or one file.")
    context.progress(0.0, "loading the model")
    compute = stages.choose_compute(context, large=True)
    known, field, change = _head(heads[0], params, compute)
    wanted = [" ".join(name.split()).lower() for name in params["directions"].split(",")]
    names = list(known.names) if wanted == ["all"] else wanted
    shots = []
    for name in names:
        known[name]  # raises for a name that is none
        shots += [(name, amount) for amount in amounts(*known.ranges[name])]
    view = views_of(params, field, common_box([field]))[0]
    camera = view.camera
    tiles, size = place([(camera.width, camera.height)] * len(shots), STEPS, params)
    pictures, labels, facts = [], [], []
    for index, ((name, amount), tile) in enumerate(zip(shots, tiles)):
        context.progress(0.05 + 0.9 * index / len(shots), "rendering the views")
        moved = change({name: amount})
        pictures.append(look(moved, camera, check=context.check).rgba)
        labels.append(f"{name} {amount:+g}" if amount else f"{name} 0")
        about = {"head": labels[-1], "view": camera.name}
        facts.append({**about, **asdict(tile), "camera": camera.to_json()})
        context.item({"index": index, **about}, thumbnail(pictures[-1]))
    return finish(params, context, pictures, tiles, size, labels, facts)

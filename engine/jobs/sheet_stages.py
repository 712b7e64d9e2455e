"""What the job `sheet` does. Imports torch: only from inside a job's run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from engine.cameras import FIELD_TO_BLENDER
from engine.errors import ParameterError
from engine.fields.base import Field
from engine.fields.head import HeadField
from engine.fields.io import load_field
from engine.jobs import result_stages, stages
from engine.jobs.base import Context, Result
from engine.jobs.views_stages import check_name, make_folder, read_views, thumbnail
from engine.sampling import recipe as recipes
from engine.sampling.open import open_sampler
from engine.sampling.recipe import Recipe, parse_heads
from engine.surface.export import write_whole
from engine.views.frame import extent, look
from engine.views.images import png_bytes
from engine.views.sheet import Tile, compose, lay_out

MOST_PIXELS = 1 << 28  # of a sheet
MOST_COLUMNS = 6  # that one gets without asking
EYES = 0.03  # metres above a field's origin: where FFHQ's alignment has them, and so our heads


def make_sheet(params: dict[str, Any], context: Context) -> Result:
    """The job `sheet`."""
    check_name(params["name"])
    _colour(params["background"])
    if params["directions"]:
        from engine.jobs.sheet_directions import make_direction_sheet

        return make_direction_sheet(params, context)
    context.progress(0.0, "loading the heads")
    fields = dict(_fields(params, context))
    box = common_box(list(fields.values()))
    views = {head: views_of(params, field, box) for head, field in fields.items()}
    shots = [(head, view) for head in fields for view in views[head]]
    sizes = [(view.camera.width, view.camera.height) for _, view in shots]
    columns = params["columns"] or _columns(len(next(iter(views.values()))), len(fields))
    tiles, size = place(sizes, columns, params)
    pictures, labels, facts = [], [], []
    for index, ((head, view), tile) in enumerate(zip(shots, tiles)):
        context.progress(0.2 + 0.75 * index / len(shots), "rendering the views")
        camera = view.camera
        pictures.append(look(fields[head], camera, check=context.check).rgba)
        labels.append(camera.name if len(fields) == 1 else f"{head}, {camera.name}")
        about = {"head": head, "view": camera.name}
        facts.append({**about, **asdict(tile), "camera": camera.to_json()})
        context.item({"index": index, **about}, thumbnail(pictures[-1]))
    return finish(params, context, pictures, tiles, size, labels, facts)


def place(
    sizes: list[tuple[int, int]], columns: int, params: dict[str, Any]
) -> tuple[list[Tile], tuple[int, int]]:
    """Tiles of pictures of these (width, height)s, and the sheet's size. Raises ParameterError for
    one that is too large."""
    tiles, size = lay_out(sizes, columns, params["margin"], params["labels"])
    if size[0] * size[1] > MOST_PIXELS:
        raise ParameterError(
            f"The sheet would have {size[0]} x {size[1]} pixels.", "Take fewer or smaller views."
        )
    return tiles, size


def finish(
    params: dict[str, Any],
    context: Context,
    pictures: list[np.ndarray],
    tiles: list[Tile],
    size: tuple[int, int],
    labels: list[str],
    facts: list[dict[str, Any]],
) -> Result:
    """Composes the sheet of rendered pictures, and writes it where a folder is given."""
    name, background = params["name"], _colour(params["background"])
    context.progress(0.95, "composing the sheet")
    sheet = compose(pictures, tiles, size, background, labels if params["labels"] else None)
    meta = {"name": name, "width": size[0], "height": size[1], "tiles": facts}
    if params["folder"]:
        folder = make_folder(params["folder"])
        about = {"image": f"{name}.png", **meta}
        write_whole({
            folder / f"{name}.png": png_bytes(sheet),
            folder / f"{name}.json": json.dumps(about, indent=1).encode(),
        })  # fmt: skip
        meta["path"] = str(folder / f"{name}.png")
    meta["versions"] = result_stages.versions()
    return context.result(meta, {"sheet": sheet})


def _fields(params: dict[str, Any], context: Context) -> Iterator[tuple[str, Field]]:
    """Each head's name and field."""
    heads = parse_heads(params["heads"])
    sampler = None
    for index, head in enumerate(heads):
        context.progress(0.2 * index / len(heads), "loading the heads")
        if isinstance(head, str):
            name = Path(head).stem
            field = load_field(head)
            large = not isinstance(field, HeadField)
            field = field.to(stages.choose_compute(context, large).device)
            yield (name if heads.count(head) == 1 else f"{name} {index}"), field
            continue
        if sampler is None:
            compute = stages.choose_compute(context, large=True)
            sampler = open_sampler(params["model"], params["models"], compute)
        recipe = Recipe((head,), psi=params["psi"])
        yield f"head {head}", recipes.field_of(sampler, recipe)


def common_box(fields: list[Field]) -> np.ndarray:
    """The box [2, 3], in metres, that holds every head: all are shown at one scale."""
    ends = [np.array(extent(field)) * field.metres_per_unit for field in fields]
    return np.stack([np.min([e[0] for e in ends], 0), np.max([e[1] for e in ends], 0)])


def views_of(params: dict[str, Any], field: Field, box: np.ndarray) -> list:
    scale = field.metres_per_unit
    placed = FIELD_TO_BLENDER @ np.diag([scale, scale, scale, 1.0])
    return read_views(params, field, placed, box / scale, EYES / scale)


def _columns(views: int, heads: int) -> int:
    """All of a head's views beside each other, or, of many, as many as fill the rows evenly."""
    if heads > 1 or views <= MOST_COLUMNS:
        return views
    return -(-views // -(-views // MOST_COLUMNS))


def _colour(text: str) -> tuple[int, int, int] | None:
    if not text:
        return None
    match = re.fullmatch(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", text)
    if match is None:
        raise ParameterError(
            f"{text[:40]} is no colour.", "Write it as six hexadecimal digits, such as #d4d5d6."
        )
    return tuple(int(part, 16) for part in match.groups())

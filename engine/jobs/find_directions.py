"""The job `find_directions`: what an added model's heads can be changed along, found and named.

The command line has `model directions` for it.
"""

from __future__ import annotations

from typing import Any

from ..errors import ParameterError
from .base import Context, Job, Param, Result
from .sample import MODEL

PARAMS = (
    *MODEL,
    Param(
        "count",
        int,
        10,
        "How many to find, the main components of w; 0: only give names",
        minimum=0,
        maximum=64,
    ),
    Param("number", int, 0, "Number of a direction to name; 0: none", minimum=0, maximum=64),
    Param("name", str, "", "Its name"),
)


def run(params: dict[str, Any], context: Context) -> Result:
    """Result's meta: model, names."""
    from engine.checkpoints.directions import BUILT_IN_PATH, directions_path, list_directions
    from engine.jobs.stages import choose_compute
    from engine.sampling.ganspace import find_directions, rename_directions
    from engine.sampling.open import open_sampler

    model, folder = params["model"], params["models"]
    path = directions_path(model, folder)
    if path == BUILT_IN_PATH:
        raise ParameterError("The built-in model comes with its directions.")
    if params["count"]:
        context.progress(0.0, "loading the model")
        sampler = open_sampler(model, folder, choose_compute(context, large=True))
        context.progress(0.3, "finding directions")
        find_directions(sampler, path, params["count"], check=context.check)
    if params["number"]:
        rename_directions(path, {params["number"]: params["name"]})
    context.finish()
    names = [direction.name for direction in list_directions(model, folder)]
    return Result({"model": model, "names": names})


JOB = Job("find_directions", "Find what a model's heads can be changed along.", PARAMS, run)

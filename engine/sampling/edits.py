"""Changes of a head along semantic directions, as artists write them: "age=1, smile=0.5"."""

from __future__ import annotations

import math

from torch import Tensor

from engine.errors import ParameterError
from engine.sampling.base import Sampler
from engine.systems.head.directions import Directions, load_directions

MODEL = "built-in"  # the one that comes with directions


def parse_edits(text: str) -> dict[str, float]:
    """{"age": 1, "nose width": -0.5} from "age=1, nose width=-0.5"; {} from "". Names are not
    checked. Raises ParameterError."""
    found: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, amount = (p.strip() for p in part.partition("="))
        name = " ".join(name.lower().replace("_", " ").split())
        try:
            value = float(amount)
        except ValueError:
            value = math.nan
        if not name or not math.isfinite(value):
            raise ParameterError(
                f"'{part[:40]}' is no change of a head.", "Write it as age=1, smile=0.5."
            )
        if name in found:
            raise ParameterError(f"{name} is given twice.")
        found[name] = value
    return found


def directions_of(sampler: Sampler) -> Directions:
    """The built-in model's, or those found for an added one (see ganspace.py). Raises
    ParameterError for a model without any, WeightsError where they cannot be read."""
    if sampler.name == MODEL:
        return load_directions()
    if sampler.directions is not None and sampler.directions.is_file():
        from engine.sampling.ganspace import load_found

        return load_found(sampler.directions, sampler)
    raise ParameterError(
        f"The model {sampler.name} has no semantic directions.",
        f"Find some with `python -m engine model directions {sampler.name} --find 10`, choose the"
        f" model {MODEL}, or leave the changes out.",
    )


def edited(sampler: Sampler, code: Tensor, text: str) -> Tensor:
    """A code [R, W] with the changes of a text, or as it is for none. Raises ParameterError for
    what it does not understand, and what directions_of raises."""
    amounts = parse_edits(text)
    return directions_of(sampler).apply(code, amounts) if amounts else code

"""The semantic directions of a head's model, as the sliders that show them."""

from __future__ import annotations

from ..engine.checkpoints.directions import Direction, list_directions
from . import models

GROUPS = (
    ("Person", ("age", "gender", "skin tone")),
    ("Face", ("face width", "nose size", "nose width", "jaw")),
    ("Expression", ("smile", "anger", "sadness", "surprise")),
    ("Hair", ("hair length", "beard")),
)
REST = "More"  # the group of all others
MOST = 32  # sliders of a model that the user has added
RANGE = (-3.0, 3.0)  # of their sliders, which cannot have a range each

__all__ = ["Direction", "built_in", "grouped", "key", "label", "of_model"]


def built_in() -> list[Direction]:
    """Those of the built-in model; none if their file is missing or damaged."""
    return list_directions(models.BUILT_IN)


def of_model(name: str) -> list[Direction]:
    """Those of a model by its name; none for a model that has none, or that is not there."""
    return list_directions(name, models.folder())[:MOST] if name else []


def key(name: str) -> str:
    """A direction's name as an identifier: "face width" is face_width."""
    return "".join(c if c.isalnum() else "_" for c in name.lower())


def label(name: str) -> str:
    """A direction's name as a heading: "face width" is Face Width."""
    return " ".join(word[:1].upper() + word[1:] for word in name.split())


def grouped(found: list[Direction]) -> list[tuple[str, list[Direction]]]:
    """(heading, directions) in the order to show them; '' for a heading that would say nothing."""
    rest = {d.name: d for d in found}
    out = []
    for title, names in GROUPS:
        inside = [rest.pop(name) for name in names if name in rest]
        if inside:
            out.append((title, inside))
    if rest:
        out.append((REST if out else "", list(rest.values())))
    return out

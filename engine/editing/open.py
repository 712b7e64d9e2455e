"""A saved head opened for editing, whatever model it is of."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Protocol

from engine.checkpoints.header import file_state
from engine.device import Compute
from engine.editing.eg3d import TriplaneEditor
from engine.editing.head import HeadEditor
from engine.editing.photo import Edited
from engine.errors import WeightsError
from engine.fields.base import Field
from engine.fields.head import HeadField
from engine.fields.io import load_field
from engine.fields.triplane import TriplaneField
from engine.sampling.base import Sampler
from engine.sampling.builtin import BuiltInSampler
from engine.sampling.edits import directions_of
from engine.sampling.eg3d import EG3DSampler
from engine.sampling.open import open_sampler
from engine.systems.head.directions import Directions

KEPT = 2  # heads


class Editor(Protocol):
    """base: the head as it is; directions: what it can be changed along."""

    base: Field
    directions: Directions

    def edited(
        self,
        amounts: Mapping[str, float],
        quick: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> Edited:
        """See HeadEditor.edited()."""


def open_head(
    path: str | os.PathLike, model: str, folder: str, compute: Compute
) -> tuple[Editor, Sampler]:
    """The editor of a field file, and the sampler of its model; the last few opened are kept until
    close_heads(). model: "" for the one that the head was made with. Raises WeightsError where the
    file is none, holds no code, or is of another model; ParameterError for a model without
    directions."""
    return _opened(*file_state(path, "field"), model, folder, compute)


def close_heads() -> None:
    """Forget the heads that are kept, to have their memory back."""
    _opened.cache_clear()


@lru_cache(maxsize=KEPT)
def _opened(
    path: str, _changed: int, _size: int, model: str, folder: str, compute: Compute
) -> tuple[Editor, Sampler]:
    field = load_field(path)
    if field.origin is None:
        raise WeightsError(
            "This head holds no latent code, so it cannot be edited.",
            "Make it again with this version of Triplane.",
        )
    made_with = str(field.origin.recipe.get("model", ""))
    sampler = open_sampler(model or made_with, folder, compute)
    if field.origin.recipe.get("sha256") != sampler.sha256:
        raise WeightsError(
            f"The head was made with the model {made_with[:64] or 'of another version'}, not with"
            f" this {sampler.name}.",
            "Choose the model that it was made with, or make the head again.",
        )
    directions = directions_of(sampler)
    if isinstance(field, HeadField) and isinstance(sampler, BuiltInSampler):
        return HeadEditor(field, sampler, directions), sampler
    if isinstance(field, TriplaneField) and isinstance(sampler, EG3DSampler):
        return TriplaneEditor(field.to(compute.device), sampler, directions), sampler
    raise WeightsError("This kind of head cannot be edited.")

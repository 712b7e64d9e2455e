"""The models that the user has, as Blender's side sees them. Reads files' heads only, and only when
the folder has changed."""

from __future__ import annotations

import os
from pathlib import Path

from ..engine.checkpoints import registry
from ..engine.checkpoints.registry import BUILT_IN, ModelInfo
from ..engine.errors import TriplaneError
from . import session

__all__ = ["BUILT_IN", "ModelInfo", "change", "checked", "default", "find", "folder", "listed"]

# What "Verify" has found, by path and time of change: "" if all is well, else a sentence.
checked: dict[tuple[str, int], str] = {}
_seen: tuple = ()
_models: list[ModelInfo] = []
_default = BUILT_IN


def folder() -> str:
    """The folder of the models; it may not exist."""
    return session.models_folder() or str(registry.default_folder())


def listed() -> list[ModelInfo]:
    """All models, the built-in one first. Cheap enough for a panel's draw()."""
    _look()
    return _models


def default() -> str:
    """The name of the model that is used where none is named."""
    _look()
    return _default


def find(name: str) -> ModelInfo | None:
    """The model of that name ('' for the default one), or None."""
    name = name or default()
    return next((m for m in listed() if m.name == name), None)


def change(operator, done: str, function, *arguments) -> set[str]:
    """Run one of the registry's functions on the folder of the models, for an operator: its trouble
    is reported in a sentence, its success with `done` if that says anything. What execute()
    returns."""
    try:
        function(folder(), *arguments)
    except TriplaneError as error:
        operator.report({"ERROR"}, str(error))
        return {"CANCELLED"}
    session.redraw()
    if done:
        operator.report({"INFO"}, done)
    return {"FINISHED"}


def stamp(path: str | os.PathLike) -> tuple[str, int]:
    """A file's path and time of change: what `checked` is kept by."""
    try:
        return str(path), os.stat(path).st_mtime_ns
    except OSError:
        return str(path), 0


def _look() -> None:
    global _seen, _models, _default
    place = folder()
    # Files come and go by renaming, which changes the folder's own time.
    seen = stamp(place), stamp(Path(place, "models.json"))
    if seen != _seen:
        _models, _default, _seen = registry.list_models(place), registry.default_model(place), seen

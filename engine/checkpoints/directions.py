"""Which directions a model's heads can be changed along. Standard library only, so that Blender's
panels show sliders without torch.

The built-in model's come with it (weights/directions.safetensors); those of an added model are
found by `python -m engine model directions NAME` and lie beside it, in the models folder's
`directions`. Both files say what they hold in their metadata's `directions`: JSON with `names`,
`ranges` (least and most amount) and `meaning` (what an amount of 1 is), lists of one length.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..errors import WeightsError
from . import header, registry

BUILT_IN_PATH = Path(__file__).resolve().parents[1] / "weights" / "directions.safetensors"


@dataclass(frozen=True)
class Direction:
    """name: as in `edits`; low, high: least and most amount; meaning: what an amount of 1 is."""

    name: str
    low: float
    high: float
    meaning: str


def directions_path(model: str, folder: registry.Folder = "") -> Path:
    """Where a model's directions are, or would be. model: its name or path, "" for the default.
    Raises WeightsError where there is no such model."""
    path = registry.model_path(folder, model)
    return BUILT_IN_PATH if path == registry.BUILT_IN_PATH else registry.directions_beside(path)


def list_directions(model: str = "", folder: registry.Folder = "") -> list[Direction]:
    """A model's directions in their order; [] for one that has none yet, is gone or broken, since
    a panel asks at every redraw. model, folder: as in directions_path."""
    with suppress(WeightsError, OSError):
        path = directions_path(model, folder)
        facts = path.stat()
        return list(_read(str(path), facts.st_mtime_ns, facts.st_size))
    return []


@lru_cache(maxsize=16)
def _read(path: str, _changed: int, _size: int) -> tuple[Direction, ...]:
    try:
        about = json.loads(header.read_header(path).metadata["directions"])
        rows = zip(about["names"], about["ranges"], about["meaning"], strict=True)
        return tuple(
            Direction(str(name), float(low), float(high), str(said))
            for name, (low, high), said in rows
        )
    except (KeyError, TypeError, ValueError) as error:
        raise header.damaged() from error

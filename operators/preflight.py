"""What is missing before a head can be made, and the operator that mends it."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from functools import lru_cache

from . import session

WEIGHTS = ("engine", "weights", "head.safetensors")  # below the extension's folder


@dataclass(frozen=True)
class Missing:
    """sentence: for the artist. operator, label, icon: the button that mends it ('' for none)."""

    sentence: str
    operator: str = ""
    label: str = ""
    icon: str = "NONE"


def missing() -> Missing | None:
    """The first thing that is missing, or None. Cheap enough for a panel's draw()."""
    chosen = session.preferences().python
    if chosen and not os.path.isfile(session.interpreter()):
        return Missing(
            "The Python of the preferences does not exist.",
            "triplane.open_preferences",
            "Choose Another Python",
            "PREFERENCES",
        )
    if not chosen and not _blender_has_torch():
        return Missing(
            "This is the slim package: it needs a Python that has PyTorch.",
            "triplane.open_preferences",
            "Choose the Engine's Python",
            "PREFERENCES",
        )
    weights = os.path.join(session.extension_folder(), *WEIGHTS)
    if not os.path.isfile(weights):
        return Missing(
            f"The head model ({WEIGHTS[-1]}) is missing. Install Triplane again from its .zip."
        )
    return None


@lru_cache(maxsize=1)
def _blender_has_torch() -> bool:
    # Looks for the package's folder only; nothing is imported.
    return importlib.util.find_spec("torch") is not None


def forget() -> None:
    """Look anew next time."""
    _blender_has_torch.cache_clear()

"""The embedded small LRM for heads, loaded once."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

from engine.errors import WeightsError
from engine.systems.lrm.head import HeadLrm, HeadLrmConfig

PATH = Path(__file__).resolve().parents[1] / "weights" / "instant.safetensors"
REMEDY = "Install the extension again."


@lru_cache(maxsize=1)
def load_instant(path: Path = PATH) -> HeadLrm:
    """In float32, in evaluation mode, gradients off. Raises WeightsError if the file is missing,
    damaged or of another layout."""
    try:
        with safe_open(str(path), "pt") as file:
            facts = json.loads((file.metadata() or {})["model"])
            tensors = {k: file.get_tensor(k).float() for k in file.keys()}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise WeightsError("The instant model's weights cannot be read.", REMEDY) from error
    try:
        facts.pop("name", None)
        net = HeadLrm(HeadLrmConfig(**facts))
        net.load_state_dict(tensors)
    except (TypeError, AttributeError, RuntimeError) as error:
        raise WeightsError("The instant model's weights are of another version.", REMEDY) from error
    return net.eval().requires_grad_(False)

"""Semantic directions of the built-in head model's codes: age, a wide nose, a smile.

A direction is a code's worth of change: rows of identity, expression, hair weights and w+ (see
HeadPrior), scaled so that an amount of 1 moves the attribute it is named after by its natural unit.
Found by regression on people whose parameters are known (engine/training/build_directions.py);
linear, like those of InterFaceGAN (Shen et al. 2020), but for the hair weights, which are brought
back to a convex mix where they are used.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.errors import ParameterError, WeightsError

PATH = Path(__file__).resolve().parents[2] / "weights" / "directions.safetensors"
REMEDY = "Install the extension again."


class Directions:
    """names: in their natural order; ranges: (least, most) amount, by name; meaning: what an
    amount of 1 is, by name."""

    def __init__(self, tensor: Tensor, about: dict, sha256: str = "") -> None:
        """tensor: [K, rows, w]; about: the file's `names`, `ranges` and `meaning`, lists of K.
        Raises WeightsError where they do not fit together."""
        try:
            self.names = tuple(str(name) for name in about["names"])
            self.ranges = {
                n: (float(a), float(b)) for n, (a, b) in zip(self.names, about["ranges"])
            }
            self.meaning = dict(zip(self.names, map(str, about["meaning"])))
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError("The directions' file is of another version.", REMEDY) from error
        count = {len(self.ranges), len(self.meaning), len(self.names), len(set(self.names))}
        if tensor.ndim != 3 or count != {len(tensor)} or not tensor.isfinite().all():
            raise WeightsError("The directions' file does not fit together.", REMEDY)
        self._tensor, self.about, self.sha256 = tensor.float(), about, sha256

    def __getitem__(self, name: str) -> Tensor:
        """The code's change [rows, w] at an amount of 1. Raises ParameterError for no such name."""
        if name not in self.ranges:
            raise ParameterError(
                f"There is no direction '{name[:40]}'.",
                f"The directions are {', '.join(self.names)}.",
            )
        return self._tensor[self.names.index(name)]

    def apply(self, code: Tensor, amounts: Mapping[str, float]) -> Tensor:
        """A code [rows, w] moved along directions; amounts of 0 leave it as it is. Raises
        ParameterError for unknown names and amounts outside their range, ValueError for a code of
        another shape."""
        if code.shape != self._tensor.shape[1:]:
            raise ValueError(
                f"the code has the shape {tuple(code.shape)}, not {tuple(self._tensor.shape[1:])}"
            )
        for name, amount in amounts.items():
            change = self[name]
            low, high = self.ranges[name]
            if not (math.isfinite(amount) and low <= amount <= high):
                raise ParameterError(
                    f"The amount of {name} must be from {low:g} to {high:g}, not {amount:g}."
                )
            if amount:
                code = code + amount * change.to(code)
        return code


@lru_cache(maxsize=1)
def load_directions(path: Path = PATH) -> Directions:
    """Raises WeightsError if the file is missing, damaged or of another layout."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {})["directions"])
            tensor = file.get_tensor("directions")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise WeightsError("The directions of heads cannot be read.", REMEDY) from error
    return Directions(tensor, about, digest)

"""Expressions as semantic directions, composed of the shape keys of the mesh of quads.

    python -m engine.training.directions_composed

adds them to engine/weights/directions.safetensors (those of these names are replaced);
build_directions does so at its end. Nothing is learned: the sum of a few shape keys is fitted by
coefficients of the head space's expressions, so field, quads and everything else follow alike.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.headspace.quad import load_quads
from engine.systems.head.directions import PATH

HOLD = 1e-3  # of the basis' mean square: keeps opposite coefficients from growing
RANGE = -0.5, 1.5
# Shape keys (of both sides, where there are two) at an amount of 1.
RECIPES: dict[str, dict[str, float]] = {
    "anger": {
        "browDown": 1.0,
        "noseSneer": 0.6,
        "mouthFrown": 0.5,
        "eyeSquint": 0.4,
        "mouthUpperUp": 0.2,
    },
    "sadness": {"browInnerUp": 1.0, "mouthFrown": 0.8, "eyeSquint": 0.2},
    "surprise": {"browInnerUp": 1.0, "browOuterUp": 1.0, "eyeWide": 1.0, "jawOpen": 0.15},
}


def displacement(recipe: dict[str, float]) -> np.ndarray:
    """The sum of shape keys [V, 3] on the mean head, metres."""
    space = load_quads()
    total = np.zeros_like(space.mean, np.float64)
    for name, amount in recipe.items():
        keys = [n for n in (name, f"{name}Left", f"{name}Right") if n in space.names]
        if not keys:
            raise KeyError(f"the quads have no shape key {name}")
        total += amount * sum(space.shapes[space.names.index(key)] for key in keys)
    return total


def fitted(wanted: np.ndarray) -> tuple[np.ndarray, float]:
    """Expression coefficients [Ke] of a displacement [V, 3], and its share of squares that they
    explain."""
    basis = load_quads().expression.astype(np.float64)
    flat, y = basis.reshape(len(basis), -1), wanted.reshape(-1)
    square = flat @ flat.T
    hold = HOLD * np.trace(square) / len(square) * np.eye(len(square))
    found = np.linalg.solve(square + hold, flat @ y)
    rest = y - found @ flat
    return found, float(1 - rest @ rest / (y @ y))


def with_expressions(tensor: Tensor, about: dict) -> tuple[Tensor, dict]:
    """Directions [K, rows, w] and their file's facts, with the expressions after them."""
    kept = [i for i, name in enumerate(about["names"]) if name not in RECIPES]
    tensor, about = tensor[kept], dict(about)
    for key in ("names", "ranges", "meaning"):
        about[key] = [about[key][i] for i in kept]
    about["explained"] = {}
    for name, recipe in RECIPES.items():
        found, share = fitted(displacement(recipe))
        row = torch.zeros_like(tensor[:1])
        row[0, 1, : len(found)] = torch.from_numpy(found).to(row)
        tensor = torch.cat([tensor, row])
        about["names"].append(name)
        about["ranges"].append(list(RANGE))
        keys = ", ".join(f"{key} {amount:g}" for key, amount in recipe.items())
        about["meaning"].append(f"a strong one ({keys})")
        about["explained"][name] = round(share, 3)
    about["bytes"] = tensor.numel() * 2
    return tensor, about


def write(tensor: Tensor, about: dict, path: Path = PATH) -> None:
    """The directions' file, in half precision, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    facts = {"directions": json.dumps(about, sort_keys=True), "format": "pt"}
    save_file({"directions": tensor.half().contiguous()}, temporary, facts)
    temporary.chmod(0o644)
    temporary.replace(path)


def main() -> None:
    with safe_open(str(PATH), "pt") as file:
        about = json.loads(file.metadata()["directions"])
        tensor = file.get_tensor("directions").float()
    tensor, about = with_expressions(tensor, about)
    write(tensor, about)
    for name, share in about["explained"].items():
        print(f"{name}: {share:.0%} of the displacement's squares explained")


if __name__ == "__main__":
    main()

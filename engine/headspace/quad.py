"""The quad template in the head space's correspondence: a fitted head's coefficients give the
vertices of a clean mesh of quads, its eyeballs, and shape keys.

The file engine/weights/quad.safetensors is made by engine/training/build_quad.py; what is in it
says engine/weights/quad.md. Space and units are the head space's: metres, +x to the subject's left,
+y up, +z out of the face.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from engine.errors import WeightsError

PATH = Path(__file__).resolve().parents[1] / "weights" / "quad.safetensors"
REMEDY = "Install the extension again."
DIMS = {  # name -> number of dimensions
    "mean": 2,
    "quads": 2,
    "uvs": 3,
    "part": 1,
    "follows": 1,
    "detail_1": 2,
    "detail_2": 2,
    "identity": 3,
    "expression": 3,
    "shapes": 3,
    "lids": 2,
    "eye_mean": 2,
    "eye_identity": 3,
    "eye_expression": 3,
    "eye_gaze": 2,
}


class QuadSpace:
    """Loaded tensors, numpy; floats in float32.

    mean [V, 3] metres; quads int32 [F, 4], counter-clockwise from outside; uvs [F, 4, 2] a corner,
    v up; part int32 [F], indices into `parts`; follows [V] in 0..1: how far a vertex may follow a
    head's own surface; detail_1, detail_2: what the mean head has beyond one and two subdivisions,
    metres; identity [Ki, V, 3], expression [Ke, V, 3]: metres a unit of the head space's
    coefficients; shapes [K, V, 3]: displacements of the shape keys `names` on the mean head;
    lids int32 [2, n]: vertices of the left and the right eye's lid edge, from the inner corner over
    the upper lid; eye_mean [2, 4]: centres and radius of the left and the right eyeball, with bases
    eye_identity and eye_expression [K, 2, 4]; eye_gaze [2, 3]: unit, where they look.
    """

    def __init__(self, tensors: dict[str, np.ndarray], facts: dict) -> None:
        """Raises WeightsError if a tensor is missing or does not fit."""
        for name, dims in DIMS.items():
            if name not in tensors or tensors[name].ndim != dims:
                raise WeightsError(f"The quad template's weights lack a usable '{name}'.", REMEDY)
            value = tensors[name]
            whole = np.issubdtype(value.dtype, np.integer)
            setattr(self, name, value.astype(np.int32 if whole else np.float32))
        try:
            self.names, self.parts = tuple(facts["shapes"]), tuple(facts["parts"])
            self.space = str(facts["space"])
        except (KeyError, TypeError) as error:
            raise WeightsError("The quad template is of another version.", REMEDY) from error
        count, faces = len(self.mean), len(self.quads)
        if (
            self.uvs.shape != (faces, 4, 2)
            or len(self.follows) != count
            or self.identity.shape[1:] != (count, 3)
            or self.expression.shape[1:] != (count, 3)
            or self.shapes.shape != (len(self.names), count, 3)
            or not 0 <= int(self.quads.min()) <= int(self.quads.max()) < count
        ):
            raise WeightsError("The quad template's weights do not fit together.", REMEDY)

    def vertices(self, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """Coefficients [Ki], [Ke] -> the base cage's vertices float32 [V, 3] in metres."""
        moved = np.tensordot(identity, self.identity, 1)
        return self.mean + moved + np.tensordot(expression, self.expression, 1)

    def eyes(self, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """Coefficients -> centre and radius float32 [2, 4] of the left and the right eyeball."""
        moved = np.tensordot(identity, self.eye_identity, 1)
        return self.eye_mean + moved + np.tensordot(expression, self.eye_expression, 1)


@lru_cache(maxsize=1)
def load_quads(path: Path = PATH) -> QuadSpace:
    """Raises WeightsError if the file is missing, damaged or of another layout."""
    try:
        with safe_open(str(path), "np") as file:
            facts = json.loads((file.metadata() or {})["quad"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise WeightsError("The quad template's weights cannot be read.", REMEDY) from error
    return QuadSpace(tensors, facts)

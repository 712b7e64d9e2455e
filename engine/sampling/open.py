"""A model by name, ready to sample from."""

from __future__ import annotations

import os

import torch
from safetensors import safe_open

from engine.checkpoints import registry
from engine.device import Compute
from engine.sampling.base import Sampler

PLAIN = Compute(torch.device("cpu"), torch.float32)


def open_sampler(
    model: str = "", folder: str | os.PathLike = "", compute: Compute = PLAIN
) -> Sampler:
    """The sampler of a model: "built-in", the name of one in the models folder, the path of a model
    file, or "" for the default model.

    folder: of the models, "" for the user's. compute: what it runs on. Raises WeightsError.
    """
    place = folder or registry.default_folder()
    model = model or registry.default_model(place)
    if model == registry.BUILT_IN:
        from engine.sampling.builtin import BuiltInSampler

        return BuiltInSampler()  # so small that a GPU would only slow it down
    from engine.checkpoints.open import open_model
    from engine.sampling.eg3d import EG3DSampler

    path = registry.model_path(place, model)
    generator = open_model(path)
    with safe_open(str(path), "pt") as file:
        sha256 = file.metadata()["sha256"]
    made = EG3DSampler(generator, path.stem, sha256, compute)
    made.directions = registry.directions_beside(path)
    return made

"""A model file as a generator, ready to use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from engine.checkpoints.header import file_state
from engine.checkpoints.model_file import read_model
from engine.errors import WeightsError
from engine.systems.eg3d.config import EG3DConfig, config_from_record
from engine.systems.eg3d.generator import EG3DGenerator

LAYERS_AT_MOST = 64  # of a mapping; the published ones have 2


def open_model(path: str | os.PathLike) -> EG3DGenerator:
    """The generator of a model file, float32 on the CPU, in evaluation mode, gradients off. The
    last one opened is kept until close_models(). Raises WeightsError if the file is missing,
    damaged (its hash is checked) or of another layout."""
    return _open(*file_state(path))


def close_models() -> None:
    """Forget the model that is kept, to have its memory back."""
    _open.cache_clear()


@lru_cache(maxsize=1)
def _open(path: str, _changed: int, _size: int) -> EG3DGenerator:
    record, tensors = read_model(path)
    return build(record, tensors)


def build(record: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> EG3DGenerator:
    """The generator that a record describes, with these tensors, strictly: every name, every shape.
    Raises WeightsError."""
    config = config_from_record(record)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    # A record may ask for any size: nothing is allocated before the main ones agree.
    too_deep = config.mapping_layers > LAYERS_AT_MOST
    if too_deep or not _main_sizes(config).items() <= shapes.items():
        raise _misfit()
    try:
        generator = EG3DGenerator(config)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise _misfit() from error
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    if config.c_dim > 0:  # some published files lack it; nothing reads it
        state.setdefault("dataset_label_std", torch.zeros(config.c_dim))
    generator.load_official(state)
    return generator.eval().requires_grad_(False)


def _main_sizes(config: EG3DConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors from which those of all others follow, and so the memory needed."""
    first, last = (min(config.channel_base // n, config.channel_max) for n in (4, 256))
    sizes = {
        "backbone.mapping.w_avg": (config.w_dim,),
        "backbone.synthesis.b4.const": (first, 4, 4),
        "backbone.synthesis.b256.conv1.weight": (last, last, 3, 3),
    }
    width = config.z_dim + (config.w_dim if config.c_dim else 0)
    for layer in range(min(config.mapping_layers, LAYERS_AT_MOST)):
        sizes[f"backbone.mapping.fc{layer}.weight"] = (config.w_dim, width)
        width = config.w_dim
    return sizes


def _misfit() -> WeightsError:
    return WeightsError(
        "The weights do not fit the model's layout.",
        "Choose a file of a published configuration, or say what it is like (FFHQ, cats, cars).",
    )

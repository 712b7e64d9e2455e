"""A model file as a model that makes fields from pictures, ready to use."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine import device
from engine.checkpoints.header import file_state, read_header, read_record
from engine.checkpoints.model_file import stream_model
from engine.device import Compute
from engine.errors import WeightsError
from engine.fields.lrm import LrmField
from engine.systems.lrm.config import LrmConfig
from engine.systems.lrm.networks import LrmNetwork, network_of
from engine.systems.lrm.record import config_from_record


@dataclass(frozen=True)
class LrmModel:
    """A network with its weights. name: of the model; licence, noncommercial: as in its record."""

    name: str
    config: LrmConfig
    network: LrmNetwork
    compute: Compute
    licence: str
    noncommercial: bool

    def field(self, image: Tensor, check: Callable[[], None] = lambda: None) -> LrmField:
        """The field of one picture.

        image: [3, S, S] in 0..1, display sRGB, the object composited on config.background and as
        large as config.foreground_ratio says; of any S. check: called between layers, may raise to
        cancel. The field is on the compute's device.
        """
        with torch.no_grad():
            picture = resized(image.to(self.compute.device, torch.float32)[None], self.config)
            return self.network.field(self.network(picture, check=check)[0])


def resized(images: Tensor, config: LrmConfig) -> Tensor:
    """Pictures [B, 3, S, S] in 0..1 at the size that the model takes, in the original's way."""
    size = config.input_size, config.input_size
    if config.layout == "triposr":
        return F.interpolate(images, size, mode="bilinear", antialias=True)
    return F.interpolate(images, size, mode="bicubic", align_corners=True).clamp(0, 1)


def open_lrm(path: str | os.PathLike, compute: Compute | None = None) -> LrmModel:
    """The model of a model file (see engine.checkpoints.registry).

    compute: what it runs on, None for the default. The last one opened is kept until close_lrm().
    Raises WeightsError if the file is missing, damaged (its hash is checked), of another system or
    if its tensors do not fit its record.
    """
    return _open(*file_state(path), compute or device.choose())


def close_lrm() -> None:
    """Forget the model that is kept, to have its memory back."""
    _open.cache_clear()


@lru_cache(maxsize=1)
def _open(path: str, _changed: int, _size: int, compute: Compute) -> LrmModel:
    header = read_header(path)
    record = read_record(header)
    network = check_shapes(record, {n: e.shape for n, e in header.entries.items()})
    low = network.low_precision_names()
    state = {}
    for name, array in stream_model(path):
        tensor = torch.from_numpy(array)
        state[name] = tensor.to(compute.device, compute.dtype if name in low else torch.float32)
    network.load_state_dict(state, strict=True, assign=True)
    return LrmModel(
        Path(path).stem,
        network.config,
        network.eval().requires_grad_(False),
        compute,
        str(record.get("licence", "")),
        bool(record.get("noncommercial", False)),
    )


def check_shapes(record: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> LrmNetwork:
    """The network, without any numbers, that a record describes and tensors of these shapes fit:
    every name, every shape. Raises WeightsError."""
    config = config_from_record(record)
    with torch.device("meta"):
        network = network_of(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if wanted != dict(shapes):
        missing, extra = sorted(wanted.keys() - shapes), sorted(shapes.keys() - wanted)
        wrong = [name for name in wanted if name in shapes and wanted[name] != shapes[name]]
        what = (
            f"{missing[0]} is missing"
            if missing
            else f"{extra[0][:80]} does not belong to it"
            if extra
            else f"{wrong[0]} is {shapes[wrong[0]]}, not {wanted[wrong[0]]}"
        )
        raise WeightsError(
            f"The weights do not fit the layout of the model: {what}.",
            "Choose the whole file, as it was published.",
        )
    return network

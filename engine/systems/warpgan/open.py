"""Published SVINet weights: a checkpoint of WarpGAN's training, read without running anything."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from engine.checkpoints import torch_files
from engine.checkpoints.add import opened, read_tensors
from engine.checkpoints.official import names
from engine.checkpoints.pickle_stream import Budget
from engine.checkpoints.tensors import StoredTensor
from engine.errors import WeightsError
from engine.systems.warpgan.config import PUBLISHED, SvinetConfig
from engine.systems.warpgan.network import SviNet

KEY = "inpaintor_state_dict"


def open_published(path: str | os.PathLike, config: SvinetConfig = PUBLISHED) -> SviNet:
    """The network of a training checkpoint (a zip file of torch.save), in float32, evaluation mode,
    gradients off. config: of other sizes, for runs of one's own. Raises WeightsError if the file
    cannot be read, holds no SVINet or one of other sizes."""
    path = Path(path)
    with opened(path) as (handle, data):
        if data[:4] != torch_files.ZIP_START:
            raise _foreign(path)
        budget = Budget()
        root = torch_files.read_zip(handle, data, names(budget), budget)
        stored = root.get(KEY) if isinstance(root, dict) else None
        if not isinstance(stored, dict) or not all(
            isinstance(name, str) and isinstance(value, StoredTensor)
            for name, value in stored.items()
        ):
            raise _foreign(path)
        tensors = read_tensors(dict(stored), len(data))
    with torch.device("meta"):
        wanted = SviNet(config).state_dict()
    if {k: tuple(v.shape) for k, v in wanted.items()} != {k: v.shape for k, v in tensors.items()}:
        raise WeightsError(
            f"The inpainting network in {path.name} has other sizes than the published one.",
            "Choose the checkpoint that WarpGAN's authors have published.",
        )
    net = SviNet(config)
    net.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    return net.eval().requires_grad_(False)


def _foreign(path: Path) -> WeightsError:
    return WeightsError(
        f"{path.name} holds no inpainting network of WarpGAN.",
        "Choose a checkpoint of WarpGAN's inpainting stage.",
    )

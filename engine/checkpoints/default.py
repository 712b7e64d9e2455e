"""The embedded default model: one file, loaded once.

Tensors are grouped by prefix: space.* (head space), perception.*, generator.*, encoder.* and, where
heads from seeds come from a GAN, mapping.*; the metadata's `model` holds the configuration (box,
focal length, alignment, plane order) as JSON.

Beside it may lie numbers.safetensors, a second trunk of the perception network (trunk.*) with the
linear correction of its numbers (refine.*); the metadata's `space` says which head space's numbers
they are.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from engine.errors import WeightsError
from engine.headspace.space import HeadSpace
from engine.portrait.perception import PerceptionNet, Trunk
from engine.systems.head.mapping import HeadMapping
from engine.systems.head.model import AppearanceEncoder, HeadConfig, HeadGenerator

NUMBERS = "numbers.safetensors"
PATH = Path(__file__).resolve().parents[1] / "weights" / "head.safetensors"
REMEDY = "Install the extension again."


@dataclass(frozen=True)
class DefaultModel:
    """Everything in float32, in evaluation mode, gradients off. config: as in the file. mapping:
    None where the file has none. sha256: of the tensors that turn codes into colours."""

    space: HeadSpace
    perception: PerceptionNet
    generator: HeadGenerator
    encoder: AppearanceEncoder
    config: dict
    mapping: HeadMapping | None = None
    sha256: str = ""


@lru_cache(maxsize=1)
def load_default(path: Path = PATH) -> DefaultModel:
    """Raises WeightsError if the file is missing, damaged or of another layout."""
    tensors, told = _read(path)
    groups = _grouped(tensors)
    try:
        config = json.loads(told["model"])
        space = HeadSpace(groups["space"])
        head = HeadConfig(**config["head"])
        generator = HeadGenerator(head)
        nets = {
            "perception": PerceptionNet(len(space.identity), len(space.expression), space.styles),
            "generator": generator,
            "encoder": AppearanceEncoder(generator.num_ws, head.w_dim, head.colour_grid),
        }
        if "mapping" in groups:
            shape = len(space.identity) + len(space.expression) + space.styles
            nets["mapping"] = HeadMapping(shape, generator.num_ws, head.w_dim)
        for name, net in nets.items():
            net.load_state_dict(groups[name])
            net.eval().requires_grad_(False)
        numbers = Path(path).with_name(NUMBERS)
        if numbers.exists():
            _second(nets["perception"], numbers, space_digest(tensors))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError("The default model's weights are of another version.", REMEDY) from error
    return DefaultModel(space, config=config, sha256=_digest(tensors), **nets)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A file's tensors and metadata."""
    try:
        with safe_open(str(path), "pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise WeightsError("The default model's weights cannot be read.", REMEDY) from error


def _grouped(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """In float32, by the first part of their names."""
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        value = tensor.float() if tensor.is_floating_point() else tensor
        groups.setdefault(group, {})[rest] = value
    return groups


def _second(net: PerceptionNet, path: Path, space: str) -> None:
    """Gives the network its second trunk. Raises ValueError for another head space's."""
    tensors, told = _read(path)
    if told["space"] != space:
        raise ValueError("the second trunk's numbers are another head space's")
    groups = _grouped(tensors)
    trunk = Trunk(*net.sizes[:3])
    trunk.load_state_dict(groups["trunk"])
    net.refine.load_state_dict(groups["refine"])
    net.second = trunk.eval().requires_grad_(False)


def space_digest(tensors: dict[str, torch.Tensor]) -> str:
    """Of what coefficients and hair weights mean, from all tensors of a model's file."""
    digest = hashlib.sha256()
    for name in ("identity", "expression", "hair_distance"):
        digest.update(tensors[f"space.{name}"].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    """Of generator and mapping: codes of one are not another's."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        if name.startswith(("generator.", "mapping.")):
            digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()

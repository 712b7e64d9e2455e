"""Directions of an added model's codes, found without labels: the main components of w.

Many random vectors are mapped, and the principal components of their w are what the model varies
most; a component is a change of all rows alike, an amount of 1 one standard deviation along it.
What a component does has to be looked at and named. Source: GANSpace (Härkönen et al. 2020,
"GANSpace: Discovering interpretable GAN controls", section 2.1).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.errors import ParameterError, WeightsError
from engine.sampling.base import Sampler
from engine.sampling.eg3d import EG3DSampler
from engine.surface.export import write_whole
from engine.systems.head.directions import Directions

SAMPLES = 4096  # mapped vectors
BATCH = 256
RANGE = -3.0, 3.0
MOST = 64  # components
TENSOR = "components"
NAME_AT_MOST = 40  # characters


@torch.no_grad()
def components(
    sampler: EG3DSampler,
    count: int,
    samples: int = SAMPLES,
    check: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """The first `count` principal components of w, each as long as its standard deviation
    [count, W], and which share of w's spread each is [count]. Deterministic."""
    rng = np.random.RandomState(0)
    c = torch.from_numpy(sampler.camera(0, 0).to_eg3d())[None, : sampler.config.c_dim]
    device = sampler.compute.device
    mapped = []
    for start in range(0, samples, BATCH):
        check()
        size = min(BATCH, samples - start)
        z = torch.from_numpy(rng.standard_normal((size, sampler.config.z_dim))).float()
        w = sampler.generator.mapping(z.to(device), c.expand(size, -1).to(device))[:, 0]
        mapped.append(w.double().cpu())
    w = torch.cat(mapped)
    values, vectors = torch.linalg.eigh(torch.cov(w.T))
    order = values.argsort(descending=True)[:count]
    values, vectors = values.clamp_min(0), vectors.T[order]
    # A component's sign is anybody's guess: the same one every time.
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    vectors = vectors * largest.sign()
    return (vectors * values[order, None].sqrt()).float(), (values[order] / values.sum()).float()


def find_directions(
    sampler: Sampler,
    path: Path,
    count: int,
    samples: int = SAMPLES,
    check: Callable[[], None] = lambda: None,
) -> Directions:
    """Finds a model's components and writes them to `path`, whole or not at all. Raises
    ParameterError for a model that has directions of its own, OutputError."""
    if not isinstance(sampler, EG3DSampler):
        raise ParameterError(f"The model {sampler.name} comes with its directions.")
    if not 1 <= count <= min(MOST, sampler.config.w_dim):
        most = min(MOST, sampler.config.w_dim)
        raise ParameterError(f"From 1 to {most} directions can be found, not {count}.")
    tensor, shares = components(sampler, count, samples, check)
    about = {
        "names": [f"component {k + 1}" for k in range(count)],
        "ranges": [list(RANGE)] * count,
        "meaning": [
            f"a standard deviation along the principal component {k + 1} of w"
            f" ({100 * share:.1f} % of the spread)"
            for k, share in enumerate(shares.tolist())
        ],
        "model": sampler.sha256,
        "samples": samples,
        "version": 1,
    }
    _write(path, tensor, about)
    return load_found(path, sampler)


def rename_directions(path: Path, names: Mapping[int, str]) -> None:
    """Gives directions, by number from 1 on, names of their own. Raises ParameterError for a number
    or a name that cannot be, WeightsError, OutputError."""
    tensor, about = _read(path)
    known = list(about["names"])
    for number, name in names.items():
        if not 1 <= number <= len(known):
            raise ParameterError(
                f"The directions have the numbers 1 to {len(known)}, not {number}."
            )
        tidy = " ".join(name.lower().replace("_", " ").split())
        if not tidy or len(tidy) > NAME_AT_MOST or not tidy.isprintable() or set(tidy) & set(",="):
            raise ParameterError(
                f"'{name[:NAME_AT_MOST]}' cannot be a direction's name.",
                f"Use up to {NAME_AT_MOST} characters without commas and equals signs.",
            )
        known[number - 1] = tidy
    if len(set(known)) != len(known):
        raise ParameterError("Two directions cannot have one name.")
    _write(path, tensor, {**about, "names": known})


def load_found(path: Path, sampler: Sampler) -> Directions:
    """The directions found for a sampler's model. Raises WeightsError if the file is damaged, or
    was made with another model's file."""
    tensor, about = _read(path)
    if about.get("model") != sampler.sha256:
        raise WeightsError(
            f"The directions of {sampler.name} were found for another file.",
            f"Find them again: `python -m engine model directions {sampler.name} --find 10`.",
        )
    return Directions(tensor[:, None].repeat(1, len(sampler.rows), 1), about)


def _read(path: Path) -> tuple[Tensor, dict]:
    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {})["directions"])
            tensor = file.get_tensor(TENSOR).float()
        if tensor.ndim != 2 or not len(about["names"]) == len(about["ranges"]) == len(tensor):
            raise ValueError("names and components do not fit together")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise WeightsError("The model's directions cannot be read.", "Find them again.") from error
    return tensor, about


def _write(path: Path, tensor: Tensor, about: Mapping) -> None:
    facts = {"directions": json.dumps(about, sort_keys=True), "format": "pt"}
    write_whole({path: safetensors.torch.save({TENSOR: tensor.contiguous()}, facts)})

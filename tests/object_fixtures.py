"""Pictures of a thing of known outline, and a model for objects that is too small to know any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from engine.checkpoints.lrm import guess_record
from engine.checkpoints.model_file import write_model
from engine.networks.vit import ViTConfig
from engine.systems.lrm.config import TRIPOSR
from engine.systems.lrm.networks import network_of


def outline(width: int, height: int, at=(0.5, 0.52), size=0.5) -> np.ndarray:
    """bool [height, width]: a mug with a handle; size: of its height, part of the shorter side."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    unit = size * min(width, height)
    u, v = (x + 0.5 - at[0] * width) / unit, (y + 0.5 - at[1] * height) / unit
    body = (np.abs(u) < 0.3) & (np.abs(v) < 0.5 - 0.2 * np.maximum(np.abs(u) - 0.2, 0))
    ring = np.hypot(u - 0.32, v)
    return body | ((ring < 0.24) & (ring > 0.15) & (u > 0.25))


def colours(width: int, height: int) -> np.ndarray:
    """float32 [height, width, 3] 0..1: what the mug is painted with: stripes, lit from the left."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    stripe = (np.sin(y / height * 60) > 0)[..., None]
    base = np.where(stripe, (0.8, 0.25, 0.15), (0.15, 0.3, 0.65)).astype(np.float32)
    return base * (1.25 - 0.6 * x / width)[..., None]


def photo(kind: str, width: int = 320, height: int = 260, **where) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 [height, width, 3 or 4] and the outline bool. kind: 'transparent', 'wall' (a
    plain wall, unevenly lit, with a shadow), 'clutter'."""
    rng = np.random.default_rng(5)
    inside = outline(width, height, **where)
    soft = ndimage.gaussian_filter(inside.astype(np.float32), 0.7)[..., None]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    if kind == "clutter":
        back = np.zeros((height, width, 3), np.float32)
        for _ in range(60):
            u, v, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(10, 45)
            back[np.hypot(x - u, (y - v) * rng.uniform(0.5, 2)) < r] = rng.uniform(0, 1, 3)
    else:
        light = (0.85 - 0.25 * x / width - 0.1 * y / height)[..., None]
        back = light * np.array([0.95, 0.92, 0.85], np.float32)
        shadow = ndimage.gaussian_filter(np.roll(inside, (12, 25), (0, 1)).astype(np.float32), 9)
        back *= (1 - 0.3 * shadow)[..., None]
    mixed = colours(width, height) * soft + back * (1 - soft)
    mixed = ((mixed + rng.normal(0, 0.012, mixed.shape)).clip(0, 1) * 255).astype(np.uint8)
    if kind == "transparent":
        mixed = np.dstack([mixed, (soft[..., 0] * 255 + 0.5).astype(np.uint8)])
    return mixed, inside


def save(folder: Path, name: str, picture: np.ndarray) -> str:
    """The picture as a PNG; its path."""
    path = folder / f"{name}.png"
    Image.fromarray(picture if picture.dtype == np.uint8 else picture.astype(np.uint8) * 255).save(
        path
    )
    return str(path)


def write_small_model(path: Path, seed: int = 0) -> Path:
    """A model file of TripoSR's layout, small: whatever the picture, it sees a coloured blob, a
    little different for each picture."""
    config = replace(
        TRIPOSR,
        encoder=ViTConfig(width=64, layers=1, heads=1, patch=64, grid=4, pooler=True),
        width=64,
        layers=1,
        plane_size=16,
        channels=8,
        decoder_layers=3,
        decoder_width=32,
    )
    network = network_of(config)
    made = torch.Generator().manual_seed(seed)
    state = {
        name: 0.05 * torch.randn(tensor.shape, generator=made)
        for name, tensor in network.state_dict().items()
    }
    line = (torch.arange(16) + 0.5) / 8 - 1
    x, y = line[None, :].expand(16, 16), line[:, None].expand(16, 16)
    table = state["tokenizer.embeddings"]
    table[:, 0] = 1 - (1.3 * x) ** 2 - (1.1 * y) ** 2  # a bowl in each plane: together a blob
    table[:, 8], table[:, 9] = -3.38 / 32 * x, -2.42 / 32 * y  # its slopes, half a texel's worth
    table[:, 1], table[:, 2], table[:, 3] = x, y, torch.cos(6 * x + 2 * y)
    up = state["post_processor.upsample.weight"]
    up.mul_(0.05)
    for channel in range(8):
        up[channel, channel] = 1.0
    up[8, 0], up[9, 0] = torch.tensor([[-1.0, 1], [-1, 1]]), torch.tensor([[-1.0, -1], [1, 1]])
    first, last = state["decoder.layers.0.weight"], state["decoder.layers.4.weight"]
    first[0] = 0
    first[0, [0, 8, 16]] = 2.0
    first[1:].mul_(12)
    middle = state["decoder.layers.2.weight"]
    middle[0] = 0
    middle[0, 0] = 1.0
    last[0] = 0
    last[0, 0] = 4.0
    last[1:].mul_(20)
    state["decoder.layers.4.bias"][0] = -3.0
    record = guess_record("triposr", {n: tuple(t.shape) for n, t in state.items()}, {})
    record |= {"source": {"file": "small.ckpt"}}
    write_model(path, record, {n: t.numpy() for n, t in state.items()})
    return path

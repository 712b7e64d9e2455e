"""Models of the LRM family in small: everything as published but for the sizes."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from engine.fields.lrm import LrmField
from engine.networks.vit import ViTConfig
from engine.systems.lrm.config import OPENLRM_BASE, OPENLRM_BASE_1_0, TRIPOSR, LrmConfig
from engine.systems.lrm.networks import LrmNetwork, network_of

_SMALL = {"width": 128, "layers": 2, "plane_size": 4, "channels": 6, "decoder_width": 16}
_DINO = ViTConfig(width=64, layers=2, heads=1, patch=16, grid=3, pooler=True)
TRIPOSR_SMALL = replace(TRIPOSR, encoder=_DINO, **_SMALL)
OPENLRM_SMALL = replace(
    OPENLRM_BASE,
    encoder=ViTConfig(width=64, layers=2, heads=1, patch=14, grid=5, registers=4),
    input_size=224,
    camera_width=32,
    **_SMALL,
)
OPENLRM_OLD = replace(
    OPENLRM_BASE_1_0, encoder=replace(_DINO, pooler=False), camera_width=32, **_SMALL
)
SMALL = {"triposr": TRIPOSR_SMALL, "openlrm": OPENLRM_SMALL, "openlrm-1.0": OPENLRM_OLD}


def seeded_network(config: LrmConfig, seed: int = 0) -> LrmNetwork:
    """Random weights that keep activations at a sane size."""
    generator = torch.Generator().manual_seed(seed)
    network = network_of(config).eval().requires_grad_(False)
    for name, tensor in network.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=generator)
        if "norm" in name and name.endswith("weight") and tensor.ndim == 1:
            tensor.copy_(1 + 0.1 * drawn)
        elif tensor.ndim > 1 and "embed" not in name and "token" not in name:
            tensor.copy_(drawn / math.sqrt(tensor[0].numel()))
        else:
            tensor.copy_(0.3 * drawn)
    return network


def ball_field(config: LrmConfig = TRIPOSR_SMALL, size: int = 48, radius: float = 0.5) -> LrmField:
    """A ball of a radius (a share of the box's) round the origin, its raw density falling linearly
    with the sum of squares, coloured by place: red rises with x, green with y, blue with z."""
    settings = config.field
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    planes = torch.zeros(3, 4, size, size)
    for plane, (_, sign, _, down_sign) in zip(planes, settings.pairs):
        # Its two coordinates and half of their squares: every axis is in two planes.
        plane[0], plane[1] = line[None] * sign, line[:, None] * down_sign
        plane[2] = line[None] ** 2 / 2
        plane[3] = line[:, None] ** 2 / 2
    first = torch.zeros(8, 12)
    for k, (across, _, down, _) in enumerate(settings.pairs):
        first[0, 4 * k + 2 : 4 * k + 4] = 1.0  # the sum of squares
        first[7, 4 * k + 2 : 4 * k + 4] = -1.0
        for axis, channel in ((across, 0), (down, 1)):
            first[1 + axis, 4 * k + channel] = 0.5
            first[4 + axis, 4 * k + channel] = -0.5
    second = torch.zeros(4, 8)
    scale = 60.0
    # A hidden number and its opposite together are the number, whatever the activation does.
    second[0, 0], second[0, 7] = -scale, scale
    for axis in range(3):
        second[1 + axis, 1 + axis], second[1 + axis, 4 + axis] = 4.0, -4.0
    bias = torch.zeros(4)
    bias[0] = settings.level + scale * radius**2
    return LrmField(planes, [(first, torch.zeros(8)), (second, bias)], settings)

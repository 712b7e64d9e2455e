"""Small EG3D models from a seed, whose heads are dented balls with faces and coloured patches:
nothing like people, but every path of an inversion is real."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
import variant_fixtures as fixtures
from sampling_fixtures import TINY
from torch import nn

from engine.checkpoints.model_file import write_model
from engine.device import Compute
from engine.sampling.eg3d import EG3DSampler
from engine.systems.eg3d.config import EG3DConfig, config_from_record
from engine.systems.eg3d.generator import EG3DGenerator

SMALL = dataclasses.replace(
    TINY, z_dim=32, w_dim=32, channel_base=512, channel_max=16, neural_resolution=32
)
RADIUS = 0.22  # of the balls
CENTRE = 0.1  # along z: nearer to the camera than the box's middle, as faces are


class DentedBalls(nn.Module):
    """In a synthesis network's place: its planes, smoothed and tamed, on those of a ball. The first
    channel is 2 - r^2 / R^2 (0 beyond the box: empty), the others colours."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.num_ws = network, network.num_ws
        at = (torch.arange(size) + 0.5) / size - 0.5
        ball = torch.zeros(3, 4, size, size)
        x, y, z = (3 * (at - c) ** 2 / RADIUS**2 for c in (0.0, 0.0, CENTRE))
        ball[0, 0] = 3 - x[None, :] - y[:, None]  # planes of (x, y), (x, z), (z, x)
        ball[1, 0] = 3 - z[:, None]

        def spot(across: float, down: float, width: float) -> torch.Tensor:
            away = (at - across)[None, :] ** 2 + (at - down)[:, None] ** 2
            return torch.exp(-away / width**2)

        # What all of them share, as faces do: eyes, a nose that sticks out, a mouth, ears.
        for side in (-1, 1):
            ball[0, 1:] -= 9 * spot(0.08 * side, 0.05, 0.03)
            ball[1, 1] += 9 * spot(0.2 * side, CENTRE, 0.06)
        ball[0, 2:] -= 9 * (spot(-0.03, -0.09, 0.03) + spot(0.03, -0.09, 0.03))
        ball[0, 0] += 1.2 * spot(0.0, -0.01, 0.03)
        self.register_buffer("ball", ball.flatten(0, 1))
        self.register_buffer("depth", torch.tensor([0.4, 1.5, 1.5, 1.5]).repeat(3)[:, None, None])

    def forward(self, ws: torch.Tensor, noise_mode="const", generators=None) -> torch.Tensor:
        planes = self.network(ws, noise_mode, generators)
        planes = nn.functional.avg_pool2d(planes, 3, 1, 1, count_include_pad=False)
        return self.ball + self.depth * torch.tanh(planes)


def dented_balls(config: EG3DConfig = SMALL, seed: int = 0) -> EG3DGenerator:
    """A generator of dented balls."""
    torch.manual_seed(seed)
    model = EG3DGenerator(config)
    for name, parameter in model.backbone.synthesis.named_parameters():
        if name.endswith("affine.weight"):
            parameter.data.mul_(2.0)  # heads that differ
    model.backbone.synthesis = DentedBalls(model.backbone.synthesis, config.plane_resolution)
    first, last = model.decoder.net[0], model.decoder.net[2]
    for layer in (first, last):
        layer.weight.data.zero_(), layer.bias.data.zero_()
    for k in range(4):  # softplus is as good as linear so far from zero
        first.weight.data[k, k] = 1 / first.weight_gain
        first.bias.data[k] = 20
        last.weight.data[k, k] = (60 if k == 0 else 1) / last.weight_gain
        last.bias.data[k] = 10 - 60 * 21 if k == 0 else -20
    with torch.no_grad():
        z = torch.randn(500, config.z_dim)
        c = torch.zeros(500, config.c_dim)
        model.backbone.mapping.w_avg.copy_(model.mapping(z, c)[:, 0].mean(0))
    return model.eval().requires_grad_(False)


def ball_sampler(seed: int = 0) -> EG3DSampler:
    """The sampler of dented_balls()."""
    return EG3DSampler(
        dented_balls(seed=seed), "balls", "aa", Compute(torch.device("cpu"), torch.float32)
    )


def write_small_model(path: Path) -> None:
    """A model file of the published layout, small, with weights from a seed: what it makes is no
    head, but it is opened, optimised and meshed like one."""
    record = fixtures.record("old256")
    record["rendering_kwargs"] |= {"depth_resolution": 16, "depth_resolution_importance": 16}
    record["init_kwargs"]["conv_clamp"] = None
    made = EG3DGenerator(config_from_record(record)).state_dict()
    state = fixtures.seeded_state({key: tuple(value.shape) for key, value in made.items()})
    state["decoder.net.2.bias"][0] = 60  # dense nearly everywhere: there is always a surface
    write_model(path, record, state)

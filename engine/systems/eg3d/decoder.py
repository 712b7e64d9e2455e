"""EG3D's decoder as a module; the published `decoder`."""

from __future__ import annotations

import torch
from torch import nn

from engine.fields.triplane import Decoder
from engine.networks.stylegan2 import FullyConnected


class OSGDecoder(nn.Module):
    """Plane features -> linear -> softplus -> linear -> raw density and colours."""

    def __init__(
        self, channels: int, hidden: int, colours: int, lr_multiplier: float = 1.0
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(
            FullyConnected(channels, hidden, lr_multiplier=lr_multiplier),
            nn.Softplus(),
            FullyConnected(hidden, 1 + colours, lr_multiplier=lr_multiplier),
        )

    def folded(self) -> Decoder:
        """The same function as plain tensors, learning-rate gains multiplied in; differentiable in
        the parameters."""
        tensors = []
        for layer in (self.net[0], self.net[2]):
            tensors += [layer.weight * layer.weight_gain, layer.bias * layer.bias_gain]
        return Decoder(*tensors)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean of the planes' features [N, C] -> raw density [N], colours [N, colours]."""
        return self.folded()(features)

"""The head model's mapping network: random numbers and a shape to w+.

Shape comes from the linear head space, appearance from w+, and the two belong together: a beard on
a woman's face or dark skin on features that the material pairs with light skin would look made up.
So z is mapped given the shape (identity, expression, hair weights), in EG3D's place for the camera
(Chan et al. 2022, section 4.4): training views are drawn without regard to who sits for them, so a
camera would tell the mapping nothing.

Source: StyleGAN2's mapping (Karras et al. 2020). Its one row of w is followed by small offsets for
every row, like the encoder's, so that both speak of w+ in the same way.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from engine.networks.stylegan2 import FullyConnected, normalise

AVERAGED = 256


class HeadMapping(nn.Module):
    """z [B, z_dim] and shape [B, shape_dim] -> w+ [B, num_ws, w_dim]."""

    def __init__(
        self,
        shape_dim: int,
        num_ws: int,
        w_dim: int,
        z_dim: int = 64,
        width: int = 256,
        layers: int = 4,
    ) -> None:
        super().__init__()
        self.z_dim, self.shape_dim, self.rows = z_dim, shape_dim, (num_ws, w_dim)
        self.embed = FullyConnected(shape_dim, width)
        sizes = [z_dim + width, *[width] * layers]
        # At the full rate, not StyleGAN2's hundredth: few steps are taken here.
        self.layers = nn.ModuleList(
            FullyConnected(i, o, activation="lrelu") for i, o in zip(sizes, sizes[1:], strict=False)
        )
        self.to_w = FullyConnected(width, w_dim)
        self.to_offsets = FullyConnected(width, num_ws * w_dim)
        nn.init.zeros_(self.to_offsets.weight)
        # What the average of a shape is taken over: the same numbers on every machine.
        numbers = np.random.RandomState(0).standard_normal((AVERAGED, z_dim))
        self.register_buffer("averaged", torch.from_numpy(numbers).float(), persistent=False)

    def average(self, shape: Tensor) -> Tensor:
        """The average w+ [num_ws, w_dim] of one shape [1, shape_dim]: what truncation draws to. The
        average of all shapes, StyleGAN's, would fade hair styles and complexions into one another
        that belong to other heads."""
        return self(self.averaged, shape.expand(AVERAGED, -1)).mean(0)

    def forward(self, z: Tensor, shape: Tensor) -> Tensor:
        x = torch.cat([normalise(z.float()), normalise(self.embed(shape.float()))], 1)
        for layer in self.layers:
            x = layer(x)
        return normalise(self.to_w(x))[:, None] + self.to_offsets(x).unflatten(1, self.rows)


def shape_vector(identity: Tensor, expression: Tensor, hair: Tensor) -> Tensor:
    """[B, Ki + Ke + styles]: what the mapping is conditioned on."""
    return torch.cat([identity, expression, 2 * hair], -1)

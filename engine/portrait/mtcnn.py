"""The three networks of MTCNN (Zhang et al. 2016), written from the paper.

Where the weights come from and their licence: engine/weights/mtcnn.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from engine.errors import WeightsError

WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "mtcnn.safetensors"


class Net(nn.Module):
    """One network of the cascade: convolutions with PReLU, then a layer for each head.

    channels: of the convolutions, from the input's 3; kernels and pools: size after each (0: no
    pooling), strides of pools are 2; dense: (inputs, width) of the hidden layer, or None for a
    fully convolutional network; heads: name -> outputs.
    """

    def __init__(
        self,
        channels: Sequence[int],
        kernels: Sequence[int],
        pools: Sequence[int],
        dense: tuple[int, int] | None,
        heads: dict[str, int],
    ) -> None:
        super().__init__()
        self.pools = tuple(pools)
        for i, kernel in enumerate(kernels, 1):
            setattr(self, f"conv{i}", nn.Conv2d(channels[i - 1], channels[i], kernel))
            setattr(self, f"prelu{i}", nn.PReLU(channels[i]))
        self.hidden = len(kernels) + 1 if dense else 0
        if dense:
            setattr(self, f"dense{self.hidden}", nn.Linear(*dense))
            setattr(self, f"prelu{self.hidden}", nn.PReLU(dense[1]))
        self.heads = tuple(heads)
        for name, outputs in heads.items():
            last = nn.Linear(dense[1], outputs) if dense else nn.Conv2d(channels[-1], outputs, 1)
            setattr(self, name, last)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """x: float [N, 3, H, W], (RGB - 127.5) / 128. Each head's output; "score" as a probability
        of a face, [N] or [N, h, w]."""
        for i, pool in enumerate(self.pools, 1):
            x = getattr(self, f"prelu{i}")(getattr(self, f"conv{i}")(x))
            if pool:
                x = F.max_pool2d(x, pool, 2, ceil_mode=True)
        if self.hidden:
            # The published dense weights count columns, then rows, then channels.
            x = x.permute(0, 3, 2, 1).flatten(1)
            x = getattr(self, f"prelu{self.hidden}")(getattr(self, f"dense{self.hidden}")(x))
        out = {name: getattr(self, name)(x) for name in self.heads}
        out["score"] = out["score"].softmax(1)[:, 1]
        return out


def _build() -> nn.ModuleDict:
    ends = {"score": 2, "box": 4}
    return nn.ModuleDict(
        {
            "pnet": Net((3, 10, 16, 32), (3, 3, 3), (2, 0, 0), None, ends),
            "rnet": Net((3, 28, 48, 64), (3, 3, 2), (3, 3, 0), (576, 128), ends),
            "onet": Net(
                (3, 32, 64, 64, 128),
                (3, 3, 3, 2),
                (3, 3, 2, 0),
                (1152, 256),
                {**ends, "points": 10},
            ),
        }
    )


@lru_cache(maxsize=1)
def networks() -> nn.ModuleDict:
    """The networks pnet, rnet and onet with their weights, on the CPU, loaded once.

    Raises WeightsError when the file is missing, damaged or of another layout."""
    nets = _build()
    try:
        nets.load_state_dict(load_file(WEIGHTS))
    except Exception as error:  # missing, cut short, or of another layout
        raise WeightsError(
            "The face detector's weights are missing or damaged.", "Install the extension again."
        ) from error
    return nets.eval().requires_grad_(False)

"""The embedded small SVINet, and what it makes of a photo carried to a new view."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from engine.errors import WeightsError
from engine.systems.warpgan.config import SMALL
from engine.systems.warpgan.network import SviNet

PATH = Path(__file__).resolve().parents[2] / "weights" / "svinet.safetensors"


@lru_cache(maxsize=1)
def load_svinet(path: Path = PATH) -> SviNet:
    """In float32, evaluation mode, gradients off. Raises WeightsError if the file is missing,
    damaged or of another layout. Kept until load_svinet.cache_clear()."""
    remedy = "Install the extension again."
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError("The inpainting network's weights cannot be read.", remedy) from error
    net = SviNet(SMALL)
    try:
        net.load_state_dict({k: v.float() if v.is_floating_point() else v
                             for k, v in tensors.items()})  # fmt: skip
    except RuntimeError as error:
        raise WeightsError(
            "The inpainting network's weights are of another version.", remedy
        ) from error
    return net.eval().requires_grad_(False)


def inputs(warped: Tensor, render: Tensor, visible: Tensor) -> Tensor:
    """A photo carried to a view [B, 3, S, S], the field's render there and how far the photo is
    seen [B, 1, S, S] -> what SviNet takes [B, 7, S, S]: holes filled, render, holes."""
    filled = render + visible * (warped - render)
    return torch.cat([filled, render, 1 - visible], 1)


def complete(
    net: SviNet,
    warped: Tensor,
    render: Tensor,
    visible: Tensor,
    mirror: Tensor,
    mirror_visible: Tensor,
    ws: Tensor,
) -> Tensor:
    """See inpaint(); differentiable, in the arithmetic of the caller's autocast."""
    own = torch.cat([warped, render, 1 - visible], 1)
    made = net(own, inputs(mirror, render, mirror_visible), ws)
    return warped + (1 - visible) * (made - warped)


@torch.inference_mode()
def inpaint(
    net: SviNet,
    warped: Tensor,
    render: Tensor,
    visible: Tensor,
    mirror: Tensor,
    mirror_visible: Tensor,
    ws: Tensor,
) -> Tensor:
    """A photo carried to new views, completed: [B, 3, S, S] in 0..1.

    warped [B, 3, S, S]: the photo there, holes filled with render; render [B, 3, S, S]: the
    field's own view, premultiplied on black; visible [B, 1, S, S]: 1 where the photo is seen, 0 in
    holes; mirror, mirror_visible: the same of the mirrored photo (its holes may hold anything); all
    in 0..1. ws [B or 1, n, w]: w+ of the photo. Where visible is 1 the result is `warped`. S is
    net.config.size; other multiples of 8 * net.config.fold work, with less of a picture's
    surroundings known to the network. Raises ValueError for sizes that do not fit.
    """
    step = net.config.fold * 2**net.config.downs
    if warped.shape[-1] % step or warped.shape[-2] % step:
        raise ValueError(f"views' sides must be multiples of {step} pixels")
    ws = ws.expand(len(warped), -1, -1)
    args = (x.float() for x in (warped, render, visible, mirror, mirror_visible, ws))
    with torch.autocast(warped.device.type, dtype=torch.bfloat16):
        return complete(net, *args).float().clamp(0, 1)

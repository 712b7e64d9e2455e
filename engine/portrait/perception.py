"""What our own small network sees in an aligned portrait: classes, landmarks, shape, pose.

Trained on synthetic heads only (engine/training/train_perception.py). One residual U-Net trunk,
several heads; a second trunk, trained later on more varied heads (training/train_numbers.py),
says the numbers better.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = ("background", "skin", "hair", "garment", "glasses")
SIZE = 128


@dataclass
class Perception:
    """For a batch of B pictures.

    classes [B, 5, 128, 128] logits; landmarks [B, 84, 2] in 0..1 of the picture (x right, y down),
    spread [B, 84] their standard deviation in the same unit; identity [B, Ki] and expression
    [B, Ke] coefficients; hair [B, S] logits of styles; pose [B, 6]: yaw, pitch, roll of the
    camera about the head (radians), the head origin's place (x, y in 0..1) and log of the
    picture's height in metres at the origin's distance.
    """

    classes: Tensor
    landmarks: Tensor
    spread: Tensor
    identity: Tensor
    expression: Tensor
    hair: Tensor
    pose: Tensor


class Block(nn.Module):
    def __init__(self, i: int, o: int, stride: int = 1) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(i, o, 3, stride, 1), nn.Conv2d(o, o, 3, 1, 1)
        self.norm = nn.GroupNorm(8, o)
        self.skip = nn.Conv2d(i, o, 1)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(F.silu(self.norm(self.a(x))))
        return F.silu(y + self.skip(F.avg_pool2d(x, 2) if self.stride == 2 else x))


class Trunk(nn.Module):
    """The part of PerceptionNet that says the numbers: identity, expression, hair and pose."""

    WIDTHS = (16, 32, 64, 112, 160, 224)  # at 128, 64, 32, 16, 8, 4

    def __init__(self, identity: int = 64, expression: int = 20, styles: int = 11) -> None:
        super().__init__()
        w = self.WIDTHS
        self.stem = nn.Conv2d(3, w[0], 3, 1, 1)
        self.down = nn.ModuleList(Block(i, o, 2) for i, o in zip(w, w[1:]))
        self.mix = nn.Linear(w[-1] * 16, 384)
        self.sizes = (identity, expression, styles, 6)
        self.to_numbers = nn.Linear(384, sum(self.sizes))

    def encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The trunk: features at 128, 64 ... 4, and all numbers [B, sum(sizes)]."""
        stack = [F.silu(self.stem(x))]
        for block in self.down:
            stack.append(block(stack[-1]))
        return stack, self.to_numbers(F.silu(self.mix(stack[-1].flatten(1)))).float()


class PerceptionNet(Trunk):
    """[B, 3, 128, 128] in -1..1 -> Perception. second: a trunk whose numbers count instead of its
    own (of the hair, the mean of both), None for none."""

    def __init__(self, identity: int = 64, expression: int = 20, styles: int = 11) -> None:
        super().__init__(identity, expression, styles)
        w = self.WIDTHS
        self.up = nn.ModuleList(Block(i + o, o) for o, i in zip(w[1:-1], w[2:]))  # 64 .. 8
        self.squeeze = nn.Conv2d(w[0] + w[1], w[0], 1)
        self.final = nn.Conv2d(w[0], w[0], 3, 1, 1)
        self.to_classes = nn.Conv2d(w[0], len(CLASSES), 1)
        self.to_heat = nn.Conv2d(w[1], 84, 1)
        self.refine = Refine(84 * 2, (identity, expression, 6))
        self.second: Trunk | None = None

    def decode(self, stack: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The trunk's features to classes, landmarks and their spread."""
        y = stack[-1]
        for block, skip in zip(reversed(self.up), reversed(stack[1:-1])):
            y = block(torch.cat([F.interpolate(y, scale_factor=2.0, mode="nearest"), skip], 1))
        landmarks, spread = soft_argmax(self.to_heat(y.contiguous()).float())
        # squeeze() of both levels side by side, the coarse one's share before it is enlarged.
        coarse, fine = self.squeeze.weight.split([y.shape[1], stack[0].shape[1]], 1)
        y = F.interpolate(F.conv2d(y, coarse), scale_factor=2.0, mode="nearest")
        y = F.silu(y + F.conv2d(stack[0], fine, self.squeeze.bias))
        return self.to_classes(F.silu(self.final(y))).float(), landmarks, spread

    def forward(self, x: Tensor) -> Perception:
        stack, numbers = self.encode(x)
        said = list(numbers.split(self.sizes, 1))
        if self.second is not None:
            identity, expression, hair, pose = self.second.encode(x)[1].split(self.sizes, 1)
            # Hair that is of no style is where both guess, and a guess of both is the safer one.
            said = [identity, expression, (hair + said[2]) / 2, pose]
        return Perception(*self.decode(stack), *said)


class Refine(nn.Linear):
    """A linear correction of identity, expression and pose [K], and how wrong they are after it.

    Used by engine.inversion.perceive, which knows where the numbers put the landmarks: its input is
    how far those fall from the landmarks seen, and the numbers. `error` [K, K], lower triangular,
    is the Cholesky factor of the covariance of what is still wrong on training heads. Weights from
    before this was learned correct nothing, with typical errors.
    """

    TYPICAL = (0.9, 0.7, (0.045, 0.06, 0.025, 0.01, 0.015, 0.04))  # a coefficient, and the pose

    def __init__(self, landmarks: int, sizes: tuple[int, int, int]) -> None:
        count = sum(sizes)
        super().__init__(landmarks + count, count)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
        identity, expression, pose = self.TYPICAL
        typical = [identity] * sizes[0] + [expression] * sizes[1] + list(pose)
        self.register_buffer("error", torch.diag(torch.tensor(typical)))
        self.register_load_state_dict_pre_hook(_as_made)


def _as_made(net: Refine, state: dict, prefix: str, *_: object) -> None:
    """Tensors that the weights lack stay as they were made."""
    for name, value in net.state_dict().items():
        state.setdefault(prefix + name, value)


def soft_argmax(heat: Tensor) -> tuple[Tensor, Tensor]:
    """Heat maps [B, K, H, W] -> expected position [B, K, 2] in 0..1 and spread [B, K]."""
    h, w = heat.shape[2:]
    y, x = torch.meshgrid(
        (torch.arange(h, device=heat.device) + 0.5) / h,
        (torch.arange(w, device=heat.device) + 0.5) / w,
        indexing="ij",
    )
    # About the middle: a small variance is a difference of squares.
    moments = torch.stack([x - 0.5, y - 0.5, (x - 0.5).square() + (y - 0.5).square()], -1)
    found = heat.flatten(2).softmax(-1) @ moments.reshape(-1, 3)
    variance = found[..., 2] - found[..., :2].square().sum(-1)
    return found[..., :2] + 0.5, variance.clamp_min(1e-8).sqrt()
